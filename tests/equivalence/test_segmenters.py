"""The same step however it is cut, for pictures with unequal numbers of masks, some of them with none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.equivalence.launching import launch
from tests.equivalence.segmenters import trainer
from tests.equivalence.setting import distance, losses, weights
from tests.equivalence.test_resume import StopAt

pytestmark = pytest.mark.slow
CLOSE = 3e-6


@pytest.mark.parametrize(("name", "cut"), [("segments", (1, 8)), ("all", (4, 2))], ids=["segments-1x8", "all-4x2"])
def test_micro_batches_equal_one_batch(tmp_path: Path, name: str, cut: tuple[int, int]) -> None:
    options = {"per_device_train_batch_size": cut[0], "gradient_accumulation_steps": cut[1]}
    one, many = (trainer(tmp_path / str(number), name, **some) for number, some in enumerate(({}, options)))
    start = weights(one)
    one.train()
    many.train()
    assert distance(start, weights(one)) > 1e-3
    assert distance(weights(one), weights(many)) < CLOSE
    for a, b in zip(losses(one), losses(many), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


def test_stop_and_resume_equals_uninterrupted(tmp_path: Path) -> None:
    adam: dict[str, Any] = {"optim": "adamw_torch"}
    whole, first = (trainer(tmp_path / name, "all", **adam) for name in ("whole", "parts"))
    first.add_callback(StopAt(2))
    whole.train()
    first.train()
    torch.manual_seed(99)
    second = trainer(tmp_path / "parts", "all", **adam)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert distance(weights(whole), weights(second)) == 0
    assert losses(second)[2:] == losses(whole)[2:]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.segmenters", 13, 8, 1, "all")
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.segmenters", 13, 2, 2, "all")
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
