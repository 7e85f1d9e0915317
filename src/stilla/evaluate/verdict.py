"""The run's outcome in one plain sentence, and the ratios that it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from stilla.evaluate.quality import Sampled
from stilla.evaluate.ratios import ratio
from stilla.scores import Cost, Interval, is_fraction, metric_title
from stilla.tasks.answers import Metric

LEAD = 4.0
"""Standard errors that the teacher has to be ahead of the baseline by: at 4, Fieller's interval of a part of its lead is a
seventh wider than if the lead were known; at 2, five times as wide."""


@dataclass(frozen=True)
class Outcome:
    """The headline numbers; differences are student minus the other, `None` without a baseline, and so is what is known of a
    teacher that could not be measured."""

    metric: Metric
    teacher: float | None
    student: float
    retention: Interval | None
    difference: Interval | None
    teacher_cost: Cost | None
    student_cost: Cost
    seeds: int = 1
    chosen_by: Interval | None = None
    """Student minus baseline on validation data."""


def retention(
    metric: Metric, teacher: Sampled, student: Sampled, seed: int = 0
) -> tuple[Interval | None, str | None]:
    """student / teacher, or None and a note that says why it is not defined."""
    title = metric_title(metric.name)
    if not metric.higher_is_better:
        return None, f"retention is not defined: {title} is better when lower"
    if not metric.bounded:
        return None, f"retention is not defined: {title} can be zero or negative"
    if teacher.value <= 0:
        return None, f"retention is not defined: the teacher's {title} is {teacher.value:.3g}"
    found = ratio(student, teacher, seed)
    if found is None:
        its = teacher.interval(seed)
        return None, (f"retention cannot be measured: the teacher's {title} ({_number(metric, its.value)}, 95 % interval "
                      f"{_range(metric, its.low, its.high)}) may be zero")
    return found, None


def distillation_ratio(
    metric: Metric, teacher: Sampled, student: Sampled, baseline: Sampled, seed: int = 0
) -> tuple[Interval | None, str | None]:
    """(student - baseline) / (teacher - baseline), or None and a note that says why it is not defined, or not measurable."""
    lead = teacher - baseline
    if not (lead.value > 0 if metric.higher_is_better else lead.value < 0):
        return None, ("distillation ratio is not defined: the teacher is no better than the baseline "
                      "(the student trained on labels alone), so there is nothing to gain a part of")
    its = f"the teacher's lead over the baseline ({_points(metric, abs(lead.value))}"
    if abs(lead.value) < LEAD * lead.error():
        error = _number(metric, lead.error(), 2)
        return None, (f"distillation ratio is not measurable: {its}, standard error {error}) is below {LEAD:g} standard "
                      "errors, so that a part of it is mostly chance. More test examples or more seeds may show one")
    found = ratio(student - baseline, lead, seed)
    if found is None:
        whole = lead.interval(seed)
        return None, (f"distillation ratio is not measurable: {its}, 95 % interval {_range(metric, whole.low, whole.high)}) "
                      f"may be zero for other seeds, of which {len(lead.values)} say little. More seeds may show one")
    return found, None


def advice(difference: Interval | None, *, higher_is_better: bool) -> str:
    """Which model to deploy, by student minus baseline on validation data: the student, unless it is worse beyond noise."""
    if difference is None:
        return "student"
    return "baseline" if (difference.high < 0 if higher_is_better else difference.low > 0) else "student"


def verdict(outcome: Outcome) -> str:
    """What the student keeps, what it saves, and whether distillation was worth it."""
    if outcome.teacher is None or outcome.teacher_cost is None:
        return f"{_alone(outcome)}; {_gained(outcome)}.{_choice(outcome)}"
    return f"{_kept(outcome, outcome.teacher)} {_saved(outcome.teacher_cost, outcome.student_cost)}; " \
           f"{_gained(outcome)}.{_choice(outcome)}"


def _alone(outcome: Outcome) -> str:
    """Without a teacher that could have been measured."""
    seeds = f" (mean of {outcome.seeds} seeds)" if outcome.seeds > 1 else ""
    value = f"{_number(outcome.metric, outcome.student)}{' %' if is_fraction(outcome.metric.name) else ''}"
    known = outcome.teacher_cost is not None and outcome.teacher_cost.parameters is not None
    its = "its teacher" if known else "its teacher is known by its answers alone, and"
    return f"The student's {metric_title(outcome.metric.name)} is {value}{seeds}; {its} was not measured beside it"


def _kept(outcome: Outcome, teacher: float) -> str:
    title = metric_title(outcome.metric.name)
    seeds = f" (mean of {outcome.seeds} seeds)" if outcome.seeds > 1 else ""
    if outcome.retention is None:
        return f"The student's {title} is {outcome.student:.3g}{seeds} against the teacher's {teacher:.3g},"
    kept = outcome.retention.value
    verb = "reaches" if kept > 1 else "keeps"
    return f"The student {verb} {100 * kept:.1f} % of the teacher's {title}{seeds}"


def _saved(teacher: Cost, student: Cost) -> str:
    """'with 4.1× fewer parameters and 3.0× the speed'; ratios under 1.05 are called the same."""
    if teacher.parameters is None or student.parameters is None:
        return "from answers alone"
    fewer = teacher.parameters / max(student.parameters, 1)
    if fewer >= 1.05:
        size = f"{_times(fewer)} fewer parameters"
    elif fewer <= 1 / 1.05:
        size = f"{_times(1 / fewer)} as many parameters"
    else:
        size = "as many parameters"
    if teacher.latency_median_ms is None or not student.latency_median_ms or teacher.unsteady or student.unsteady:
        return f"with {size}"
    faster = teacher.latency_median_ms / student.latency_median_ms
    speed = "the same speed" if 1 / 1.05 < faster < 1.05 else f"{_times(faster)} the speed"
    return f"with {size} and {speed}"


def _gained(outcome: Outcome) -> str:
    metric, difference = outcome.metric, outcome.difference
    if difference is None:
        return "it was not compared with training on labels alone"
    sign = 1 if metric.higher_is_better else -1
    low, high = sorted((sign * difference.low, sign * difference.high))
    gain, interval = sign * difference.value, f"95 % interval {_range(metric, low, high)}"
    if not difference.excludes_zero():
        return ("no difference measured between distillation and training on labels alone "
                f"({_points(metric, gain)}, {interval})")
    if low > 0:
        return f"distillation gained {_points(metric, gain)} over training on labels alone ({interval})"
    return (f"distillation lost {_points(metric, -gain)} against training on labels alone "
            f"(95 % interval of the loss {_range(metric, -high, -low)})")


def _choice(outcome: Outcome) -> str:
    """Only where the student is not what should be deployed. Test data must not choose."""
    metric, difference = outcome.metric, outcome.chosen_by
    if difference is None or advice(difference, higher_is_better=metric.higher_is_better) == "student":
        return ""
    low, high = sorted((abs(difference.low), abs(difference.high)))
    return (f" Deploy the baseline: on validation data, labels alone are better by {_points(metric, abs(difference.value))} "
            f"(95 % interval {_range(metric, low, high)}). `stilla export RUN --model baseline` writes it.")


def _points(metric: Metric, value: float) -> str:
    """Fractions in percentage points, other measures in their own unit."""
    return f"{_number(metric, value)} points" if is_fraction(metric.name) else _number(metric, value)


def _range(metric: Metric, low: float, high: float) -> str:
    return f"{_number(metric, low)} to {_number(metric, high)}"


def _number(metric: Metric, value: float, decimals: int = 1) -> str:
    text = f"{100 * value:.{decimals}f}" if is_fraction(metric.name) else f"{value:.3g}"
    # '-0.0' says nothing
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def _times(ratio: float) -> str:
    return f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:,.0f}×"
