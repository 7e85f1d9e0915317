"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from stilla.recipe import Data
from stilla.recipe.events import Events, HoldOut, Users
from stilla.recipe.paths import PathName
from stilla.recipe.section import as_tuple

LONGEST = 10_000
"""Bound of the items of a history and of a list."""


def _once(lengths: tuple[int, ...]) -> tuple[int, ...]:
    if not lengths or len(set(lengths)) != len(lengths):
        raise ValueError(f"got {list(lengths)}; expected one length or more, each once")
    return lengths


class RecommendationData(Data):
    """Who took what, and when: tables of events, or a list of items of every user."""

    user: str | None = None
    """The users' column; only where the names do not say it themselves."""
    item: str | None = None
    """The items' column, likewise."""
    time: str | None = None
    """The column that says when: numbers or dates. Likewise."""
    order: str | None = None
    """The column that only numbers a user's events, where nobody knows when; by default they are in the order of the rows."""
    items: str | None = None
    """The column of lists, where a row is a user with all of his items, in order. Likewise."""
    hold_out: HoldOut | None = None
    """What is measured, where no file is named for it: `time`, all events from a moment on (`split` is then their share);
    `last`, the last two of every user; `users`, the last of some users, of whom nothing is learnt. By default `time` where
    there are times, else `last`."""
    users: Users | None = None
    """Whether a user of the same id in validation or test data is the `same` as in the training data, or they are `apart`;
    to be said where ids are the same."""
    names: PathName | None = None
    """A table of the items, a row each: its id, and what it is called (`title`, `name`), for people."""
    mask: float | None = Field(None, gt=0, lt=1)
    """Hide so many of a history's items, which are foretold from both sides (BERT4Rec); by default every item is foretold
    from those before it (SASRec)."""
    max_length: int = Field(50, ge=2, le=LONGEST)
    """The latest items of a history that models read."""
    seen: Literal["auto", "keep", "leave_out"] = "auto"
    """Whether what a user has taken before may stand in his list; `auto` keeps it where users of the training data come back
    to items."""
    at: Annotated[tuple[Annotated[int, Field(ge=1, le=LONGEST)], ...], BeforeValidator(
        lambda value: (value,) if isinstance(value, int) else as_tuple(value)), AfterValidator(_once)] = (10,)
    """How long the lists are by which models are measured; the first is the headline's."""

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        return ()  # users are drawn as they come

    @property
    def events(self) -> Events:
        return Events(self.user, self.item, self.time, self.order, self.items, self.hold_out, self.users,
                      skip=self.broken == "skip")
