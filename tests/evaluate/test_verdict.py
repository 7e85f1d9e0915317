from __future__ import annotations

import re

import numpy as np
import pytest

from stilla.evaluate.quality import Sampled
from stilla.evaluate.verdict import Outcome, advice, distillation_ratio, retention, verdict
from stilla.report.numbers import quality
from stilla.scores import Cost, Interval
from stilla.tasks.answers import Metric
from stilla.tasks.retrieval import ranking
from tests.evaluate.fake_exam import ACCURACY, PEARSON, RMSE

BIG = Cost(parameters=41_000, bytes=164_000, latency_median_ms=30.0)
SMALL = Cost(parameters=10_000, bytes=40_000, latency_median_ms=10.0)


def _sampled(value: float, error: float = 0.005, seeds: int = 1, by_seed: float = 0.0, draw: int = 0) -> Sampled:
    """A value with normal resamples around it; seeds around their mean."""
    generator = np.random.default_rng(draw)
    values = value + by_seed * np.linspace(-1, 1, seeds) * (seeds > 1)
    return Sampled(values, values[:, None] + error * generator.normal(size=(seeds, 1000)))


def _said(metric: Metric = ACCURACY, teacher: float = 0.9, student: float = 0.89,
          difference: Interval | None = None, big: Cost = BIG, small: Cost = SMALL, seeds: int = 1,
          chosen_by: Interval | None = None) -> str:
    kept, _ = retention(metric, _sampled(teacher), _sampled(student))
    return verdict(Outcome(metric, teacher, student, kept, difference, big, small, seeds, chosen_by))


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
        "; distillation lost 2.0 points against training on labels alone (95 % interval of the loss 0.9 to 3.1).")


def test_where_validation_data_prefer_the_baseline_that_is_what_to_deploy() -> None:
    assert _said(difference=Interval(0.0, -0.01, 0.01), chosen_by=Interval(-0.02, -0.031, -0.009)).endswith(
        "−1.0 to 1.0). Deploy the baseline: on validation data, labels alone are better by 2.0 points "
        "(95 % interval 0.9 to 3.1). `stilla export RUN --model baseline` writes it.")
    assert "Deploy" not in _said(difference=Interval(-0.02, -0.03, -0.01), chosen_by=Interval(-0.01, -0.03, 0.01))
    assert "Deploy" not in _said(difference=Interval(0.02, 0.01, 0.03), chosen_by=Interval(0.02, 0.01, 0.03))
    assert "better by 0.1 (95 % interval 0.05 to 0.15)" in _said(RMSE, chosen_by=Interval(0.1, 0.05, 0.15))


@pytest.mark.parametrize(("difference", "higher", "deploy"), [
    (Interval(-0.02, -0.03, -0.01), True, "baseline"), (Interval(-0.02, -0.05, 0.01), True, "student"),
    (Interval(0.02, 0.01, 0.03), True, "student"), (Interval(0.02, 0.01, 0.03), False, "baseline"),
    (Interval(-0.02, -0.03, -0.01), False, "student"), (None, True, "student")])
def test_the_student_is_deployed_unless_it_is_worse_beyond_noise(
    difference: Interval | None, higher: bool, deploy: str
) -> None:
    assert advice(difference, higher_is_better=higher) == deploy


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
    found, note = retention(ACCURACY, _sampled(0.9), _sampled(0.81, draw=1))
    assert note is None
    assert found is not None
    assert found.value == pytest.approx(0.9)
    # relative errors of 0.56 % and 0.62 %, independent here
    assert (found.low, found.high) == (pytest.approx(0.885, abs=0.002), pytest.approx(0.915, abs=0.002))
    for metric, teacher, words in (
        (RMSE, 0.9, "better when lower"), (PEARSON, 0.9, "can be zero or negative"),
        (ACCURACY, 0.0, "the teacher's accuracy is 0"),
    ):
        value, note = retention(metric, _sampled(teacher), _sampled(0.8))
        assert value is None
        assert note is not None
        assert note.startswith("retention is not defined")
        assert words in note


def test_of_a_teacher_that_may_be_worth_nothing_there_is_no_retention() -> None:
    found, note = retention(ACCURACY, _sampled(0.005), _sampled(0.004))
    assert found is None
    assert note is not None
    assert re.fullmatch(r"retention cannot be measured: the teacher's accuracy \(0\.5, 95 % interval −0\.\d to 1\.\d\) may "
                        "be zero", note)


def test_numbers_are_written_as_tables_write_them() -> None:
    ndcg = next(one for one in ranking.metrics() if one.name == "ndcg_at_10")
    _, note = retention(ndcg, _sampled(0.005), _sampled(0.004))
    assert note is not None
    assert "the teacher's ndcg at 10 (0.005, 95 % interval −0.00" in note
    assert quality("ndcg_at_10", 0.005) == "0.005"
    assert quality("topic/accuracy", 0.912) == "91.2 %"  # of one of several tasks


@pytest.mark.parametrize(("metric", "teacher", "student", "baseline"), [
    (ACCURACY, 0.90, 0.88, 0.86), (RMSE, 0.5, 0.6, 0.7)])
def test_the_distillation_ratio_is_the_part_of_the_lead_that_was_gained(
    metric: Metric, teacher: float, student: float, baseline: float
) -> None:
    found, note = distillation_ratio(metric, _sampled(teacher), _sampled(student, draw=1), _sampled(baseline, draw=2))
    assert note is None
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize(("metric", "lead"), [(ACCURACY, 0.0), (ACCURACY, -0.1), (RMSE, 0.1)])
def test_the_distillation_ratio_is_not_defined_without_a_lead(metric: Metric, lead: float) -> None:
    found, note = distillation_ratio(metric, _sampled(0.8 + lead), _sampled(0.82, draw=1), _sampled(0.8, draw=2))
    assert found is None
    assert note is not None
    assert note.startswith("distillation ratio is not defined: the teacher is no better")


def test_a_lead_below_four_standard_errors_is_not_measurable() -> None:
    """At an error of 0.007 (two independent models of 0.005 each), 2.9 points are more than four and 2.7 less."""
    for lead, measurable in ((0.029, True), (0.027, False)):
        found, note = distillation_ratio(ACCURACY, _sampled(0.8 + lead), _sampled(0.81, draw=1), _sampled(0.8, draw=2))
        assert (found is not None) is measurable
        assert (note is None) is measurable
    assert note is not None
    assert note.startswith("distillation ratio is not measurable: the teacher's lead over the baseline (2.7 points, standard "
                           "error 0.7")
    assert "is below 4 standard errors" in note


def test_few_seeds_that_vary_leave_the_lead_open() -> None:
    """Two seeds, one degree of freedom: the lead is five standard errors, and Student's t reaches 12.7 of them."""
    student, baseline = (_sampled(level, 0.0002, 2, 0.008, draw) for draw, level in enumerate((0.83, 0.80)))
    found, note = distillation_ratio(ACCURACY, _sampled(0.84, 0.0002, draw=3), student, baseline)
    assert found is None
    assert note is not None
    assert "may be zero for other seeds, of which 2 say little" in note
