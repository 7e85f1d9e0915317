"""From predictions and costs to `Scores`: every number of the report, computed in one place.

Of several seeds, intervals, KL and class scores are means over all; calibration pools their decisions; the
flipped examples are those of the first, the model that is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset

from stilla.errors import RecipeError, StillaError, all_of, did_you_mean, one_of
from stilla.evaluate.calibration import calibration
from stilla.evaluate.fidelity import (
    AGREEMENT,
    Decisions,
    class_scores,
    decide,
    decide_tokens,
    distributions,
    flip_kinds,
    flips,
    kl_divergence,
)
from stilla.evaluate.predict import Predictions
from stilla.evaluate.quality import Asked, Resampling, bootstrap
from stilla.evaluate.tokens import flipped_tokens
from stilla.evaluate.verdict import Outcome, distillation_ratio, retention, verdict
from stilla.scores import Calibration, ClassScore, Cost, Flip, Interval, Measured, Scores, metric_title
from stilla.tasks.base import Metric, Task
from stilla.tasks.language.vocabulary import DIVERGENCE
from stilla.tasks.language.writing import Writes
from stilla.tasks.text.sequences import NO_ROW

AllPredictions = Mapping[str, Mapping[str, Sequence[Predictions]]]
"""By subject, then by split, one per seed."""


def make_scores(
    task: Task,
    splits: Mapping[str, Dataset],
    predictions: AllPredictions,
    costs: Mapping[str, Cost],
    *,
    metric: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    notes: Sequence[str] = (),
    texts: AllPredictions | None = None,
    text_metrics: Sequence[Metric] = (),
) -> Scores:
    """Compare `teacher`, `student`, `baseline` (if there is one) and any other subjects.

    Args:
        splits: the data themselves, to show examples from. Headline numbers come from `test` if it is among
            the student's splits, else from `validation`, else from its first.
        costs: of every subject.
        metric: the headline metric; by default the task's first.
        notes: said by earlier stages, to be kept with the scores.
        texts: what subjects wrote, as arrays of strings, with the references as labels; not every subject has to.
        text_metrics: by what texts are measured.

    Raises:
        RecipeError: the task has no such metric.
        StillaError: teacher or student is missing; predictions are not finite, or answer for other examples.
    """
    _check(predictions)
    if texts:
        _check(texts)
    said = list(notes)
    headline = _headline_split(predictions["student"])
    by_split = {split: _Split(task, split, predictions, resamples, seed, texts or {}, text_metrics)
                for split in _splits(predictions)}
    metrics = _metrics(metric, by_split[headline], said)
    chosen = metrics[0]
    measured = {name: _measured(name, by_split, metrics, costs[name], headline, seed) for name in predictions}
    said += [f"{metric_title(one.name)} is not defined on {split} for every subject and is left out"
             for split, data in by_split.items() for one in data.metrics if not data.is_defined(one)]
    said += _disturbed(costs)
    headlines = by_split[headline].sampled
    teacher, student = headlines["teacher", chosen.name], headlines["student", chosen.name]
    baseline = headlines.get(("baseline", chosen.name))
    kept, why = retention(chosen, teacher.value, student.value)
    difference, ratio, caveat = None, None, None
    if baseline is not None:
        difference = (student - baseline).interval(seed)
        lead = (teacher - baseline).interval(seed)
        ratio, caveat = distillation_ratio(chosen, student.value, baseline.value, lead)
    outcome = Outcome(chosen, teacher.value, student.value, kept, difference,
                      costs["teacher"], costs["student"], seeds=len(student.values))
    flipped, shown = by_split[headline].flips(splits[headline])
    return Scores(
        task=task.kind,
        metric=chosen.name,
        higher_is_better=chosen.higher_is_better,
        split=headline,
        examples={split: data.examples for split, data in by_split.items()},
        subjects=measured,
        gap=(student - teacher).interval(seed),
        difference=difference,
        retention=kept,
        distillation_ratio=ratio,
        verdict=verdict(outcome),
        notes=(*said, *(note for note in (why, caveat) if note)),
        flipped=flipped,
        flips=shown,
        classes=by_split[headline].classes(),
        tokens=by_split[headline].tokens(),
    )


def _disturbed(costs: Mapping[str, Cost]) -> list[str]:
    """Speeds that nobody should rely on."""
    names = [name for name, cost in costs.items() if cost.unsteady and name != "baseline"]  # whose are the student's
    if not names:
        return []
    return [f"speed: the machine was busy when it was measured (single calls of {all_of(names)} took very different "
            "times), so it says little; `stilla evaluate RUN` measures again"]


class _Split:
    """Everything that is computed on one split, on one set of resamples."""

    def __init__(self, task: Task, name: str, predictions: AllPredictions, resamples: int, seed: int,
                 texts: AllPredictions, text_metrics: Sequence[Metric]) -> None:
        self.task = task
        self.subjects = {subject: splits[name] for subject, splits in predictions.items() if name in splits}
        first = next(iter(self.subjects.values()))[0]
        self.keys, self.labels, self.examples = first.keys, first.labels, len(first)
        self.probabilities = {subject: [distributions(task, one) for one in seeds]
                              for subject, seeds in self.subjects.items()}
        self.texts = {subject: splits[name] for subject, splits in texts.items() if name in splits}
        of_texts = tuple(text_metrics) if self.texts else ()
        # what is written is what counts where writing is the task
        first_texts = isinstance(task, Writes) and bool(task.text_metrics())
        # perplexities over two vocabularies say nothing about each other
        self.shared = not task.vocabulary or self._is_shared()
        self.own = task.metrics() if self.shared else ()
        self.metrics = (*of_texts, *self.own) if first_texts else (*self.own, *of_texts)
        self.sampled = bootstrap(self._asked(), Resampling(self.examples, resamples, seed))
        for written in list(self.texts.values())[:1]:  # maybe of fewer examples, so drawn by themselves
            asked = {(subject, metric.name): Asked(metric, [(one.outputs, one.labels) for one in seeds])
                     for subject, seeds in self.texts.items() for metric in of_texts}
            self.sampled |= bootstrap(asked, Resampling(len(written[0]), resamples, seed))

    def _is_shared(self) -> bool:
        """Whether all subjects answer for the same labels: not where teacher and student read other tokens."""
        every = [one.labels for seeds in self.subjects.values() for one in seeds]
        return all(one.shape == self.labels.shape and np.array_equal(one, self.labels) for one in every[1:])

    def _asked(self) -> dict[tuple[str, str], Asked]:
        """Every metric of every subject, and the agreement of every other subject with the teacher."""
        asked = {(subject, metric.name): Asked(metric, [(one.outputs, one.labels) for one in seeds])
                 for subject, seeds in self.subjects.items() for metric in self.own}
        decided = self.decided()
        if "teacher" in decided and self.shared:
            teacher = decided["teacher"][0].decided
            asked |= {(subject, AGREEMENT.name): Asked(AGREEMENT, [(one.decided, teacher) for one in seeds])
                      for subject, seeds in decided.items() if subject != "teacher"}
        return asked

    def decided(self) -> dict[str, list[Decisions]]:
        """Decisions by subject and seed; nothing for regression."""
        if self.task.vocabulary:
            return {subject: [decide_tokens(one.outputs, one.labels) for one in seeds]
                    for subject, seeds in self.subjects.items()}
        return {subject: [decide(one) for one in seeds if one is not None]
                for subject, seeds in self.probabilities.items() if seeds[0] is not None}

    def is_defined(self, metric: Metric) -> bool:
        """Whether every subject that was asked has a finite value for every seed."""
        values = [one.values for (_, name), one in self.sampled.items() if name == metric.name]
        return bool(values) and all(bool(np.isfinite(one).all()) for one in values)

    def has(self, subject: str, metric: Metric) -> bool:
        """Whether the subject was measured by it: not every file can write."""
        return (subject, metric.name) in self.sampled and self.is_defined(metric)

    def agreement(self, subject: str, seed: int) -> Interval | None:
        sampled = self.sampled.get((subject, AGREEMENT.name))
        return None if sampled is None else sampled.interval(seed)

    def kl(self, subject: str) -> float | None:
        """KL(teacher || subject) in nats, mean of examples (or tokens) and seeds; None for the teacher and regression."""
        if self.task.vocabulary:
            return self._kl_of_rows(subject)
        reference = self.probabilities.get("teacher", [None])[0]
        if reference is None or subject == "teacher":
            return None
        seeds = [one for one in self.probabilities[subject] if one is not None]
        return float(np.mean([kl_divergence(reference, one) for one in seeds]))

    def calibration(self, subject: str) -> Calibration | None:
        """Over all decisions of all seeds; None for regression."""
        seeds = self.decided().get(subject)
        if not seeds:
            return None
        there = [one.decided != NO_ROW for one in seeds]
        labels = [one.labels for one in self.subjects[subject]]
        return calibration(np.concatenate([one.confidence[rows] for one, rows in zip(seeds, there)]),
                           np.concatenate([(one.decided == own)[rows] for one, own, rows in zip(seeds, labels, there)]))

    def _kl_of_rows(self, subject: str) -> float | None:
        """The mean over all rows of what was measured beside the teacher."""
        seeds = [one for one in self.subjects[subject] if one.outputs.shape[-1] > DIVERGENCE]
        if not seeds:
            return None
        there = self.labels != NO_ROW
        return float(np.mean([one.outputs[..., DIVERGENCE][there].astype(np.float64).mean() for one in seeds]))

    def classes(self) -> tuple[ClassScore, ...]:
        names = self.task.class_names()
        decided = {subject: [one.decided for one in seeds] for subject, seeds in self.decided().items()}
        return class_scores(names, self.labels, decided) if decided and names else ()

    def tokens(self) -> int:
        """How many tokens are decided, of a vocabulary; else 0."""
        return int((self.labels != NO_ROW).sum()) if self.task.vocabulary and self.shared else 0

    def flips(self, data: Dataset) -> tuple[dict[str, int], tuple[Flip, ...]]:
        """Numbers by kind, and the examples to show; nothing for regression."""
        decided = {subject: seeds[0] for subject, seeds in self.decided().items()}
        if not decided or not self.shared:
            return {}, ()
        if self.task.vocabulary:
            return flipped_tokens(self.task, decided, self.labels)
        kinds = flip_kinds(decided["teacher"], decided["student"], self.labels)
        shown = flips(kinds, decided, self.keys, self.labels, self.task.class_names(),
                      lambda key: self.task.show(data, key))
        return {kind: len(positions) for kind, positions in kinds.items()}, shown


def _measured(
    name: str,
    by_split: Mapping[str, _Split],
    metrics: Sequence[Metric],
    cost: Cost,
    headline: str,
    seed: int,
) -> Measured:
    """One subject on all splits that it has answered; `metrics` headline first."""
    own = {one: data for one, data in by_split.items() if name in data.subjects}
    agreement = {one: data.agreement(name, seed) for one, data in own.items()}
    kl = {one: data.kl(name) for one, data in own.items()}
    calibrated = {one: data.calibration(name) for one, data in own.items()}
    there = headline in own and own[headline].has(name, metrics[0])
    seeds = own[headline].sampled[name, metrics[0].name].values if there else np.zeros(0)
    return Measured(
        quality={one: {metric.name: data.sampled[name, metric.name].interval(seed)
                       for metric in metrics if data.has(name, metric)} for one, data in own.items()},
        cost=cost,
        agreement={one: value for one, value in agreement.items() if value is not None},
        kl={one: value for one, value in kl.items() if value is not None},
        calibration={one: value for one, value in calibrated.items() if value is not None},
        seeds=tuple(float(value) for value in seeds) if len(seeds) > 1 else (),
    )


def _check(predictions: AllPredictions) -> None:
    """Scores of different examples must not be compared."""
    for name in ("teacher", "student"):
        if name not in predictions:
            got = one_of(list(predictions)) or "none"
            raise StillaError(f"scores: no predictions of the {name}; got those of {got}")
    for split in _splits(predictions):
        of = {subject: seeds[split] for subject, seeds in predictions.items() if split in seeds}
        reference = next(iter(of.values()))[0]
        for subject, seeds in of.items():
            for one in seeds:
                if one.outputs.dtype.kind != "U":
                    one.check_finite(f"{subject} on {split} data")
                if not np.array_equal(one.keys, reference.keys):
                    raise StillaError(f"{subject} on {split} data: predictions answer for other examples "
                                      f"({len(one)}) than those of {next(iter(of))} ({len(reference)})")


def _splits(predictions: AllPredictions) -> list[str]:
    return list(dict.fromkeys(split for splits in predictions.values() for split in splits))


def _headline_split(student: Mapping[str, Sequence[Predictions]]) -> str:
    return next((split for split in ("test", "validation") if split in student), next(iter(student)))


def _metrics(name: str | None, split: _Split, notes: list[str]) -> list[Metric]:
    """All metrics, the headline first: the one asked for, or the next that is defined on its split."""
    metrics = list(split.metrics)
    known = [one.name for one in metrics]
    if name is not None:
        name = name.rpartition(":")[2]  # a person's own function is measured under its name
        if name not in known:
            allowed = f"expected {one_of(known)}.{did_you_mean(name, known)}"
            raise RecipeError(f"evaluate.metric: got {name!r}; {allowed}")
        metrics.sort(key=lambda one: one.name != name)
    defined = [one for one in metrics if split.is_defined(one)]
    if not defined:
        raise StillaError(f"none of {one_of(known)} is defined on these examples: are all labels the same?")
    if defined[0] is not metrics[0]:
        titles = [metric_title(one.name) for one in (metrics[0], defined[0])]
        notes.append(f"{titles[0]} is not defined for every subject: the headline is {titles[1]}")
        metrics.sort(key=lambda one: one is not defined[0])
    return metrics
