"""Shapes in signatures are checked wherever a function is defined, and what checks them is made once."""

# annotations as they are evaluated where they stand, so no `from __future__ import annotations`
from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from tests import shapes


def defined(dims: str, least: int = 0) -> Callable[[Tensor, Tensor], Tensor]:
    @jaxtyped(typechecker=shapes.checked)
    def added(one: Float[Tensor, "rows"], other: Float[Tensor, dims]) -> Float[Tensor, "rows"]:
        return (one + other)[least:]

    return added


def test_a_function_that_is_defined_again_is_checked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    really = shapes.beartype
    monkeypatch.setattr(shapes, "_CHECKED", {})
    monkeypatch.setattr(shapes, "beartype", lambda function: asked.append(function.__name__) or really(function))
    for _ in range(3):
        added = defined("rows")
        assert added(torch.ones(2), torch.ones(2)).tolist() == [2, 2]
        with pytest.raises(TypeCheckError, match="checking the parameters"):
            added(torch.ones(2), torch.ones(3))
        with pytest.raises(TypeCheckError, match="checking the return value"):
            defined("rows", 1)(torch.ones(2), torch.ones(2))
    assert asked.count("added") == 2  # of what is given, and of what is returned


def test_what_is_defined_alike_with_other_shapes_is_checked_by_its_own() -> None:
    assert defined("rows")(torch.ones(2), torch.ones(2)).tolist() == [2, 2]
    assert defined("1")(torch.ones(2), torch.ones(1)).tolist() == [2, 2]
    with pytest.raises(TypeCheckError):
        defined("rows")(torch.ones(2), torch.ones(1))
