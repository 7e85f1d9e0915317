"""Docstrings by topic: read without running anything, without what gives the topic away, and stably split."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import datasets
import pytest
import torch

from stilla import data
from stilla.errors import DataError
from stilla.recipe import Data, ModelSource
from stilla.samples.docstrings import TOPICS, WORDS, collect, docstrings, docstrings_teacher
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A standard library of two topics, with a module that must not be run."""
    folder = tmp_path / "library"
    (folder / "asyncio" / "test").mkdir(parents=True)
    loops = "".join(f'def f{i}():\n    """Turn the loop number {i} over once more."""\n' for i in range(120))
    (folder / "asyncio" / "loops.py").write_text(f'"""Said in two topics at once."""\nraise SystemExit\n{loops}')
    (folder / "asyncio" / "test" / "t.py").write_text('"""A test says nothing of worth here."""\n')
    tars = "".join(
        f'class C{i}:\n    """Open the archive number {i} for tarfile.open or asyncio."""\n' for i in range(90)
    )
    (folder / "tarfile.py").write_text(f'"""Said in two topics at once."""\n{tars}')
    example = "Squeeze bytes like so:\n\n    >>> gzip.g(1)\n\n    and again."
    (folder / "gzip.py").write_text(f'def f():\n    """Too short."""\n\ndef g():\n    """{example}"""\n')
    return folder


def test_texts_are_cleaned_and_belong_to_one_topic(library: Path) -> None:
    texts = collect(library)
    assert texts["Turn the loop number 7 over once more."] == "asyncio"
    assert texts["Open the archive number 7 for or ."] == "files"
    assert texts["Squeeze bytes like so: and again."] == "files"
    assert len(texts) == 120 + 90 + 1


def test_splits_are_stable_and_share_no_text(library: Path, tmp_path: Path) -> None:
    splits = data.load(Data(train=str(docstrings(tmp_path / "one", library=library))), seed=0)
    assert set(splits) == {"train", "validation", "test"}
    assert splits["train"].features["topic"].names == ["asyncio", "files"]
    texts = [text for split in splits.values() for text in split["text"]]
    assert len(set(texts)) == len(texts) == 211
    assert len(splits["train"]) > len(splits["test"]) > len(splits["validation"]) > 10
    again = data.load(Data(train=str(docstrings(tmp_path / "two", library=library))), seed=1)
    assert data.fingerprint.of_splits(again) == data.fingerprint.of_splits(splits)


def test_a_python_without_sources_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="comes without the sources of its standard library"):
        docstrings(tmp_path / "out", library=tmp_path)


def test_the_teacher_reads_the_texts_and_is_the_same_each_time(library: Path, tmp_path: Path) -> None:
    splits = data.load(Data(train=str(docstrings(tmp_path / "data", library=library))), seed=0)
    before = torch.get_rng_state()
    for name in ("one", "two"):
        docstrings_teacher(tmp_path / name, splits["train"]["text"][:], vocabulary=200, layers=1, width=16, heads=2)
    assert torch.equal(before, torch.get_rng_state())
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    task = TextClassification.understand(TextClassificationData(train="x"), splits)
    loaded = task.load(ModelSource(model=str(tmp_path / "one")), labelled=False)
    prepared = task.prepare(splits["test"], loaded.processor, None, training=False)
    batch = prepared.collate([0, 1])
    assert loaded.model(**batch.student).logits.shape == (2, 2)
    assert loaded.processor.unk_token_id not in batch.student["input_ids"]


@pytest.mark.slow
def test_the_running_python_says_enough_about_every_topic(tmp_path: Path) -> None:
    if not (Path(sysconfig.get_paths()["stdlib"]) / "asyncio").is_dir():
        pytest.skip("this Python comes without the sources of its standard library")
    splits = data.load(Data(train=str(docstrings(tmp_path / "data"))), seed=0)
    assert set(splits["train"].features["topic"].names) <= set(TOPICS)
    assert splits["train"].features["topic"].num_classes >= 8
    assert len(splits["train"]) > 1500
    assert max(len(text.split()) for text in splits["train"]["text"]) <= WORDS
    task = TextClassification.understand(TextClassificationData(train="x"), splits)
    assert task.problem.kind == "single_label"
