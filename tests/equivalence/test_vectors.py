"""The same step however it is cut, for vectors of texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights
from tests.equivalence.vectors import SETS, trainer

pytestmark = pytest.mark.slow
CLOSE = 3e-6


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dimensions", [None, 8])
def test_four_micro_batches_equal_one_batch(tmp_path: Path, name: str, dimensions: int | None) -> None:
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    one, four = (trainer(tmp_path / str(number), name, 21, dimensions=dimensions, **options)
                 for number, options in enumerate(({}, cut)))
    start = weights(one)
    one.train()
    four.train()
    assert distance(start, weights(one)) > 1e-3
    assert distance(weights(one), weights(four)) < CLOSE
    for a, b in zip(losses(one), losses(four), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.vectors", 17, 8, 1, "all")
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.vectors", 17, 2, 2, "all")
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
