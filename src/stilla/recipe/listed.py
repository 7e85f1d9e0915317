"""How rows that list what answers a query, and what does not, become examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Listed:
    """`form`: a row for every answer, with a column for it and for each text that does not answer; or a row for every query,
    with a list of candidates and one of their labels. `named`: columns that the recipe names itself: they stay as they
    are."""

    form: Literal["columns", "lists"]
    named: tuple[str, ...] = ()
