"""What a teacher reads of the data in place of what its students read, by the fields that say theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from stilla.recipe.section import TOKENS, Strings

LENGTH = "max_length"
"""The field that says how much is read."""


def _lengths_are_numbers(told: Mapping[str, tuple[str, ...] | int]) -> Mapping[str, tuple[str, ...] | int]:
    for field, said in told.items():
        if isinstance(said, int) != (field == LENGTH):
            raise ValueError(f"{field}: got {said if isinstance(said, int) else list(said)}; expected "
                             f"{'a number, how much it reads' if field == LENGTH else 'the name of a column'}")
    return told


Told = Annotated[Mapping[str, Strings | Annotated[int, Field(ge=2, le=TOKENS)]], AfterValidator(_lengths_are_numbers)]


def columns_of(told: Mapping[str, tuple[str, ...] | int]) -> Mapping[str, tuple[str, ...]]:
    return {field: said for field, said in told.items() if not isinstance(said, int)}


def longest_of(told: Mapping[str, tuple[str, ...] | int]) -> int | None:
    """How much is read, where that is not as much as students read."""
    return next((said for said in told.values() if isinstance(said, int)), None)
