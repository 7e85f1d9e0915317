"""A mean of the student's weights over the steps of its training, in place of the last: an exponential one, or a plain one of
the last steps (Polyak and Juditsky 1992, doi:10.1137/0330046; Izmailov et al. 2018, arXiv:1803.05407).

    checkpoint-40/average.safetensors    the mean so far, and of how many steps it is
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stilla.errors import CompatibilityError
from stilla.recipe import Average
from stilla.training import checkpoints

FILE = "average.safetensors"
_STEPS = "steps"


class Averaging(TrainerCallback):
    """Keeps the mean after every optimiser step, and puts it into the student when the training is over.

    It is of what is trained, and of a student's running statistics; what ties weights keeps them tied. In float32 at least.
    All processes have the same weights, and so the same mean.
    """

    def __init__(self, student: nn.Module, how: Average) -> None:
        self.student = student
        self.how = how
        self.taken = 0
        """Steps that the mean is of."""
        self.resumed: Path | None = None
        """The checkpoint that the training continues from."""
        self._there: dict[str, Tensor] = {}
        self._mean: list[Tensor] = []

    @property
    def begun(self) -> bool:
        """Whether the mean is another than the student's own weights."""
        return self.taken > 0 and bool(self._mean)

    @property
    def described(self) -> str:
        """What is kept in the end, in words."""
        if not self.taken:
            return "the weights as they were trained: their mean had not begun"
        return (f"the exponential mean of the weights of {self.taken} steps" if self.how.ema is not None
                else f"the mean of the weights after each of the last {self.taken} steps")

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The student with the mean for its weights, until the end of the block."""
        if not self.begun:
            yield
            return
        own = [one.detach().clone() for one in self._there.values()]
        self._put(self._mean)
        try:
            yield
        finally:
            self._put(own)

    # --- along a training ---

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._there = _averaged(self.student)
        self.taken = 0
        # where an exponential mean begins; of a plain one the first step's are the first
        self._mean = [one.detach().to(torch.promote_types(one.dtype, torch.float32), copy=True)
                      for one in self._there.values()]
        if self.resumed is not None and state.global_step >= self._first(state):
            self._restore(self.resumed)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step < self._first(state):
            return
        now = [one.detach().to(mean.dtype) for one, mean in zip(self._there.values(), self._mean, strict=True)]
        if self.how.ema is None:
            get_swa_multi_avg_fn()(self._mean, now, self.taken)
        else:
            get_ema_multi_avg_fn(decay(self.how.ema, self.taken + 1))(self._mean, now, None)
        self.taken += 1

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Before the checkpoint is sealed, which the guard does."""
        folder = checkpoints.at(Path(args.output_dir or "."), state.global_step)
        if self.begun and state.is_world_process_zero and folder.is_dir():
            save_file(dict(zip(self._there, self._mean, strict=True)), folder / FILE, {_STEPS: str(self.taken)})

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The mean takes the student's place: that of the best checkpoint where it is the best that is kept."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            best = Path(state.best_model_checkpoint)
            self.taken = 0  # the best may be older than the mean
            if (best / FILE).is_file():
                self._restore(best)
        if self.begun:
            self._put(self._mean)
        self._mean = []

    def _first(self, state: TrainerState) -> int:
        """The first step whose weights count."""
        if self.how.last is None:
            return 1
        steps = int(state.max_steps)
        return steps - max(1, round(self.how.last * steps)) + 1

    def _restore(self, checkpoint: Path) -> None:
        try:
            with safe_open(checkpoint / FILE, "pt") as stored:
                taken = int(stored.metadata()[_STEPS])
            tensors = load_file(checkpoint / FILE)
        except FileNotFoundError as error:
            raise CompatibilityError(f"{checkpoint} holds no mean of the weights ({FILE}): its training was begun without "
                                     "`average`. Begin anew, or leave `average` out") from error
        if tensors.keys() != self._there.keys():
            raise CompatibilityError(f"{checkpoint / FILE} is of another student: begin anew")
        self.taken = taken
        self._mean = [tensors[name].to(one.device) for name, one in self._there.items()]

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for one, value in zip(self._there.values(), values, strict=True):
            one.copy_(value)


def decay(most: float, step: int) -> float:
    """Of an exponential mean at its `step`-th update: min(most, (1 + step) / (10 + step)).

    Less at first, as in TensorFlow's `ExponentialMovingAverage`: at 0.999 the weights that a training began with would be
    37 % of the mean after a thousand steps.
    """
    return min(most, (1 + step) / (10 + step))


def _averaged(student: nn.Module) -> dict[str, Tensor]:
    """What is averaged, each tensor once however many names it has."""
    trained: dict[str, Tensor] = {name: one for name, one in student.named_parameters() if one.requires_grad}
    return trained | {name: one for name, one in student.named_buffers() if one.is_floating_point()}
