"""The same step however it is cut, stopped, shared out or stored, for models that speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stilla.teachers import CachedTeacher, CapturingTeacher, Keep, LiveTeacher, capture
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights
from tests.equivalence.talkers import trained, trainer
from tests.equivalence.test_resume import StopAt

pytestmark = pytest.mark.slow
CLOSE = 3e-6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside which all trainings have one teacher and one set of sounds."""
    return tmp_path_factory.mktemp("talkers")


def compared(one: Any, other: Any, close: float = CLOSE) -> None:
    assert distance(weights(one), weights(other)) < close
    for a, b in zip(losses(one), losses(other), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("at_once", [False, True])
def test_four_micro_batches_equal_one_batch(place: Path, at_once: bool) -> None:
    whole = trained(trainer(place / "whole", at_once=at_once))
    four = trainer(place / "four", at_once=at_once, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    start = weights(four)
    trained(four)
    assert distance(start, weights(four)) > 1e-3
    compared(whole, four)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_stored_teacher_teaches_what_the_live_one_does(place: Path, tmp_path: Path, at_once: bool) -> None:
    def stored(model: Any, task: Any, prepared: Any) -> CachedTeacher:
        writing = CapturingTeacher(LiveTeacher(model, task), task, tmp_path / "cache", Keep(), {"teacher": "this"})
        list(capture(writing, prepared, batch_size=5, device=torch.device("cpu")))
        writing.close()
        return CachedTeacher(tmp_path / "cache", task)

    live, cached = (trained(trainer(place / name, teacher=teacher, hidden=False, at_once=at_once))
                    for name, teacher in (("live", None), ("stored", stored)))
    compared(live, cached, close=2e-5)


@pytest.mark.parametrize("at_once", [False, True])
def test_stop_and_resume_equals_uninterrupted(place: Path, at_once: bool) -> None:
    adam: dict[str, Any] = {"optim": "adamw_torch", "at_once": at_once}
    whole = trained(trainer(place / "adam", **adam))
    first = trainer(place / f"parts {at_once}", **adam)
    first.add_callback(StopAt(4))
    trained(first)
    torch.manual_seed(99)
    second = trainer(place / f"parts {at_once}", **adam)
    trained(second, resume_from_checkpoint=str(place / f"parts {at_once}" / "checkpoint-4"))
    assert distance(weights(whole), weights(second)) == 0


def test_two_processes_equal_one(tmp_path: Path) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.talkers", 8, 1)
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.talkers", 2, 2)
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-5)
