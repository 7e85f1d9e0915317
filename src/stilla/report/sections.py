"""The page's sections that are not charts: large numbers, classes, and decisions that changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stilla.report import numbers
from stilla.report.charts.marks import mark_key, subject_style
from stilla.report.charts.strips import class_strip
from stilla.report.table import subject_title, verdict_on
from stilla.report.views import Drawn, draw
from stilla.scores import Flip, Scores, metric_title


@dataclass(frozen=True)
class Tile:
    """One of the few numbers that stand large under the verdict."""

    number: str
    words: str
    detail: str = ""


@dataclass(frozen=True)
class ClassRow:
    """One class: each subject's value of the metric of classes, the student's change from the teacher, and its strip."""

    name: str
    support: int
    values: tuple[float | None, ...]
    change: float | None
    change_text: str
    strip: Markup

    @property
    def direction(self) -> str:
        """'worse', 'better' or nothing; what is written as 0.000 is no change."""
        if self.change is None or abs(self.change) < 5e-4:
            return ""
        return "worse" if self.change < 0 else "better"


@dataclass(frozen=True)
class Answer:
    """What one model said to an example."""

    title: str
    mark: Markup
    prediction: str
    confidence: str
    right: bool


@dataclass(frozen=True)
class Decision:
    """A decision on which teacher and student differ, and what of the example is shown with it."""

    kind: str
    view: Drawn
    label: str
    answers: tuple[Answer, ...]


def tiles(scores: Scores) -> tuple[Tile, ...]:
    """Kept, won, smaller, faster, better than labels alone: what the run was for."""
    teacher, student = scores.subjects.get("teacher"), scores.subjects.get("student")
    found: list[Tile] = []
    if scores.retention is not None:
        found.append(Tile(numbers.percent(scores.retention.value), f"of the teacher’s {metric_title(scores.metric)}",
                          numbers.interval_of(scores.retention, numbers.percent)))
    if scores.ratio is not None:
        found.append(Tile(numbers.part(scores.ratio.value), "of the teacher’s lead over labels alone",
                          numbers.interval_of(scores.ratio, numbers.part)))
    if teacher and student:
        was, now = teacher.cost, student.cost
        found += _cost_tile(was.bytes, now.bytes, "smaller", "larger", "the same size", numbers.megabytes)
        if not (was.unsteady or now.unsteady):
            found += _cost_tile(was.latency_median_ms, now.latency_median_ms, "faster", "slower",
                                "the same speed", numbers.milliseconds)
    if scores.difference is not None:
        interval = numbers.difference_interval(scores.metric, scores.difference)
        number, _, unit = numbers.difference(scores.metric, scores.difference.value).partition(" ")
        found.append(Tile(number, f"{unit} against labels alone".strip(),
                          " · ".join(filter(None, (interval, verdict_on(scores.difference))))))
    return tuple(found)


def class_rows(scores: Scores) -> tuple[ClassRow, ...]:
    """Classes from the one that lost most to the one that gained most."""
    names, low = class_subjects(scores), class_axis_low(scores)
    rows = []
    for one in scores.classes:
        both = "teacher" in one.values and "student" in one.values
        change = one.values["student"] - one.values["teacher"] if both else None
        rows.append(ClassRow(
            one.name, one.support, tuple(one.values.get(name) for name in names), change,
            numbers.MISSING if change is None else numbers.signed(change, 3),
            class_strip(one.values, names, low)))
    return tuple(sorted(rows, key=lambda row: (row.change is None, row.change or 0.0, row.name)))


def class_subjects(scores: Scores) -> list[str]:
    present = {name for one in scores.classes for name in one.values}
    return [name for name in ("teacher", "baseline", "student") if name in present]


def class_axis_low(scores: Scores) -> float:
    """The strips start at a round number below the lowest value: 0.4 to 1 shows more than 0 to 1."""
    lowest = min((value for one in scores.classes for value in one.values.values()), default=0.0)
    return min(0.9, max(0.0, int(10 * lowest) / 10))


def class_summary(scores: Scores, rows: Sequence[ClassRow]) -> str:
    if "teacher" not in scores.subjects:
        return "The teacher was not measured by class."
    directions = [row.direction for row in rows if row.change is not None]
    falls, rises = directions.count("worse"), directions.count("better")
    return (f"From teacher to student, {metric_title(scores.class_metric)} falls in {falls} of {len(rows)} classes, "
            f"rises in {rises} and stays in {len(directions) - falls - rises}.")


def decisions(scores: Scores) -> tuple[Decision, ...]:
    return tuple(_decision(flip) for flip in scores.flips)


def _decision(flip: Flip) -> Decision:
    names = [name for name in ("teacher", "student") if name in flip.predictions]
    names += [name for name in flip.predictions if name not in names]
    return Decision(flip.kind, draw(flip.shown, flip.label), flip.label, tuple(_answer(flip, name) for name in names))


def samples(scores: Scores) -> tuple[Drawn, ...]:
    return tuple(draw(one.shown, one.key) for one in scores.samples)


@dataclass(frozen=True)
class Rests:
    """An example with what answers to it rest on."""

    view: Drawn
    label: str
    agreement: str


def reasons(scores: Scores) -> tuple[Rests, ...]:
    """Examples on which student and teacher agree least, then most."""
    if scores.reasons is None:
        return ()
    return tuple(Rests(draw(one.shown, one.label), one.label, ", ".join(
        f"{subject_title(name)} {value:+.2f}" for name, value in one.agreement.items())) for one in scores.reasons.shown)


def _answer(flip: Flip, name: str) -> Answer:
    confidence = flip.confidences.get(name)
    return Answer(subject_title(name), mark_key(subject_style(name)), flip.predictions[name],
                  "" if confidence is None else numbers.percent(confidence, 0),
                  flip.predictions[name] == flip.label)


def _cost_tile(teacher: float | None, student: float | None, less: str, more: str, same: str,
               text: Callable[[float], str]) -> list[Tile]:
    if not teacher or not student:
        return []
    number, _, words = numbers.compared(student, teacher, less, more, f"≈ {same}").partition(" ")
    return [Tile(number, words, f"{text(teacher)} → {text(student)}")]
