"""From a recipe's `Training` to `transformers.TrainingArguments`: what Stilla sets, and further fields.

Needs torch and transformers, so the command line looks at it only after the recipe's shape was right.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from stilla.errors import RecipeError, all_at_once, did_you_mean, one_of
from stilla.recipe import Training
from stilla.recipe.in_words import shown
from stilla.training import options
from stilla.training.ranges import outside
from stilla.training.spreading import section_problems
from stilla.training.validation import KL

if TYPE_CHECKING:
    from transformers import TrainingArguments  # brings peft and accelerate along: a second that few checks need

INSTEAD = {
    "output_dir": "output", "num_train_epochs": "epochs", "max_steps": "max_steps",
    "per_device_train_batch_size": "batch_size", "gradient_accumulation_steps": "accumulate",
    "learning_rate": "learning_rate", "warmup_steps": "warmup", "weight_decay": "weight_decay",
    "bf16": "precision", "fp16": "precision", "seed": "seed", "data_seed": "seed",
    "train_sampling_strategy": "group_by_length", "length_column_name": "group_by_length",
}  # fmt: skip
"""Fields that a recipe has a key of its own for."""
OF_THE_RECIPE = ("output", "seed")
REFUSED = {
    **options.REFUSED,
    "remove_unused_columns": "Stilla makes its batches itself",
    "enable_jit_checkpoint": "a signal to stop saves a checkpoint anyway",
    **dict.fromkeys(("do_train", "do_eval", "do_predict", "local_rank"), "Stilla decides it"),
    "resume_from_checkpoint": "the same command again continues by itself",
    "save_only_model": "a run could not be continued from such a checkpoint",
    "logging_nan_inf_filter": "it hides a loss that is not finite, which has to stop the run",
}
"""Fields that would be overridden, have no effect or do harm, with the reason."""
PER_PART = 0.1
"""How often a training that may go on is measured, of each of its parts, where a recipe does not say."""


def training_arguments(
    training: Training,
    *,
    output_dir: str | Path,
    seed: int,
    metrics: Mapping[str, bool],
    place: str = "distill",
) -> TrainingArguments:
    """The arguments that the recipe's keys mean, and on top the fields of its `trainer`, in their types.

    `metrics`: the task's, the headline first, and whether more is better: what `load_best_model_at_end` may go by. With `kl`
    where there is a teacher to ask about the validation data, which `patience` and `extend` go by.
    `place`: where the section stands in the recipe.

    Raises:
        RecipeError: unknown, reserved or wrong fields, all at once; combinations that transformers refuses; packages and
            files that are missing.
    """
    fields, wrong = _coerced(training.trainer, place)
    metric = fields.pop("metric_for_best_model", None)
    waits = fields.get("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy")
    if training.patience is not None:
        wrong += _unmeasured(fields, place, "patience", "counts evaluations")
    if training.extend is not None:
        wrong += _unmeasured(fields, place, "extend", "goes by evaluations")
        fields = fields if "eval_strategy" in fields else {"eval_strategy": "steps", "eval_steps": PER_PART, **fields}
    measured = training.patience is not None or training.extend is not None
    metric = metric or (KL if measured and KL in metrics else None)
    best = measured or fields.get("load_best_model_at_end")
    if metric or waits or best or fields.get("save_strategy") == "best":
        metric = (metric or next(iter(metrics))).removeprefix("eval_")
        if metric not in metrics:
            wrong.append(f"{place}.trainer.metric_for_best_model: got {shown(metric)}; expected {one_of(list(metrics))}."
                         f"{did_you_mean(metric, metrics)}")
    if wrong:
        raise all_at_once(wrong, RecipeError)
    on_cpu = runs_on_cpu(training)
    ours: dict[str, Any] = {
        "output_dir": str(output_dir),
        "num_train_epochs": training.passes,
        "max_steps": training.max_steps or -1,
        "per_device_train_batch_size": training.batch_size,
        "per_device_eval_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.accumulate,
        "learning_rate": training.rate,
        "warmup_steps": training.warmup,  # below 1: a fraction of the steps
        "weight_decay": training.weight_decay,
        "bf16": precision_of(training) == "bfloat16",
        "use_cpu": on_cpu,  # transformers takes bf16 without a GPU only then
        "seed": seed,
        "logging_steps": 0.01,  # a hundred points on every curve, however long the training
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "epoch",
        # the best is only kept where what is measured is saved; else a killed run loses at most a fifth, one that is told to
        # stop loses nothing
        "save_strategy": fields.get("eval_strategy", "epoch") if best else "steps",
        "save_steps": fields.get("eval_steps", fields.get("logging_steps", 0.01)) if best else 0.2,
        "load_best_model_at_end": bool(best),
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": not on_cpu,
        "metric_for_best_model": metric,
        # left to itself, transformers takes more for better, of errors too
        "greater_is_better": metrics[metric] if metric else None,
    }
    from transformers import TrainingArguments

    try:
        return TrainingArguments(**{**ours, **fields})
    except (ValueError, TypeError, NotImplementedError, ImportError, OSError) as error:
        raise RecipeError(f"{place}.trainer: {error}") from error


def problems(training: Training, place: str) -> list[str]:
    """What is wrong with the fields of `trainer`, without making anything."""
    return [*_coerced(training.trainer, place)[1],
            *section_problems(training.trainer, f"{place}.trainer", on_cpu=runs_on_cpu(training))]


def _unmeasured(fields: Mapping[str, Any], place: str, name: str, why: str) -> list[str]:
    """Fields that leave `patience` or `extend` nothing to go by."""
    found = []
    if fields.get("eval_strategy") == "no":
        found.append(f"{place}.trainer.eval_strategy: got no, and {place}.{name} {why}; expected epoch or "
                     "steps")
    if fields.get("load_best_model_at_end") is False:
        found.append(f"{place}.trainer.load_best_model_at_end: got false, and {place}.{name} keeps the best weights; "
                     "leave it out")
    return found


def precision_of(training: Training) -> Literal["float32", "bfloat16"]:
    """What `auto` means on this machine: bfloat16 where the processor or GPU computes it natively.

    Measured on a CPU with AVX-512 BF16: matrix products 2.2 times as fast as in float32, a training step of a
    student of width 384 1.3 times.
    """
    if training.precision != "auto":
        return training.precision
    if runs_on_cpu(training):
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


def runs_on_cpu(training: Training) -> bool:
    wanted = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes")
    return wanted or bool(training.trainer.get("use_cpu")) or not torch.accelerator.is_available()


def _coerced(trainer: Mapping[str, Any], place: str) -> tuple[dict[str, Any], list[str]]:
    """The fields in their own types, and what is wrong with the others."""
    if not trainer:
        return {}, []
    from transformers import TrainingArguments

    known = {field.name: field for field in dataclasses.fields(TrainingArguments) if field.init}
    types = get_type_hints(TrainingArguments)
    fields: dict[str, Any] = {}
    wrong: list[str] = []
    for name, value in trainer.items():
        try:
            if name not in known or name in INSTEAD or name in REFUSED:
                raise RecipeError(_not_here(name, place, known))
            fields[name] = _value(name, value, types[name], known[name].metadata)
            if expected := outside(name, fields[name]):
                raise RecipeError(f"got {shown(value)}; expected {expected}")
        except RecipeError as error:
            wrong.append(f"{place}.trainer.{name}: {error}")
    return fields, wrong


def _not_here(name: str, place: str, known: Mapping[str, Any]) -> str:
    if name in INSTEAD:
        key = INSTEAD[name]
        return f"the recipe says it by a key of its own: {key if key in OF_THE_RECIPE else f'{place}.{key}'}"
    if name in REFUSED:
        return f"cannot be set: {REFUSED[name]}"
    if name in Training.model_fields:
        return f"stands one level higher: {place}.{name}"
    free = [one for one in known if one not in REFUSED]
    return f"transformers.TrainingArguments has no such field.{did_you_mean(name, free)}"


def _value(name: str, value: Any, expected: Any, metadata: Mapping[str, Any]) -> Any:
    kinds = _kinds(expected)
    members = [member for kind in kinds if issubclass(kind, Enum) for member in kind]
    words = list(metadata.get("choices", ())) or [str(member.value) for member in members]
    if words and str(value) not in words:
        # YAML 1.2 has `no` as a word, but `trainer: {eval_strategy: false}` means the same
        if value is False and "no" in words:
            return "no"
        near = [word for word in words if str(value) in word or len(words) <= 16] or words
        begin = [word for word in near if word.startswith(str(value))]
        raise RecipeError(f"got {shown(value)}; expected {one_of(near)}.{did_you_mean(value, begin or near)}")
    if name == "report_to":
        return _trackers(value)
    if name == "fsdp" and isinstance(value, bool):  # what transformers takes, beside what its annotation says
        return value
    if isinstance(value, bool) and bool not in kinds:
        raise RecipeError(f"got {shown(value)}; expected {_in_words(kinds)}")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(expected, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(value)
    except (ValidationError, OverflowError):
        raise RecipeError(f"got {shown(value)}; expected {_in_words(kinds)}") from None


def _trackers(value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if names is None or names in (["none"], []):
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecipeError(f"got {shown(value)}; expected the name of a tracker, or a list of them")
    from transformers.integrations import integration_utils  # takes seconds, and few recipes name a tracker

    known: list[str] = list(integration_utils.INTEGRATION_TO_CALLBACK)
    here: list[str] = integration_utils.get_available_reporting_integrations()
    if names == ["all"]:
        return here
    for name in names:
        if name not in known:
            close = did_you_mean(name, known)
            raise RecipeError(f"got {shown(name)}; expected none, all, {one_of(known)}.{close}")
        if name not in here:
            package = name.replace("_", "-")
            raise RecipeError(f"got {shown(name)}, which is not installed; pip install {package}")
    return names


def _kinds(expected: Any) -> tuple[type, ...]:
    """The plain types in an annotation."""
    if isinstance(expected, type) and get_origin(expected) is None:
        return (expected,)
    origin = get_origin(expected)
    if isinstance(origin, type) and issubclass(origin, list | dict):
        return (origin,)
    if origin is Literal:
        return ()
    return tuple(kind for inner in get_args(expected) for kind in _kinds(inner))


def _in_words(kinds: tuple[type, ...]) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list",
             dict: "keys and values", type(None): "nothing"}  # fmt: skip
    return one_of(list(dict.fromkeys(names.get(kind, kind.__name__) for kind in kinds))) or "something else"
