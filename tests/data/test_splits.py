"""Every kind of source ends in the same splits; every mistake in a recipe's `data` is named, all at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture
from pydantic import ValidationError

from stilla import data
from stilla.data import drawing, hub, sources
from stilla.errors import DataError
from stilla.recipe import Data, PerClass
from stilla.tasks.language.sections import CausalLMData, MaskedLMData
from stilla.tasks.shared.sections import Labelled

ROWS = {"text": [f"text {i}" for i in range(40)], "label": ["yes" if i % 4 else "no" for i in range(40)]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def write(path: Path, rows: dict[str, list[Any]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = Dataset.from_dict(rows)
    if path.suffix in (".csv", ".tsv"):
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps([dict(zip(rows, values)) for values in zip(*rows.values())]))
    else:
        table.to_json(path)
    return path


def picture(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.new("RGB", (4, 4), (colour, 0, 0)).save(path)


def load(train: object, **more: Any) -> dict[str, Dataset]:
    return data.load(Data(train=str(train), **more), seed=0)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"])
def test_every_file_format_holds_the_same_rows(tmp_path: Path, suffix: str) -> None:
    source = str(write(tmp_path / f"rows [1]{suffix}"))
    splits = load(source, validation=source)
    assert splits["train"].to_dict() == ROWS
    assert splits["validation"].to_dict() == ROWS


def test_words_that_pandas_takes_for_missing_stay_words(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text('text,label\nnull,NA\nNone,NA\n,b\n"a, b",b\n')
    rows = load(source, validation=str(source))["train"]
    assert rows["text"][:] == ["null", "None", None, "a, b"]
    assert rows["label"][:] == ["NA", "NA", "b", "b"]


def test_files_without_a_header_are_read_by_the_names_that_the_recipe_gives(tmp_path: Path) -> None:
    for name, content in (("train.csv", "good,x\nbad,y\n"), ("test.csv", "text,label\nfine,x\n"), ("new.csv", "so,y\n"),
                          ("pool.csv", "more\n"), ("typos.csv", "godo,x\n")):
        (tmp_path / name).write_text(content)
    section = Data(train=str(tmp_path / "train.csv"), validation=str(tmp_path / "test.csv"), header=("text", "label"),
                   shifted=str(tmp_path / "typos.csv"), unlabelled={"examples": str(tmp_path / "pool.csv"), "header": "text"})
    assert {name: split["text"][:] for name, split in data.load(section, seed=0).items()} == {
        "train": ["good", "bad"], "validation": ["fine"], "shifted.typos": ["godo"]}
    assert [pool["text"][:] for pool in data.load_unlabelled(section, seed=0).values()] == [["more"]]
    assert data.load_one(str(tmp_path / "new.csv"), section)["text"][:] == ["so"]
    alone = section.model_copy(update={"train": None, "shifted": {}})
    assert data.load(alone, seed=0)["validation"]["text"][:] == ["fine"]


def test_names_for_columns_of_nothing_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"data\.header: got text and mark, and nothing that is named is a CSV or TSV"):
        load(source, validation=str(source), header=("text", "mark"))
    with pytest.raises(ValueError, match="got 'text' twice; expected a name for each column"):
        Data(train="a.csv", header=("text", "text"))


def test_a_folder_of_files_is_split_by_their_names(tmp_path: Path) -> None:
    for name, size in {
        "train-00000-of-00002": 20,
        "train-00001-of-00002": 20,
        "my_dev": 10,
        "test": 6,
    }.items():
        write(tmp_path / "d" / f"{name}.parquet", {key: values[:size] for key, values in ROWS.items()})
    (tmp_path / "d" / "README.md").write_text("not data")
    assert {name: len(split) for name, split in load(tmp_path / "d").items()} == {
        "train": 40,
        "validation": 10,
        "test": 6,
    }


def test_a_folder_of_folders_is_split_by_their_names(tmp_path: Path) -> None:
    write(tmp_path / "d" / "training" / "part1.csv")
    write(tmp_path / "d" / "valid" / "part1.csv")
    assert list(load(tmp_path / "d")) == ["train", "validation"]


def test_nameless_files_in_a_folder_are_all_training_data(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.jsonl")
    write(tmp_path / "d" / "b.jsonl")
    assert {name: len(split) for name, split in load(tmp_path / "d").items()} == {
        "train": 72,
        "validation": 8,
    }


@pytest.mark.parametrize("names", [("train.csv", "more.csv"), ("train.csv", "train.parquet")])
def test_a_folder_that_leaves_its_splits_open_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write(tmp_path / "d" / name)
    with pytest.raises(DataError, match=r"which split is more\.csv|comes as \.csv and \.parquet"):
        load(tmp_path / "d")


@pytest.mark.parametrize("dictionary", [True, False])
def test_what_save_to_disk_wrote_is_read(tmp_path: Path, dictionary: bool) -> None:
    rows = Dataset.from_dict(ROWS)
    (DatasetDict({"train": rows, "dev": rows}) if dictionary else rows).save_to_disk(tmp_path / "saved")
    sizes = {name: len(split) for name, split in load(tmp_path / "saved").items()}
    assert sizes == ({"train": 40, "validation": 40} if dictionary else {"train": 36, "validation": 4})


def test_an_image_folder_is_read_by_class_and_split(tmp_path: Path) -> None:
    for split, size in {"train": 4, "val": 2, "test": 1}.items():
        for name in ("cat", "dog"):
            for i in range(size):
                picture(tmp_path / "d" / split / name / f"{i}.png", i)
    splits = load(tmp_path / "d")
    assert {name: len(split) for name, split in splits.items()} == {"train": 8, "validation": 4, "test": 2}
    assert splits["test"].features["label"].names == ["cat", "dog"]
    assert splits["train"][0]["image"].size == (4, 4)


def test_a_picture_called_test_is_not_test_data(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(10):
            picture(tmp_path / "d" / name / f"test_{i}.png", i)
    assert {name: len(split) for name, split in load(tmp_path / "d").items()} == {
        "train": 18,
        "validation": 2,
    }


def test_splits_are_drawn_by_class_and_by_seed(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.parquet")

    def texts(seed: int) -> dict[str, list[str]]:
        section = Data.model_validate(
            {"train": str(source), "validation": {"split": 0.2}, "test": {"split": 0.1}}
        )
        return {name: split["text"][:] for name, split in data.load(section, seed=seed).items()}

    splits = texts(1)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 28, "validation": 8, "test": 4}
    assert sorted(text for rows in splits.values() for text in rows) == sorted(ROWS["text"])
    assert splits == texts(1)
    assert splits != texts(2)
    label = dict(zip(ROWS["text"], ROWS["label"]))
    assert Counter(label[text] for text in splits["validation"]) == {"yes": 6, "no": 2}
    assert Counter(label[text] for text in splits["test"]) == {"yes": 3, "no": 1}


def test_a_draw_asks_the_section_where_the_classes_stand(tmp_path: Path) -> None:
    rows = {"label": ["a", "b"] * 20, "score": [1] * 10 + [2] * 30}
    source = str(write(tmp_path / "rows.parquet", rows))

    def ones(section: Data, column: str, one: object) -> set[int]:
        """How many of the first class are drawn, by different seeds."""
        return {data.load(section, seed=seed)["validation"][column][:].count(one) for seed in range(6)}

    given = {"train": source, "validation": {"split": 0.2}}
    by_name, by_score = Data.model_validate(given), Labelled.model_validate({**given, "label": "score"})
    assert ones(by_name, "label", "a") == {4}
    assert ones(by_score, "score", 1) == {2}
    assert len(ones(by_name, "score", 1)) > 1
    amount = Labelled.model_validate({**given, "label": "score", "kind": "regression"})
    assert len(ones(amount, "score", 1)) > 1


def test_the_section_says_what_an_example_is_in_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\n\nfour\n")
    source = str(tmp_path / "a.txt")
    assert len(data.load_one(source)) == len(data.load_one(source, Data(train="x"))) == 3
    assert [text.strip() for text in data.load_one(source, CausalLMData(train="x", document="line"))["text"]] == [
        "one", "two", "three", "four"]
    splits = data.load(MaskedLMData(train=source, validation=source, document="file"), seed=0)
    assert {name: len(split) for name, split in splits.items()} == {"train": 1, "validation": 1}


def test_rows_are_named_as_they_lie_in_the_file_whatever_was_drawn(tmp_path: Path) -> None:
    whole = write(tmp_path / "all.csv", {"text": [f"text {i}" for i in range(40)], "label": ["yes", "no"] * 20})
    for name, split in load(str(whole), limit=20).items():
        rows = data.rows_as_read(split, range(len(split)))
        assert [f"text {row}" for row in rows] == split["text"][:], name
    assert data.rows_as_read(Dataset.from_dict(ROWS), [3, 5]) == [3, 5]


def test_a_class_keeps_an_example_to_train_on(tmp_path: Path) -> None:
    rows = {"text": [str(i) for i in range(20)], "label": ["a"] * 17 + ["b", "b", "c"]}
    splits = load(write(tmp_path / "rows.jsonl", rows), validation={"split": 0.5})
    assert len(splits["validation"]) == 10
    assert set(splits["train"]["label"]) == {"a", "b", "c"}


def test_amounts_are_split_at_random(tmp_path: Path) -> None:
    rows = {"text": [str(i) for i in range(20)], "score": [i / 7 for i in range(20)]}
    assert len(load(write(tmp_path / "rows.jsonl", rows))["validation"]) == 2


def test_limit_draws_from_training_data_only_and_keeps_every_class(tmp_path: Path) -> None:
    rows = {"text": [str(i) for i in range(60)], "label": ["a"] * 50 + ["b"] * 9 + ["c"]}
    source = write(tmp_path / "rows.parquet", rows)
    splits = load(source, validation=str(source), limit=6)
    assert len(splits["train"]) == 6
    assert len(splits["validation"]) == 60
    assert set(splits["train"]["label"]) == {"a", "b", "c"}
    assert len(load(source, validation=str(source), limit=600)["train"]) == 60


def test_a_split_can_be_named(tmp_path: Path) -> None:
    rows = Dataset.from_dict(ROWS)
    DatasetDict({"train": rows, "validation_matched": rows.select(range(7))}).save_to_disk(tmp_path / "saved")
    assert len(load(tmp_path / "saved", validation={"name": "validation_matched"})["validation"]) == 7
    with pytest.raises(
        DataError, match=r"data\.validation\.name: got 'validation_match'.*Did you mean validation_ma"
    ):
        load(tmp_path / "saved", validation={"name": "validation_match"})


def test_a_test_split_with_hidden_labels_is_left_out(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    seen = Dataset.from_dict({"text": ["x"] * 10, "label": [0, 1] * 5}, features=features)
    hidden = Dataset.from_dict({"text": ["x"] * 4, "label": [-1] * 4}, features=features)
    DatasetDict({"train": seen, "validation": seen, "test": hidden}).save_to_disk(tmp_path / "saved")
    assert list(load(tmp_path / "saved")) == ["train", "validation"]
    assert list(load(tmp_path / "saved", test={"name": "test"})) == ["train", "validation", "test"]


def test_every_problem_is_named_at_once_with_near_names(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv")
    with pytest.raises(DataError) as caught:
        load(
            tmp_path / "review.csv",
            validation=str(tmp_path / "no" / "v.csv"),
            test=str(tmp_path / "x.parquet"),
        )
    message = str(caught.value)
    assert message.startswith("3 problems:")
    assert "Did you mean reviews.csv?" in message
    assert f"The folder '{tmp_path / 'no'}' does not exist either." in message
    assert "data.test" in message
    assert "holds reviews.csv." in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "text,label\n", "there are no examples in it"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"line 3 has 3 fields, the header has 2 \(a, b\): '1,2,3'"),
        ("a.csv", "text;label\na;b\n", "separated by ';'; expected commas .*Write it so"),
        ("a.tsv", "text,label\na,b\n", "separated by ','; expected tabs .*Call it .csv"),
        ("a.csv", b"text,label\ncaf\xe9,b\n", "line 2 is not UTF-8 text; save it as UTF-8"),
        ("a.jsonl", '{"a": 1}\n{"a":\n', r"line \d is no JSON: Expecting value"),
        ("a.parquet", "hello", "cannot be read: Parquet file size is 5 bytes"),
        ("a.doc", "hello", r"got the suffix '\.doc'; expected \.arrow, \.bio"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=words):
        load(tmp_path / name)


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="the folder holds no data; expected"):
        load(tmp_path / "d")


def test_a_folder_without_training_data_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "d" / "test.csv")
    with pytest.raises(DataError, match="has no training split, only test"):
        load(tmp_path / "d")


@pytest.mark.parametrize(("rows", "fraction"), [(1, 0.1), (4, 0.9)])
def test_too_few_examples_to_split_are_refused(tmp_path: Path, rows: int, fraction: float) -> None:
    source = write(tmp_path / "a.jsonl", {key: values[:rows] for key, values in ROWS.items()})
    with pytest.raises(DataError, match="leaves nothing to train on"):
        load(source, validation={"split": fraction})


def test_fractions_that_take_everything_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is left to train on"):
        load(write(tmp_path / "a.jsonl"), validation={"split": 0.5}, test={"split": 0.5})


def test_a_dataset_name_without_network_is_refused_with_near_local_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "hub_reachable", lambda: False)
    write(tmp_path / "reviews.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"'review': no such file or folder.*no network.*Did you mean reviews\?"
    ):
        load("review")


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (
            datasets.exceptions.DatasetNotFoundError("nope"),
            "neither a file or folder here nor a Hugging Face dataset",
        ),
        (
            ValueError(
                "Config name is missing.\nPlease pick one among the available configs: ['cola', 'sst2']"
            ),
            r"data\.config: got none; expected cola or sst2",
        ),
        (
            ValueError("BuilderConfig 'sst' not found. Available: ['cola', 'sst2']"),
            r"got 'sst'; expected.*mean sst2\?",
        ),
        (
            RuntimeError("Dataset scripts are no longer supported, but found glue.py"),
            "scripts are no longer supported",
        ),
    ],
)
def test_what_the_hub_answers_is_put_in_words(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, words: str
) -> None:
    def answer(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", answer)
    with pytest.raises(DataError, match=words):
        load("glue", config="sst" if "'sst'" in str(raised) else None)


def test_a_dataset_of_the_hub_is_asked_for_by_name_config_and_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def answer(*positional: Any, **named: Any) -> DatasetDict:
        asked.append((positional, named))
        return DatasetDict({"train": Dataset.from_dict(ROWS), "dev": Dataset.from_dict(ROWS)})

    monkeypatch.setattr(hub, "hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", answer)
    assert list(load("some/reviews", config="small", revision="v1")) == ["train", "validation"]
    assert asked == [(("some/reviews", "small"), {"revision": "v1"})]


# --- fingerprint ---

RICH = {
    "text": ["a", None, "ünï", ""],
    "many": [[1], [], None, [2, 3]],
    "number": [1.5, None, 0.0, -1.0],
    "flag": [True, False, True, None],
    "nested": [{"a": 1}, {"a": None}, None, {"a": 3}],
}

OTHER = {"text": "b", "many": [9], "number": 7.0, "flag": None, "nested": {"a": 9}}


def test_the_fingerprint_is_of_the_rows_not_of_their_file(tmp_path: Path) -> None:
    fingerprints = set()
    for suffix in (".parquet", ".jsonl"):
        source = str(write(tmp_path / f"rows{suffix}"))
        fingerprints.add(data.fingerprint.of_splits(load(source, validation=source)))
    rows = Dataset.from_dict(ROWS)
    fingerprints.add(data.fingerprint.of_splits({"validation": rows, "train": rows}))
    assert len(fingerprints) == 1


def test_the_fingerprint_does_not_see_chunks_or_index_mappings() -> None:
    rows = Dataset.from_dict(RICH)
    chunked = datasets.concatenate_datasets([rows.select([0]), rows.select([1, 2]), rows.select([3])])
    mapped = Dataset.from_dict({key: values[::-1] for key, values in RICH.items()}).select([3, 2, 1, 0])
    whole = data.fingerprint.of_splits({"train": rows})
    assert data.fingerprint.of_splits({"train": chunked}) == whole
    assert data.fingerprint.of_splits({"train": mapped}) == whole


@pytest.mark.parametrize("column", sorted(RICH))
def test_the_fingerprint_sees_every_value(column: str) -> None:
    seen = {data.fingerprint.of_splits({"train": Dataset.from_dict(RICH)})}
    for row in range(3):
        changed = {key: list(values) for key, values in RICH.items()}
        changed[column][row] = OTHER[column]
        seen.add(data.fingerprint.of_splits({"train": Dataset.from_dict(changed)}))
    assert len(seen) == 4


def test_the_fingerprint_sees_order_columns_label_names_and_splits() -> None:
    rows = Dataset.from_dict({"a": [0, 1]})
    others = [
        {"train": Dataset.from_dict({"a": [1, 0]})},
        {"train": rows.rename_column("a", "b")},
        {"test": rows},
        {"train": rows.cast_column("a", ClassLabel(names=["x", "y"]))},
        {"train": rows.cast_column("a", ClassLabel(names=["y", "x"]))},
        {"train": rows},
    ]
    assert len({data.fingerprint.of_splits(one) for one in others}) == len(others)


def test_pictures_count_by_their_bytes_wherever_they_lie(tmp_path: Path) -> None:
    found = []
    for place, colour in (("here", 1), ("there", 1), ("other", 2)):
        for name in ("cat", "dog"):
            picture(tmp_path / place / name / "0.png", colour)
        found.append(data.fingerprint.of_splits(load(tmp_path / place)))
    stored = Dataset.from_dict(
        {
            "image": [
                {"bytes": (tmp_path / "here" / n / "0.png").read_bytes(), "path": None}
                for n in ("cat", "dog")
            ]
        },
        features=Features({"image": Image()}),
    )
    from_paths = Dataset.from_dict(
        {"image": [str(tmp_path / "here" / n / "0.png") for n in ("cat", "dog")]},
        features=Features({"image": Image()}),
    )
    assert found[0] == found[1] != found[2]
    assert data.fingerprint.of_splits({"train": stored}) == data.fingerprint.of_splits({"train": from_paths})


def test_deep_pictures_count_otherwise_than_when_they_were_cut_off() -> None:
    def of(picture: bytes, feature: Any) -> str:
        rows = [{"bytes": picture, "path": None}] if isinstance(feature, Image) else [picture]
        return data.fingerprint.of_splits({"train": Dataset.from_dict({"a": rows}, features=Features({"a": feature}))})

    assert of(b"P5 deep", Image()) != of(b"P5 deep", Value("binary"))
    assert of(b"P6 usual", Image()) == of(b"P6 usual", Value("binary"))


@pytest.mark.slow
def test_the_fingerprint_is_the_same_in_another_process() -> None:
    program = (
        "from stilla import data; from datasets import Dataset; "
        f"print(data.fingerprint.of_splits({{'train': Dataset.from_dict({RICH!r})}}))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == data.fingerprint.of_splits({"train": Dataset.from_dict(RICH)})
    assert re.fullmatch("[0-9a-f]{32}", other.stdout.strip())


def test_quotas_add_up_whatever_the_sizes() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        sizes = generator.integers(1, 9, size=generator.integers(1, 6))
        count = int(generator.integers(0, sizes.sum() + 1))
        quotas = drawing._quotas(sizes, count, generator)
        assert quotas.sum() == count
        assert ((quotas >= 0) & (quotas <= sizes)).all()


@pytest.mark.parametrize(("document", "texts"), [
    ("paragraph", ["one\ntwo", "three"]), ("line", ["one", "two", "three"]), ("file", ["one\ntwo\n\n\n\nthree\n"]),
])
def test_plain_text_comes_in_documents(tmp_path: Path, document: str, texts: list[str]) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\n\nthree\n")
    found = sources.read(str(tmp_path / "a.txt"), document=document)["train"]
    assert found.column_names == ["text"]
    assert [text if document == "file" else text.strip("\n") for text in found["text"]] == texts


def test_a_folder_of_plain_text_is_read_and_a_note_beside_a_table_is_not(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "books").mkdir(exist_ok=True)
        (tmp_path / "books" / f"{name}.txt").write_text(name)
    assert sorted(sources.read(str(tmp_path / "books"))["train"]["text"]) == ["a", "b"]
    write(tmp_path / "table" / "train.csv")
    (tmp_path / "table" / "readme.txt").write_text("note")
    assert len(sources.read(str(tmp_path / "table"))["train"]) == len(ROWS["text"])


def test_data_from_elsewhere_come_beside_the_others(tmp_path: Path) -> None:
    train, typos = write(tmp_path / "train.csv"), write(tmp_path / "typos.csv", {"text": ["a", "b"], "label": ["no", "yes"]})
    found = load(train, shifted={"typos": str(typos), "more": str(train)})
    assert list(found) == ["train", "validation", "shifted.typos", "shifted.more"]
    assert found["shifted.typos"]["text"][:] == ["a", "b"]
    assert list(data.to_learn_from(found)) == ["train", "validation"]
    assert list(data.to_measure(found)) == ["validation", "shifted.typos", "shifted.more"]
    alone = load(train)
    for split in ("train", "validation"):
        assert found[split].to_dict() == alone[split].to_dict()


def test_one_file_from_elsewhere_goes_by_its_name(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv")
    assert "shifted.call centre" in load(train, shifted=str(write(tmp_path / "call centre.csv")))


def test_of_a_folder_from_elsewhere_the_test_split_is_meant(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv")
    write(tmp_path / "other" / "train.csv")
    write(tmp_path / "other" / "test.csv", {"text": ["a"], "label": ["no"]})
    assert len(load(train, shifted={"other": str(tmp_path / "other")})["shifted.other"]) == 1


def test_a_split_of_the_dataset_can_be_from_elsewhere(tmp_path: Path) -> None:
    matched = Dataset.from_dict(ROWS)
    DatasetDict({"train": matched, "validation": matched, "validation_mismatched": matched.select(range(3))}).save_to_disk(
        tmp_path / "saved")
    found = load(tmp_path / "saved", shifted={"mismatched": {"name": "validation_mismatched"}})
    assert len(found["shifted.mismatched"]) == 3
    with pytest.raises(DataError, match=r"data\.shifted\.odd\.name: got 'validation_mismatch'.*Did you mean"):
        load(tmp_path / "saved", shifted={"odd": {"name": "validation_mismatch"}})


@pytest.mark.parametrize("shifted", [{"a/b": "x.csv"}, {"": "x.csv"}, {"a": {"split": 0.1}}, {"a": 3}, 7])
def test_what_names_no_data_from_elsewhere_is_refused(shifted: Any) -> None:
    with pytest.raises(ValidationError):
        Data(train="train.csv", shifted=shifted)


def few(folder: Path, seed: int = 0, **limit: int) -> list[str]:
    rows = {"text": [f"text {i}" for i in range(90)], "label": ["rare" if i < 5 else "ab"[i % 2] for i in range(90)]}
    made = Data(train=str(write(folder / "few.csv", rows)), limit=PerClass(**limit))
    return list(data.load(made, seed=seed)["train"]["text"])


def test_a_limit_by_class_takes_as_many_of_each_and_all_of_a_rare_one(tmp_path: Path) -> None:
    rows = {"text": [f"text {i}" for i in range(90)], "label": ["rare" if i < 5 else "ab"[i % 2] for i in range(90)]}
    found = data.load(Data(train=str(write(tmp_path / "few.csv", rows)), limit=PerClass(per_class=8)), seed=0)["train"]
    rare = sum(one == "rare" for one in found["label"])
    assert Counter(found["label"]) == {"a": 8, "b": 8, "rare": rare}
    assert 3 <= rare <= 5, "but for those that were drawn as validation data"


def test_a_limit_by_class_grows_by_adding_and_every_draw_is_another(tmp_path: Path) -> None:
    assert set(few(tmp_path, per_class=4)) < set(few(tmp_path, per_class=8))
    assert few(tmp_path, per_class=4) == few(tmp_path, per_class=4)
    assert len({tuple(few(tmp_path, per_class=4, draw=draw)) for draw in range(5)}) == 5


def test_a_limit_by_class_is_the_same_on_every_machine(tmp_path: Path) -> None:
    """NumPy's PCG64 and the order of the class' names are the same everywhere; these were drawn once."""
    assert few(tmp_path, per_class=1, seed=7) == ["text 1", "text 39", "text 44"]


@pytest.mark.parametrize(("per_class", "said"), [
    (8, []),
    (9, ["data.limit.per_class: 2 of 3 classes have fewer than 9 examples (the fewest 8); of those, all are taken"]),
])
def test_a_class_with_fewer_than_were_asked_for_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, per_class: int, said: list[str]
) -> None:
    names = [name for name, many in (("a", 8), ("b", 8), ("c", 20)) for _ in range(many)]
    file = write(tmp_path / "few.csv", {"text": [f"text {row}" for row in range(36)], "label": names})
    other = write(tmp_path / "other.csv", {"text": ["other"], "label": ["a"]})
    with caplog.at_level("WARNING"):
        section = Data(train=str(file), validation=str(other), limit=PerClass(per_class=per_class))
        found = data.load(section, seed=0)["train"]
    assert len(found) == 16 + per_class
    assert [one.message for one in caplog.records if "per_class" in one.message] == said


def test_a_limit_by_class_without_classes_is_refused(tmp_path: Path) -> None:
    names = write(tmp_path / "names.csv", {"text": ["a"] * 9, "label": [f"name {i}" for i in range(9)]})
    with pytest.raises(DataError, match=r"data\.limit\.per_class: 'label' holds no classes"):
        load(names, limit=PerClass(per_class=2))
    plain = write(tmp_path / "plain.csv", {"text": ["a"] * 9, "other": ["b"] * 9})
    with pytest.raises(DataError, match=r"data\.limit\.per_class: no column holds one class"):
        load(plain, limit=PerClass(per_class=2))
