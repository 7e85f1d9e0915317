"""Watches a training from inside: named terms for the log, a loss that is not finite, a wish to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stilla.distiller import Distiller
from stilla.errors import TrainingError
from stilla.signals import Batch


class Guard(TrainerCallback):
    """Collects what each micro-batch said, and decides after each optimiser step whether to go on.

    All processes decide together: one that raised alone would leave the others waiting in their next exchange.
    """

    def __init__(self, distiller: Distiller) -> None:
        self.names = [term.name for term in distiller.terms]
        self.sums: Tensor | None = None
        self.steps = 0
        self.bad_terms: Tensor | None = None
        self.keys: list[int] = []
        self.stopping = False

    def watch(self, loss: Tensor, terms: Tensor, batch: Batch) -> None:
        """Called once per micro-batch with its share of the loss."""
        self.sums = terms.double() if self.sums is None else self.sums + terms
        bad = ~torch.isfinite(torch.cat([loss.detach()[None].to(terms.dtype), terms]))
        self.bad_terms = bad if self.bad_terms is None else self.bad_terms | bad
        self.last = batch

    def drain(self, accelerator: Any) -> dict[str, float]:
        """The mean of each term over the optimiser steps since the last call, over all processes."""
        if self.sums is None or self.steps == 0:
            return {}
        # each process holds its share times the number of processes, so the mean over processes is the step's value
        totals = accelerator.gather(self.sums[None]).mean(0).tolist()
        values = {f"terms/{name}": total / self.steps for name, total in zip(self.names, totals, strict=True)}
        self.sums, self.steps = None, 0
        return values

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        self.steps += 1
        flags = torch.tensor([self.stopping], device=args.device)
        if self.bad_terms is not None:
            flags = torch.cat([flags, self.bad_terms.to(args.device)])
        if args.world_size > 1:
            shared = flags.int()
            torch.distributed.all_reduce(shared)
            flags = shared > 0
        stop, *bad = flags.tolist()
        self.bad_terms = None
        if any(bad):
            raise TrainingError(self._not_finite(state.global_step, bad))
        if stop:
            control.should_save = control.should_training_stop = True
        return control

    def _not_finite(self, step: int, bad: list[bool]) -> str:
        named = [name for name, is_bad in zip(self.names, bad[1:], strict=True) if is_bad] or ["the weighted sum"]
        keys = self.last.keys_
        where = f"; examples of its last micro-batch: {keys.tolist()}" if keys is not None else ""
        return (f"the loss is not finite at step {step} ({', '.join(named)}){where}. Nothing was saved after it: the last "
                "checkpoint is good. Lower the learning rate, train in float32, or look at these examples")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the training after the current step, with a checkpoint; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers; a library's caller keeps its own
            return

        def ask(number: int, _: Any) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
