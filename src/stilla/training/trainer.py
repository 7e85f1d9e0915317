"""Training: `transformers.Trainer` with a distiller inside, through its public hooks only.

Teacher training, baseline and fine-tuning are this same trainer with the single term `labels` and no teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from stilla.errors import CompatibilityError, all_at_once
from stilla.evaluate import predict
from stilla.objectives.base import LayerMap, RowObjective, Term
from stilla.signals import Batch
from stilla.students import Student, automatic_layer_map
from stilla.tasks.base import Prepared, Side, Task
from stilla.teachers import CapturingTeacher, LiveTeacher, Teacher
from stilla.training.batches import EpochLoader, Examples, StepBatches
from stilla.training.distiller import Distiller
from stilla.training.guard import Guard, KeepUp
from stilla.training.plain import dims_of, prepared_from, task_of
from stilla.training.reduction import Step, count_step


class DistillationTrainer(Trainer):
    """Trains a student on the terms of its loss, with a teacher or without.

    Args:
        student: a model, or a `Student` that knows which teacher layer each of its layers answers to.
        teacher: a model, anything that answers a batch with signals, or None where no term needs one.
        terms: what the loss is made of.
        args: `transformers.TrainingArguments`.
        train_dataset: prepared by a task, or a dataset of model inputs with `labels` as Trainer takes it.
        eval_dataset: likewise; scored by the task's metrics, in its own order.
        task: a task, its name, or None to know it from the student's class.
        data_collator: for datasets that no task prepared; by default transformers' padding collator.
        group_by_length: batches of similar length, where examples have one.
        compile: compile the losses over a vocabulary, which needs a C++ compiler.

    Raises:
        CompatibilityError: terms that cannot work on these models; a term that needs a teacher without one.
    """

    # the loss of a micro-batch is its share of the whole step's: Trainer must not divide it again
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        student: nn.Module | Student,
        teacher: nn.Module | Teacher | None = None,
        *,
        terms: Sequence[Term],
        args: TrainingArguments,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        task: Task | str | None = None,
        processing_class: Any = None,
        data_collator: Callable[[Sequence[Any]], Mapping[str, Any]] | None = None,
        group_by_length: bool = True,
        compile: bool = False,
        callbacks: Sequence[TrainerCallback] = (),
        **trainer: Any,
    ) -> None:
        model = student.model if isinstance(student, Student) else student
        if teacher is None and any(term.objective.needs_teacher for term in terms):
            named = next(term.name for term in terms if term.objective.needs_teacher)
            raise CompatibilityError(f"the term `{named}` needs a teacher, and none was given")
        self.task = task_of(model, task)
        train_data = prepared_from(train_dataset, data_collator, processing_class, self.task)
        stacks = train_data is not None and any(term.objective.needs_stacks for term in terms)
        if train_data is not None and (wrong := [
                f"`{term.name}` {problem}" for term in terms
                for problem in term.objective.misfits(aligned=train_data.aligned, packed=train_data.packed)]):
            raise all_at_once(wrong, CompatibilityError)
        batch = train_data.collate([train_data.examples[0]]) if stacks else None  # type: ignore[union-attr]
        self.teacher = LiveTeacher(teacher, self.task, stacks=stacks) if isinstance(teacher, nn.Module) else teacher
        distiller = Distiller(
            model, terms, self.task,
            student_dims=dims_of(model, self.task, batch.student if batch else None),
            teacher_dims=None if self.teacher is None else self.teacher.dims(batch),
            layer_map=_layer_map(student, teacher, stacks), compile=compile,
        )
        if not any(isinstance(term.objective, RowObjective) for term in terms):
            args.ddp_find_unused_parameters = True  # hidden states alone leave the head without gradients
        self.guard = Guard(distiller)
        stores = [KeepUp(self.teacher)] if isinstance(self.teacher, CapturingTeacher) else []
        self._group_by_length = group_by_length
        super().__init__(
            model=distiller, args=args, processing_class=processing_class,
            train_dataset=train_data,
            eval_dataset=prepared_from(eval_dataset, data_collator, processing_class, self.task),
            # batches arrive ready: what Trainer calls a collator has nothing left to do
            data_collator=lambda batch: batch, callbacks=[self.guard, *stores, *callbacks], **trainer,
        )
        if self.teacher is not None:
            self.teacher.to(self.args.device)

    @property
    def student(self) -> nn.Module:
        """The student alone, without wrapper or projections."""
        inside: nn.Module = self.accelerator.unwrap_model(self.model).student
        return inside

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches of this process; not handed to accelerate, whose sharding repeats examples to even out."""
        prepared: Prepared = self.train_dataset
        examples = Examples(prepared)
        batches = StepBatches(
            len(examples), batch_size=self._train_batch_size, accumulate=self.args.gradient_accumulation_steps,
            processes=self.accelerator.num_processes, process=self.accelerator.process_index,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            lengths=prepared.lengths if self._group_by_length else None, on_epoch=prepared.on_epoch,
        )
        return EpochLoader(
            examples, batch_sampler=batches, collate_fn=examples.collate,
            num_workers=self.args.dataloader_num_workers, pin_memory=self.args.dataloader_pin_memory,
            # its own generator: drawing a worker seed from the global one would move dropout after a resume
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], dict[str, float]]:
        """The step's micro-batches and its counts over all of them and all processes."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator)]
        counted = [self.task.counts(batch) for batch in batches if "void" not in batch]
        return batches, count_step(counted, self.accelerator.gather, device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Mapping[str, float] | None = None,
    ) -> Any:
        if num_items_in_batch is None:
            raise CompatibilityError("the loss is only defined within an optimiser step, whose counts it is divided by")
        progress = self.state.global_step / max(self.state.max_steps, 1)
        step = Step(num_items_in_batch, self.accelerator.num_processes, progress)
        with self.accelerator.autocast():  # the student's wrapper brings its own
            said = self.teacher(inputs) if self.teacher is not None else None
        outputs = model(inputs, said, step)
        self.guard.watch(outputs["loss"], outputs["terms"], inputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds each term by name, as a mean over the steps since the last log."""
        if "loss" in logs:
            logs = {**logs, **self.guard.drain(self.accelerator)}
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The task's metrics on the validation data, in its own order, through the student alone."""
        prepared = self.eval_dataset if eval_dataset is None else prepared_from(eval_dataset, None, None, self.task)
        if prepared is None:
            raise CompatibilityError("evaluation was asked for, and there is no eval_dataset; give one, or set "
                                     "`eval_strategy: no`")
        said = predict(self.student, self.task, prepared, side=Side.STUDENT, batch_size=self.args.eval_batch_size,
                       device=self.args.device, precision="bfloat16" if self.args.bf16 else "float32",
                       together=self.args.world_size > 1, title="evaluating")
        metrics = {f"{metric_key_prefix}_{metric.name}": metric.compute(said.outputs, said.labels)
                   for metric in self.task.metrics()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        return metrics


def _layer_map(student: nn.Module | Student, teacher: object, stacks: bool) -> LayerMap | None:
    if isinstance(student, Student):
        return student.layer_map
    if stacks and isinstance(teacher, nn.Module):
        return automatic_layer_map(student, teacher)
    return None
