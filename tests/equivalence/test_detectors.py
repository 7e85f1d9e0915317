"""The same step however it is cut, for pictures with unequal numbers of objects, some of them with none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.equivalence.detectors import SETS, trainer
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights

pytestmark = pytest.mark.slow
CLOSE = 3e-6


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("cut", [(4, 2), (1, 8)], ids=["4x2", "1x8"])
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


@pytest.mark.parametrize("name", ["all", "edges"])
def test_two_processes_equal_one(tmp_path: Path, name: str) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.detectors", 17, 8, 1, name)
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.detectors", 17, 2, 2, name)
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
