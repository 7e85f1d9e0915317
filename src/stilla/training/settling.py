"""What of a person's arguments has to fit the task, the data and the terms: put right, or refused, before training."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import optim
from transformers import TrainingArguments
from transformers.optimization import GreedyLR
from transformers.trainer_utils import SaveStrategy, SchedulerType

from stilla.errors import CompatibilityError, RecipeError, all_at_once, all_of, did_you_mean, one_of
from stilla.objectives.base import OF_LABELS, Term
from stilla.recipe.schedule import Schedule, schedule
from stilla.signals import Batch
from stilla.tasks.base import Prepared, Task
from stilla.training.distiller import Distiller
from stilla.training.options import argument_problems, keyword_problems
from stilla.training.reading import Collator, Reading, collator_problems, is_stream
from stilla.training.spreading import spreading_problems
from stilla.training.streams import Source, first_batch
from stilla.training.validation import KL

logger = logging.getLogger(__name__)


def refuse_unfit(
    args: TrainingArguments, others: Mapping[str, Any], collator: Collator | None, terms: Sequence[Term], teacher: object,
    optimizers: tuple[Any, Any], known: Sequence[str],
) -> None:
    """What can be known from the arguments alone. `known`: what is wrong beside."""
    problems = [*keyword_problems(others), *argument_problems(args), *collator_problems(collator),
                *spreading_problems(args, optimizers), *known]
    problems += [f"the term `{term.name}` needs a teacher, and none was given" for term in terms
                 if teacher is None and term.objective.needs_teacher]
    if problems:
        raise all_at_once(problems, CompatibilityError)


def settle_devices(args: TrainingArguments) -> None:
    """One process computes on one device: transformers would spread a batch over all GPUs that it sees (DataParallel), which
    cannot keep a step's rows and the teacher's answers together.

    Raises:
        CompatibilityError: a launcher started several processes, and each is about to train by itself.
    """
    started = os.environ.get("WORLD_SIZE", "1")
    if started.isdecimal() and int(started) > 1 == args.world_size:
        raise CompatibilityError(f"args: {started} processes were started, and these arguments know of one: without "
                                 "accelerators, transformers takes each for the only one, and all would train and save "
                                 "the same, side by side. Give use_cpu=True; or unset WORLD_SIZE, if this is to train alone")
    if args.n_gpu > 1:
        logger.warning("%d GPUs are here, and this process uses the first alone; start one process for each: accelerate "
                       "launch",
                       args.n_gpu)
        args._n_gpu = 1


def settle_best(
    args: TrainingArguments, task: Task, eval_data: Any, scheduler: Any, *, others: bool, kl: bool
) -> None:
    """What the best checkpoint and a scheduler that waits go by is a measure that there is, and better where it is better.

    eval_data: prepared, or several by name. others: whether a person's `compute_metrics` adds measures of its own. kl:
    whether there is a teacher that can be asked about validation data.

    Raises:
        CompatibilityError: there is no such measure, or nothing to measure on.
    """
    if eval_data is None and args.eval_strategy != "no":
        raise CompatibilityError(f"args.eval_strategy: got {str(args.eval_strategy.value)!r}, and there is no "
                                 f"eval_dataset; give one, "
                                 "or set it to no")
    if args.metric_for_best_model is None:
        return
    higher = {metric.name: metric.higher_is_better for metric in task.exam().metrics()} | ({KL: False} if kl else {})
    if isinstance(eval_data, Mapping):
        higher = {f"{part}_{name}": better for part in eval_data for name, better in higher.items()}
    asked = args.metric_for_best_model.removeprefix("eval_")
    if asked in higher:
        if args.greater_is_better != higher[asked]:
            # left to itself, transformers takes more for better, of errors too
            logger.warning("args.greater_is_better: of %s, %s is better", asked, "more" if higher[asked] else "less")
            args.greater_is_better = higher[asked]
        return
    if _goes_by_it(args, scheduler) and not others:
        default = " (transformers' default)" if asked == "loss" else ""
        why = (" How far a student is from its teacher takes a model of distributions for a teacher, at hand while it learns."
               if asked.endswith(KL) else did_you_mean(asked, higher))
        raise CompatibilityError(f"args.metric_for_best_model: got {asked!r}{default}; expected {one_of(list(higher))}.{why}")


def _goes_by_it(args: TrainingArguments, scheduler: Any) -> bool:
    waits = args.lr_scheduler_type in (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY) or isinstance(
        scheduler, optim.lr_scheduler.ReduceLROnPlateau | GreedyLR)
    evaluated = args.eval_strategy != "no"
    return bool(waits or args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST or evaluated)


def goes_by_kl(args: TrainingArguments) -> bool:
    """Whether the best is what is nearest to the teacher; of several datasets, to its answers on one of them."""
    asked = args.metric_for_best_model or ""
    return asked == KL or asked.endswith(f"_{KL}")


class Undefined:
    """Measures that are not defined on the data (a correlation of equal numbers), each named once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def left_out(self, metrics: Mapping[str, Any], args: TrainingArguments) -> dict[str, Any]:
        """The metrics without them: what can be logged."""
        undefined = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
        chosen = f"eval_{(args.metric_for_best_model or '').removeprefix('eval_')}"
        for name in [one for one in undefined if one not in self._said]:
            logger.warning("%s is not defined on these data (all predictions, or all labels, may be equal): left out of "
                           "the log%s",
                           name, ", and worse than any that is defined (metric_for_best_model)" if name == chosen else "")
        self._said.update(undefined)
        return {name: value for name, value in metrics.items() if name not in undefined}


def training_data(
    dataset: Any, reading: Reading, terms: Sequence[Term], args: TrainingArguments
) -> tuple[Prepared | Source | None, Batch | None]:
    """What is trained on, and a first batch of it where one is needed.

    Raises:
        CompatibilityError: terms, arguments and examples do not fit.
    """
    if is_stream(dataset):
        refuse_endless(args)
        source = Source(reading.rows_of(dataset))
        batch = first_batch(source, reading, dataset)
        refuse_misfits(reading.task, terms, None, batch)
        return source, batch
    prepared = reading.prepared(dataset, training=True)
    if prepared is None:
        return None, None
    needed = prepared is not dataset or any(term.objective.needs_stacks or term.objective.count == "labelled"
                                            for term in terms)
    first = prepared.collate([prepared.examples[0]]) if needed else None
    refuse_misfits(reading.task, terms, prepared, first)
    return prepared, first


def settled_share(
    share: Schedule | Mapping[str, Any] | float | None, data: Prepared | Source | None, args: TrainingArguments
) -> Schedule | None:
    """The share of unlabelled examples in a step, as a schedule.

    Raises:
        CompatibilityError: no share, or the examples come in an order of their own.
    """
    if share is None:
        return None
    try:
        made = schedule(share)
    except RecipeError as error:
        raise CompatibilityError(f"unlabelled_share: {error}") from error
    if not 0 <= min(made.values()) <= max(made.values()) <= 1:
        raise CompatibilityError(f"unlabelled_share: got {made.plain()}; expected a share from 0 to 1")
    if isinstance(data, Source) or args.train_sampling_strategy == "sequential":
        raise CompatibilityError("unlabelled_share: the examples come in an order of their own, from which no share can be "
                                 "taken; give a dataset with a length, and leave train_sampling_strategy out")
    return made


def refuse_endless(args: TrainingArguments) -> None:
    """A stream has no length, and is read by the training's own process."""
    problems = []
    if args.max_steps <= 0:
        problems.append("args.max_steps: a stream has no length that epochs could be counted in; say how many steps")
    if args.dataloader_num_workers:
        problems.append(f"args.dataloader_num_workers: got {args.dataloader_num_workers}; a stream is read in its own "
                        f"order by one "
                        "process; set it to 0")
    if problems:
        raise all_at_once(problems, CompatibilityError)


def refuse_misfits(task: Task, terms: Sequence[Term], prepared: Prepared | None, batch: Batch | None) -> None:
    """Terms that cannot work on these examples."""
    wrong = [f"`{term.name}` {problem}" for term in terms if prepared is not None
             for problem in term.objective.misfits(aligned=prepared.aligned, packed=prepared.packed,
                                                   framed=prepared.framed)]
    # what belongs together says what is right, too, where there are no labels
    if batch is not None and batch.labels is None and not task.counts(batch).get("labelled"):
        wrong += [f"`{term.name}` needs labels, and the dataset's batches have none: {sorted(batch.student)}; name the "
                  "label column `labels`, or leave the objective out (where every picture is mixed, none has a label)"
                  for term in terms if term.objective.count in OF_LABELS]
    if wrong:
        raise all_at_once(wrong, CompatibilityError)


def refuse_partial(optimizers: tuple[Any, Any], distiller: Distiller) -> None:
    """A person's own optimizer has to hold what is to be learnt; its scheduler has to move it."""
    optimizer, scheduler = optimizers
    if optimizer is None:
        if scheduler is not None:
            raise CompatibilityError("optimizers: got a scheduler without its optimizer, which would move nothing; give "
                                     "both, or "
                                     "`lr_scheduler_type` and `lr_scheduler_kwargs`")
        return
    held = {id(one) for group in optimizer.param_groups for one in group["params"]}
    if not any(id(one) in held for one in distiller.student.parameters()):
        raise CompatibilityError("optimizers: the optimizer holds none of the student's parameters: nothing would be "
                                 "learnt. Make it "
                                 "of the student that is given to the trainer, or use optimizer_cls_and_kwargs=(class, "
                                 "{...})")
    lacking = [name for name, one in distiller.objectives.named_parameters() if one.requires_grad and id(one) not in held]
    if lacking:
        raise CompatibilityError(f"optimizers: the terms have parameters of their own ({all_of(lacking[:4])}), which the "
                                 f"optimizer "
                                 "does not hold: they would stay random. Use optimizer_cls_and_kwargs=(class, {...}), "
                                 "which holds all")
