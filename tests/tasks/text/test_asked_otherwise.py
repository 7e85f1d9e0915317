"""Teachers of answers that are asked something else about the same passage: in other words, or in another language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn

import stilla
from stilla.errors import DataError
from stilla.objectives import Logits
from stilla.signals import Batch, Side
from stilla.tasks.text.question_answering import QuestionAnswering
from stilla.tasks.text.sections import QuestionAnsweringData
from tests.tasks.text import answerers, taggers
from tests.tasks.text.test_question_answering import unigram


def rows(count: int = 12, **options: Any) -> dict[str, list[Any]]:
    made = answerers.rows(count, longest=14, **options)
    return {**made, "asked": [f"{one} is it is it" for one in made["question"]]}


def task_of(split: Dataset, told: dict[str, tuple[str, ...]], length: int = 32, **section: Any) -> QuestionAnswering:
    made = QuestionAnsweringData(train="x", max_length=length, longest_answer=4, overlap=0.4, **section)
    return QuestionAnswering.understand(made, {"train": split}).taught_from(told, {"train": split})


class ByToken(nn.Module):
    """Says of every token the same wherever it stands, so that only what is asked of which place can differ."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(size, 2)

    def forward(self, input_ids: Any, **more: Any) -> Any:
        start, end = self.table(input_ids).unbind(-1)
        return {"start_logits": start, "end_logits": end}


def said(task: QuestionAnswering, model: nn.Module, batch: Batch, side: Side) -> Any:
    return task.signals(model(**batch[side.value]), batch, side)


@pytest.mark.parametrize("make", [answerers.tokenizer, taggers.byte_level, unigram])
@pytest.mark.parametrize("side", ["right", "left"])
def test_what_a_teacher_says_of_a_passage_stands_at_the_students_places_of_it(make: Any, side: str) -> None:
    split = Dataset.from_dict(rows())
    made = make()
    longest = max(len(one) for one in made(list(split["asked"]))["input_ids"])
    task, tokenizer = task_of(split, {"question": ("asked",)}, longest + 12), made
    tokenizer.padding_side, tokenizer.model_max_length = side, 128
    prepared = task.prepare(split, tokenizer, tokenizer, training=True)
    assert not prepared.aligned
    assert len(prepared) > len(split)  # some in windows
    batch = prepared.collate(list(range(len(prepared))))
    model = ByToken(len(tokenizer))
    ours, theirs = said(task, model, batch, Side.STUDENT), said(task, model, batch, Side.TEACHER)
    assert not torch.equal(ours.logits.logits, theirs.logits.logits)  # other places
    _, carried = task.align(ours, theirs, batch)
    torch.testing.assert_close(carried.logits.logits, ours.logits.logits)
    assert float(Logits().losses(ours.logits.logits, carried.logits, None, 0.0).detach().abs().max()) < 1e-5
    lengths = [batch[one.value]["attention_mask"].sum(1) for one in (Side.STUDENT, Side.TEACHER)]
    assert (lengths[1] > lengths[0]).all()  # by its longer question


def test_a_teacher_alone_is_asked_its_own_and_a_same_column_is_none() -> None:
    split = Dataset.from_dict(rows())
    task, tokenizer = task_of(split, {"question": ("asked",)}), answerers.tokenizer()
    batch = task.prepare(split, tokenizer, tokenizer, training=False).collate([0])
    alone = task.of_teacher().prepare(split, tokenizer, None, training=False).collate([0])
    assert torch.equal(batch["teacher"]["input_ids"], alone["student"]["input_ids"])
    assert task_of(split, {"question": ("question",)}).teachers == ""
    assert task.prepare(split, tokenizer, None, training=False).aligned


def test_unlabelled_questions_need_both() -> None:
    split = Dataset.from_dict(rows())
    task = task_of(split, {"question": ("asked",)})
    pool = Dataset.from_dict({name: rows()[name][:2] for name in ("context", "question", "asked", "id")})
    assert task.unlabelled(pool, {}).column_names == ["context", "question", "asked"]
    with pytest.raises(DataError, match=r"which column is 'asked'\?"):
        task.unlabelled(pool.remove_columns("asked"), {})
    assert set(task.beside(split).column_names) == {"context", "question", "asked", "answers"}


@pytest.mark.parametrize(("told", "words"), [
    ({"context": ("other",)}, r"teacher\.data\.context: the answers are places in the passage that the student reads"),
    ({"text": ("asked",)}, r"teacher\.data: got 'text'; expected question"),
    ({"question": ("answers",)}, r"teacher\.data: 'answers' is the label"),
    ({"question": ("number",)}, r"teacher\.data: 'number' of data\.train holds no text"),
    ({"question": ("asked", "context")}, r"teacher\.data\.question: got 2 columns; expected one"),
])
def test_what_makes_no_sense_is_refused_by_name(told: dict[str, tuple[str, ...]], words: str) -> None:
    split = Dataset.from_dict({**rows(), "number": list(range(12)), "other": rows()["context"]})
    with pytest.raises(DataError, match=words):
        task_of(split, told)


def test_an_empty_question_of_the_teachers_is_said_with_its_row() -> None:
    made = rows()
    made["asked"][3] = " "
    split, tokenizer = Dataset.from_dict(made), answerers.tokenizer()
    task = task_of(split, {"question": ("asked",)})
    with pytest.raises(DataError, match=r"teacher\.data: 'asked' is null or empty: .*3"):
        task.prepare(split, tokenizer, tokenizer, training=True)


@pytest.mark.slow
def test_a_whole_run_of_a_teacher_that_is_asked_otherwise(tmp_path: Path) -> None:
    """What a student reads as a question says nothing; its teacher's is what was meant."""
    for name, count, seed in (("train", 40, 0), ("validation", 16, 1), ("test", 16, 2)):
        made = answerers.rows(count, seed, maybe_none=False)
        Dataset.from_dict({**made, "asked": made["question"]}).to_json(tmp_path / f"{name}.jsonl")
    run = stilla.distill({
        "task": "question-answering", "output": str(tmp_path / "run"), "allow_weak_teacher": True,
        "data": {**{name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation", "test")}, "max_length": 32,
                 "longest_answer": 4},
        "teacher": {"model": answerers.folder(tmp_path / "teacher"), "data": {"question": "asked"}},
        "student": {"layers": 1}, "distill": {"epochs": 1, "batch_size": 8, "objectives": [{"kind": "logits"}]},
        "evaluate": {"resamples": 100, "speed": False, "baseline": False}})
    assert 0 <= run.scores.student["f1"] <= 1
    assert (run.student / "config.json").is_file()
