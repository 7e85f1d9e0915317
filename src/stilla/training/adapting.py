"""A teacher that is adapted to its student while that learns: MetaDistil (Zhou et al. 2022, arXiv:2106.04570).

Before each optimiser step, of its examples x and of some of the quiz q, which has labels and is never learnt from:

    S' = S - λ ∇_S L(x; S, T)                  the pilot: the student a plain gradient step on
    v  = ∇_S' Q(q; S')                         of its loss by the labels of the quiz
    dQ / dT = -λ ∇_T (v · ∇_S L(x; S, T))      through the one step, exact
            ≈ -λ ∇_T (L(x; S + εv, T) - L(x; S - εv, T)) / 2ε

Then T goes a step of Adam along it, and the student's own step is made with the new T. The last line is a central difference,
wrong by O(ε²), as in DARTS (Liu et al. 2019, arXiv:1806.09055, sec. 2.3, whose ε = 0.01 / |v| it takes): two forwards of the
student and a backward of the teacher, in place of second derivatives, which fused attention does not have. The two losses
meet at the teacher's answers, where they are subtracted before anything goes back through the teacher.

    checkpoint-40/adapted.pt    the teacher's weights so far, and Adam's moments
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stilla.errors import CompatibilityError, TrainingError
from stilla.objectives import term
from stilla.recipe import Adapt
from stilla.signals import Batch, Signals
from stilla.tasks.base import Prepared, Side
from stilla.tasks.forward import dtype_of, listen
from stilla.teachers import LiveTeacher, Teacher
from stilla.training import checkpoints
from stilla.training.distiller import Distiller
from stilla.training.plain import dims_of
from stilla.training.reduction import Step
from stilla.training.survey import WholeStep, unchanged

REACH = 0.01
"""How far the weights of the student are moved to either side, in all."""
FILE = "adapted.pt"


class Adapting(TrainerCallback):
    """The teacher's steps within a training, each before one of the student's.

    Both models answer as they do when nobody learns: without dropout, by running statistics, in their own precision; so that
    the losses on either side of the student differ by its weights alone. rate: of the pilot. seed: of what the quiz asks in
    which step. Several processes share the gradients of a step's examples; each looks at the same quiz.

    Raises:
        CompatibilityError: weights that are kept in less than float32, in which no small step can be seen.
    """

    def __init__(
        self, distiller: Distiller, teacher: LiveTeacher, quiz: Prepared, how: Adapt, *, rate: float, seed: int
    ) -> None:
        for side, model in (("teacher", teacher.model), ("student", distiller.student)):
            if torch.finfo(dtype_of(model)).bits < torch.finfo(torch.float32).bits:
                raise CompatibilityError(f"adapt: the {side}'s weights are {dtype_of(model)}, in which no small step can be "
                                         "seen; load it in float32")
        self.distiller, self.teacher, self.task, self.quiz, self.how = distiller, teacher, distiller.task, quiz, how
        self.rate = rate if how.pilot_rate is None else how.pilot_rate
        self.seed = seed
        self.weights = [one.requires_grad_() for one in teacher.model.parameters() if one.is_floating_point()]
        self.optimizer = torch.optim.Adam(self.weights, lr=how.learning_rate)
        self.resumed: Path | None = None
        """The checkpoint that the training continues from."""
        self.over = False
        self._labels = Distiller(distiller.student, self.task.terms([term(self.task.labels_by())]), self.task,
                                 student_dims=dims_of(distiller.student, self.task, None))
        self._adapted: WholeStep | None = None

    @classmethod
    def of(
        cls, distiller: Distiller, teacher: Teacher | None, quiz: Prepared | None, how: Adapt | None, *, rate: float,
        seed: int,
    ) -> Adapting | None:
        """None where none is asked for, or nothing is there to train on."""
        if how is None or quiz is None:
            return None
        assert isinstance(teacher, LiveTeacher)  # any other was refused
        return cls(distiller, teacher, quiz, how, rate=rate, seed=seed)

    @property
    def described(self) -> str:
        return (f"the teacher is adapted before every step, by {len(self.quiz):,} labelled examples that the student is "
                "tried on and does not learn from")

    def before(self, whole: WholeStep, place: Callable[[Batch], Batch], progress: float, number: int) -> None:
        """Adapt the teacher to step `number`, once, whichever of its micro-batches comes first. Nothing moves any more once
        the training is over, and what a step computes is only counted.

        Raises:
            TrainingError: the gradient is not finite.
        """
        if whole is self._adapted:
            return
        self._adapted = whole
        gradients = self.gradients(whole, place, progress, number)
        if self.over:
            return
        if not all(bool(torch.isfinite(one).all()) for one in gradients):
            raise TrainingError(f"adapt: the gradient of the teacher is not finite at step {number + 1}; lower "
                                "adapt.pilot_rate or the learning rates")
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradients(
        self, whole: WholeStep, place: Callable[[Batch], Batch], progress: float, number: int
    ) -> list[Tensor]:
        """dQ/dT / λ, of every weight of the teacher. Without λ, by which Adam's steps do not change but for its epsilon."""
        own = [one for one in self.distiller.student.parameters() if one.requires_grad]
        batches, step = [place(batch) for batch in whole.batches], whole.step(progress)
        with self._undisturbed(own[0].device):
            first = (self._gradients(self._loss(batch, self.teacher.answer(batch), step), own) for batch in batches)
            pilot = _over_processes(_summed(first), step.processes)
            with moved(own, pilot, -self.rate):
                direction = self._gradients(self._asked(place, number), own)
            return _over_processes(_summed(self._crossed(batch, own, direction, step) for batch in batches), step.processes)

    def _crossed(self, batch: Batch, own: Sequence[Tensor], direction: Sequence[Tensor], step: Step) -> list[Tensor]:
        """-∇_T (v · ∇_S L) of a micro-batch's part of the loss."""
        said = listen(self.teacher.model, self.task, batch, Side.TEACHER, self.teacher.recorder)
        slope = along(own, direction, partial(self._loss, batch, said, step))
        if not slope.requires_grad:
            raise CompatibilityError("adapt: the loss does not change with what the teacher says, as far as a gradient sees; "
                                     "use `logits`, or leave adapt out")
        return self._gradients(-slope, self.weights)

    def _loss(self, batch: Batch, said: Signals, step: Step) -> Tensor:
        loss: Tensor = self.distiller.loss(batch, said, step)["loss"]
        return loss

    def _asked(self, place: Callable[[Batch], Batch], number: int) -> Tensor:
        """The student's loss by the labels of some of the quiz."""
        size = min(self.how.batch_size, len(self.quiz))
        rows = np.random.default_rng((self.seed, number)).choice(len(self.quiz), size, replace=False)
        batch = place(self.quiz.collate([self.quiz.examples[int(row)] for row in rows]))
        counts = {name: float(value) for name, value in self.task.counts(batch).items()}
        loss: Tensor = self._labels.loss(batch, None, Step(counts))["loss"]
        return loss

    @staticmethod
    def _gradients(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return [torch.zeros_like(weight) if one is None else one for one, weight in zip(found, weights, strict=True)]

    @contextmanager
    def _undisturbed(self, device: torch.device) -> Iterator[None]:
        """The student as it answers, and afterwards as if nobody had asked it."""
        training = self.distiller.training
        self.distiller.eval()
        try:
            with unchanged(self.distiller), torch.enable_grad(), torch.autocast(device.type, enabled=False):
                yield
        finally:
            self.distiller.train(training)

    # --- along a training ---

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.resumed is not None and state.global_step:
            self._restore(self.resumed)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Before the checkpoint is sealed, which the guard does."""
        folder = checkpoints.at(Path(args.output_dir or "."), state.global_step)
        if state.is_world_process_zero and folder.is_dir():
            kept = {"weights": [one.detach() for one in self.weights], "optimizer": self.optimizer.state_dict()}
            torch.save(kept, folder / FILE)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Of the best checkpoint, where that is the student that is kept, the teacher of then stays too."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._restore(Path(state.best_model_checkpoint))
        self.over = True

    @torch.no_grad()
    def _restore(self, checkpoint: Path) -> None:
        try:
            kept = torch.load(checkpoint / FILE, map_location=self.weights[0].device, weights_only=True)
        except FileNotFoundError as error:
            raise CompatibilityError(f"{checkpoint} holds no adapted teacher ({FILE}): its training was begun without "
                                     "`adapt`. Begin anew, or leave `adapt` out") from error
        if [one.shape for one in kept["weights"]] != [one.shape for one in self.weights]:
            raise CompatibilityError(f"{checkpoint / FILE} is of another teacher: begin anew")
        for weight, value in zip(self.weights, kept["weights"], strict=True):
            weight.copy_(value)
        self.optimizer.load_state_dict(kept["optimizer"])


def along(
    weights: Sequence[Tensor], direction: Sequence[Tensor], loss: Callable[[], Tensor], *, reach: float = REACH
) -> Tensor:
    """How a loss changes where the weights go along a direction v: v · ∇ L, as (L(w + εv) - L(w - εv)) / 2ε, ε = reach / |v|.

    Differentiable by whatever else the loss depends on, not by the weights. Of a direction of no length it is 0.
    """
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in direction])).item()
    share = reach / length if length else 0.0
    wanted = [one.requires_grad for one in weights]
    try:
        for one in weights:  # nothing is kept for a backward through them
            one.requires_grad_(False)
        sides = []
        for side in (share, -share):
            with moved(weights, direction, side):
                sides.append(loss())
    finally:
        for one, was in zip(weights, wanted, strict=True):
            one.requires_grad_(was)
    return (sides[0] - sides[1]) / (2 * share or 1.0)


@contextmanager
def moved(weights: Sequence[Tensor], direction: Sequence[Tensor], share: float) -> Iterator[None]:
    """The weights so far along a direction, and afterwards bit for bit where they were."""
    before = [one.detach().clone() for one in weights]
    with torch.no_grad():
        for one, way in zip(weights, direction, strict=True):
            one.add_(way, alpha=share)
    try:
        yield
    finally:
        with torch.no_grad():
            for one, value in zip(weights, before, strict=True):
                one.copy_(value)


def _summed(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    return reduce(lambda total, part: [one + other for one, other in zip(total, part, strict=True)], parts)


def _over_processes(found: list[Tensor], processes: int) -> list[Tensor]:
    """The mean over them: each holds its share times their number."""
    if processes == 1:
        return found
    shared = [one.contiguous() for one in found]
    for one in shared:
        torch.distributed.all_reduce(one)
    return [one / processes for one in shared]
