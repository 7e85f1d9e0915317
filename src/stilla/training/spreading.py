"""Weights spread over processes while they are trained (FSDP2, DeepSpeed): asked for, and refused where it would not be done.

Accelerate does it. Where it cannot, it often trains without a word as if nobody had asked, every process with all weights.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stilla.errors import CompatibilityError

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments  # a second that few checks need

ALONE = ("weights are spread over several processes, and this is the only one. Start several (torchrun --nproc_per_node 8 "
         "...), or leave it out")
ON_PROCESSORS = ("accelerate spreads weights over accelerators only, and on processors leaves all of them in every process, "
                 "without a word. Leave it out here; `deepspeed` does it on both")
UNUSED = ("accelerate does not use it where ACCELERATE_USE_CPU is set (`accelerate launch --cpu` sets it), without a word. "
          "Unset it: without accelerators, processors are used anyway")
_MARKS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION", "FSDP_CPU_RAM_EFFICIENT_LOADING")
"""What accelerate and transformers write into the environment when they are asked, and read there when they are not."""


def asked_for(args: TrainingArguments) -> str | None:
    """`fsdp` or `deepspeed`, whoever asks for it: the arguments, or the launcher (`accelerate launch --use_fsdp`)."""
    if args.fsdp or _said("ACCELERATE_USE_FSDP"):
        return "fsdp"
    return "deepspeed" if args.deepspeed or _said("ACCELERATE_USE_DEEPSPEED") else None


def launched_to_spread() -> bool:
    """Whether the launcher asks for it."""
    return _said("ACCELERATE_USE_FSDP") or _said("ACCELERATE_USE_DEEPSPEED")


def spreading_problems(args: TrainingArguments, optimizers: tuple[Any, Any]) -> list[str]:
    """What can be known before the weights are touched, with what to do instead; empty if nothing is wrong."""
    asked, problems = asked_for(args), []
    if asked == "deepspeed":
        return _missing("args.deepspeed")
    if asked == "fsdp":
        if args.world_size < 2:
            problems.append(f"args.fsdp: {ALONE}")
        version = (args.fsdp_config or {}).get("version", 2) if args.fsdp else os.environ.get("FSDP_VERSION", "1")
        problems += _flattened("args.fsdp_config", version)
        if optimizers[0] is not None:
            problems.append("optimizers: it holds weights as they are before they are spread. Use "
                            "optimizer_cls_and_kwargs=(class, {...}), of which one is made afterwards")
    return problems


def section_problems(trainer: Mapping[str, Any], place: str, *, on_cpu: bool) -> list[str]:
    """The same of a recipe's `trainer` at its place, which says so before anything is loaded."""
    problems = []
    if trainer.get("fsdp"):
        if on_cpu:
            problems.append(f"{place}.fsdp: {ON_PROCESSORS}")
        config = trainer.get("fsdp_config")
        if isinstance(config, Mapping):
            problems += _flattened(f"{place}.fsdp_config", config.get("version", config.get("fsdp_version", 2)))
    if trainer.get("deepspeed") is not None:
        problems += _missing(f"{place}.deepspeed")
        if _said("ACCELERATE_USE_CPU"):
            problems.append(f"{place}.deepspeed: {UNUSED}")
    return problems


def alone_problems(trainer: Mapping[str, Any], place: str, processes: int) -> list[str]:
    """What a run that begins knows beside: in how many processes."""
    return [f"{place}.fsdp: {ALONE}"] if trainer.get("fsdp") and processes < 2 else []


def _flattened(place: str, version: Any) -> list[str]:
    if str(version) == "2":
        return []
    return [f"{place}: version {version} flattens a layer's weights into one, which losses over a vocabulary cannot read. "
            "Leave `version` at 2 (accelerate launch --fsdp_version 2)"]


def _missing(place: str) -> list[str]:
    if importlib.util.find_spec("deepspeed") is not None:
        return []
    return [f'{place}: DeepSpeed is not installed; pip install "stilla[deepspeed]"']


def build_whole() -> None:
    """Models are built and loaded whole from here on: with ZeRO-3 among a training's arguments, transformers would give this
    process a part of them, teachers and those that are only looked at included."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


@contextmanager
def preparing() -> Iterator[None]:
    """While Trainer makes its accelerator: what that leaves behind is gone afterwards, and means nothing to the next one."""
    before = {name: os.environ.get(name) for name in _MARKS}
    try:
        yield
    finally:
        build_whole()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def settle(trainer: Trainer, asked: str | None) -> None:
    """Look at what accelerate has made of it.

    Raises:
        CompatibilityError: it was asked to spread weights and does not.
    """
    if asked == "fsdp" and not trainer.is_fsdp_enabled:
        raise CompatibilityError(f"args.fsdp: {ON_PROCESSORS}")
    if asked == "deepspeed" and not trainer.is_deepspeed_enabled:
        raise CompatibilityError(f"args.deepspeed: {UNUSED}")
    if trainer.is_fsdp_enabled:
        plugin = trainer.accelerator.state.fsdp_plugin
        if plugin.mixed_precision_policy is not None:
            # a loss would be in the precision of the weights, on its way out: three digits in bfloat16
            plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, output_dtype=None)


def _said(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")
