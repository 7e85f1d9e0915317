"""The same step however it is cut, for pictures and texts: what compares all of a step sees all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stilla.tasks.base import Prepared, Task
from stilla.teachers import CachedTeacher, CapturingTeacher, LiveTeacher
from stilla.teachers.capture import capture
from stilla.teachers.keeping import Keep
from tests.equivalence.dual import trainer
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights

pytestmark = pytest.mark.slow
CLOSE = 3e-6


def compared(one: Any, other: Any, *, close: float = CLOSE) -> None:
    start = weights(one)
    one.train()
    other.train()
    assert distance(start, weights(one)) > 1e-3
    assert distance(weights(one), weights(other)) < close
    for a, b in zip(losses(one), losses(other), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("classes", "family"), [(False, "clip"), (True, "clip"), (False, "siglip")])
def test_four_micro_batches_equal_one_batch(tmp_path: Path, classes: bool, family: str) -> None:
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    compared(*(trainer(tmp_path / str(number), 21, classes=classes, family=family, **options)
               for number, options in enumerate(({}, cut))))


def test_with_stored_vectors_of_the_teacher_too(tmp_path: Path) -> None:
    def stored(model: nn.Module, task: Task, prepared: Prepared) -> CachedTeacher:
        writing = CapturingTeacher(LiveTeacher(model, task), task, tmp_path / "cache", Keep(), {"teacher": "this"})
        list(capture(writing, prepared, batch_size=5, device=torch.device("cpu")))
        writing.close()
        return CachedTeacher(tmp_path / "cache", task)

    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    compared(trainer(tmp_path / "live", 16), trainer(tmp_path / "stored", 16, cached=stored, **cut), close=2e-5)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.dual", 17, 8, 1)
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.dual", 17, 2, 2)
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", 16, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    whole.train()
    options: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer(tmp_path / "half", 16, save_strategy="steps", save_steps=2, **options).train()
    again = trainer(tmp_path / "half", 16, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-2"))
    assert distance(weights(whole), weights(again)) == 0
