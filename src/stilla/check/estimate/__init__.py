"""What a run will cost in time, memory and disk, from a few forward and backward passes on its own examples.

Nothing is looked up: what is measured here is the very model on the very machine, for a fraction of a second, and
scaled by the number of examples. Other work on the machine, compilation and longer examples make the difference, so
a range is given.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from stilla.check.estimate.efforts import Effort, by_effort, in_words
from stilla.check.estimate.generating import seconds_of_generating
from stilla.check.estimate.passes import Line, Passes, Subject, device_for, measure, measure_all, plausible
from stilla.check.estimate.proposing import seconds_of_proposing
from stilla.check.estimate.writing import seconds_of_writing
from stilla.check.mining import ToMine
from stilla.check.proposing import ToPropose
from stilla.data import TEACHER, from_all_over, to_measure
from stilla.evaluate.flops import count_tokens
from stilla.recipe import Recipe, Stage, Training
from stilla.report.numbers import duration, durations
from stilla.stages import cache_choice
from stilla.stages.effort import longer_by
from stilla.stages.generated import Writing
from stilla.stages.opinions import asked_of_all
from stilla.stages.unlabelled import Pool, number_learnt
from stilla.tasks.base import Loaded, Prepared, Side, Task
from stilla.training.arguments import PER_PART, runs_on_cpu

FASTER, SLOWER = 0.7, 1.8
"""The range around the scaled measurement: fused kernels and warm caches; longer batches, logging, other processes."""
ADAM = 12
"""Bytes per trained parameter beside the weight: gradient and two moments in float32."""
UPDATE = 2.5e-9
"""Seconds per parameter of an AdamW step on a CPU: 28 bytes read and written at about 10 GB/s."""
CHECKPOINTS = 5
"""That a training writes: weights and two moments."""
WRITING = 2e-9
"""Seconds per byte of a checkpoint: about 500 MB/s."""
PROCESS = 0.6e9
"""Bytes of a process that has imported everything."""
OF_A_TOKEN = 3
"""Tokens of a text that is one, with what a tokenizer puts around it."""
SEARCHED = 3e-8
"""Seconds per similarity of a search, on one thread: its share of a product of vectors of 384 numbers, and of finding the
largest."""
LOOKED_AT = 64
"""Training examples on which it is measured how fast a model reads that looks for what does not answer queries."""
EXPORT, SPEED = 15.0, 6.0
"""Seconds to write one format; to measure the speed of one subject."""


@dataclass(frozen=True)
class Range:
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """`seconds`: by stage. `memory`: bytes at the peak, of the GPU where there is one. `disk`: bytes. `efforts`: what each
    takes, where one of them chose how long a student learns."""

    seconds: Mapping[str, Range]
    memory: Range
    disk: float
    device: str
    efforts: Mapping[str, Effort] = field(default_factory=dict)

    @property
    def total(self) -> Range:
        return Range(sum(one.low for one in self.seconds.values()), sum(one.high for one in self.seconds.values()))

    def lines(self) -> list[tuple[str, str]]:
        """What, how much: for a table."""
        parts = ", ".join(f"{name} {duration(one.high)}" for name, one in self.seconds.items())
        return [
            ("time", f"{durations(self.total.low, self.total.high)} (at most: {parts})"),
            *([("effort", f"at most, of training: {in_words(self.efforts)}")] if self.efforts else []),
            ("memory", f"{_size(self.memory.low)} to {_size(self.memory.high)} on the {self.device}"),
            ("disk", f"about {_size(self.disk)}"),
        ]

    def problems(self, output: Path) -> list[str]:
        free = _free(output)
        if free >= self.disk:
            return []
        return [
            f"output: the run needs about {_size(self.disk)}, and {_size(free)} are free where {output} lies; make "
            "room, or give another output"
        ]

    def notes(self) -> list[str]:
        available = _memory_left(self.device)
        if available is None or available >= self.memory.high:
            return []
        return [
            f"memory: {_size(available)} are free, and the run may need {_size(self.memory.high)}; a smaller "
            "batch_size with more accumulate gives the same result in less"
        ]


def estimate(
    recipe: Recipe,
    task: Task,
    splits: Mapping[str, Dataset],
    teacher: Loaded,
    student: Loaded,
    prepared: Prepared,
    per_example: float = 1.0,
    pool: Pool | None = None,
    writing: Writing | None = None,
    to_propose: ToPropose | None = None,
    to_mine: ToMine | None = None,
) -> Estimate:
    """Scale a few measured passes to the whole run. `prepared`: a sample of the training data for both models;
    `per_example`: how many of its examples one of the data makes. `pool`: unlabelled examples, of which all are taken to be
    kept. `writing`: who writes some of them first. `to_propose`: who is asked for words. `to_mine`:
    what the teacher reads to find what does not answer queries."""
    first, teaching, adapted = recipe.distill[0], recipe.teacher.train, recipe.distill[-1].adapt is not None
    ours, theirs = _measured(task, prepared, Subject(student.model, Side.STUDENT, first, train=True),
                             Subject(teacher.model, Side.TEACHER, teaching or first, train=teaching is not None or adapted))
    device = "CPU" if runs_on_cpu(first) else "GPU"
    number = number_learnt(recipe, splits, pool)
    share = per_example * number / len(prepared)
    section = cache_choice.resolved(recipe, task, teacher.model, prepared, share)
    stored = cache_choice.bytes_of(recipe, section, task, teacher.model, prepared, share)
    sizes = {name: max(1, round(per_example * len(split))) for name, split in splits.items()}
    sizes["measured"] = sum(sizes[name] for name in to_measure(splits))
    sizes["learnt"] = max(1, round(per_example * number))
    looked_at = asked_of_all(recipe, splits, pool)
    # hidden states still pay the head's product
    stored_forms = (cache_choice.met(recipe, prepared, share).views or 1) if section.form not in ("none", "hidden") else None
    sizes["looked at"] = round(per_example * looked_at)

    def seconds_of(one: Recipe, *, goes_on: bool) -> dict[str, float]:
        looks = [cache_choice.looks_of(stage, prepared, sizes["learnt"], goes_on=goes_on) for stage in one.distill]
        return _seconds(one, sizes, ours, theirs, device, stored_forms, looks, goes_on=goes_on,
                        measures_teacher=recipe.teacher.api is None and task.unmeasured(teacher) is None)

    seconds, longest = (seconds_of(recipe, goes_on=goes_on) for goes_on in (False, True))
    efforts = {name: _effort(recipe, one, seconds_of(one, goes_on=True))
               for name, one in by_effort(recipe, sizes["learnt"], longer_by(recipe.student, teacher.model)).items()}
    if recipe.student.static:
        seconds = {"tokens": _seconds_of_tokens(recipe, student.model, theirs, prepared), **seconds}
    if to_mine is not None:
        finding = _finding(recipe, task, splits, to_mine, theirs.passes)
        seconds = {"negatives": finding + SEARCHED * to_mine.similarities, **seconds}
    ranges = {**{name: (one, max(one, longest.get(name, one))) for name, one in seconds.items()},
              **({} if writing is None else {"generated": seconds_of_generating(writing, device_for(first))}),
              **({} if to_propose is None else {"proposals": seconds_of_proposing(to_propose, device_for(first))}),
              **seconds_of_writing(recipe, task, splits, teacher, student, prepared, per_example, pool)}
    return Estimate(
        {name: Range(FASTER * low, SLOWER * high) for name, (low, high) in ranges.items()},
        _memory(recipe, ours, theirs, prepared, device),
        _disk(recipe, ours.parameters, theirs.parameters) + stored,
        device,
        efforts,
    )


def _effort(recipe: Recipe, one: Recipe, seconds: Mapping[str, float]) -> Effort:
    """`one`: the recipe at another effort, or its own."""
    first = next(number for number, stage in enumerate(one.distill) if stage.effort)
    return Effort(round(one.distill[first].passes), SLOWER * (seconds["student"] + seconds.get("baseline", 0.0)),
                  chosen=one.distill[first].effort == recipe.distill[first].effort)


@dataclass(frozen=True)
class _Model:
    """A model's size, and what its passes take."""

    passes: Passes
    parameters: int
    bytes: int

    @classmethod
    def of(cls, model: nn.Module, passes: Passes) -> _Model:
        weights = list(model.parameters())
        return cls(passes, sum(one.numel() for one in weights), sum(one.numel() * one.element_size() for one in weights))


def _measured(task: Task, prepared: Prepared, student: Subject, teacher: Subject) -> tuple[_Model, _Model]:
    ours, theirs = measure_all(task, prepared, [student, teacher])
    if type(student.model) is type(teacher.model):  # others may reach another part of the machine's FLOPs
        ours, theirs = plausible(ours, theirs, student.training.batch_size)
    return _Model.of(student.model, ours), _Model.of(teacher.model, theirs)


def _seconds(
    recipe: Recipe, sizes: Mapping[str, int], ours: _Model, theirs: _Model, device: str, stored: int | None,
    looks: Sequence[float], *, goes_on: bool = True, measures_teacher: bool = True,
) -> dict[str, float]:
    """By stage. `sizes`: of the splits, of all that is `measured` and `learnt`, of what is `looked at` before. `stored`: of
    so many forms of each example the teacher's answers are stored, and only read from then on; None: they are not. `looks`:
    of each stage, passes of both models by which it chooses forms. `goes_on`: trainings that may go on (`extend`) do, up to
    their limit; else they end where they were to. `measures_teacher`: beside its students."""

    def training(
        section: Training, model: _Model, number: int, helper: Line | None = None, looks: float = 0.0, *, best: bool = False
    ) -> float:
        parts, size = section.at_most if goes_on else 1, section.batch_size
        steps = parts * _steps(section, number)
        examples = steps * size * section.accumulate
        chosen = looks * number
        asked = examples + chosen if stored is None else min(examples + chosen, stored * number)
        helped = helper(asked, size) if helper is not None else 0.0
        updates = steps * model.parameters * UPDATE if device == "CPU" else 0.0
        by_part = section.extend is not None and "eval_strategy" not in section.trainer
        often = round(parts / PER_PART) if by_part else math.ceil(examples / number)
        checks = model.passes.forward(often * sizes["validation"], size)
        best = best or section.extend is not None or section.patience is not None
        written = WRITING * (often if best else CHECKPOINTS) * 12 * model.parameters
        learning = model.passes.training(examples, size) + model.passes.forward(chosen, size)
        return learning + helped + updates + checks + written

    stages, repeats, number = recipe.distill, recipe.evaluate.seeds, sizes["learnt"]
    teacher, spec = recipe.teacher.train, recipe.student
    seconds = {} if teacher is None else {"teacher": training(teacher, theirs, sizes.get(TEACHER, sizes["train"]))}
    if sizes["looked at"]:
        seconds["unlabelled"] = theirs.passes.answering(sizes["looked at"], recipe.evaluate.batch_size)
    if spec.by_importance:  # one by one; of models between the student's size and its own before
        rounds = 1 if spec.width is None else spec.width.rounds
        examples = rounds * min(spec.examples_of_importance, sizes["train"] or number)
        seconds["width"] = ours.passes.training(examples, 1) * max(1.0, theirs.parameters / ours.parameters)
    if (how := recipe.student.reptile) is not None:
        inner = how.steps * how.tasks_per_step * how.inner_steps
        updates = inner * ours.parameters * UPDATE if device == "CPU" else 0.0
        seconds["reptile"] = repeats * (ours.passes.training(inner * how.batch_size, how.batch_size) + updates)
    helper = theirs.passes.forward if recipe.teacher.api is None else None
    seconds["student"] = repeats * (sum(training(stage, ours, number, helper, more)
                                        for stage, more in zip(stages, looks, strict=True))
                                    + _adapting(stages[-1], (stages[-1].at_most if goes_on else 1)
                                                * _steps(stages[-1], number), ours, theirs, device))
    if recipe.evaluate.baseline:  # as many steps
        seconds["baseline"] = repeats * sum(training(stage, ours, number, best=True) for stage in stages)
    if recipe.export:
        seconds["export"] = EXPORT * len(recipe.export)
    measured, size = sizes["measured"], recipe.evaluate.batch_size
    subjects = repeats * (1 + recipe.evaluate.baseline) + len(recipe.export)
    looked_at = 0 if recipe.allow_weak_teacher else sizes["validation"]  # is the teacher better than chance?
    predicting = subjects * ours.passes.answering(measured, size)
    if measures_teacher:
        predicting += theirs.passes.answering(measured + looked_at, size)
    timing = SPEED * (2 + len(recipe.export)) if recipe.evaluate.speed else 0.0
    return {**seconds, "evaluation": predicting + timing}


def _adapting(stage: Stage, steps: int, ours: _Model, theirs: _Model, device: str) -> float:
    """Beside the student's steps: it and its teacher as they are, its gradients on the step's examples and on the quiz, two
    forwards to either side, and the teacher's gradient and step."""
    if stage.adapt is None:
        return 0.0
    size, quiz = stage.batch_size, stage.adapt.batch_size
    examples = steps * size * stage.accumulate
    updates = steps * theirs.parameters * UPDATE if device == "CPU" else 0.0
    return (ours.passes.training(examples, size) + ours.passes.training(steps * quiz, quiz)
            + 2 * ours.passes.forward(examples, size) + theirs.passes.forward(examples, size)
            + theirs.passes.training(examples, size) + updates)


def _finding(recipe: Recipe, task: Task, splits: Mapping[str, Dataset], to_mine: ToMine, teacher: Passes) -> float:
    """For whoever looks for what does not answer queries to read all texts; nothing where that model is not here yet."""
    how: Any = recipe.data
    if how.negatives.by is None:
        return teacher.answering(to_mine.examples, recipe.evaluate.batch_size)
    if to_mine.finder is None:
        return 0.0
    finder = to_mine.finder
    some = task.prepare(from_all_over(splits["train"], LOOKED_AT), finder.processor, None, training=True)
    passes = measure(task, finder.model, some, Side.STUDENT, recipe.distill[0], train=False)
    return passes.answering(to_mine.examples, recipe.evaluate.batch_size)


def _seconds_of_tokens(recipe: Recipe, table: nn.Module, teacher: _Model, prepared: Prepared) -> float:
    """To ask the teacher about each token of a static student by itself, before its training."""
    mean = OF_A_TOKEN if prepared.lengths is None else statistics.fmean(prepared.lengths)
    texts = (count_tokens(table) or 0) * OF_A_TOKEN / max(mean, 1.0)
    return teacher.passes.answering(texts, recipe.evaluate.batch_size)


def _memory(recipe: Recipe, ours: _Model, theirs: _Model, prepared: Prepared, device: str) -> Range:
    """Weights, gradients, moments and what is kept for the backward, in the stage that needs most."""
    process = PROCESS if device == "CPU" else 0.0

    def peak(section: Training, model: _Model, beside: int, longer: float) -> float:
        trained = model.parameters * (4 + ADAM + (0 if section.average is None else 4))
        return process + beside + trained + section.batch_size * model.passes.kept * longer

    def most(longer: float) -> float:
        stages = [peak(stage, ours, theirs.bytes, longer) for stage in recipe.distill]
        if recipe.distill[-1].adapt is not None:  # a copy of the teacher, trained beside
            copied = peak(recipe.distill[-1], theirs, 0, longer) - process
            stages.append(peak(recipe.distill[-1], ours, theirs.bytes, longer) + copied)
        if recipe.teacher.train is not None:
            stages.append(peak(recipe.teacher.train, theirs, 0, longer))
        if recipe.student.reptile is not None:  # a model for each of the other tasks
            others = len(recipe.student.reptile.tasks) * ours.bytes
            stages.append(peak(recipe.distill[0], ours, theirs.bytes + others, longer))
        return max(stages)

    return Range(most(1.0), 1.2 * most(_longest_to_mean(prepared)))


def _longest_to_mean(prepared: Prepared) -> float:
    """How many times a batch of the longest examples is as long as a typical one."""
    return 1.0 if prepared.lengths is None else max(prepared.lengths) / statistics.fmean(prepared.lengths)


def _disk(recipe: Recipe, ours: int, theirs: int) -> float:
    """Bytes of models in float32, of two checkpoints with their moments while training, a third where the best is kept, and
    of exports."""
    made = recipe.evaluate.seeds * (1 + recipe.evaluate.baseline) * len(recipe.distill) * ours
    taught = theirs if recipe.teacher.train is not None else 0
    adapted = theirs if recipe.distill[-1].adapt is not None else 0  # with its moments in two checkpoints
    trainings = [*recipe.distill, *([] if recipe.teacher.train is None else [recipe.teacher.train])]
    best = recipe.evaluate.baseline or any(one.patience or one.extend for one in trainings)
    checkpoints = (2 + best) * (4 if any(one.average for one in trainings) else 3) * max(ours, taught)
    exports = sum({"int8": 1}.get(name, 4) for name in recipe.export) * ours
    return 4.0 * (made + taught + checkpoints + (recipe.evaluate.seeds + 6) * adapted) + exports


def _steps(section: Training, examples: int) -> int:
    if section.max_steps is not None:
        return section.max_steps
    return math.ceil(section.passes * examples / (section.batch_size * section.accumulate))


def _free(path: Path) -> int:
    while not path.exists():
        path = path.resolve().parent
    return shutil.disk_usage(path).free


def _memory_left(device: str) -> float | None:
    """Bytes that are free now, if the system says."""
    if device == "GPU":
        return float(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():  # caches count as free there
        line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
        return 1024.0 * int(line.split()[1])
    return None


def _size(number: float) -> str:
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.0f} MB" if number >= 1e7 else f"{number / 1e6:.2g} MB"
