"""Damaged data files: right values, a refusal in words, or a warning that says what was read; never a traceback.

Every mutation is drawn from a seed. What a reading gives is compared with a second, slow reading where the format has one.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stilla import data, tasks
from stilla.errors import StillaError
from stilla.tasks.text.sections import TextClassificationData

ROWS = [{"text": f"film {row}: it was {'not ' * (row % 3)}good, \"really\"", "label": ["pos", "neg"][row % 2]}
        for row in range(40)]


def csv(rows: list[dict[str, str]] = ROWS) -> bytes:
    quoted = [f'"{row["text"].replace(chr(34), chr(34) * 2)}",{row["label"]}' for row in rows]
    return ("text,label\n" + "\n".join(quoted) + "\n").encode()


def tsv() -> bytes:
    return ("text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in ROWS)).encode()


def numbers() -> bytes:
    return ("text,label\n" + "".join(f"film {row},{row % 3}\n" for row in range(40))).encode()


def jsonl() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def listed() -> bytes:
    return json.dumps(ROWS).encode()


def lists() -> bytes:
    return "".join(json.dumps({"text": row["text"], "label": [row["label"], "x"]}) + "\n" for row in ROWS).encode()


def parquet() -> bytes:
    file = BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), file, compression="none")
    return file.getvalue()


def arrow() -> bytes:
    file = BytesIO()
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "csv": ("a.csv", csv), "numbers": ("a.csv", numbers), "tsv": ("a.tsv", tsv), "jsonl": ("a.jsonl", jsonl),
    "json": ("a.json", listed), "lists": ("a.jsonl", lists), "parquet": ("a.parquet", parquet), "arrow": ("a.arrow", arrow),
}
TOKENS = [
    b'"', b"'", b",", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\xff\xfe", b"\\", b"{", b"}",
    b"[", b"]", b":", b"null", b"NaN", b"NA", b"", b"1e999", b"1e300", b"-1", b"0.5", b"true", b"\\ud800", b" ",
    b"\xe2\x80\xa8", b"\x1f\x8b", b"99999999999999999999999", b'""', b",,", b'"label"', b"text", b"01", b"1,5",
    b"['a', 'b']", b"\xf0\x9f\x98\x80"]


def mutated(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        place, length = draw.randrange(len(changed) + 1), draw.choice([1, 1, 2, 8, 40])
        match draw.randrange(8):
            case 0:
                changed[place:place + length] = b""
            case 1:
                changed[place:place] = draw.choice(TOKENS)
            case 2:
                changed[place:place + 1] = draw.choice(TOKENS)
            case 3:
                changed[place:place + length] = draw.randbytes(length)
            case 4:
                changed[place:place] = changed[place:place + length]
            case 5:
                lines = bytes(changed).split(b"\n")
                row = draw.randrange(len(lines))
                line = lines[row]
                lines[row:row + 1] = draw.choice([[], [line] * 2, [line, b""], [line, b" "], [line[::-1]]])
                changed = bytearray(b"\n".join(lines))
            case 6:
                del changed[place:]
            case _:
                if changed:
                    at = min(place, len(changed) - 1)
                    changed[at] ^= 1 << draw.randrange(8)
    return bytes(changed)


def outcome(path: Path) -> str:
    """`refused`, or what was read; anything else than a refusal in words is an error of the test."""
    section = TextClassificationData.model_validate({"train": str(path), "validation": {"split": 0.2}})
    try:
        splits = data.load(section, seed=1)
        task = tasks.find("text-classification").understand(section, splits)
        for split in splits.values():
            task.problem.encode(split)  # type: ignore[attr-defined]
    except StillaError as refused:
        words = str(refused)
    else:
        return "read"
    assert 10 < len(words) < 4000
    assert words.replace("\n", "").isprintable()
    return "refused"


def slowly(path: Path) -> list[tuple[str, ...]] | None:
    """The texts and labels as Python's own readers have them, where the format has such."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        if path.suffix == ".jsonl":
            return [(str(row["text"]), str(row["label"])) for row in map(json.loads, filter(str.strip, text.split("\n")))]
        if path.suffix == ".json":
            return [(str(row["text"]), str(row["label"])) for row in json.loads(text)]
        if path.suffix == ".tsv" and "\r" not in text:
            return [tuple(line.split("\t")) for line in text.split("\n")[1:] if line.strip()]
    except (ValueError, KeyError, TypeError):
        pass
    return None


def campaign(tmp_path: Path, kind: str, seeds: range) -> dict[str, int]:
    name, make = FILES[kind]
    counts = {"refused": 0, "read": 0}
    for seed in seeds:
        path = tmp_path / f"{seed}{name}"
        path.write_bytes(mutated(make(), random.Random(f"{kind}{seed}")))
        try:
            found = outcome(path)
        except Exception as error:
            raise AssertionError(f"{kind}, seed {seed}: {error!r} for {path.read_bytes()[:3000]!r}") from error
        counts[found] += 1
        expected = slowly(path) if found == "read" else None
        if expected is not None:
            rows = data.sources.read(str(path))["train"]
            found_rows = [(str(text), str(label)) for text, label in zip(rows["text"], rows["label"])]
            assert found_rows == expected, f"{kind}, seed {seed}"
        path.unlink()
    return counts


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    logger = logging.getLogger("stilla")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_read_right_or_refused_in_words(tmp_path: Path, kind: str) -> None:
    counts = campaign(tmp_path, kind, range(40))
    assert min(counts.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_many_damaged_files_are_read_right_or_refused_in_words(tmp_path: Path, kind: str) -> None:
    campaign(tmp_path, kind, range(100, 700))
