"""Watches a training from inside: named terms for the log, a loss that is not finite, a wish to stop, the teacher's cache,
whole checkpoints.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stilla.errors import TrainingError
from stilla.models.spread import local_parts
from stilla.runtime.files import write_whole
from stilla.signals import Batch
from stilla.tasks.forward import numbers_in
from stilla.teachers import Remembering
from stilla.training import checkpoints
from stilla.training.continuing import Made
from stilla.training.distiller import Distiller


class Guard(TrainerCallback):
    """Collects what each micro-batch said, and decides after each optimiser step whether to go on.

    All processes decide together: one that raised alone would leave the others waiting in their next exchange.
    """

    def __init__(self, distiller: Distiller) -> None:
        self.names = [term.name for term in distiller.terms]
        self.sums: Tensor | None = None
        self.steps = 0
        self.entered = 0
        """Numbers that have entered the student in this process's steps."""
        self.bad_terms: Tensor | None = None
        self.asked = False
        """Whether this process got a signal; `stopping`: whether all agreed to stop."""
        self.stopping = False

    def watch(self, loss: Tensor, terms: Tensor, batch: Batch) -> None:
        """Called once per micro-batch with its share of the loss."""
        values = torch.cat([loss.detach()[None].to(terms.dtype), terms])
        self.sums = values.double() if self.sums is None else self.sums + values
        bad = ~torch.isfinite(values)
        self.bad_terms = bad if self.bad_terms is None else self.bad_terms | bad
        self.entered += numbers_in(batch.student)
        self.last = batch

    def drain(self, accelerator: Any) -> dict[str, float]:
        """The mean of the loss and of each term over the optimiser steps since the last call, over all processes.

        Steps before a stop count too: what was seen of them stands in the checkpoint. Trainer forgets its own sum there.
        """
        if self.sums is None or self.steps == 0:
            return {}
        # each process holds its share times the number of processes, so the mean over processes is the step's value
        totals = accelerator.gather(self.sums[None]).mean(0).tolist()
        named = ["loss", *(f"terms/{name}" for name in self.names)]
        values = {name: total / self.steps for name, total in zip(named, totals, strict=True)}
        self.sums, self.steps = None, 0
        return values

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.sums, self.steps = None, 0
        logged = checkpoints.at(Path(args.output_dir or "."), state.global_step) / checkpoints.LOGGED
        if state.global_step and logged.is_file():
            seen = json.loads(logged.read_text(encoding="utf-8"))
            self.sums, self.steps = torch.tensor(seen["sums"], dtype=torch.float64, device=args.device), seen["steps"]

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Every process calls this when its part of the checkpoint is written."""
        sums = torch.zeros(1 + len(self.names), dtype=torch.float64) if self.sums is None else self.sums
        if args.world_size > 1:  # also waits until all have written their part
            sums = sums.clone().to(args.device)
            torch.distributed.all_reduce(sums)
        checkpoint = checkpoints.at(Path(args.output_dir or "."), state.global_step)
        if state.is_world_process_zero and checkpoint.is_dir():  # Trainer's search over settings saves elsewhere
            seen = {"steps": self.steps, "sums": (sums / args.world_size).tolist()}
            write_whole(checkpoint / checkpoints.LOGGED, json.dumps(seen))
            Made.by(args).write(checkpoint)
            checkpoints.seal(checkpoint)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> TrainerControl:
        self.steps += 1
        # a gradient that is not finite breaks the weights before any loss shows it
        broken = (control.should_save or state.global_step >= state.max_steps) and not _finite(model)
        flags = torch.tensor([self.asked, broken], device=args.device)
        if self.bad_terms is not None:
            flags = torch.cat([flags, self.bad_terms.to(args.device)])
        if args.world_size > 1:
            shared = flags.int()
            torch.distributed.all_reduce(shared)
            flags = shared > 0
        self.stopping, broken, *bad = flags.tolist()
        self.bad_terms = None
        if any(bad) or broken:
            raise TrainingError(self._not_finite(args, state.global_step, bad))
        if self.stopping:
            control.should_save = control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self.stopping and (state.epoch or 0.0) % 1:
            control.should_evaluate = False  # whoever asked to stop need not wait for it
            control.should_log = False  # the steps are logged with those that follow them
        return control

    def _not_finite(self, args: TrainingArguments, step: int, bad: list[bool]) -> str:
        named = [name for name, is_bad in zip(self.names, bad[1:]) if is_bad]
        what = f"the loss is not finite at step {step} ({', '.join(named) or 'the weighted sum'})"
        if not any(bad):
            what = f"the weights are not finite after step {step}, though its loss was"
        keys = self.last.keys_
        where = f"; examples of its last micro-batch: {keys.tolist()}" if keys is not None else ""
        whole, broken = checkpoints.newest(Path(args.output_dir or "."))
        kept = "there is no checkpoint yet" if whole is None else f"the last checkpoint is good ({whole.name})"
        kept += "".join(f"; {path.name} is not: {wrong}" for path, wrong in broken)
        return (f"{what}{where}. Nothing was saved after it: {kept}. Lower the learning rate, train in float32, or look "
                "at these examples")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the training after the current step, with a checkpoint; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers; a library's caller keeps its own
            return

        got: list[int] = []

        def ask(number: int, _: Any) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            got.append(number)

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.asked and not self.stopping:
            signal.raise_signal(got[0])  # it came after the last step


class KeepUp(TrainerCallback):
    """Brings what was captured to disk before every checkpoint, so that both always tell of the same step."""

    def __init__(self, teacher: Remembering) -> None:
        self.teacher = teacher

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if control.should_save:
            self.teacher.flush()

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.teacher.flush()


def _finite(model: Any) -> bool:
    """Whether every weight that this process holds is; looked at when it is about to be saved."""
    weights = [] if model is None else [one for one in local_parts(model) if one.is_floating_point()]
    return not weights or bool(torch.stack([torch.isfinite(one).all() for one in weights]).all())
