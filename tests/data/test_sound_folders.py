"""Speech and sounds in the ways that they come in, and what is never opened."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Audio, ClassLabel, Dataset

from stilla.data import fingerprint, sources
from stilla.errors import DataError

soundfile = pytest.importorskip("soundfile")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def sound(path: Path, value: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(400, value), 4000)
    return path


def read(path: Path) -> dict[str, Dataset]:
    return sources.read(str(path), document="sound")


def named(split: Dataset, column: str, audio: str = "audio") -> dict[str, object]:
    assert split.features[audio] == Audio(decode=False)
    return {Path(one[audio]["path"]).name: one[column] for one in split}


def test_folders_of_classes_are_labels(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        for kind in ("yes", "no"):
            sound(tmp_path / "d" / split / kind / f"{kind}.wav")
    found = read(tmp_path / "d")
    assert sorted(found) == ["train", "validation"]
    assert found["train"].features["label"] == ClassLabel(names=["no", "yes"])
    assert named(found["train"], "label") == {"no.wav": 0, "yes.wav": 1}


def test_a_metadata_file_says_what_each_sound_is(tmp_path: Path) -> None:
    for split in ("train", "test"):
        sound(tmp_path / "d" / split / "clips" / "a.flac")
        (tmp_path / "d" / split / "metadata.csv").write_text("file_name,transcription\nclips/a.flac,a b\n")
    found = read(tmp_path / "d")
    assert named(found["test"], "transcription") == {"a.flac": "a b"}


def test_librispeech_is_read_as_it_is_unpacked(tmp_path: Path) -> None:
    for part in ("train-clean-100", "train-other-500", "dev-clean", "test-clean"):
        place = tmp_path / "L" / part / "19" / "198"
        sound(place / "19-198-0000.flac")
        (place / "19-198.trans.txt").write_text(f"19-198-0000 {part.upper()} SAYS\n")
    found = read(tmp_path / "L")
    assert {split: len(rows) for split, rows in found.items()} == {"train": 2, "validation": 1, "test": 1}
    assert found["test"][0]["text"] == "TEST-CLEAN SAYS"
    assert found["test"][0]["speaker"] == "19"
    place = tmp_path / "L" / "dev-clean" / "19" / "198" / "19-198.trans.txt"
    place.write_text("19-198-0009 GONE\n")
    with pytest.raises(DataError, match=r"line 1: names '19-198-0009', and no sound beside it is called so"):
        read(tmp_path / "L")


def test_common_voice_is_read_with_its_clips(tmp_path: Path) -> None:
    folder = tmp_path / "cv"
    sound(folder / "clips" / "a.wav")
    for name in ("train", "dev", "test", "other"):
        (folder / f"{name}.tsv").write_text(f"client_id\tpath\tsentence\n1\ta.wav\t{name} it\n")
    found = read(folder)
    assert sorted(found) == ["test", "train", "validation"]
    assert named(found["validation"], "sentence", "path") == {"a.wav": "dev it"}
    assert named(read(folder / "other.tsv")["train"], "sentence", "path") == {"a.wav": "other it"}


def test_a_manifest_names_files_with_durations(tmp_path: Path) -> None:
    sound(tmp_path / "m" / "wav" / "a.wav")
    manifest = tmp_path / "m" / "train.jsonl"
    lines = [{"audio_filepath": name, "duration": 0.1, "text": "a"} for name in
             ("wav/a.wav", str(tmp_path / "m" / "wav" / "a.wav"))]
    manifest.write_text("\n".join(map(json.dumps, lines)) + "\n")
    found = read(manifest)["train"]
    assert found.features["audio_filepath"] == Audio(decode=False)
    assert len(found) == 2
    assert sources.read(str(manifest))["train"][0]["audio_filepath"] == "wav/a.wav"  # of a task on texts, a text


def table(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_folder_is_read_by_the_tables_that_name_its_sounds(tmp_path: Path) -> None:
    for name in "abc":
        sound(tmp_path / "csv" / "wav" / f"{name}.wav")
        sound(tmp_path / "nemo" / "wav" / f"{name}.wav")
    table(tmp_path / "csv" / "train.csv", "path,transcript", "wav/a.wav,one", "wav/b.wav,two")
    table(tmp_path / "csv" / "test.csv", "path,transcript", "wav/c.wav,three")
    table(tmp_path / "csv" / "speakers.csv", "speaker,age", "1,40")  # names no sounds
    found = read(tmp_path / "csv")
    assert {split: named(rows, "transcript", "path") for split, rows in found.items()} == {
        "train": {"a.wav": "one", "b.wav": "two"}, "test": {"c.wav": "three"}}
    for split, name in (("train", "a"), ("dev", "b")):
        table(tmp_path / "nemo" / f"{split}_manifest.json", json.dumps(
            {"audio_filepath": f"wav/{name}.wav", "duration": 0.1, "text": split}))
    found = read(tmp_path / "nemo")
    assert {split: named(rows, "text", "audio_filepath") for split, rows in found.items()} == {
        "train": {"a.wav": "train"}, "validation": {"b.wav": "dev"}}


@pytest.mark.parametrize("column", ["path", "wav_filename", "Recording of"])
def test_names_may_lie_in_the_only_folder_beside_their_table_that_has_them(tmp_path: Path, column: str) -> None:
    for name in ("audio/a.wav", "audio/b.wav", "other/c.wav"):
        sound(tmp_path / "d" / name)
    table(tmp_path / "d" / "train.csv", f"{column},text", "gone.wav,no", "a.wav,one", "b.wav,two")
    found = read(tmp_path / "d")["train"]
    assert named(found, "text", column) == {"gone.wav": "no", "a.wav": "one", "b.wav": "two"}
    assert Path(found[1][column]["path"]) == tmp_path / "d" / "audio" / "a.wav"
    sound(tmp_path / "d" / "other" / "a.wav")  # which of them is it?
    assert Path(read(tmp_path / "d" / "train.csv")["train"][1][column]["path"]) == tmp_path / "d" / "a.wav"


def test_metadata_may_call_its_sounds_otherwise(tmp_path: Path) -> None:
    sound(tmp_path / "d" / "clips" / "a.wav")
    table(tmp_path / "d" / "metadata.csv", "path,sentence", "a.wav,one")
    assert named(read(tmp_path / "d")["train"], "sentence", "path") == {"a.wav": "one"}
    table(tmp_path / "d" / "metadata.csv", "speaker,sentence", "me,one")
    with pytest.raises(DataError, match="no column `file_name` that says which sound each row is about"):
        read(tmp_path / "d")


def test_a_table_of_two_sounds_a_row_has_both(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    found = read(table(tmp_path / "t.csv", "audio,clean,text", "a.wav,a.wav,x"))["train"]
    assert [name for name, feature in found.features.items() if feature == Audio(decode=False)] == ["audio", "clean"]


def test_names_beside_stored_sounds_say_where_these_came_from(tmp_path: Path) -> None:
    stored = {"bytes": sound(tmp_path / "a.wav").read_bytes(), "path": "a.wav"}
    pq.write_table(pa.table({"audio": pa.array([stored]), "path": ["a.wav"]}), tmp_path / "a.parquet")
    (tmp_path / "a.wav").unlink()
    assert read(tmp_path / "a.parquet")["train"]["path"][:] == ["a.wav"]


def test_tables_beside_sounds_that_nothing_else_describes_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound(tmp_path / "d" / "a.wav")
    table(tmp_path / "d" / "train.csv", "file,text", "elsewhere/a.wav,x")
    table(tmp_path / "d" / "notes.txt", "recorded in May")
    assert read(tmp_path / "d")["train"].column_names == ["audio"]
    assert "train.csv is not read: it names no sounds that lie in the folder" in caplog.text
    assert "notes" not in caplog.text


def test_kaldi_folders_are_read_with_segments_and_no_command_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "k" / "train"
    sound(folder / "a.wav")
    (folder / "wav.scp").write_text("rec1 a.wav\n")
    (folder / "text").write_text("utt1 one two\nutt2 three\n")
    (folder / "segments").write_text("utt1 rec1 0.0 0.05\nutt2 rec1 0.05 0.1\n")
    found = read(tmp_path / "k")["train"]
    assert [(row["text"], row["offset"], round(row["duration"], 3)) for row in found] == [
        ("one two", 0.0, 0.05), ("three", 0.05, 0.05)]
    (folder / "wav.scp").write_text("rec1 touch pwned |\n")
    with pytest.raises(DataError, match=r"line 1: is a command, 'touch pwned |'; none is run"):
        read(tmp_path / "k")
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/secret.wav", "http://x.org/a.wav", "pipe.wav"])
def test_only_regular_files_within_the_folder_are_opened(tmp_path: Path, name: str) -> None:
    sound(tmp_path / "secret.wav")
    folder = tmp_path / "d"
    sound(folder / "a.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "list.csv").write_text(f"file_name,text\na.wav,a\n{name},b\n")
    with pytest.raises(DataError, match=r"lies outside of|is no file in|nothing is fetched"):
        read(folder / "list.csv")


def test_parquet_with_bytes_is_read_without_being_decoded(tmp_path: Path) -> None:
    whole = sound(tmp_path / "a.wav").read_bytes()
    table = pa.table({"audio": pa.array([{"bytes": whole, "path": "x.wav"}]), "text": ["a"]})
    features = datasets.Features({"audio": Audio(sampling_rate=16_000), "text": datasets.Value("string")})
    table = table.cast(features.arrow_schema)
    pq.write_table(table, tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet")["train"]
    assert found[0]["audio"]["bytes"] == whole
    assert sources.read(str(tmp_path / "t.parquet"))["train"][0]["text"] == "a"


def test_sounds_count_by_their_bytes_wherever_they_lie(tmp_path: Path) -> None:
    one, other = sound(tmp_path / "one" / "x" / "a.wav"), sound(tmp_path / "other" / "x" / "b.wav")
    sound(tmp_path / "one" / "y" / "c.wav", 0.2)
    sound(tmp_path / "other" / "y" / "d.wav", 0.2)
    prints = [fingerprint.of_splits(read(path.parents[1])) for path in (one, other)]
    assert prints[0] == prints[1]
    sound(other, 0.3)
    assert fingerprint.of_splits(read(other.parents[1])) != prints[0]


def heard(split: Dataset, column: str = "audio") -> list[tuple[list[float], int, int] | None]:
    """The samples, rate and channels of every row, as any reader of sound files sees them."""
    assert split.features[column] == Audio(decode=False)
    found: list[tuple[list[float], int, int] | None] = []
    for stored in split[column]:
        if stored is None:
            found.append(None)
            continue
        samples, rate = soundfile.read(io.BytesIO(stored["bytes"]), dtype="float32", always_2d=True)
        found.append((samples[:, 0].tolist(), rate, samples.shape[1]))
    return found


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int16()])
def test_samples_with_their_rate_are_sounds_bit_for_bit(tmp_path: Path, kind: pa.DataType) -> None:
    drawn = np.random.default_rng(0).uniform(-1, 1, 50).astype(np.float32)
    samples = (drawn * 2**15).astype(np.int16) if kind == pa.int16() else drawn
    stored = [{"path": "a.wav", "array": samples.tolist(), "sampling_rate": 8000}, None,
              {"path": None, "array": [0] * 3, "sampling_rate": None}, {"path": None, "array": [], "sampling_rate": 16_000}]
    column = pa.array(stored, pa.struct([("path", pa.string()), ("array", pa.list_(kind)), ("sampling_rate", pa.int64())]))
    pq.write_table(pa.table({"audio": column, "file": ["/root/a.wav"] * 4, "text": list("abcd")}), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")["train"]
    expected = samples / np.float32(2**15) if kind == pa.int16() else samples
    assert heard(found) == [(expected.tolist(), 8000, 1), None, None, ([], 16_000, 1)]
    assert found["audio"][0]["path"] == "a.wav"
    assert (found["file"][:], found["text"][:]) == (["/root/a.wav"] * 4, list("abcd"))
    assert sources.read(str(tmp_path / "a.parquet"))["train"][0]["audio"]["sampling_rate"] == 8000  # of a task on texts


def test_samples_of_several_channels_lie_either_way_round(tmp_path: Path) -> None:
    both = np.random.default_rng(0).uniform(-1, 1, (2, 30)).astype(np.float32)
    rows = [{"audio": {"array": one.tolist(), "sampling_rate": 8000}} for one in (both, both.T)]
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    expected = (both[0].tolist(), 8000, 2)
    assert heard(read(tmp_path / "saved")["train"]) == [expected, expected]


def test_samples_that_are_too_loud_for_any_sound_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Dataset.from_list([{"audio": {"array": [0.0, -3000.0], "sampling_rate": 8000}}]).save_to_disk(tmp_path / "saved")
    read(tmp_path / "saved")
    assert "'audio': its samples reach 3,000, and sounds lie within -1 and 1" in caplog.text
