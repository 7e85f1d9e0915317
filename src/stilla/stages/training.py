"""One training within a run: resumable, logged by term, stoppable, profiled if asked."""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from stilla.errors import TrainingError, counted
from stilla.models.spread import gathered
from stilla.objectives.base import Term
from stilla.recipe import Stage, Training
from stilla.runtime.narrate import progress, say
from stilla.runtime.processes import on_main
from stilla.runtime.situations import is_full
from stilla.scores import metric_title
from stilla.stages.clocks import Clocks
from stilla.stages.folder import RunFolder
from stilla.students import Student
from stilla.tasks.base import Prepared, Task
from stilla.teachers import Teacher
from stilla.training import checkpoints
from stilla.training.arguments import training_arguments
from stilla.training.dropout import dropping
from stilla.training.operations import Operations, live_of, operations_of
from stilla.training.patience import Patience
from stilla.training.spreading import asked_for
from stilla.training.trainer import DistillationTrainer
from stilla.training.validation import measures, model_of

THEIR_PLACE = os.environ.get("TENSORBOARD_LOGGING_DIR")
"""Where a person wants TensorBoard's files, if they said so."""


class Interrupted(KeyboardInterrupt):
    """A training that was asked to stop and saved a checkpoint; its message says where it stands."""


@dataclass(frozen=True)
class Learnt:
    """A training's steps, and of how many of its prepared examples, labelled and not, it has seen each at least once."""

    steps: int
    labelled: int
    unlabelled: int
    epochs: float = 1.0


def train(
    stage: str,
    student: nn.Module | Student,
    teacher: nn.Module | Teacher | None,
    terms: Sequence[Term],
    training: Training,
    *,
    task: Task,
    train_data: Prepared,
    validation_data: Prepared,
    folder: RunFolder,
    seed: int,
) -> Learnt | None:
    """Train the student in place, from its last checkpoint if there is one; gives what it learnt from where some of that is
    unlabelled.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved.
        TrainingError: a loss that is not finite; no room for a checkpoint.
    """
    set_seed(seed)  # before the trainer: it makes projections
    with task.learning(_model(student)):
        trainer = _trained(stage, student, teacher, terms, training, task, train_data, validation_data, folder, seed)
    if train_data.unlabelled is None:
        return None
    steps = trainer.state.global_step
    learnt_from: Any = trainer.train_dataset  # without a quiz
    seen = trainer.batches(learnt_from).seen(steps, learnt_from.unlabelled)
    return Learnt(steps, *seen, epochs=trainer.state.epoch or 0.0)


def _trained(
    stage: str, student: nn.Module | Student, teacher: nn.Module | Teacher | None, terms: Sequence[Term], training: Training,
    task: Task, train_data: Prepared, validation_data: Prepared, folder: RunFolder, seed: int,
) -> DistillationTrainer:
    """What has trained the student in place."""
    adapt = training.adapt if isinstance(training, Stage) else None
    # transformers' own place is the checkpoints' folder, which does not outlive the stage
    os.environ["TENSORBOARD_LOGGING_DIR"] = THEIR_PLACE or str(folder.path / "trackers" / "tensorboard" / stage)
    args = training_arguments(training, output_dir=folder.checkpoints(stage), seed=seed,
                              metrics=measures(task, taught=model_of(teacher) is not None and adapt is None))
    # spreading changes a model for good, and what comes after the training needs it whole
    learner = student if asked_for(args) is None else copy.deepcopy(student)
    kept, args.save_total_limit = args.save_total_limit, None  # Trainer would remove the last before the new one is whole
    trainer = DistillationTrainer(
        learner, teacher, terms=terms, args=args, train_dataset=train_data, eval_dataset=validation_data, task=task,
        group_by_length=training.group_by_length, average=training.average, compile=training.compile,
        batch_norm=training.batch_norm, pull=training.pull if isinstance(training, Stage) else None,
        unlabelled_share=training.unlabelled if isinstance(training, Stage) else None,
        hardest=training.hardest if isinstance(training, Stage) else None,
        adapt=adapt, extend=training.extend,
        callbacks=[Rotate(kept), *([] if training.patience is None else [Patience(training.patience)]),
                   *_callbacks(stage, training, folder)],
    )
    if trainer.extending is not None:
        trainer.extending.goes_on = lambda ending, until: say(
            f"{stage}: not yet converged at step {until - ending.part}: {ending.why(metric_title(ending.measure))}; goes "
            f"on to step {until}")
    log = Log(stage, folder, trainer)
    trainer.add_callback(log)
    trainer.remove_callback(PrinterCallback)
    for line in (*trainer.held.described, *([] if trainer.adapting is None else [trainer.adapting.described])):
        say(f"{stage}: {line}")
    checkpoint = on_main(lambda: _last_whole(stage, folder))
    on_main(lambda: folder.drop_log_after(stage, checkpoints.step_of(checkpoint) if checkpoint else -1))
    model = _model(learner)
    dropout = None if training.dropout == "model" else training.dropout
    with trainer.guard.interruptible(), dropping(model, dropout):
        _run(trainer, str(checkpoint) if checkpoint else None, lambda: _last_whole(stage, folder))
    if trainer.guard.stopping:
        raise Interrupted(f"stopped in `{stage}` after step {trainer.state.global_step} of {trainer.state.max_steps}; "
                          "a checkpoint was saved")
    log.end(operations_of(trainer, compiled=training.compile))
    if learner is not student:
        _model(student).load_state_dict(gathered(trainer.student, keep=True))
    _say_what_is_kept(stage, trainer)
    return trainer


def _say_what_is_kept(stage: str, trainer: DistillationTrainer) -> None:
    args, state, mean = trainer.args, trainer.state, trainer.averaging
    if trainer.extending is not None and (ending := trainer.extending.ending) is not None:
        say(f"{stage}: {ending.said(metric_title(ending.measure))}")
    best = bool(args.load_best_model_at_end and state.best_global_step)
    if not best and mean is None:
        return
    early = "" if state.global_step == state.max_steps else (
        f"stopped after step {state.global_step} of {state.max_steps}, as nothing became better; ")
    kept = "the weights" if mean is None else mean.described
    which = f" as of step {state.best_global_step} ({args.metric_for_best_model} {state.best_metric:.4g})" if best else ""
    say(f"{stage}: {early}kept: {kept}{which}")


def _model(student: nn.Module | Student) -> nn.Module:
    return student.model if isinstance(student, Student) else student


def _run(trainer: DistillationTrainer, checkpoint: str | None, last: Callable[[], Path | None]) -> None:
    """`last`: the newest whole checkpoint; a broken one goes, which makes room again."""
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except Exception as error:  # safetensors has a class of its own for a full disk
        if is_full(error):
            whole = last() if trainer.args.process_index == 0 else None
            after = f"continue from {whole.name}" if whole else "begin this stage again, which has no earlier checkpoint"
            raise TrainingError(f"no room left to save a checkpoint in {trainer.args.output_dir} at step "
                                f"{trainer.state.global_step}: {error}. Make room and run the same command again to "
                                f"{after}") from error
        raise
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, Bar):
                callback.exits.close()  # a bar left running would draw over the error


def _last_whole(stage: str, folder: RunFolder) -> Path | None:
    """The newest checkpoint that is as it was written. Those that are not are named, and removed: nothing can use them."""
    whole, broken = checkpoints.newest(folder.checkpoints(stage))
    for path, wrong in broken:
        say(f"{stage}: {path.name} is left out and removed: {wrong}")
        shutil.rmtree(path, ignore_errors=True)
    return whole


def _callbacks(stage: str, training: Training, folder: RunFolder) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [Bar(stage)]
    if training.profile is not None:
        callbacks.append(Profile(stage, training.profile, folder))
    return callbacks


class Rotate(TrainerCallback):
    """Removes older checkpoints once the newest is whole."""

    def __init__(self, keep: int | None) -> None:
        self.keep = keep

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            checkpoints.rotate(Path(args.output_dir or "."), self.keep, state.best_model_checkpoint)


class Log(TrainerCallback):
    """Writes what Trainer logs to the run's `log.jsonl`: loss terms by name, and what the training has taken.

    That begins anew where one continues, and a line says so: seconds, joules, and the numbers that have entered student and
    teacher.
    """

    def __init__(self, stage: str, folder: RunFolder, trainer: DistillationTrainer) -> None:
        self.stage = stage
        self.folder = folder
        self.guard, self.teacher, self.hardest = trainer.guard, live_of(trainer.teacher), trainer.hardest
        self.extending = trainer.extending
        self.clocks = Clocks(trainer.args.device)
        self.whole: dict[str, Any] = {}
        """All that the training has taken, once it is over."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero and state.global_step:
            self.folder.append_log({"stage": self.stage, "step": state.global_step, **self.clocks.nothing()})

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        entry: dict[str, Any] = {"stage": self.stage, "step": state.global_step,
                                 "progress": state.global_step / max(state.max_steps, 1)}
        if "loss" in logs:
            entry |= {"loss": logs["loss"], "learning_rate": logs.get("learning_rate"), "terms": _named(logs, "terms/"),
                      "gradient_norm": logs.get("grad_norm"), **self.taken()}
        elif any(name.startswith("eval_") for name in logs):
            entry["evaluation"] = _named(logs, "eval_")
        else:
            return
        self.folder.append_log(entry)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.whole = {"stage": self.stage, "step": state.global_step,
                          "ended_at": state.global_step / max(state.max_steps, 1), **self.ending(),
                          **self.best(args, state), **self.taken()}
            self.folder.append_log(self.whole)  # also where somebody stopped it: the checkpoint holds these steps

    def ending(self) -> dict[str, Any]:
        """How a training has ended that might have gone on; nothing of one that somebody stopped."""
        ending = None if self.extending is None else self.extending.ending
        return {} if ending is None or ending.goes_on else {"extended": ending.plain()}

    def best(self, args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
        """Which weights are kept, where the best are; nothing of a training that somebody stopped."""
        if not (args.load_best_model_at_end and state.best_global_step) or self.guard.stopping or not state.epoch:
            return {}
        passes = state.epoch * state.best_global_step / state.global_step
        metric = (args.metric_for_best_model or "").removeprefix("eval_")
        return {"best": {"passes": passes, "of": state.epoch, "metric": metric, "value": state.best_metric}}

    def taken(self) -> dict[str, float]:
        asked = 0 if self.teacher is None else self.teacher.entered
        looked = 0 if self.hardest is None else self.hardest.entered
        return {**self.clocks.read(), "entered": self.guard.entered, **({"asked": asked} if asked else {}),
                **({"looked_at": looked} if looked else {})}

    def end(self, operations: Operations | None) -> None:
        """Writes the operations for each number that entered, where they could be counted."""
        if self.whole and operations is not None:
            self.folder.append_log({**self.whole, "operations": asdict(operations)})


class Bar(TrainerCallback):
    """A progress bar with the stage's name and the last loss, and a line when the stage is over."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.exits = ExitStack()
        self.advance: Callable[..., None] = lambda *_: None
        self.started = time.monotonic()
        self.steps = 0
        """As far as the training is to go by now."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.started = time.monotonic()
        if state.global_step:
            say(f"{self.stage}: continues after step {state.global_step} of {state.max_steps}")
        else:
            say(f"{self.stage}: training, {counted(state.max_steps, 'step')}")
        self._show(state)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.max_steps != self.steps:  # it goes on
            self.exits.close()
            self._show(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.advance(1)

    def _show(self, state: TrainerState) -> None:
        self.steps = state.max_steps
        bar = progress(self.stage, self.steps, show=state.is_world_process_zero)
        self.advance = self.exits.enter_context(bar)
        self.advance(state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            self.advance(0, f"loss {logs['loss']:.4f}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.exits.close()
        if state.global_step == state.max_steps:
            say(f"{self.stage}: {counted(state.max_steps, 'step')} in {_duration(time.monotonic() - self.started)}")


class Profile(TrainerCallback):
    """PyTorch's profiler over a few steps; the trace opens in Perfetto or chrome://tracing."""

    def __init__(self, stage: str, steps: int, folder: RunFolder) -> None:
        self.target = folder.profile / f"{stage}.json.gz"
        self.profiler = torch.profiler.profile(
            # one step to settle, one to warm the profiler up
            schedule=torch.profiler.schedule(wait=1, warmup=1, active=steps, repeat=1),
            on_trace_ready=self._save, record_shapes=True, profile_memory=True)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.profiler.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.profiler.step()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.profiler.stop()

    def _save(self, profiler: torch.profiler.profile) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.target))


def _named(logs: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in logs.items() if name.startswith(prefix)}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
