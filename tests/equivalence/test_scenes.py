"""The same step however it is cut, for pictures of which every place is a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.equivalence.scenes import trainer
from tests.equivalence.setting import distance, losses, weights

pytestmark = pytest.mark.slow


def test_four_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    one, four = (trainer(tmp_path / str(number), 13, **options) for number, options in enumerate(({}, cut)))
    start = weights(one)
    one.train()
    four.train()
    assert distance(start, weights(one)) > 1e-3
    assert distance(weights(one), weights(four)) < 3e-6
    for a, b in zip(losses(one), losses(four), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
