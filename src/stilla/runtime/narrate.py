"""What a run says while it works: short lines, and bars for what takes longer than a second.

All of it goes to standard error, from the main process only, through one console, so that lines and bars do not
overwrite each other. The libraries below keep quiet meanwhile (`quiet.py`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

from rich import console as rich_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from stilla.errors import visible

Item = TypeVar("Item")

PATIENCE = 1.0
"""Seconds before a bar appears."""

QUIET = 30.0
"""Seconds without a line where there is no terminal for a bar; then always a quarter longer than it took so far."""


class Console(rich_console.Console):
    """A terminal on which texts are shown and never obeyed: whatever they quote, only rich moves the cursor and colours."""

    def render(
        self, renderable: rich_console.RenderableType, options: rich_console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


@lru_cache(maxsize=1)
def console() -> Console:
    return Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0", highlight=False)


def say(line: str) -> None:
    """One line for the person who waits."""
    console().print(line, soft_wrap=True, markup=False)


class LastResort(logging.Handler):
    """Warnings that nobody else wants to have, as lines among the others; Python's own would write them as they are.

    Each once: the same data are prepared for several models, stages and measurements.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if said not in self._said:
            self._said.add(said)
            say(said)


@contextmanager
def progress(title: str, total: int | None, *, show: bool = True) -> Iterator[Callable[..., None]]:
    """Gives a function to call with the number of steps just done, and a note to show beside them.

    `total` is None where it is not known. A terminal shows a bar; a file or a pipe gets a line now and then.
    """
    if not console().is_terminal:
        yield _lines(title, total) if show else lambda *_: None
        return
    bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
                   TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console(), transient=True,
                   disable=not show)
    task = bar.add_task(title, total=total, note="")
    started = time.monotonic()
    shown = False

    def advance(steps: int, note: str = "") -> None:
        nonlocal shown
        bar.advance(task, steps)
        if note:
            bar.update(task, note=note)
        if not shown and time.monotonic() - started > PATIENCE:
            bar.start()
            shown = True

    try:
        yield advance
    finally:
        if shown:
            bar.stop()


def _lines(title: str, total: int | None) -> Callable[..., None]:
    """`student: 240 of 740 (loss 0.4210)`, seldom enough for a log."""
    started = time.monotonic()
    done, last, due = 0, "", started + QUIET

    def advance(steps: int, note: str = "") -> None:
        nonlocal done, last, due
        done, last = done + steps, note or last
        now = time.monotonic()
        if now >= due and done != total:
            of = "" if total is None else f" of {total}"
            say(f"{title}: {done}{of}{f' ({last})' if last else ''}")
            due = max(now + QUIET, started + 1.25 * (now - started))

    return advance


def tracked(items: Sequence[Item], title: str) -> Iterator[Item]:
    """The items one by one, under a bar."""
    with progress(title, len(items)) as advance:
        for item in items:
            yield item
            advance(1)
