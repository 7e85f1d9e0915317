"""Several processes train on a stream, measure and predict as one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.equivalence.launching import launch
from tests.equivalence.setting import distance


@pytest.mark.slow
def test_two_processes_equal_one_on_a_stream(tmp_path: Path) -> None:
    ((alone, said_alone, measured_alone, found_alone),) = launch(tmp_path / "one", 1, "tests.training.spread", 8, 1)
    (first, said, measured, found), (second, _, again, _) = launch(tmp_path / "two", 2, "tests.training.spread", 2, 2)
    assert distance(first, second) == 0
    assert distance(alone, first) < 2e-6
    for one, other in zip(said, said_alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert measured == again
    assert measured == pytest.approx(measured_alone, abs=1e-5)
    assert (measured["eval_a_count"], measured["eval_b_count"]) == (20, 9)
    torch.testing.assert_close(found, found_alone, atol=1e-5, rtol=0)
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "two" / "saved")
    inside = {name.removeprefix("student."): value for name, value in first.items() if name.startswith("student.")}
    assert distance(saved.state_dict(), inside) == 0
