"""The same step however it is cut, stopped, shared out or stored, where teacher and student see pictures in other tokens."""

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
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights
from tests.equivalence.tellers import trainer

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


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_four_micro_batches_equal_one_batch(tmp_path: Path, family: str) -> None:
    """Also where pixels of all examples stand in one row of patches (Qwen), and not an example each."""
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    compared(*(trainer(tmp_path / str(number), family, **options) for number, options in enumerate(({}, cut))))


def test_stored_answers_teach_what_live_ones_do(tmp_path: Path) -> None:
    """Found again by tokens, places and pictures, whatever batch they stand in."""
    def stored(model: nn.Module, task: Task, prepared: Prepared) -> CachedTeacher:
        writing = CapturingTeacher(LiveTeacher(model, task), task, tmp_path / "cache", Keep(), {"teacher": "this"})
        list(capture(writing, prepared, batch_size=5, device=torch.device("cpu")))
        writing.close()
        return CachedTeacher(tmp_path / "cache", task)

    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    live, read = trainer(tmp_path / "live", "qwen2_vl"), trainer(tmp_path / "stored", "qwen2_vl", cached=stored, **cut)
    compared(live, read, close=2e-5)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.tellers", "llava", 8, 1)
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.tellers", "llava", 2, 2)
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    options: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "optim": "adamw_torch"}
    whole = trainer(tmp_path / "whole", **options)
    whole.train()
    trainer(tmp_path / "half", save_strategy="steps", save_steps=2, **options).train()
    again = trainer(tmp_path / "half", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-2"))
    assert distance(weights(whole), weights(again)) == 0
