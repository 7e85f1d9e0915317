"""Several processes of one run: the main one decides and writes, the others follow."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from stilla.runtime.launching import refuse_another_world

Result = TypeVar("Result")


_refuse_another_world = cache(refuse_another_world)  # looking once is enough


def processes() -> PartialState:
    """The processes of this run, connected with each other.

    Without `cpu` accelerate takes every launched CPU process for a run of its own, and each would be the main one.

    Raises:
        RecipeError: a launcher was asked for more of them than there are.
    """
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    state = PartialState(cpu=asked or not torch.accelerator.is_available())
    _refuse_another_world(state.num_processes)
    return state


def in_words() -> str:
    """In how many processes a run works, and on what: `2 processes (gloo), on the CPU with 1 thread each`."""
    state = processes()
    several = f"{state.num_processes} processes ({state.backend})" if state.num_processes > 1 else "one process"
    threads = torch.get_num_threads()
    each = " each" if state.num_processes > 1 else ""
    if state.device.type == "cpu":
        return f"{several}, on the CPU with {threads} thread{'' if threads == 1 else 's'}{each}"
    name = {"cuda": "GPU"}.get(state.device.type, state.device.type.upper())
    return f"{several}, on {'a' if each else 'one'} {name}{each}"


def on_main(call: Callable[[], Result]) -> Result:
    """Call in the main process only; every process gets the result, or raises the same error.

    Without this an error of the main process would leave the others waiting.
    """
    state = processes()
    outcome: list[object] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = call()
        except Exception as error:
            if state.num_processes == 1:
                raise
            outcome[1] = error
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]  # type: ignore[misc]
    return outcome[0]  # type: ignore[return-value]
