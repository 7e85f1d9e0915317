"""The same step however it is cut, for vectors that learn a cross-encoder's scores; and whether these are asked or stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.equivalence.crossing import SETS, trainer
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights

pytestmark = pytest.mark.slow
CLOSE = 3e-6


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("pieces", [False, True], ids=["one tokenizer", "two tokenizers"])
def test_four_micro_batches_equal_one_batch_and_what_is_stored_equals_what_is_asked(
    tmp_path: Path, name: str, pieces: bool
) -> None:
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    one, *others = (trainer(tmp_path / str(number), name, 21, pieces=pieces, **options)
                    for number, options in enumerate(({}, cut, {"stored": True})))
    start = weights(one)
    one.train()
    assert distance(start, weights(one)) > 1e-3
    for other in others:
        other.train()
        assert distance(weights(one), weights(other)) < CLOSE
        for a, b in zip(losses(one), losses(other), strict=True):
            assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.crossing", 17, 8, 1, "all")
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.crossing", 17, 2, 2, "all")
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
