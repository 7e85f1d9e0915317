"""Several processes of one run: the main one decides and writes, the others follow."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

Result = TypeVar("Result")


def processes() -> PartialState:
    """The processes of this run, connected with each other.

    Without `cpu` accelerate takes every launched CPU process for a run of its own, and each would be the main one.
    """
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return PartialState(cpu=asked or not torch.accelerator.is_available())


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
