"""Training: `transformers.Trainer` with a distiller inside, through its public hooks only.

Teacher training, baseline and fine-tuning are this same trainer with the single term `labels` and no teacher. What of
Trainer works, and what is refused: `options.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from stilla.errors import CompatibilityError
from stilla.models.spread import gathered, is_spread
from stilla.objectives.base import LogitObjective, Term
from stilla.recipe import Adapt, Average, Pull
from stilla.recipe.schedule import Schedule
from stilla.signals import Batch, Signals
from stilla.students import Student
from stilla.tasks.base import Prepared, Task
from stilla.teachers import Remembering, Teacher
from stilla.training.adapting import Adapting
from stilla.training.attention import attention_in_float32
from stilla.training.averaging import Averaging
from stilla.training.batch_norm import BatchNorm, SharedStatistics, settle_batch_norm
from stilla.training.batches import StepBatches
from stilla.training.continuing import checkpoint_of, refuse_unlike
from stilla.training.distiller import Distiller
from stilla.training.dropout import leaves_out
from stilla.training.explaining import explaining_problems, live
from stilla.training.extending import Extending, extending_problems
from stilla.training.guard import Guard, KeepUp
from stilla.training.hardest import Hardest
from stilla.training.loaders import training_loader
from stilla.training.measuring import Measuring
from stilla.training.mixing import Mixing
from stilla.training.patience import Patience
from stilla.training.plain import dims_of, save_plain, task_of
from stilla.training.pulling import Anchored, Held, layer_map_of, spread_problems
from stilla.training.quiz import set_apart, unadaptable
from stilla.training.reading import Collator, Reading, tokenizer_of
from stilla.training.reduction import count_step
from stilla.training.settling import (
    Undefined,
    goes_by_kl,
    refuse_partial,
    refuse_unfit,
    settle_best,
    settle_devices,
    settled_share,
    training_data,
)
from stilla.training.spreading import asked_for, build_whole, preparing, settle
from stilla.training.streams import Source
from stilla.training.survey import WholeStep, place
from stilla.training.validation import Validation, model_of


class DistillationTrainer(Measuring):
    """Trains a student on the terms of its loss, with a teacher or without.

    Args:
        student: a model, or a `Student` that knows which teacher layer each of its layers answers to.
        teacher: a model, anything that answers a batch with signals, or None where no term needs one.
        terms: what the loss is made of.
        args: `transformers.TrainingArguments`.
        train_dataset: prepared by a task, or a dataset of model inputs with labels as Trainer takes it, by place or as a
            stream (then with `max_steps`).
        eval_dataset: likewise, no stream, or several by name; scored by the task's metrics, in its own order.
        task: a task, its name, or None to know it from the student's class.
        data_collator: for datasets that no task prepared; by default transformers' padding collator.
        group_by_length: batches of similar length, where examples have one.
        pull: steps towards the teacher's weights, beside the optimiser's.
        average: a mean of the student's weights that takes their place in the end, and is what `evaluate` measures.
        adapt: adapt the teacher, which is changed for good, to its student before every step.
        compile: compile the losses over a vocabulary, which needs a C++ compiler.
        batch_norm: `frozen` keeps the running statistics of layers that normalise by the batch, and normalises by them.
        unlabelled_share: of every step, examples that nobody has labelled (their label is -100, or NaN where it is a number):
            a share from 0 to 1, or a schedule of it. By default all examples are passed over equally often.
        hardest: of so many forms of each example, where examples change at random, a pass takes the one in which the student
            is furthest from the teacher.
        extend: go on where the training has not converged at its end, up to so many times as long.
        compute_metrics, preprocess_logits_for_metrics, callbacks, optimizers, optimizer_cls_and_kwargs: as Trainer has them.

    Raises:
        CompatibilityError: what Trainer has and this one has not (`options.py`); terms, data, collator and models
            that do not fit; a term that needs a teacher without one.
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
        data_collator: Collator | None = None,
        group_by_length: bool = True,
        pull: Pull | None = None,
        average: Average | None = None,
        adapt: Adapt | None = None,
        compile: bool = False,
        batch_norm: BatchNorm = "model",
        unlabelled_share: Schedule | Mapping[str, Any] | float | None = None,
        hardest: int | None = None,
        extend: int | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        **trainer: Any,
    ) -> None:
        model = student.model if isinstance(student, Student) else student
        spread = asked_for(args)
        refuse_unfit(args, trainer, data_collator, terms, teacher, optimizers,
                     [*spread_problems(terms, pull, spread), *explaining_problems(terms, args),
                      *([] if adapt is None else unadaptable(teacher, train_dataset, pull=pull, spread=spread)),
                      *([] if extend is None else extending_problems(extend, args, train_dataset, optimizers[1], average))])
        build_whole()
        settle_devices(args)
        settle_batch_norm(model, batch_norm, args)
        self.task = task_of(model, task, teacher)
        terms = self.task.terms(terms)
        self.reading = Reading.of(self.task, model, teacher, collator=data_collator, processor=processing_class,
                                  unused=not args.remove_unused_columns,
                                  seed=args.data_seed if args.data_seed is not None else args.seed)
        train_data, batch = training_data(train_dataset, self.reading, terms, args)
        if unlabelled_share is not None and isinstance(train_data, Prepared) and train_data.unlabelled is None:
            train_data = self.reading.with_unlabelled(train_data, train_dataset)
        train_data, quiz = set_apart(train_data, adapt, terms, self.task, self.reading.seed)
        stacks = batch is not None and any(term.objective.needs_stacks for term in terms)
        seen = batch if stacks else None
        self.teacher = live(teacher, self.task, terms, stacks=stacks) if isinstance(teacher, nn.Module) else teacher
        aligned = not isinstance(train_data, Prepared) or train_data.aligned
        self.held = Held.of(Anchored(student, model_of(teacher), aligned), terms, pull)
        distiller = Distiller(
            model, terms, self.task,
            student_dims=dims_of(model, self.task, seen.student if seen else None),
            teacher_dims=None if self.teacher is None else self.teacher.dims(seen),
            layer_map=layer_map_of(student, teacher, stacks), compile=compile, batch_norm=batch_norm, anchors=self.held.terms,
        )
        refuse_partial(optimizers, distiller)
        if leaves_out(model) or not any(isinstance(term.objective, LogitObjective) for term in terms):
            args.ddp_find_unused_parameters = True  # hidden states alone, or LayerDrop, leave weights without
        eval_data = self._eval_data(eval_dataset)
        asked = adapt is None and self.task.distributions and self.task.row_classes() > 1  # not where its answers change
        by_teacher = model_of(teacher) if asked else None
        settle_best(args, self.task, eval_data, optimizers[1], others=compute_metrics is not None, kl=by_teacher is not None)
        splits = [*eval_data.values()] if isinstance(eval_data, Mapping) else [eval_data]
        self.validation = Validation(self.task, splits, by_teacher if goes_by_kl(args) else None)
        self.guard = Guard(distiller)
        self._distiller = distiller
        self._asks = any(term.objective.asks for term in terms)
        self.averaging = None if average is None else Averaging(model, average)
        self.adapting = Adapting.of(distiller, self.teacher, quiz, adapt, rate=args.learning_rate, seed=self.reading.seed)
        self.hardest = None if hardest is None else Hardest.of(
            hardest, train_data, self.task, model, self._told, self._within, asks=self.teacher is not None and self._asks)
        self.extending = None if extend is None else Extending(extend)
        stores = [KeepUp(self.teacher)] if isinstance(self.teacher, Remembering) else []
        self._group_by_length, self._share = group_by_length, settled_share(unlabelled_share, train_data, args)
        self._saved_beside = tokenizer_of(data_collator) if processing_class is None else processing_class
        self._undefined = Undefined()
        self._resumed: Path | None = None
        with preparing():
            super().__init__(
                model=distiller, args=args, processing_class=processing_class, train_dataset=train_data,
                eval_dataset=eval_data,
                # batches arrive ready: what Trainer calls a collator has nothing left to do
                # the mean before the guard, which seals what is in a checkpoint, and of what a pull has made of a step
                data_collator=lambda batch: batch,
                callbacks=[SharedStatistics(model), *self.held.callbacks,
                           *filter(None, (self.averaging, self.adapting, self.hardest, self.extending)),
                           self.guard, *stores, *(callbacks or ())],
                compute_metrics=compute_metrics, preprocess_logits_for_metrics=preprocess_logits_for_metrics,
                optimizers=optimizers, optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            )
        settle(self, spread)
        if self.teacher is not None:
            self.teacher.to(self.args.device)

    # --- data ---

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches of this process; not handed to accelerate, whose sharding repeats examples to even out."""
        data: Prepared | Source | None = self.train_dataset
        if data is None:
            raise CompatibilityError("there is no train_dataset to train on")
        return training_loader(data, self.reading, self.args, self._cut, self.batches)

    def batches(self, data: Prepared) -> StepBatches:
        """Which examples make the steps of a training on these."""
        in_order = self.args.train_sampling_strategy == "sequential"
        return StepBatches(
            len(data), **self._cut, seed=self.reading.seed, shuffle=not in_order,
            lengths=data.lengths if self._group_by_length and not in_order else None,
            on_epoch=data.on_epoch if self.hardest is None else self.hardest.set_epoch,
            mixing=None if self._share is None else self._mixing(data, self._share))

    def _mixing(self, data: Prepared, share: Schedule) -> Mixing:
        size = self._cut["batch_size"] * self._cut["accumulate"] * self._cut["processes"]
        steps = self.args.max_steps
        if steps <= 0:
            steps = math.ceil(self.args.num_train_epochs * -(-len(data) // size))
        return Mixing.of(data.unlabelled, share, size=size, steps=steps, seed=self.reading.seed)

    @property
    def _cut(self) -> dict[str, int]:
        return {"batch_size": self._train_batch_size, "accumulate": self.args.gradient_accumulation_steps,
                "processes": self.accelerator.num_processes, "process": self.accelerator.process_index}

    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader[Any]) -> Any:
        """Of a training that was over when it was saved, no epoch is left; Trainer would make a step more."""
        values = super().set_initial_training_values(args, dataloader)
        epochs, *others, max_steps = values if self.extending is None else self.extending.settled(values)
        return (0 if self._is_over(max_steps) else epochs, *others, max_steps)

    def _is_over(self, max_steps: int) -> bool:
        if self._resumed is None:
            return False
        state = TrainerState.load_from_json(str(self._resumed / TRAINER_STATE_NAME))
        waiting = [one for one in self.callback_handler.callbacks if isinstance(one, Patience)]
        extended = self.extending is not None and self.extending.is_over(self.args, state)
        return bool(state.global_step >= max_steps) or extended or any(one.is_over(state) for one in waiting)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Of a training that may go on, one for a part of it, which every part begins anew."""
        if self.extending is None:
            return super().create_scheduler(num_training_steps, optimizer)
        made = super().create_scheduler(self.extending.part, optimizer)
        self.extending.made_anew(made, self.args.lr_scheduler_type)
        return made

    @property
    def _progress(self) -> float:
        """What goes by the training's progress; of one that may go on, by its first part's."""
        step = self.state.global_step
        return step / max(self.state.max_steps, 1) if self.extending is None else self.extending.progress(step)

    # --- a step ---

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], WholeStep]:
        """The step's micro-batches, and what is known of all of them and all processes."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator)]
        counted = [self.task.counts(batch) for batch in batches if "void" not in batch]
        counts = count_step(counted, self.accelerator.gather, device, self.task.counted)
        if self._distiller.tabled:
            place(batches, counted, self.accelerator, device)
        return batches, WholeStep(counts, batches, self.accelerator)

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        with attention_in_float32(self.args.device):
            step: Tensor = super().training_step(*args, **options)
        return step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: WholeStep | None = None,
    ) -> Any:
        if num_items_in_batch is None:
            raise CompatibilityError("the loss is only defined within an optimiser step, whose counts it is divided by")
        whole, progress = num_items_in_batch, self._progress
        loss, survey = self._distiller.loss, self._distiller.survey
        if self.adapting is not None:
            self.adapting.before(whole, self._prepare_inputs, progress, self.state.global_step)
        with self.accelerator.autocast():  # some wrappers bring their own
            if self._distiller.coupling:
                whole.survey(model, lambda *given: model(lambda: survey(*given)), self._told, self._prepare_inputs, progress)
            said, step = whole.said(lambda: self._told(inputs)), whole.step(progress)
            outputs = model(lambda: loss(inputs, said, step))
        self.guard.watch(outputs["loss"], outputs["terms"], inputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _told(self, inputs: Batch) -> Signals | None:
        return self.teacher(inputs) if self.teacher is not None and self._asks else None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds each term by name, as a mean over the steps since the last log."""
        if "loss" in logs:
            logs = {**logs, **self.guard.drain(self.accelerator)}
        super().log(logs, start_time)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **options: Any) -> Any:
        self._resumed = checkpoint_of(resume_from_checkpoint, self.args)
        refuse_unlike(self._resumed, self.args)
        for one in (self.averaging, self.adapting, self.hardest):
            if one is not None:
                one.resumed = self._resumed
        return super().train(resume_from_checkpoint, *args, **options)

    # --- saving ---

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The student as a plain folder that `from_pretrained` loads, its adapters merged, with its tokenizer or processor.

        A checkpoint (`_internal_call`) holds all that a training needs to go on, the terms' projections included.
        """
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
            return
        folder = Path(output_dir or self.args.output_dir or ".")
        weights = self.gathered() if is_spread(self._distiller) else None
        if self.args.should_save:
            save_plain(self.student, folder, weights)
            if self._saved_beside is not None:
                self._saved_beside.save_pretrained(folder)

    def gathered(self) -> dict[str, Tensor]:
        """The student's weights by name, whole, on the CPU, of the process that saves; all processes have to call."""
        return gathered(self.student, keep=self.args.should_save)
