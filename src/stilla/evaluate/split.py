"""All that is computed on one split: each exam's metrics, agreement, KL, calibration, flips, on the same resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from stilla.evaluate.calibration import calibration
from stilla.evaluate.fidelity import AGREEMENT, flip_kinds, flips
from stilla.evaluate.paired import over_examples
from stilla.evaluate.quality import Asked, Resampling, Sampled, bootstrap
from stilla.scores import MODELS, Calibration, ClassScore, Flip, Interval, PairedTest, Sample
from stilla.tasks.answers import Answers, Decisions, Metric, Statistics
from stilla.tasks.exam import Exam, any_of

Subjects = Mapping[str, Sequence[Answers]]
"""By subject, one per seed."""


class Sitting:
    """One exam on one split."""

    def __init__(self, exam: Exam, subjects: Subjects, resamples: int, seed: int) -> None:
        self.exam, self.subjects, self.seed = exam, subjects, seed
        every = [one for seeds in subjects.values() for one in seeds]
        self.examples, self.keys = len(every[0]), every[0].keys
        self.comparable = exam.comparable(every)
        self.metrics = exam.metrics() if self.comparable else ()
        self.resampling = Resampling(self.examples, resamples, seed)
        self.sampled = bootstrap(self._asked(), self.resampling)

    def statistics(self, subject: str, metric: Metric) -> list[Statistics]:
        """What the metric needs of every example, a seed each."""
        return [metric.statistics(one.given, one.references) for one in self.subjects[subject]]

    def on_rows(self, metric: Metric, rows: Mapping[str, NDArray[np.int64]]) -> dict[tuple[str, str], Sampled]:
        """The metric of every subject on parts of the examples, by subject and part, on the resamples of all; a subject at a
        time, as statistics may be large."""
        found: dict[tuple[str, str], Sampled] = {}
        for subject in self.subjects:
            statistics = self.statistics(subject, metric)
            found |= bootstrap({(subject, name): Asked(metric, statistics, one) for name, one in rows.items()},
                               self.resampling)
        return found

    def exchanged(self, metric: Metric) -> PairedTest | None:
        """Student and baseline, their answers to an example exchanged at random."""
        student, baseline = (self.statistics(one, metric) for one in ("student", "baseline"))
        return over_examples(metric, student, baseline, draws=self.resampling.count, seed=self.seed)

    @cached_property
    def decided(self) -> dict[str, list[Decisions]]:
        """By subject and seed; empty where nothing is decided."""
        found = {subject: [self.exam.decisions(one) for one in seeds] for subject, seeds in self.subjects.items()}
        return {subject: decisions for subject, seeds in found.items()
                if len(decisions := [one for one in seeds if one is not None]) == len(seeds)}

    def _asked(self) -> dict[tuple[str, str], Asked]:
        """Every metric of every subject, and the agreement of every other subject with the teacher."""
        asked = {(subject, metric.name): Asked(metric, self.statistics(subject, metric))
                 for subject in self.subjects for metric in self.metrics}
        if self.comparable and "teacher" in self.decided:
            (teacher, *_) = self.decided["teacher"]
            asked |= {(subject, AGREEMENT.name): Asked(AGREEMENT, [one.matches(teacher, self.examples) for one in seeds])
                      for subject, seeds in self.decided.items() if subject != "teacher"}
        return asked

    def kl(self, subject: str) -> float | None:
        """KL(teacher || subject) in nats, mean of examples (or units) and seeds; None for the teacher, or where there is
        none."""
        if subject == "teacher" or "teacher" not in self.subjects or subject not in self.subjects or not self.comparable:
            return None
        (teacher, *_) = self.subjects["teacher"]
        found = [self.exam.divergence(teacher, one) for one in self.subjects[subject]]
        means = [float(one.mean()) for one in found if one is not None and len(one)]
        return float(np.mean(means)) if means else None

    def calibration(self, subject: str) -> Calibration | None:
        """Over all decisions of all seeds; None where no confidence is said, or nothing decided."""
        confidences, right = [], []
        for one in self.decided.get(subject, ()):
            if one.confidence is None:
                return None
            there = one.there()
            confidences.append(one.confidence[there])
            right.append((one.decided == one.references)[there])
        every = np.concatenate(confidences) if confidences else np.zeros(0)
        return calibration(every, np.concatenate(right)) if len(every) else None

    def classes(self) -> tuple[ClassScore, ...]:
        """By subject the mean over its seeds; without those for which it is not defined."""
        found = {subject: [self.exam.by_class(one) for one in seeds] for subject, seeds in self.subjects.items()}
        values = {subject: [one for one in seeds if one is not None] for subject, seeds in found.items()}
        if not self.comparable or not all(values.values()):
            return ()
        means = {subject: np.mean([one.values for one in seeds], axis=0) for subject, seeds in values.items()}
        first = next(iter(values.values()))[0]
        return tuple(ClassScore(name, int(number), {subject: float(one[index]) for subject, one in means.items()
                                                    if np.isfinite(one[index])})
                     for index, (name, number) in enumerate(zip(first.names, first.support)))

    def flips(self, split: Dataset) -> tuple[dict[str, int], tuple[Flip, ...]]:
        """Numbers by kind, and the decisions to show, of the first seed of every subject."""
        first = {subject: seeds[0] for subject, seeds in self.decided.items()}
        if not self.comparable or not {"teacher", "student"} <= set(first):
            return {}, ()
        kinds = flip_kinds(first["teacher"], first["student"])
        shown = flips(kinds, first, {one: self.subjects[one][0] for one in ("teacher", "student")}, self.exam, split)
        return {kind: len(units) for kind, units in kinds.items()}, shown


    def samples(self, split: Dataset) -> tuple[Sample, ...]:
        """As many as the exam shows, from all over the split, with what the first seed of every model answered."""
        first = {subject: seeds[0] for subject, seeds in self.subjects.items() if subject in MODELS}
        keys = any_of(first).keys
        some = np.unique(np.linspace(0, len(keys) - 1, min(self.exam.samples, len(keys))).astype(int)).tolist()
        return tuple(Sample(str(keys[one]), self.exam.view(split, first, one, 0)) for one in some)


class Split:
    """All exams on one split. What is said once (agreement, KL, calibration, flips, classes) is of the first exam that says
    it."""

    def __init__(self, examined: Sequence[tuple[Exam, Subjects]], resamples: int, seed: int) -> None:
        self.sittings = [Sitting(exam, subjects, resamples, seed) for exam, subjects in examined if subjects]
        self.subjects = {subject for one in self.sittings for subject in one.subjects}
        self.examples = max(one.examples for one in self.sittings)
        self.metrics: tuple[Metric, ...] = tuple(metric for one in self.sittings for metric in one.metrics)
        self.sampled: dict[tuple[str, str], Sampled] = {}
        for one in reversed(self.sittings):
            self.sampled |= one.sampled

    def is_defined(self, metric: Metric) -> bool:
        """Whether every subject that was asked has a finite value for every seed."""
        values = [one.values for (_, name), one in self.sampled.items() if name == metric.name]
        return bool(values) and all(bool(np.isfinite(one).all()) for one in values)

    def concerns(self, metric: Metric) -> bool:
        """Whether it says anything of what was answered here."""
        sitting = self.sitting(metric)
        return sitting is not None and sitting.exam.concerns(metric, next(iter(sitting.subjects.values()))[0])

    def has(self, subject: str, metric: Metric) -> bool:
        """Whether the subject was measured by it: not every file can write."""
        return (subject, metric.name) in self.sampled and self.is_defined(metric)

    def sitting(self, metric: Metric) -> Sitting | None:
        """The exam that measures it."""
        return next((one for one in self.sittings if metric.name in [known.name for known in one.metrics]), None)

    def gap(self, metric: Metric) -> Sampled | None:
        """Student minus teacher; None where there is no teacher that could be measured."""
        teacher = self.sampled.get(("teacher", metric.name))
        return None if teacher is None else self.sampled["student", metric.name] - teacher

    def difference(self, metric: Metric) -> Sampled | None:
        """Student minus baseline; None where one of them was not measured by it."""
        both = [self.sampled[name, metric.name] for name in ("student", "baseline") if self.has(name, metric)]
        return both[0] - both[1] if len(both) == 2 else None

    def agreement(self, subject: str, seed: int) -> Interval | None:
        sampled = self.sampled.get((subject, AGREEMENT.name))
        return sampled.interval(seed) if sampled is not None and np.isfinite(sampled.value) else None

    def kl(self, subject: str) -> float | None:
        return next((found for one in self.sittings if (found := one.kl(subject)) is not None), None)

    def calibration(self, subject: str) -> Calibration | None:
        return next((found for one in self.sittings if (found := one.calibration(subject)) is not None), None)

    def classes(self) -> tuple[str, tuple[ClassScore, ...]]:
        """What is measured of each class, and the classes."""
        return next(((one.exam.class_metric, found) for one in self.sittings if (found := one.classes())), ("", ()))

    def units(self) -> tuple[str, int]:
        """What is decided, and how many of it."""
        deciding = self._deciding()
        if deciding is None:
            return "examples", self.examples
        return deciding.exam.units, len(next(iter(deciding.decided.values()))[0])

    def flips(self, split: Dataset) -> tuple[dict[str, int], tuple[Flip, ...]]:
        deciding = self._deciding()
        return ({}, ()) if deciding is None else deciding.flips(split)

    def samples(self, split: Dataset) -> tuple[Sample, ...]:
        """Examples from all over the split, with what the first seed of every model answered."""
        return next((found for one in self.sittings if one.exam.samples and (found := one.samples(split))), ())

    def _deciding(self) -> Sitting | None:
        return next((one for one in self.sittings if one.comparable and one.decided), None)
