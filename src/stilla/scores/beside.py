"""What is measured beside the headline: parts of the data, what is left of another task, what answers rest on, groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainValidator

from stilla import views
from stilla.scores.values import Interval
from stilla.views import Checked, View


@dataclass(frozen=True)
class Part(Checked):
    """Some of what was measured, by itself, on the headline metric: a slice of the headline split, or data from elsewhere.

    `column`, `name`: a slice's column and value; of data from elsewhere the column is empty. `quality`: by subject, without
    those for which it is not defined there. `gap`: student minus teacher, `difference`: student minus baseline, paired.
    `beyond`: the gap here minus that on the whole headline split; its interval is wide enough for all parts that were looked
    at to hold at once in 95 of 100 cases. All three are `None` where there are too few examples to compare.
    """

    column: str
    name: str
    examples: int
    quality: Mapping[str, Interval]
    gap: Interval | None = None
    difference: Interval | None = None
    beyond: Interval | None = None


@dataclass(frozen=True)
class Kept(Checked):
    """What is left of the task that a student was made for before it learnt this one, on that task's own data and metric:
    of that student, and `after`, as it is where the labels are the same (`whole`), else its body under the head of then."""

    run: str
    task: str
    metric: str
    split: str
    examples: int
    before: Interval
    after: Mapping[str, Interval]
    lost: Mapping[str, Interval]
    whole: bool


@dataclass(frozen=True)
class Best(Checked):
    """Which weights of a training were kept: those after so many `passes` of the `of` that it made, as its `metric` on
    validation data was best there: `value`."""

    passes: float
    of: float
    metric: str
    value: float


@dataclass(frozen=True)
class Adapted(Checked):
    """How good a teacher was on so many validation examples, by the headline metric, before and after it was adapted to the
    (first) student along that one's training."""

    metric: str
    examples: int
    before: float
    after: float


@dataclass(frozen=True)
class Reason(Checked):
    """An example (`key`: its row in its file) with what each answer to it rests on, and how far that agrees with the
    teacher's."""

    key: str
    shown: Annotated[View, PlainValidator(views.view_of)]
    label: str
    agreement: Mapping[str, float]


@dataclass(frozen=True)
class Reasons(Checked):
    """Whether answers rest on what the teacher's do: by subject, over examples, Spearman's correlation of integrated
    gradients of the teacher's class. `ceiling`: that of the teacher trained once more with another seed."""

    examples: int
    steps: int
    agreement: Mapping[str, Interval]
    ceiling: Interval | None = None
    shown: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Group(Checked):
    """A group of examples that has a part of the student to itself, on the headline metric.

    `learnt`: from so many training examples. `difference`: its part minus the shared student, paired; its interval is wide
    enough for all groups to hold at once in 95 of 100 cases. `outcome`: `win`, `tie` or `loss`; neither, and no difference,
    where there are too few examples.
    """

    name: str
    learnt: int
    examples: int
    student: Interval
    personal: Interval
    difference: Interval | None
    outcome: str


@dataclass(frozen=True)
class Grouped(Checked):
    """Parts of the student for groups (values of the column `by`) against the shared student, on the headline split.

    `cold`: examples of nobody who has a part. `won`, `tied`, `lost`: of the others (`units`), by the metric of each alone;
    `None` where that says nothing of one. `difference`: of all examples. `parts`: how many there are, each of so many
    `numbers` and bytes (`size`).
    """

    by: str
    groups: tuple[Group, ...]
    cold: int
    units: str
    won: int | None
    tied: int | None
    lost: int | None
    difference: Interval
    parts: int
    numbers: int
    size: int
