"""How long models take over a batch on this machine, and what they keep for the backward: measured in moments.

On a CPU without what other processes take of it: a run of hours seldom shares the machine as this moment does.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from stilla.check.estimate.clock import SHORT, Stopwatch
from stilla.evaluate.flops import flops_of
from stilla.objectives import Labels
from stilla.recipe import Training
from stilla.rows import row_loss
from stilla.signals import Batch
from stilla.tasks.base import Prepared, Side, Task
from stilla.tasks.forward import listen
from stilla.training.arguments import precision_of, runs_on_cpu
from stilla.training.attention import attention_in_float32

SECONDS = 0.03
"""About what one pass over the larger of two batches is to take."""
BACKWARD = 6.0
"""Times a forward that forward and backward take at most: three times its products, and as much again for their rest."""
RATE = 2.0
"""Times as many FLOPs a second that the smaller of two models of one kind may reach: it may fit a cache."""


@dataclass(frozen=True)
class Line:
    """What a pass over a batch takes, part of it whatever its size: casting weights, writing their gradients."""

    per_pass: float
    per_example: float

    def __call__(self, examples: float, batch_size: int) -> float:
        """For so many examples in batches of this size."""
        return examples * (self.per_example + self.per_pass / batch_size)

    def at_most(self, other: Line, times: float, batch_size: int) -> Line:
        """This, or so many times the other where that is less over whole batches."""
        limit = Line(times * other.per_pass, times * other.per_example)
        return min(self, limit, key=lambda line: line(1, batch_size))


@dataclass(frozen=True)
class Passes:
    """Seconds of a pass, and the bytes that are kept per example between forward and backward.

    `forward`: without gradient, in the precision of training. `answering`: likewise in the model's own, as scores are
    measured. `training`: forward and backward. `flops`: of a forward over an example; None where they cannot be counted.
    """

    forward: Line
    answering: Line
    training: Line
    kept: float
    flops: float | None = None


@dataclass(frozen=True)
class Subject:
    """A model to be measured. `train`: whether it will be trained; else only forwards are measured."""

    model: nn.Module
    side: Side
    training: Training
    train: bool


def measure(task: Task, model: nn.Module, prepared: Prepared, side: Side, training: Training, *, train: bool) -> Passes:
    """Every kind of pass of one model; see `measure_all`."""
    return measure_all(task, prepared, [Subject(model, side, training, train)])[0]


def measure_all(
    task: Task, prepared: Prepared, subjects: Sequence[Subject], stopwatch: Stopwatch | None = None
) -> list[Passes]:
    """Every kind of pass over few and over many examples, and what is kept between forward and backward.

    Passes of all models are made in turns, so that what else the machine does falls on all alike. Leaves the models on the
    CPU, their parameters as trainable as they were, their mode changed.
    """
    frozen = [one for subject in subjects for one in subject.model.parameters() if not one.requires_grad]
    try:
        # the processor's clock alone would not see what an accelerator does
        watch = stopwatch or Stopwatch(max((device_for(one.training) for one in subjects), key=lambda one: one != "cpu"))
        begun = [_Begun.of(task, subject, prepared, watch) for subject in subjects]
        seconds = iter(watch.least([call for one in begun for call in one.calls()]))
        found = [one.passes([next(seconds) for _ in one.calls()]) for one in begun]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for subject in subjects:
            subject.model.cpu()
    return found


def plausible(ours: Passes, theirs: Passes, batch_size: int) -> tuple[Passes, Passes]:
    """Times of two models of one kind that do not contradict what they compute: a student of two layers takes no longer than
    its teacher of six, and the teacher no longer than its FLOPs allow. `ours`: of the student.

    A disturbance makes times too long, never too short: what contradicts the other is cut to it.
    """
    if not (ours.flops and theirs.flops and ours.flops <= theirs.flops):
        return ours, theirs
    more = RATE * theirs.flops / ours.flops
    ours = replace(
        ours, forward=ours.forward.at_most(theirs.forward, 1.0, batch_size),
        answering=ours.answering.at_most(theirs.answering, 1.0, batch_size),
        training=ours.training.at_most(theirs.training, 1.0, batch_size))
    theirs = replace(
        theirs, forward=theirs.forward.at_most(ours.forward, more, batch_size),
        answering=theirs.answering.at_most(ours.answering, more, batch_size),
        training=theirs.training.at_most(ours.training, more, batch_size))
    return ours, theirs


@dataclass(frozen=True)
class _Begun:
    """A model that has made its first passes, which pay for what is made once; ready to be timed."""

    task: Task
    subject: Subject
    sizes: tuple[int, int]
    few: Batch
    many: Batch
    kept: float
    flops: float | None

    @classmethod
    def of(cls, task: Task, subject: Subject, prepared: Prepared, watch: Stopwatch) -> _Begun:
        device = device_for(subject.training)
        subject.model.to(device).eval()
        most = min(subject.training.batch_size, len(prepared))
        small = min(2, most)  # batch norm cannot be trained on a single example
        few = _typical(prepared, small).to(device)
        begun = cls(task, subject, (small, small), few, few, 0.0, None)
        first = begun._forward_alone(few)
        watch.once(first)
        flops = flops_of(first)
        each = watch.about(first)
        # a line through sizes that lie near each other, carried on to a batch, would be mostly what disturbed one of them
        large = min(most, max(8 if each < SHORT else 4, round(2 * SECONDS * small / max(each, 1e-9))))
        many = _typical(prepared, large).to(device)
        begun = replace(begun, sizes=(small, large), many=many, flops=None if flops is None else flops / small)
        if not subject.train:
            return begun
        # the line's slope leaves out what every batch keeps once: weights cast to the precision of the computation
        least, more = (_kept(subject.model, begun._with_backward(batch)) for batch in (few, many))
        return replace(begun, kept=_line(least, more, small, large).per_example)

    @property
    def half(self) -> bool:
        return precision_of(self.subject.training) == "bfloat16"

    def calls(self) -> list[Callable[[], None]]:
        """What is to be timed; `passes` takes its seconds in this order."""
        found = [self._forward_alone(self.few), self._forward_alone(self.many)]
        if self.half:  # in its own precision nothing is cast for every pass: one size will do
            found.append(self._forward_alone(self.many, lower=False))
        if self.subject.train:
            found += [self._with_backward(self.few), self._with_backward(self.many)]
        return found

    def passes(self, seconds: Sequence[float]) -> Passes:
        left = list(seconds)
        quick = _line(left.pop(0), left.pop(0), *self.sizes)
        alone = Line(0.0, left.pop(0) / self.sizes[1]) if self.half else quick
        slow = quick
        if self.subject.train:
            slow = _line(left.pop(0), left.pop(0), *self.sizes).at_most(quick, BACKWARD, self.subject.training.batch_size)
        return Passes(quick, alone, slow, self.kept, self.flops)

    def _forward(self, batch: Batch, lower: bool) -> Tensor:
        task, model, side = self.task, self.subject.model, self.subject.side
        with torch.autocast(device_for(self.subject.training), torch.bfloat16, enabled=lower):
            if task.vocabulary:  # as in training: whole logits would take more memory than the run itself
                said = listen(model, task, batch, side)
                assert said.logits is not None
                return row_loss([(Labels(), 1.0)], said.logits, None, said.labels, 0.0)[0]
            return task.outputs(model(**batch[side.value]))

    def _forward_alone(self, batch: Batch, *, lower: bool | None = None) -> Callable[[], None]:
        def run() -> None:
            self.subject.model.eval()
            with torch.no_grad():
                self._forward(batch, self.half if lower is None else lower)

        return run

    def _with_backward(self, batch: Batch) -> Callable[[], None]:
        def run() -> None:
            model = self.subject.model.train().requires_grad_(True)
            with attention_in_float32(torch.device(device_for(self.subject.training))):
                self._forward(batch, self.half).float().sum().backward()
            model.zero_grad(set_to_none=True)

        return run


def device_for(training: Training) -> str:
    return "cpu" if runs_on_cpu(training) else str(torch.accelerator.current_accelerator())


def _line(least: float, most: float, few: int, many: int) -> Line:
    """Through what few examples and many took; what does not lie on a line counts per example."""
    slope = (most - least) / (many - few) if many > few else 0.0
    per_example = slope if 0 < slope < most / many else most / many
    return Line(most - many * per_example, per_example)


def _kept(model: nn.Module, run: Callable[[], None]) -> float:
    """The bytes that autograd keeps of forwards in a call, weights apart and every storage once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return float(sum(seen.values()))


def _typical(prepared: Prepared, examples: int) -> Batch:
    """So many examples of about the mean length: what a whole epoch takes goes by that."""
    order = list(range(len(prepared)))
    centre = len(order) // 2
    if prepared.lengths is not None:
        lengths = prepared.lengths
        order.sort(key=lambda index: lengths[index])
        centre = bisect.bisect_left(order, statistics.fmean(lengths), key=lambda index: lengths[index])
    start = min(max(0, centre - examples // 2), len(order) - examples)
    return prepared.collate([prepared.examples[index] for index in order[start : start + examples]])
