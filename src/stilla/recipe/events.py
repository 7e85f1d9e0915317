"""How rows that are events (a user, an item, a time) become one example of every user: what a task's section says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HoldOut = Literal["last", "time", "users"]
Users = Literal["same", "apart"]


@dataclass(frozen=True)
class Events:
    """The columns, None where their names say it, and what of the events is held out to be measured.

    hold_out: the last items of every user, all that happened from a moment on, or whole users; None: by time where there are
    times. users: whether a user of the same id in another file is the same. skip: whether events that cannot be read are
    left out.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    order: str | None = None
    items: str | None = None
    hold_out: HoldOut | None = None
    users: Users | None = None
    skip: bool = False
