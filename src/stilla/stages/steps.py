"""How many examples a step of each of a run's trainings has, over all processes: what has to stay where others go on with it.

A section of a training is known by its `batch_size` and `accumulate`, of one process; several make a step so many times as
large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stilla.runtime.differences import Plain

_CUT = ("batch_size", "accumulate")


def in_all(inputs: Plain, processes: int) -> dict[str, Any]:
    """The same with the examples of a step in place of how it is cut."""
    whole: dict[str, Any] = _walked(inputs, processes)
    return whole


def sizes(inputs: Plain, processes: int) -> dict[str, int]:
    """Of every training in it, by its place: `teacher.train`, `distill.0`."""
    return dict(_found(inputs, processes, ""))


def _walked(plain: Any, processes: int) -> Any:
    if isinstance(plain, Mapping):
        walked = {name: _walked(value, processes) for name, value in plain.items()}
        if not _is_training(plain):
            return walked
        return {name: value for name, value in walked.items() if name not in _CUT} | {"step": _size(plain, processes)}
    return [_walked(one, processes) for one in plain] if isinstance(plain, list | tuple) else plain


def _found(plain: Any, processes: int, place: str) -> list[tuple[str, int]]:
    if isinstance(plain, Mapping):
        here = [(place.rstrip("."), _size(plain, processes))] if _is_training(plain) else []
        return here + [one for name, value in plain.items() for one in _found(value, processes, f"{place}{name}.")]
    if isinstance(plain, list | tuple):
        return [one for index, value in enumerate(plain) for one in _found(value, processes, f"{place}{index}.")]
    return []


def _is_training(plain: Mapping[str, Any]) -> bool:
    return all(isinstance(plain.get(name), int) for name in _CUT)


def _size(plain: Mapping[str, Any], processes: int) -> int:
    return int(plain["batch_size"]) * int(plain["accumulate"]) * processes
