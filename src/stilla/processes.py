"""Several processes of one run: the main one decides and writes, the others follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

Result = TypeVar("Result")


def on_main(call: Callable[[], Result]) -> Result:
    """Call in the main process only; every process gets the result, or raises the same error.

    Without this an error of the main process would leave the others waiting.
    """
    state = PartialState()
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
