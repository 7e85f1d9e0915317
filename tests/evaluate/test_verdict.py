from __future__ import annotations

import pytest

from stilla.evaluate.verdict import Outcome, distillation_ratio, retention, verdict
from stilla.scores import Cost, Interval
from stilla.tasks.answers import Metric
from tests.evaluate.fake_exam import ACCURACY, PEARSON, RMSE

BIG = Cost(parameters=41_000, bytes=164_000, latency_median_ms=30.0)
SMALL = Cost(parameters=10_000, bytes=40_000, latency_median_ms=10.0)


def _said(metric: Metric = ACCURACY, teacher: float = 0.9, student: float = 0.89,
          difference: Interval | None = None, big: Cost = BIG, small: Cost = SMALL, seeds: int = 1) -> str:
    kept, _ = retention(metric, teacher, student)
    return verdict(Outcome(metric, teacher, student, kept, difference, big, small, seeds))


def test_a_gain_is_said_with_its_interval() -> None:
    assert _said(difference=Interval(0.012, 0.005, 0.019)) == (
        "The student keeps 98.9 % of the teacher's accuracy with 4.1× fewer parameters and 3.0× the speed; "
        "distillation gained 1.2 points over training on labels alone (95 % interval 0.5 to 1.9).")


def test_no_difference_is_said_plainly() -> None:
    assert _said(difference=Interval(0.001, -0.005, 0.009)).endswith(
        "; no difference measured between distillation and training on labels alone "
        "(0.1 points, 95 % interval −0.5 to 0.9).")


def test_a_loss_is_said_plainly() -> None:
    assert _said(difference=Interval(-0.02, -0.031, -0.009)).endswith(
        "; distillation lost 2.0 points against training on labels alone, which is the better choice here "
        "(95 % interval of the loss 0.9 to 3.1).")


def test_without_a_baseline_that_is_said() -> None:
    assert _said().endswith("; it was not compared with training on labels alone.")


def test_seeds_and_a_student_above_its_teacher_are_said() -> None:
    assert _said(student=0.918, seeds=3).startswith(
        "The student reaches 102.0 % of the teacher's accuracy (mean of 3 seeds) with ")


def test_a_smaller_error_is_a_gain_and_has_no_retention() -> None:
    assert _said(RMSE, 0.5, 0.55, Interval(-0.1, -0.15, -0.05)) == (
        "The student's RMSE is 0.55 against the teacher's 0.5, with 4.1× fewer parameters and 3.0× the "
        "speed; distillation gained 0.1 over training on labels alone (95 % interval 0.05 to 0.15).")


def test_seeds_stand_beside_the_student_whose_mean_it_is() -> None:
    assert _said(RMSE, 0.5, 0.55, seeds=2).startswith(
        "The student's RMSE is 0.55 (mean of 2 seeds) against the teacher's 0.5, with 4.1× fewer ")


@pytest.mark.parametrize(("small", "words"), [
    (Cost(41_000, 1, latency_median_ms=30.5), "with as many parameters and the same speed;"),
    (Cost(82_000, 1, latency_median_ms=60.0), "with 2.0× as many parameters and 0.5× the speed;"),
    (Cost(1_000, 1), "with 41× fewer parameters;"),
    (Cost(1_000, 1, latency_median_ms=0.5, latency_p95_ms=80.0), "with 41× fewer parameters;"),
])
def test_what_is_not_saved_is_not_claimed(small: Cost, words: str) -> None:
    assert words in _said(small=small)


def test_retention_is_defined_for_fractions_only() -> None:
    assert retention(ACCURACY, 0.9, 0.81) == (pytest.approx(0.9), None)
    for metric, teacher, words in (
        (RMSE, 0.9, "better when lower"), (PEARSON, 0.9, "can be zero or negative"),
        (ACCURACY, 0.0, "the teacher's accuracy is 0"),
    ):
        value, note = retention(metric, teacher, 0.8)
        assert value is None
        assert note is not None
        assert note.startswith("retention is not defined")
        assert words in note


def test_the_distillation_ratio_is_the_part_of_the_lead_that_was_gained() -> None:
    assert distillation_ratio(ACCURACY, 0.88, 0.86, Interval(0.04, 0.03, 0.05)) == (pytest.approx(0.5), None)
    assert distillation_ratio(RMSE, 0.6, 0.7, Interval(-0.2, -0.3, -0.1)) == (pytest.approx(0.5), None)


def test_the_distillation_ratio_is_not_defined_without_a_lead_and_unstable_with_an_unsure_one() -> None:
    for metric, lead in ((ACCURACY, 0.0), (ACCURACY, -0.01), (RMSE, 0.01)):
        value, note = distillation_ratio(metric, 0.88, 0.86, Interval(lead, lead - 0.1, lead + 0.1))
        assert value is None
        assert note is not None
        assert note.startswith("distillation ratio is not defined: the teacher is no better")
    value, note = distillation_ratio(ACCURACY, 0.88, 0.86, Interval(0.04, -0.01, 0.09))
    assert value == pytest.approx(0.5)
    assert note == ("distillation ratio is unstable: the teacher's lead over the baseline (4.0 points, "
                    "95 % interval −1.0 to 9.0) may be zero")
