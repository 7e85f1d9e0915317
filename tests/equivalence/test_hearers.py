"""The same step however it is cut, stopped or shared out, for models of which padding would change the answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.equivalence.hearers import KINDS, trained, trainer
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights
from tests.equivalence.test_resume import StopAt

pytestmark = pytest.mark.slow
CLOSE = 3e-6


@pytest.mark.parametrize("kind", KINDS)
def test_four_micro_batches_equal_one_batch(tmp_path: Path, kind: str) -> None:
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    one, four = (trainer(tmp_path / str(number), kind, **options) for number, options in enumerate(({}, cut)))
    start = weights(one)
    trained(one)
    trained(four)
    assert distance(start, weights(one)) > 1e-3
    assert distance(weights(one), weights(four)) < CLOSE
    for a, b in zip(losses(one), losses(four), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


def test_stop_and_resume_equals_uninterrupted(tmp_path: Path) -> None:
    whole = trained(trainer(tmp_path / "whole", optim="adamw_torch"))
    first = trainer(tmp_path / "parts", optim="adamw_torch")
    first.add_callback(StopAt(4))
    trained(first)
    torch.manual_seed(99)
    second = trainer(tmp_path / "parts", optim="adamw_torch")
    trained(second, resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-4"))
    assert distance(weights(whole), weights(second)) == 0


@pytest.mark.parametrize("kind", ["sounds", "speech", "written"])
def test_two_processes_equal_one(tmp_path: Path, kind: str) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.hearers", kind, 8, 1)
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.hearers", kind, 2, 2)
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-5)
