from __future__ import annotations

import numpy as np
import pytest

from stilla.evaluate.calibration import calibration
from stilla.scores import Bin


def test_ece_equals_the_one_computed_by_hand() -> None:
    # of five bins (0.6, 0.8] holds 0.7 and 0.7 with one right, (0.8, 1] holds 0.9 and 1.0 with both right
    found = calibration(np.array([0.7, 0.9, 0.7, 1.0]), np.array([True, True, False, True]), bins=5)
    assert found.bins == (Bin(0.7, 0.5, 2), Bin(0.95, 1.0, 2))
    assert found.ece == pytest.approx(0.5 * 0.2 + 0.5 * 0.05)


def test_a_border_belongs_to_the_bin_below_it() -> None:
    found = calibration(np.array([0.5, 0.500001, 0.0]), np.array([True, True, False]), bins=2)
    assert [one.count for one in found.bins] == [2, 1]


def test_a_calibrated_model_has_no_error_and_a_sure_wrong_one_has_all() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.3, 1.0, 200_000)
    assert calibration(confidence, generator.random(200_000) < confidence).ece < 0.01
    assert calibration(np.ones(10), np.zeros(10, dtype=bool)).ece == 1.0


def test_bins_hold_every_decision() -> None:
    confidence = np.random.default_rng(0).random(1000)
    found = calibration(confidence, confidence > 0.5)
    assert len(found.bins) == 15
    assert sum(one.count for one in found.bins) == 1000
    assert all(index / 15 < one.confidence <= (index + 1) / 15 for index, one in enumerate(found.bins))
