"""The hardest of several forms of each example: where a student is furthest from its teacher (Wang et al. 2022, DAP,
arXiv:2012.02909).

    checkpoint-40/hardest.safetensors    in which pass it was made, and which candidate each example takes there
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, distributed, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stilla.errors import CompatibilityError, all_at_once, counted
from stilla.evaluate.asking import Within, evaluating
from stilla.rows import row_measures
from stilla.runtime.narrate import progress
from stilla.signals import Batch, Signals
from stilla.tasks.base import Prepared, Side, Task
from stilla.tasks.forward import numbers_in
from stilla.teachers.capture import batches_of
from stilla.training import checkpoints
from stilla.training.loaders import loader
from stilla.training.streams import Source

FILE = "hardest.safetensors"


class Hardest(TrainerCallback):
    """Chooses as a pass begins, by the student as it is then, so that what a step holds does not depend on how it is cut:

        c(i) = argmax_c Σ_r KL(teacher(x_ic)_r || student(x_ic)_r)  over the rows r of example i,

    in nats at temperature 1, among those of its candidates that keep as many labels as the first; of equal ones the earliest.
    """

    def __init__(
        self, many: int, prepared: Prepared, task: Task, student: nn.Module, tell: Callable[[Batch], Signals | None],
        within: Within,
    ) -> None:
        """`many`: candidates of each example. `tell`: what the teacher says. `within`: where the student is whole."""
        self.many, self.prepared, self.task, self.student = many, prepared, task, student
        self.tell, self.within = tell, within
        self.entered = 0
        """Numbers that have entered the student in this process's choosing."""
        self.resumed: Path | None = None
        """The checkpoint that the training continues from."""
        self._args: TrainingArguments | None = None
        self._of: int | None = None
        self._chosen = np.zeros(len(prepared), np.int64)

    @classmethod
    def of(
        cls, many: int, data: Prepared | Source | None, task: Task, student: nn.Module,
        tell: Callable[[Batch], Signals | None], within: Within, *, asks: bool,
    ) -> Self:
        """`asks`: whether some term asks the teacher.

        Raises:
            CompatibilityError: nothing can be chosen.
        """
        prepared = data if isinstance(data, Prepared) else None
        wrong = problems(many, prepared, task, asks=asks)
        if wrong or prepared is None:
            raise all_at_once([f"hardest: {problem}" for problem in wrong], CompatibilityError)
        return cls(many, prepared, task, student, tell, within)

    def set_epoch(self, epoch: int) -> None:
        """The pass begins, or is gone on with; a loader may say so more than once."""
        prepared = self.prepared
        if prepared.on_epoch is not None:
            prepared.on_epoch(epoch)
        if epoch != self._of:
            self._chosen = self._hardest() if prepared.turns[0].changes else np.zeros(len(prepared), np.int64)
            self._of = epoch
        self._show(self._chosen)

    # --- along a training ---

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._args, self._of = args, None
        if self.resumed is not None and state.global_step:
            self._restore(self.resumed)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Before the checkpoint is sealed, which the guard does."""
        folder = checkpoints.at(Path(args.output_dir or "."), state.global_step)
        if self._of is not None and state.is_world_process_zero and folder.is_dir():
            save_file({"chosen": self._chosen, "pass": np.array([self._of, self.many])}, folder / FILE)

    def _restore(self, checkpoint: Path) -> None:
        try:
            stored = load_file(checkpoint / FILE)
        except FileNotFoundError as error:
            raise CompatibilityError(f"{checkpoint} does not say which forms were the hardest ({FILE}): its training was "
                                     "begun without `hardest`. Begin anew, or leave `hardest` out") from error
        of, many = stored["pass"].tolist()
        if many != self.many or stored["chosen"].shape != self._chosen.shape:
            raise CompatibilityError(f"{checkpoint / FILE} is of {counted(len(stored['chosen']), 'example')} with {many} "
                                     f"candidates each, and here are {len(self._chosen):,} with {self.many}: begin anew")
        self._of, self._chosen = of, stored["chosen"]

    # --- choosing ---

    def _hardest(self) -> Int[NDArray[np.int64], " examples"]:
        chosen = np.zeros(len(self.prepared), np.int64)
        if self.many < 2:
            return chosen
        first = hardest = np.zeros(0)
        for candidate in range(self.many):
            self._show(np.full(len(self.prepared), candidate))
            apart, labels = self._asked(candidate)
            if candidate == 0:
                hardest, first = apart, labels
                continue
            # the labels of a pass stay as many as without a choice
            better = (apart > hardest) & (labels == first)
            chosen[better], hardest = candidate, np.where(better, apart, hardest)
        return chosen

    def _asked(self, candidate: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of every example as it is shown now: how far the student is from the teacher, and how many rows have a label."""
        args, prepared = self._args, self.prepared
        assert args is not None  # a training has begun
        # fixed by the data and the size of a batch, whoever asks
        whole = list(batches_of(prepared, args.eval_batch_size))
        rank, world = args.process_index, args.world_size
        # who has one less asks the last again: all make as many forwards, as sharded models need
        mine = [whole[min(index, len(whole) - 1)] for index in range(rank, -(-len(whole) // world) * world, world)]
        parts = []
        title = f"choosing the hardest ({candidate + 1} of {self.many})"
        with (evaluating(self.student, args.device, "bfloat16" if args.bf16 else "float32", self.within) as run,
              progress(title, len(prepared) // world, show=rank == 0) as advance):
            for places, batch in zip(mine, loader(prepared, args.eval_batch_size, mine)):
                there = batch.to(args.device)
                self.entered += numbers_in(there.student)
                with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
                    told = self.tell(there)
                assert told is not None  # `problems` refuses a training that asks no teacher
                said = self.task.signals(run(there.student), there, Side.STUDENT)
                parts.append((places, _measured(*self.task.align(said, told, there), len(places)).cpu().numpy()))
                advance(len(places))
        found = np.zeros((len(prepared), 2))
        for share in _gathered(parts, world) if world > 1 else [parts]:
            for places, numbers in share:
                found[places] = numbers
        return found[:, 0], found[:, 1]

    def _show(self, candidates: Int[NDArray[np.int64], " examples"]) -> None:
        for turns in self.prepared.turns:
            turns.choose(self.prepared.keys, candidates)


def problems(many: int, prepared: Prepared | None, task: Task, *, asks: bool) -> list[str]:
    """Why nothing can be chosen, in words that say what to do. `asks`: whether some term asks the teacher. `prepared`: None
    of a stream."""
    if many < 1:
        return [f"got {many}; expected how many forms of each example are compared, 2 or more"]
    found = []
    if not asks:
        found.append("the forms are chosen by what the teacher says of them, and no objective here asks it anything. Add "
                     "logits, or leave it out")
    if not task.distributions or task.row_classes() < 2:
        found.append("goes by KL(teacher || student) between distributions over classes, and these answers are numbers or "
                     "vectors. Leave it out")
    if prepared is None or not prepared.turns:
        found.append("is chosen among forms of examples that change at random, and these do not, or not so that each could "
                     "be shown in a form of its own. Use data.augment of text-classification or image-classification "
                     "(light, contextual, strong, ...), or leave it out")
    elif (views := prepared.turns[0].views) is not None and views < many:
        found.append(f"got {many}, and there are {counted(views, 'form')} of each example (data.views). Draw more, or "
                     "compare fewer")
    return found


@torch.no_grad()
def _measured(student: Signals, teacher: Signals, examples: int) -> Float[Tensor, "examples 2"]:
    """Of every example, summed over its rows: KL(teacher || student), and how many have a label."""
    assert student.logits is not None
    assert teacher.logits is not None
    apart = row_measures(student.logits, None, teacher.logits).kl
    assert apart is not None
    labels = student.labels
    known = torch.zeros_like(apart) if labels is None else ((labels != -100) & ~torch.isnan(labels)).to(apart)
    return torch.stack([one.double().reshape(examples, -1).sum(1) for one in (apart, known)], 1)


def _gathered(mine: Any, world: int) -> list[Any]:
    gathered: list[Any] = [None] * world
    distributed.all_gather_object(gathered, mine)
    return gathered
