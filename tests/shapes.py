"""What the shapes in signatures are checked with: beartype, asked once for a function that is defined again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype

_CHECKED: dict[object, Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`beartype(function)`.

    jaxtyping hands over an empty function with the signature of the one that it checks, made anew for each definition, also
    of a function within a function, which a forward or a batch defines. Beartype takes 1 ms for each.
    """
    if function.__defaults__ or function.__kwdefaults__:
        return beartype(function)
    # annotations as they are shown: those of jaxtyping are made anew too, and equal nothing
    key = (function.__module__, function.__qualname__, function.__code__, repr(function.__annotations__))
    if key not in _CHECKED:
        _CHECKED[key] = beartype(function)
    return _CHECKED[key]
