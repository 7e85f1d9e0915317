"""How models of several tasks are judged: each task by its own exam, and all by how much of their teachers they keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.data import part_of
from stilla.signals import Batch, Side
from stilla.tasks.answers import Answers, Given, Metric, Statistics
from stilla.tasks.exam import Exam, ForwardExam
from stilla.tasks.several.batching import parts_of, places_in
from stilla.views import View

RETENTION, MEAN = "mean_retention", "mean"


@dataclass(frozen=True)
class SeveralExam(ForwardExam):
    """An answer says which task's it is, what the model said, and what the teacher said of the same example, if it was asked
    beside: `{part, said, teacher}`.

    `exams`: of the tasks. `beside_teacher`: whether the first metric is the mean of what is kept of the teachers (only known
    beside them); else it is the mean of the tasks' first metrics, by which a training may be followed.
    """

    exams: Mapping[str, ForwardExam]
    beside_teacher: bool = False

    def outputs(self, outputs: Any) -> Tensor:
        logits: Tensor = outputs["logits"]
        return logits

    def ask(self, forward: Any, batch: Batch, side: Side) -> dict[str, Any]:
        """By task what its own exam gets of a model."""
        inputs = batch[side.value]
        said = forward(**inputs)["parts"] if isinstance(forward, nn.Module) else forward(inputs)
        return {name: self.exams[name].ask(_Said(said[name]), own, side) for name, own in parts_of(batch).items()}

    def given(self, said: Any, batch: Batch, teacher: Any | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{}] * sum(len(places) for places in places_in(batch).values())
        for name, own in parts_of(batch).items():
            theirs = None if teacher is None else teacher[name]
            answers = list(self.exams[name].given(said[name], own, theirs))
            beside = answers if theirs is None else list(self.exams[name].given(theirs, own, None))
            for place, one, other in zip(places_in(batch)[name], answers, beside, strict=True):
                found[place] = {"part": name, "said": one, "teacher": other}
        return found

    def joined(self, parts: Sequence[Given], *, references: bool = False) -> list[Any]:
        return [one for part in parts for one in part]

    def finished(self, answers: Answers) -> Answers:
        """One answer to every example, as each task's exam makes it of what it was given (of a long text's windows)."""
        keys, given, references = [], list[Any](), list[Any]()
        for name, exam in self.exams.items():
            rows = _rows(answers.given, name)
            if not len(rows):
                continue
            some = answers.of(rows)
            own, theirs = (exam.finished(some.but(_joined(exam, [one[whose] for one in some.given])))
                           for whose in ("said", "teacher"))
            keys.append(own.keys)
            given += [{"part": name, "said": one, "teacher": other}
                      for one, other in zip(own.given, theirs.given, strict=True)]
            references += list(own.references)
        return Answers(np.concatenate(keys), given, references)

    def settled(self, answers: Answers, validation: Answers) -> Answers:
        given = list(answers.given)
        for name, exam in self.exams.items():
            rows = _rows(answers.given, name)
            for whose in ("said", "teacher"):
                own = exam.settled(self._of(name, answers, whose), self._of(name, validation, whose))
                for row, one in zip(rows, own.given, strict=True):
                    given[row] = {**given[row], whose: one}
        return answers.but(given)

    def parts(self) -> Mapping[str, Exam]:
        return self.exams

    def of_part(self, name: str, answers: Answers) -> Answers:
        return self._of(name, answers, "said")

    def split_of(self, name: str, split: Dataset, answers: Answers) -> tuple[Dataset, Answers]:
        """One task's examples, and the answers to them, by their place among these."""
        own, rows = part_of(split, name)
        said = self.of_part(name, answers)
        return own, Answers(np.searchsorted(rows, said.keys), said.given, said.references)

    def metrics(self) -> tuple[Metric, ...]:
        own = [_of_part(name, metric, exam) for name, exam in self.exams.items() for metric in exam.metrics()]
        return (_retained(self.exams) if self.beside_teacher else _mean(self.exams), *own)

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        """Of every example or unit, weighed so that its mean is the mean over the tasks that have distributions."""
        each = [exam.divergence(self.of_part(name, teacher), self.of_part(name, answers))
                for name, exam in self.exams.items()]
        there = [one for one in each if one is not None and len(one)]
        total = sum(len(one) for one in there)
        return np.concatenate([one * (total / (len(there) * len(one))) for one in there]) if there else None

    def constant(self, answers: Answers) -> None:
        """Every task has its own chance."""

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> None:
        """Answers to examples of another task mean nothing."""

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> View:
        raise AssertionError("nothing is decided over several tasks")

    def _of(self, name: str, answers: Answers, whose: str) -> Answers:
        rows = _rows(answers.given, name)
        some, exam = answers.of(rows), self.exams[name]
        return Answers(some.keys, _joined(exam, [one[whose] for one in some.given]),
                       _joined(exam, list(some.references), references=True))


class _Said(nn.Module):
    """What a head has said, as a model that says it."""

    def __init__(self, said: Any) -> None:
        super().__init__()
        self.said = said

    def forward(self, **_: Any) -> Any:
        return self.said


def _rows(given: Given, name: str) -> NDArray[np.int64]:
    return np.flatnonzero([one["part"] == name for one in given])


def _joined(exam: ForwardExam, values: list[Any], *, references: bool = False) -> Given:
    """Answers or references, one each, as the exam has those of batches."""
    if not values or not all(isinstance(one, np.ndarray | np.generic) for one in values):
        return values
    return exam.joined([np.asarray(one)[None] for one in values], references=references)


def _statistics(exam: ForwardExam, metric: Metric, name: str, given: Given, references: Given, whose: str) -> Statistics:
    """Of one task's examples."""
    rows = _rows(given, name)
    return metric.statistics(_joined(exam, [given[row][whose] for row in rows]),
                             _joined(exam, [references[row] for row in rows], references=True))


def _of_part(name: str, metric: Metric, exam: ForwardExam) -> Metric:
    """The metric of one task's examples, among those of all."""
    kind: dict[str, Any] = {"higher_is_better": metric.higher_is_better, "bounded": metric.bounded, "limits": metric.limits}

    def table(given: Given, references: Given) -> Statistics:
        """Zero, which no sum sees, at the other tasks' examples."""
        return _placed([(_rows(given, name), _statistics(exam, metric, name, given, references, "said"))], len(given))

    def listed(given: Given, references: Given) -> Statistics:
        own = iter(_statistics(exam, metric, name, given, references, "said"))
        return [(next(own),) if one["part"] == name else () for one in given]

    def of_own(found: Any, counts: NDArray[np.int64]) -> float:
        assert metric.from_list is not None
        there = [row for row, one in enumerate(found) if one]
        return metric.from_list(np.array([found[row][0] for row in there]), counts[there])

    if metric.from_sums is not None:
        return Metric(f"{name}/{metric.name}", table, metric.from_sums, **kind)
    return Metric(f"{name}/{metric.name}", listed, from_list=of_own, **kind)


def _mean(exams: Mapping[str, ForwardExam]) -> Metric:
    """The mean of the tasks' first metrics: what says which of a training's checkpoints is best, and nothing else."""
    return _over_tasks(MEAN, exams, ("said",), lambda metric, own: own if metric.higher_is_better else -own)


def _retained(exams: Mapping[str, ForwardExam]) -> Metric:
    """The mean over tasks of student / teacher by each one's first metric (teacher / student where less is better)."""
    return _over_tasks(RETENTION, exams, ("said", "teacher"), _kept)


def _kept(metric: Metric, own: float, teachers: float) -> float:
    above, below = (own, teachers) if metric.higher_is_better else (teachers, own)
    return above / below if below > 0 else math.nan


def _over_tasks(name: str, exams: Mapping[str, ForwardExam], whose: tuple[str, ...], value: Callable[..., float]) -> Metric:
    """A mean over tasks of what each one's first metric says of these answers."""
    first = {part: next(one for one in exam.metrics() if one.from_sums is not None) for part, exam in exams.items()}
    widths: dict[str, int] = {}

    def statistics(given: Given, references: Given) -> Statistics:
        tables = []
        for part, metric in first.items():
            rows = _rows(given, part)
            each = [_flat(_statistics(exams[part], metric, part, given, references, one)) for one in whose]
            widths[part] = each[0].shape[1]
            tables += [(rows, one) for one in each]
        return _placed(tables, len(given), beside=True)

    def mean(sums: NDArray[Any]) -> float:
        values, start = [], 0
        for part, metric in first.items():
            assert metric.from_sums is not None
            own = []
            for _ in whose:
                own.append(metric.from_sums(sums[start : start + widths[part]]))
                start += widths[part]
            values.append(value(metric, *own))
        return float(np.mean(values))

    return Metric(name, statistics, mean, limits=(0.0, math.inf) if len(whose) > 1 else (-math.inf, math.inf),
                  bounded=len(whose) > 1)


def _placed(tables: Sequence[tuple[NDArray[np.int64], Any]], size: int, *, beside: bool = False) -> NDArray[np.float64]:
    """(size, columns) with each table's rows at their places, zero elsewhere; one table beside the other."""
    parts = []
    for rows, table in tables:
        flat = _flat(table)
        whole = np.zeros((size, flat.shape[1]))
        whole[rows] = flat
        parts.append(whole)
    return np.concatenate(parts, axis=1) if beside else parts[0]


def _flat(table: Any) -> NDArray[np.float64]:
    values = np.asarray(table, np.float64)
    return values.reshape(len(values), -1)
