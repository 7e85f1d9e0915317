"""Teachers of taggers that read the document around a sentence, or more of it at once, and are asked about the same words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

import stilla
from stilla.errors import DataError
from stilla.signals import Batch, Side
from stilla.tasks.base import Prepared
from stilla.tasks.text.sections import TokenClassificationData
from stilla.tasks.text.token_classification import TokenClassification
from tests.tasks.text import taggers

BEFORE, BEHIND = ["the", "river", "near"], ["walks", "and", "walks"]


def rows(count: int = 12, seed: int = 0) -> dict[str, list[Any]]:
    drawn = zip(*taggers.sentences(9 * count, seed).values())
    some = [(words, tags) for words, tags in drawn if len(words) < 6][:count]  # no document is cut
    made = {"tokens": [words for words, _ in some], "tags": [tags for _, tags in some]}
    documents = [[*BEFORE * (row % 3), *words, *BEHIND * (row % 2)] for row, words in enumerate(made["tokens"])]
    return {**made, "document": documents}


def task_of(split: Dataset, told: str = "document", length: int | None = None, **section: Any) -> TokenClassification:
    named = TokenClassificationData(train="x", **{"tokens": "tokens", "tags": "tags", **section})
    task = TokenClassification.understand(named, {"train": split})
    task = task.taught_from({"tokens": (told,)} if told else {}, {"train": split})
    return task if length is None else task.taught_at_length(length)


def whole(prepared: Prepared) -> Batch:
    return prepared.collate([prepared.examples[one] for one in range(len(prepared))])


def logits(task: TokenClassification, model: Any, batch: Batch, side: Side) -> torch.Tensor:
    with torch.no_grad():
        return task.signals(model(**batch[side.value]), batch, side).logits.logits  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("make", [taggers.wordpieces, taggers.byte_level, taggers.unigram])
@pytest.mark.parametrize("training", [True, False])
def test_a_teacher_reads_the_document_and_is_asked_about_the_sentences_words(make: Any, training: bool) -> None:
    split, tokenizer = Dataset.from_dict(rows()), make()
    task, model = task_of(split), taggers.model("bert", len(tokenizer)).double()
    prepared = task.prepare(split, tokenizer, tokenizer, training=training)
    assert not prepared.aligned
    batch = whole(prepared)
    # as a model answers that is asked about all words of the documents
    words = Dataset.from_dict({"tokens": rows()["document"], "tags": [
        ["XO"[place % 2] for place in range(len(one))] for one in rows()["document"]]})
    alone = TokenClassification.understand(TokenClassificationData(train="x", scheme="none"), {"train": words})
    there = whole(alone.prepare(words, tokenizer, None, training=training))
    assert torch.equal(batch.teacher["input_ids"], there.student["input_ids"])
    said = torch.split(logits(alone, model, there, Side.STUDENT), [len(one) for one in rows()["document"]])
    expected = [one[len(BEFORE) * (row % 3) :][: len(words)] for row, (one, words) in enumerate(zip(said, rows()["tokens"]))]
    torch.testing.assert_close(logits(task, model, batch, Side.TEACHER), torch.cat(expected), atol=1e-9, rtol=1e-7)
    apart = [logits(task, model, prepared.collate([row]), Side.TEACHER) for row in range(len(prepared))]
    torch.testing.assert_close(torch.cat(apart), torch.cat(expected), atol=1e-9, rtol=1e-7)
    by_itself = whole(task.of_teacher().prepare(split, tokenizer, None, training=training))
    assert torch.equal(by_itself.student["input_ids"], batch.teacher["input_ids"])
    assert torch.equal(by_itself["words"]["student"], batch["words"]["teacher"])
    student = whole(task.prepare(split, tokenizer, None, training=training))
    assert torch.equal(student.student["input_ids"], batch.student["input_ids"])


def test_a_document_that_is_the_sentence_says_the_same() -> None:
    split, tokenizer = Dataset.from_dict({**rows(), "document": rows()["tokens"]}), taggers.wordpieces()
    batches = [whole(task_of(split, told).prepare(split, tokenizer, tokenizer, training=True)) for told in ("document", "")]
    assert torch.equal(batches[0].teacher["input_ids"], batches[1].teacher["input_ids"])
    assert torch.equal(batches[0]["words"]["teacher"], batches[1]["words"]["teacher"])
    assert task_of(split, "tokens") == task_of(split, "")


@pytest.mark.parametrize("make", [taggers.wordpieces, taggers.byte_level])
def test_a_teacher_reads_more_around_the_words_of_a_window(make: Any) -> None:
    made = taggers.sentences(6)
    long = {name: [[one for row in made[name] for one in row]] * 2 for name in made}
    split, tokenizer = Dataset.from_dict(long), make()
    task = task_of(split, "", 40, max_length=16)
    prepared = task.prepare(split, tokenizer, tokenizer, training=True)
    batch = whole(prepared)
    assert len(prepared) > 4
    assert int(batch.student["attention_mask"].sum(1).max()) <= 16
    assert 16 < int(batch.teacher["attention_mask"].sum(1).max()) <= 40
    assert int(batch.teacher["attention_mask"].sum(1).min()) > 24  # as much as there is room for
    tokens = [[batch[side.value]["input_ids"][row][batch["words"][side.value][row]] for row in range(len(prepared))]
              for side in Side]
    for own, other, places in zip(*tokens, batch["words"]["student"]):
        assert torch.equal(own[places >= 0], other[places >= 0])  # the same words
    assert task.counts(batch)["words"] == sum(map(len, long["tokens"]))
    with pytest.raises(DataError, match=r"teacher\.data\.max_length: got 9, and students read up to 16 tokens"):
        task_of(split, "", 9, max_length=16)
    assert task_of(split, "", 16, max_length=16) == task_of(split, "", max_length=16)


def test_texts_with_spans_stand_in_documents() -> None:
    split = Dataset.from_dict({"text": ["Ann sees Bern"], "spans": [[{"start": 0, "end": 3, "label": "PER"}]],
                               "whole": ["The river.  Ann sees\nBern, and walks."]})
    task = TokenClassification.understand(TokenClassificationData(train="x", text="text", spans="spans"), {"train": split})
    task, tokenizer = task.taught_from({"text": ("whole",)}, {"train": split}), taggers.wordpieces()
    batch = whole(task.prepare(split, tokenizer, tokenizer, training=True))
    ids = [batch[side.value]["input_ids"][0][batch["words"][side.value][0]].tolist() for side in Side]
    assert ids[0] == ids[1] == tokenizer.convert_tokens_to_ids(["ann", "sees", "bern"])
    assert task.text_column is None


@pytest.mark.parametrize(("change", "words"), [
    ({"document": [["Ann"], *rows()["document"][1:]]}, r"'document' does not hold the words that a student reads, in 1 of"),
    ({"document": [rows()["tokens"][0] * 2, *rows()["document"][1:]]}, r"'document' holds what a student reads more than"),
    ({"document": ["text"] * 12}, r"teacher\.data: 'document' of data\.train holds no lists of words"),
])
def test_documents_in_which_words_cannot_be_found(change: dict[str, Any], words: str) -> None:
    split = Dataset.from_dict({**rows(), **change})
    with pytest.raises(DataError, match=words):
        task_of(split)


def test_an_example_that_stands_in_no_document_is_read_by_neither() -> None:
    split = Dataset.from_dict({**rows(), "document": [["Ann"], *rows()["document"][1:]]})
    task, tokenizer = task_of(split, broken="skip"), taggers.wordpieces()
    for asked in (task, task.of_teacher()):
        assert asked.prepare(split, tokenizer, None, training=False).keys.tolist() == list(range(1, 12))
    pool = task.unlabelled(split, {})
    assert pool.column_names == ["tokens", "document"]
    assert len(task.usable(pool)) == 11
    assert set(task.beside(split).column_names) == {"tokens", "document", "tags"}
    with pytest.raises(DataError, match=r"which column is 'document'\?"):
        task.unlabelled(split.remove_columns("document"), {})


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "dense"])
def test_a_run_whose_teacher_reads_documents(tmp_path: Path, cache: str) -> None:
    files = {}
    for seed, (name, count) in enumerate((("train", 40), ("validation", 16), ("test", 16))):
        made = rows(count, seed)
        files[name] = str(tmp_path / f"{name}.jsonl")
        Path(files[name]).write_text("".join(json.dumps(dict(zip(made, one))) + "\n" for one in zip(*made.values())))
    run = stilla.distill({
        "task": "token-classification", "data": {**files, "tokens": "tokens", "tags": "tags"},
        "teacher": {"model": taggers.folder(tmp_path / "start"), "data": {"tokens": "document", "max_length": 60},
                    "train": {"epochs": 4, "batch_size": 8, "learning_rate": 5e-3, "precision": "float32"}},
        "student": {"layers": 1}, "distill": {"max_steps": 4, "batch_size": 8, "precision": "float32"}, "cache": cache,
        "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True, "output": str(tmp_path / "run")})
    assert run.scores.teacher[run.scores.metric] > run.scores.student[run.scores.metric]
