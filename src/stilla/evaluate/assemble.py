"""From answers and costs to `Scores`: every number of the report, computed in one place, whatever the task.

Of several seeds, intervals, KL and class scores are means over all; calibration pools their decisions; the
flipped examples are those of the first, the model that is delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from datasets import Dataset

from stilla.errors import RecipeError, StillaError, all_of, did_you_mean, one_of
from stilla.evaluate.grouped import Grouping, grouped
from stilla.evaluate.grouped import remarks as grouped_remarks
from stilla.evaluate.paired import over_seeds
from stilla.evaluate.parts import shifted, sliced
from stilla.evaluate.slices import Slice
from stilla.evaluate.split import Split
from stilla.evaluate.verdict import Outcome, advice, distillation_ratio, retention, verdict
from stilla.scores import MODELS, OF_BASELINE, PERSONAL, Cost, Interval, Measured, PairedTest, Scores, metric_title
from stilla.tasks.answers import Answers, Metric
from stilla.tasks.exam import Exam

OWN = ("test", "validation")
"""Splits that are of the training data's kind, the one that headline numbers come from first; all else is shifted."""

AllAnswers = Mapping[str, Mapping[str, Sequence[Answers]]]
"""By subject, then by split, one per seed."""


@dataclass(frozen=True)
class Examined:
    """One exam, and what the subjects answered. Not every subject sits every exam (not every file can write). `simple`: those
    that are no models."""

    exam: Exam
    answers: AllAnswers
    simple: tuple[str, ...] = ()

    def on(self, splits: Collection[str]) -> Examined:
        """The answers on these splits alone."""
        return replace(self, answers={subject: {split: seeds for split, seeds in each.items() if split in splits}
                                      for subject, each in self.answers.items()})


def make_scores(
    task: str,
    splits: Mapping[str, Dataset],
    examined: Sequence[Examined],
    costs: Mapping[str, Cost],
    *,
    metric: str | None = None,
    slices: Sequence[Slice] = (),
    resamples: int = 1000,
    seed: int = 0,
    notes: Sequence[str] = (),
    grouping: Grouping | None = None,
) -> Scores:
    """Compare `teacher` (if it is a model that could be measured), `student`, `baseline` (if there is one) and any other
    subjects.

    Args:
        task: its kind.
        splits: the data themselves, to show examples from. Headline numbers come from `test` if it is among
            the student's splits, else from `validation`, else from its first.
        examined: the exams in the order of the task; the first metric of the first is the headline.
        costs: of every subject.
        metric: the headline metric; by default the first.
        slices: of the headline split (see `headline_split`), on which that metric is measured by itself.
        notes: said by earlier stages, to be kept with the scores.
        grouping: whose examples of the headline split have a part of the student, if any.

    Raises:
        RecipeError: the task has no such metric.
        StillaError: the student is missing; answers are not finite, or are to other examples.
    """
    for one in examined:
        _check(one.answers)
    said = list(notes)
    subjects = list(dict.fromkeys(name for one in examined for name in one.answers))
    names = list(dict.fromkeys(split for one in examined for answered in one.answers.values() for split in answered))
    by_split = {name: Split([(one.exam, {subject: answered[name] for subject, answered in one.answers.items()
                                         if name in answered}) for one in examined], resamples, seed) for name in names}
    headline = headline_split([split for split, data in by_split.items() if "student" in data.subjects])
    main = by_split[headline]
    metrics = _metrics(metric, main, said)
    chosen = metrics[0]
    measured = {name: _measured(name, by_split, metrics, costs[name], headline, seed) for name in subjects}
    said += [f"{metric_title(one.name)} is not defined on {split} for every subject and is left out"
             for split, data in by_split.items() for one in data.metrics if data.concerns(one) and not data.is_defined(one)]
    said += _disturbed(costs)
    choice = _on_validation(chosen, by_split, seed)
    deploy = advice(choice, higher_is_better=chosen.higher_is_better)
    simple = {name for one in examined for name in one.simple}
    said += _of_the_other([name for name in subjects if name not in simple], deploy)
    teacher, student = main.sampled.get(("teacher", chosen.name)), main.sampled["student", chosen.name]
    kept, why = (None, None) if teacher is None else retention(chosen, teacher, student, seed)
    against, gap = _against_baseline(chosen, main, seed), main.gap(chosen)
    outcome = Outcome(chosen, None if teacher is None else teacher.value, student.value, kept, against.difference,
                      costs.get("teacher"), costs["student"], seeds=len(student.values), chosen_by=choice)
    own = None if grouping is None else grouped(main, chosen, grouping, seed)
    said += [] if own is None else grouped_remarks(own, main.examples)
    flipped, shown = main.flips(splits[headline])
    units, decided = main.units()
    class_metric, classes = main.classes()
    beside = {name: data for name, data in by_split.items() if name not in (headline, *OWN) and "student" in data.subjects}
    return Scores(
        task=task,
        metric=chosen.name,
        higher_is_better=chosen.higher_is_better,
        split=headline,
        examples={split: data.examples for split, data in by_split.items()},
        subjects=measured,
        gap=None if gap is None else gap.interval(seed),
        difference=against.difference,
        retention=kept,
        ratio=against.ratio,
        tests=against.tests,
        verdict=verdict(outcome),
        notes=(*said, *(note for note in (why, against.caveat) if note)),
        flipped=flipped,
        flips=shown,
        samples=main.samples(splits[headline]),
        units=units,
        decided=decided,
        classes=classes,
        class_metric=class_metric,
        slices=sliced(main, chosen, slices, seed),
        shifted=shifted(beside, main, chosen, seed),
        deploy=deploy,
        parts=_by_task(splits, examined, costs, resamples, seed),
        grouped=own,
    )


def _by_task(
    splits: Mapping[str, Dataset], examined: Sequence[Examined], costs: Mapping[str, Cost], resamples: int, seed: int
) -> dict[str, Scores]:
    """Of several tasks that are answered at once, the scores of each by itself."""
    found = {}
    for one in examined:
        for name, exam in one.exam.parts().items():
            own = {subject: {split: [one.exam.split_of(name, splits[split], answers)[1] for answers in seeds]
                             for split, seeds in answered.items()} for subject, answered in one.answers.items()}
            first = next(iter(one.answers.values()))
            examples = {split: one.exam.split_of(name, splits[split], seeds[0])[0] for split, seeds in first.items()}
            found[name] = make_scores(name, examples, [Examined(exam, own)], costs, resamples=resamples, seed=seed)
    return found


@dataclass(frozen=True)
class _Against:
    """The student against the baseline, where there is one."""

    difference: Interval | None = None
    ratio: Interval | None = None
    tests: Mapping[str, PairedTest] = field(default_factory=dict)
    caveat: str | None = None


def _against_baseline(metric: Metric, split: Split, seed: int) -> _Against:
    difference, sitting = split.difference(metric), split.sitting(metric)
    if difference is None or sitting is None:
        return _Against()
    teacher, student, baseline = (split.sampled.get((name, metric.name)) for name in ("teacher", "student", "baseline"))
    assert student is not None  # there is a difference
    assert baseline is not None
    ratio, caveat = (None, None) if teacher is None else distillation_ratio(metric, teacher, student, baseline, seed)
    tests = {"seeds": over_seeds(difference.values, seed), "examples": sitting.exchanged(metric)}
    return _Against(difference.interval(seed), ratio, {name: one for name, one in tests.items() if one is not None}, caveat)


def _on_validation(metric: Metric, by_split: Mapping[str, Split], seed: int) -> Interval | None:
    """Student minus baseline where models are chosen."""
    difference = by_split["validation"].difference(metric) if "validation" in by_split else None
    return None if difference is None else difference.interval(seed)


def _of_the_other(subjects: Sequence[str], deploy: str) -> list[str]:
    """Exported files of the student, where the baseline is the better choice."""
    files = [name for name in subjects if name not in (*MODELS, PERSONAL) and not name.startswith(OF_BASELINE)]
    if deploy == "student" or not files:
        return []
    return [f"export: {all_of(files)} hold{'s' if len(files) == 1 else ''} the student, and labels alone are better on "
            "validation data; `stilla export RUN --model baseline` writes that model"]


def _disturbed(costs: Mapping[str, Cost]) -> list[str]:
    """Speeds that nobody should rely on."""
    names = [name for name, cost in costs.items() if cost.unsteady and name != "baseline"]  # whose are the student's
    if not names:
        return []
    return [f"speed: the machine was busy when it was measured (single calls of {all_of(names)} took very different "
            "times), so it says little; `stilla evaluate RUN` measures again"]


def _measured(
    name: str,
    by_split: Mapping[str, Split],
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


def _check(answers: AllAnswers) -> None:
    """Scores of different examples must not be compared."""
    if "student" not in answers:
        raise StillaError(f"scores: no predictions of the student; got those of {one_of(list(answers)) or 'none'}")
    for split in dict.fromkeys(split for splits in answers.values() for split in splits):
        of = {subject: seeds[split] for subject, seeds in answers.items() if split in seeds}
        reference = next(iter(of.values()))[0]
        for subject, seeds in of.items():
            for one in seeds:
                one.check_finite(f"{subject} on {split} data")
                if not np.array_equal(one.keys, reference.keys):
                    raise StillaError(f"{subject} on {split} data: predictions answer for other examples "
                                      f"({len(one)}) than those of {next(iter(of))} ({len(reference)})")


def headline_split(splits: Sequence[str]) -> str:
    """Where headline numbers come from."""
    return next((name for name in OWN if name in splits), splits[0])


def _metrics(name: str | None, split: Split, notes: list[str]) -> list[Metric]:
    """All metrics, the headline first: the one asked for, or the next that is defined on its split."""
    metrics = sorted(split.metrics, key=lambda one: not split.concerns(one))
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
