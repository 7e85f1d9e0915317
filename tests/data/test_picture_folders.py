"""Folders of pictures, and paths that stand in data: what is read, and what is never opened."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture

from stilla.data import fingerprint, readers, sources
from stilla.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.new("RGB", (4, 4), (200, 0, 0)).save(path)
    return path


def labels(split: Dataset) -> dict[str, str]:
    names = split.features["label"].names
    rows = split.cast_column("image", Image(decode=False))
    return {Path(row["image"]["path"]).name: names[row["label"]] for row in rows}


def test_the_first_folder_below_the_split_is_the_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            picture(tmp_path / "d" / split / kind / "day1" / f"{kind}1.png")
            picture(tmp_path / "d" / split / kind / f"{kind}2.PNG")
    with caplog.at_level(logging.INFO):
        found = sources.read(str(tmp_path / "d"))
    assert sorted(found) == ["test", "train"]
    for split in found.values():
        assert split.features["label"] == ClassLabel(names=["cat", "dog"])
        assert labels(split) == {"cat1.png": "cat", "cat2.PNG": "cat", "dog1.png": "dog", "dog2.PNG": "dog"}
    assert "the folders of the first level are the classes (cat and dog); folders within them say nothing" in caplog.text


def test_folders_of_classes_may_be_links(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        picture(tmp_path / "elsewhere" / kind / f"{kind}.png")
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / kind).symlink_to(tmp_path / "elsewhere" / kind)
    (tmp_path / "d" / "cat" / "round").symlink_to(tmp_path / "d")  # and back into itself
    assert labels(sources.read(str(tmp_path / "d"))["train"])["dog.png"] in ("cat", "dog")
    (tmp_path / "elsewhere" / "cat" / "round").unlink()
    assert labels(sources.read(str(tmp_path / "d"))["train"]) == {"cat.png": "cat", "dog.png": "dog"}


def test_folders_that_leave_the_class_open_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("cat", "dog"):
        picture(tmp_path / "d" / "around" / kind / "0.png")
    with pytest.raises(DataError, match=r"all pictures lie in 'around', in folders within \(cat and dog\)"):
        sources.read(str(tmp_path / "d"))
    assert len(sources.read(str(tmp_path / "d" / "around"))["train"]) == 2
    loose = picture(tmp_path / "d" / "around" / "loose.png")
    with pytest.raises(DataError, match=r"loose\.png': lies beside the folders of classes \(cat and dog\)"):
        sources.read(str(tmp_path / "d" / "around"))
    loose.unlink()
    picture(tmp_path / "d" / "around" / "train" / "cat" / "0.png")
    picture(tmp_path / "d" / "around" / "train" / "dog" / "0.png")
    sources.read(str(tmp_path / "d" / "around"))
    assert "pictures in 'cat' and 'dog' are left out, as train are the splits" in caplog.text


def test_pictures_without_classes_have_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "a.png")
    assert sources.read(str(tmp_path / "d"))["train"].column_names == ["image"]
    picture(tmp_path / "one" / "cat" / "a.png")
    assert sources.read(str(tmp_path / "one"))["train"].column_names == ["image"]


# --- metadata ---


def described(folder: Path, name: str, files: list[str]) -> Path:
    rows = [{"file_name": file, "label": f"00{number}"} for number, file in enumerate(files)]
    if name.endswith(".csv"):
        (folder / name).write_text("file_name,label\n" + "".join(f"{row['file_name']},{row['label']}\n" for row in rows))
    elif name.endswith(".jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_say_what_is_on_each_picture(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "d" / "a.png")
    picture(tmp_path / "d" / "more" / "b.png")
    found = sources.read(str(described(tmp_path / "d", name, ["more/b.png", "a.png"])))["train"]
    assert found.features == Features({"image": Image(), "label": Value("string")})
    assert found["label"][:] == ["000", "001"]
    assert [Path(row["image"].filename).name for row in found] == ["b.png", "a.png"]


def outside(tmp_path: Path) -> dict[str, str]:
    """Names of what lies outside of a folder, or is no file, and what is said of each."""
    picture(tmp_path / "secret.png")
    (tmp_path / "d").mkdir(exist_ok=True)
    (tmp_path / "d" / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(tmp_path / "d" / "pipe.png")
    beyond = "lies outside of"
    return {str(tmp_path / "secret.png"): beyond, "../secret.png": beyond, "link.png": beyond, "/etc/passwd": beyond,
            "/dev/zero": beyond, "pipe.png": "is no file",
            "http://example.com/a.png": "nothing is fetched", "file:///etc/passwd": "nothing is fetched",
            "zip://a.png::b.zip": "nothing is fetched"}


def test_metadata_open_no_file_outside_of_their_folder(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "a.png")
    picture(tmp_path / "d" / "b.png")
    for name, words in outside(tmp_path).items():
        with pytest.raises(DataError, match=words):
            sources.read(str(described(tmp_path / "d", "metadata.csv", [name])))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".arrow", "saved"])
def test_tables_open_no_file_outside_of_their_folder(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "d"
    folder.mkdir()

    def read(name: str) -> Dataset:
        features = Features({"image": Image(), "label": Value("string")})
        rows = Dataset.from_dict({"image": [{"bytes": None, "path": name}], "label": ["x"]}, features=features)
        if suffix == "saved":
            Dataset.from_dict({"image": [None], "label": ["x"]}, features=features).save_to_disk(folder)
            with pa.ipc.new_stream(str(next(folder.glob("*.arrow"))), rows.features.arrow_schema) as writer:
                writer.write_table(rows.data.table)
            return sources.read(str(folder))["train"]
        path = folder / f"rows{suffix}"
        if suffix == ".parquet":
            pq.write_table(rows.data.table, path)
        elif suffix == ".arrow":
            with pa.ipc.new_file(str(path), rows.features.arrow_schema) as writer:
                writer.write_table(rows.data.table)
        else:
            path.write_text(json.dumps({"image": {"bytes": None, "path": name}, "label": "x"}) + "\n")
        return sources.read(str(path))["train"]

    for name, words in outside(tmp_path).items():
        with pytest.raises(DataError, match=words if suffix != "saved" else f"{words}|is no file: not a whole path"):
            read(name)
    inside = picture(folder / "inside" / "a.png")
    for name in (str(inside),) if suffix == "saved" else ("inside/a.png", str(inside)):
        found = read(name).cast_column("image", Image(decode=False))[0]["image"]
        assert (found["bytes"], os.path.realpath(folder / found["path"])) == (None, str(inside))


def test_bytes_keep_their_names_whatever_these_are(tmp_path: Path) -> None:
    stored = {"bytes": picture(tmp_path / "a.png").read_bytes(), "path": "/somewhere/else/a.png"}
    rows = Dataset.from_dict({"image": [stored, None]}, features=Features({"image": Image()}))
    rows.to_parquet(tmp_path / "a.parquet")
    found = sources.read(str(tmp_path / "a.parquet"))["train"]
    assert found.cast_column("image", Image(decode=False))["image"][:] == [stored, None]


def test_files_that_are_named_within_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    features: Any = Features({"images": List(Image()), "label": Value("string")})
    Dataset.from_dict({"images": [[{"bytes": None, "path": "/etc/passwd"}]], "label": ["x"]}, features=features).to_parquet(
        tmp_path / "e" / "a.parquet")
    with pytest.raises(DataError, match="names files within lists"):
        sources.read(str(tmp_path / "e" / "a.parquet"))


def test_tables_name_pictures_beside_them_one_or_several_where_rows_are_pictures(tmp_path: Path) -> None:
    one = picture(tmp_path / "photos" / "a.png")
    rows = [{"image": "photos/a.png", "images": ["photos/a.png", "photos/a.png"], "text": "x"},
            {"image": None, "images": [], "text": "y"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain = sources.read(str(tmp_path / "train.jsonl"))["train"]
    assert plain["image"][:] == ["photos/a.png", None]
    for place in (tmp_path / "train.jsonl", tmp_path):
        found = sources.read(str(place), document="picture")["train"]
        assert found.features["image"] == Image()
        assert [row and row["path"] for row in found.cast_column("image", Image(decode=False))["image"]] == [str(one), None]
        assert found["text"][:] == ["x", "y"]
    (tmp_path / "several").mkdir()
    (tmp_path / "several" / "b.png").write_bytes(one.read_bytes())
    (tmp_path / "several" / "rows.jsonl").write_text(json.dumps({"images": ["b.png", "b.png"], "text": "x"}))
    several = sources.read(str(tmp_path / "several" / "rows.jsonl"), document="picture")["train"]
    assert several.features["images"] == List(Image())
    assert [two.size for two in several[0]["images"]] == [(4, 4), (4, 4)]
    for words in ("../a.png", "/etc/hostname.png", "http://x/a.png"):
        (tmp_path / "several" / "odd.jsonl").write_text(json.dumps({"images": [words], "text": "x"}))
        with pytest.raises(DataError, match=r"lies outside of|nothing is fetched"):
            sources.read(str(tmp_path / "several" / "odd.jsonl"), document="picture")


def table(path: Path, head: str, *rows: str) -> str:
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("column", ["image", "path", "filepath", "file", "img_path", "image_id", "Photo"])
def test_a_table_of_names_and_classes_is_one_of_pictures_whatever_the_column_is_called(tmp_path: Path, column: str) -> None:
    one = picture(tmp_path / "photos" / "a.png")
    name = table(tmp_path / "train.csv", f"{column},label", "photos/a.png,cat", r"photos\a.png,dog", ",cat",
                 "photos/no.png,dog")
    found = sources.read(name, document="picture")["train"].cast_column(column, Image(decode=False))
    assert [row and row["path"] for row in found[column]] == [str(one), str(one), None, str(tmp_path / "photos" / "no.png")]
    assert found.features["label"] == Value("string")


def test_a_table_names_pictures_and_their_masks_and_nothing_that_leads_elsewhere(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    head = "file_name,mask_path,url,original,path,caption"
    rows = ["a.png,a.png,https://example.com/a.png,/home/me/a.png,a.png,a.png is a picture"] * 2
    found = sources.read(table(tmp_path / "rows.csv", head, *rows), document="picture")["train"]
    pictures = [name for name, feature in found.features.items() if feature == Image()]
    assert pictures == ["file_name", "mask_path"]  # of the usual names for pictures the first


def test_what_names_pictures_is_decided_once_for_all_rows_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts(*_: Any) -> Any:
        yield pa.table({"mask": ["a.png"], "label": ["x"]})
        yield pa.table({"mask": pa.array([None], pa.string()), "label": ["y.png"]})

    picture(tmp_path / "a.png")
    monkeypatch.setattr(readers, "_reader", lambda *_: parts)
    found = sources.read(table(tmp_path / "rows.csv", "mask,label", "a.png,x"), document="picture")["train"]
    assert found.features == Features({"mask": Image(), "label": Value("string")})
    assert found["mask"][1] is None


@pytest.mark.slow
@pytest.mark.parametrize("silent", ["", "null", "absent"])
def test_a_column_that_says_nothing_for_long_names_pictures_from_its_first_row_on(tmp_path: Path, silent: str) -> None:
    one = picture(tmp_path / "a.png")
    if silent:  # as of JSON, so many that they come in several tables
        first: dict[str, Any] = {"image": "a.png"} | ({"mask": None} if silent == "null" else {})
        rows = [json.dumps(first)] * 25_000 + [json.dumps({"image": "a.png", "mask": "a.png"})]
        (tmp_path / "rows.jsonl").write_text("\n".join(rows))
        name = str(tmp_path / "rows.jsonl")
    else:  # a text of two lines, so that rows are read by hundreds
        name = table(tmp_path / "rows.csv", "image,mask,note", *['a.png,,"two\nlines"'] * 300, "a.png,a.png,x")
    found = sources.read(name, document="picture")["train"].cast_column("mask", Image(decode=False))
    assert found[0]["mask"] is None
    assert found[len(found) - 1]["mask"]["path"] == str(one)
    assert found.features["image"] == Image()


def test_a_column_that_never_says_anything_stays_as_it_is(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    name = table(tmp_path / "rows.csv", "image,note", "a.png,", "a.png,")
    found = sources.read(name, document="picture")["train"]
    assert found.features == Features({"image": Image(), "note": Value("string")})


@pytest.mark.parametrize("origin", ["flickr/1.jpg", "../1.jpg", "/data/1.jpg", "https://example.com/1.jpg"])
@pytest.mark.parametrize("column", ["filename", "origin"])
def test_in_a_table_that_holds_pictures_a_name_is_one_only_where_its_file_is_there(
    tmp_path: Path, column: str, origin: str
) -> None:
    one = picture(tmp_path / "masks" / "a.png")
    stored = [{"bytes": one.read_bytes(), "path": "a.png"}] * 2
    rows = pa.table({"image": stored, column: [origin] * 2, "mask": ["masks/a.png"] * 2})
    pq.write_table(rows, tmp_path / "rows.parquet")
    found = sources.read(str(tmp_path / "rows.parquet"), document="picture")["train"]
    assert found.features[column] == Value("string")
    assert found[column][:] == [origin] * 2
    assert found.features["mask"] == Image()
    assert found[0]["mask"].size == (4, 4)


def test_a_folder_is_read_by_its_table_only_where_that_names_what_lies_there(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for number in range(2):
            picture(tmp_path / kind / f"{number}.png")
    for head, row in (("class,colour", "cat,grey"), ("file,label", "0.png,cat")):  # of classes; of no files
        table(tmp_path / "notes.csv", head, row)
        found = sources.read(str(tmp_path), document="picture")["train"]
        assert labels(found) == {"0.png": "dog", "1.png": "dog"}
        assert len(found) == 4
    table(tmp_path / "notes.csv", "file,label", "cat/0.png,cat", "dog/1.png,dog")
    found = sources.read(str(tmp_path), document="picture")["train"]
    assert found["label"][:] == ["cat", "dog"]


def test_the_content_of_listed_pictures_counts_not_their_names(tmp_path: Path) -> None:
    def of(folder: str, colour: int) -> str:
        place = tmp_path / folder
        place.mkdir()
        Picture.new("RGB", (4, 4), (colour, 0, 0)).save(place / "a.png")
        (place / "rows.jsonl").write_text(json.dumps({"images": ["a.png"], "text": "x"}))
        return fingerprint.of_splits(sources.read(str(place / "rows.jsonl"), document="picture"))

    assert of("one", 1) == of("same", 1) != of("other", 2)
