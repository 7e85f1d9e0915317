"""A training that goes on where it has not converged at its end: part by part, each as long as the first, up to a limit.

The learning rate makes its way anew in every part, warm-up included, so that every part ends as low as the first (warm
restarts: Loshchilov and Hutter 2017, arXiv:1608.03983; Wen et al. 2024, arXiv:2410.05192, go on from such an end too); a
schedule that is level goes on as it was. All else is one training: examples in the order in which a longer one would have
them, the optimiser's moments, one count of steps. What goes with a training's progress (a weight's schedule, a share) makes
its way in the first part, and stays at its end.

Nothing has to be kept of it in a checkpoint: what was decided follows from the evaluations that are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy, SchedulerType

from stilla.recipe import Average
from stilla.training.converging import Ending, Points, Verdict
from stilla.training.reading import is_stream

OPEN = frozenset({SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP, SchedulerType.INVERSE_SQRT,
                  SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY})
"""Schedulers of the learning rate that do not depend on when the training will end."""


class Extending(TrainerCallback):
    """Decides at the end of every part. It comes before the guard, whose wish to stop holds."""

    def __init__(self, most: int, goes_on: Callable[[Ending, int], None] = lambda *_: None) -> None:
        """`most`: parts in all. `goes_on`: told why, and up to which step."""
        self.most, self.goes_on = most, goes_on
        self.part = 0
        """Steps of a part, once they are known."""
        self.ending: Ending | None = None
        """How the last part ended."""

    def settled(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Of transformers' numbers of a training (epochs, steps of an epoch, examples, samples, ..., steps) those of the
        longest that it may become."""
        epochs, per_epoch, examples, samples, *others, steps = values
        self.part = int(steps)
        whole = self.part * self.most
        return (max(epochs, math.ceil(whole / per_epoch)), per_epoch, examples, samples * self.most, *others, whole)

    def progress(self, step: int) -> float:
        return min(1.0, step / max(self.part, 1))

    def made_anew(self, scheduler: Any, kind: SchedulerType) -> None:
        """Let a schedule for one part make its way in every one."""
        if kind not in OPEN and isinstance(scheduler, LambdaLR):
            # functions: what has a state of its own would be written into checkpoints, which cannot be read then
            scheduler.lr_lambdas = [self._anew(one) for one in scheduler.lr_lambdas]

    def _anew(self, rate: Callable[[int], float]) -> Callable[[int], float]:
        return lambda step: rate(step % self.part)

    def is_over(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether a training whose last checkpoint has this state was over; `settled` has to be."""
        ending = self._ended(args, state)
        return ending is not None and not ending.goes_on

    # --- along a training ---

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.compute_steps(args, self.part)
        self.ending = self._ended(args, state)
        begun = max(1, math.ceil(state.global_step / self.part))
        state.max_steps = self.part * (begun + (self.ending is not None and self.ending.goes_on))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == state.max_steps:
            control.should_training_stop = False  # that is decided when it is measured
            control.should_evaluate = True
            control.should_save = control.should_save or args.save_strategy != SaveStrategy.NO

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step != state.max_steps or (ending := self._ended(args, state)) is None:
            return
        self.ending = ending
        if ending.goes_on:
            state.max_steps += self.part
            self.goes_on(ending, state.max_steps)
        else:
            control.should_training_stop = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self.part == 0:  # a part ended with the epoch, and was measured and saved
            control.should_evaluate = control.should_save = False

    def _ended(self, args: TrainingArguments, state: TrainerState) -> Ending | None:
        """How the part has ended whose last step this is; None at any other."""
        if not state.global_step or state.global_step % self.part:
            return None
        measure = (args.metric_for_best_model or "").removeprefix("eval_")
        verdict = Verdict.of(_points(state, f"eval_{measure}"), self.part, higher_is_better=bool(args.greater_is_better))
        parts = state.global_step // self.part
        return Ending(verdict if verdict.parts == parts else Verdict("unknown", None, parts), measure, self.most, self.part)


def extending_problems(most: int, args: TrainingArguments, data: Any, scheduler: Any, average: Average | None) -> list[str]:
    """Why a training with these arguments could not go on, in words that say what to do."""
    problems = []
    if most < 2:
        problems.append(f"extend: got {most}; expected up to how many times as long the training may become, 2 or more")
    if args.eval_strategy == "no" or not args.load_best_model_at_end:
        problems.append("extend: goes by what is measured along the way, and keeps the best weights; set eval_strategy and "
                        "save_strategy to steps or epoch, and load_best_model_at_end")
    if is_stream(data):
        problems.append("extend: what a stream gives after its first part is not known beforehand; give a dataset that has a "
                        "length")
    if scheduler is not None:
        problems.append("extend: every part makes the way of the learning rate anew, and a scheduler of your own "
                        "(optimizers) has one way; name one by lr_scheduler_type")
    if average is not None and average.last is not None:
        problems.append("extend: nobody knows beforehand which part is the last, which average.last is a fraction of; use "
                        "ema")
    return problems


def _points(state: TrainerState, name: str) -> Points:
    return [(entry["step"], entry[name]) for entry in state.log_history if name in entry]
