"""Teachers of recommenders that read more of a history than their students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import stilla
from stilla.errors import DataError
from stilla.recipe import StudentSpec
from stilla.signals import Batch, Side
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.recommendation.catalogue import Catalogue
from stilla.tasks.recommendation.recommendation import Recommendation
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks.recommendation.setting import CONFIGS, events, loaded, split, task

KINDS = pytest.mark.parametrize("mask", [None, 0.3])


def told(mask: float | None, length: int = 10, most: int = 4) -> tuple[Recommendation, Loaded, Loaded]:
    made = task(max_length=most, mask=mask).taught_at_length(length)
    teacher = loaded(made.of_teacher())
    teacher.model.eval().double()
    made = made.adapted_to(teacher)
    return made, made.seeing(teacher, StudentSpec(layers=1)), teacher


def whole(prepared: Prepared) -> Batch:
    return prepared.collate([prepared.examples[one] for one in range(len(prepared))])


def read(inputs: Any) -> list[list[int]]:
    return [row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"])]


def logits(made: Recommendation, model: Any, batch: Batch, side: Side) -> torch.Tensor:
    with torch.no_grad():
        return made.signals(model(**batch[side.value]), batch, side).logits.logits  # type: ignore[union-attr]


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("training", [True, False])
def test_a_teacher_reads_what_stands_before_and_is_asked_the_same(mask: float | None, training: bool) -> None:
    made, student, teacher = told(mask)
    data = split()
    prepared = made.prepare(data, student.processor, teacher.processor, training=training)
    assert not prepared.aligned
    batch = whole(prepared)
    ours, theirs = read(batch.student), read(batch.teacher)
    assert max(map(len, ours)) == 4
    assert max(map(len, theirs)) == 10
    for own, other in zip(ours, theirs):
        assert other[len(other) - len(own) :] == own  # hidden items too
    said = [made.signals(teacher.model(**batch[side.value]), batch, side) for side in Side]
    assert said[0].labels is not None
    assert torch.equal(said[0].labels, said[1].labels)
    # one by one, without padding
    rows, there = [], (batch.labels != NO_ROW) if batch.labels is not None else None
    assert there is not None
    for own, other, places in zip(ours, theirs, there):
        with torch.no_grad():
            answers = teacher.model(input_ids=torch.tensor([other])).logits[0]
        rows.append(answers[places.nonzero().squeeze(1) + len(other) - len(own)])
    torch.testing.assert_close(logits(made, teacher.model, batch, Side.TEACHER), torch.cat(rows), atol=1e-9, rtol=1e-7)
    student_alone = whole(made.prepare(data, student.processor, None, training=training))
    assert torch.equal(student_alone.student["input_ids"], batch.student["input_ids"])


def test_as_much_as_a_student_reads_is_no_more() -> None:
    plain = task(max_length=4)
    assert plain.taught_at_length(4) is plain
    assert plain.of_teacher() is plain


@pytest.mark.slow
@KINDS
def test_answers_are_stored_by_what_the_teacher_reads(mask: float | None) -> None:
    made, student, teacher = told(mask)
    batch = whole(made.prepare(split(), student.processor, teacher.processor, training=True))
    segments = made.segments(batch)
    assert [one.rows.start for one in segments[1:]] == [one.rows.stop for one in segments[:-1]]
    assert segments[-1].rows.stop == made.counts(batch)["rows"]
    shorter = whole(told(mask, length=6)[0].prepare(split(), student.processor, teacher.processor, training=True))
    assert {one.content for one in segments} != {one.content for one in made.segments(shorter)}


def test_a_student_of_such_a_teacher_reads_no_more_than_the_recipe_says(tmp_path: Path) -> None:
    made, student, teacher = told(None)
    assert (student.processor.max_length, teacher.processor.max_length) == (4, 10)
    assert made.catalogue.max_length == 4
    with pytest.raises(DataError, match=r"teacher\.data\.max_length: got 3, and students read up to 8 items"):
        task().taught_at_length(3)
    with pytest.raises(DataError, match=r"teacher\.data\.items: rows of `recommendation` are the items of the his"):
        task().taught_from({"items": ("more",)}, {})


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "dense"])
def test_a_run_whose_teacher_reads_longer_histories(tmp_path: Path, cache: str) -> None:
    run = stilla.distill({
        "task": "recommendation", "data": {"train": events(tmp_path / "events.csv"), "max_length": 3},
        "teacher": {"model": "llama", "config": CONFIGS["llama"], "data": {"max_length": 12},
                    "train": {"max_steps": 4, "batch_size": 16, "precision": "float32"}},
        "student": {"layers": 1}, "distill": {"max_steps": 4, "batch_size": 16, "precision": "float32"}, "cache": cache,
        "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True, "output": str(tmp_path / "run")})
    assert Catalogue.of_folder(str(run.folder / "student")).max_length == 3
    assert Catalogue.of_folder(str(run.folder / "teacher")).max_length == 12
    again = stilla.evaluate_run(run.folder, str(tmp_path / "events.csv"))
    assert again.teacher is not None
