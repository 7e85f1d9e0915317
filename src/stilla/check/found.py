"""What is found, piece by piece: one part's refusal does not keep the others from being looked at."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stilla.errors import StillaError


@dataclass
class Found:
    """What was found so far."""

    problems: list[str]
    notes: list[str] = field(default_factory=list)

    def attempt(self, place: str = "") -> Attempt:
        """`with found.attempt():` a part whose refusal is a finding, not the end; `place` is put before it."""
        return Attempt(self.problems, place)


@dataclass(frozen=True)
class Attempt:
    """Turns an error that a person can put right into problems."""

    problems: list[str]
    place: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, StillaError):
            return False
        placed = [one if one.startswith(self.place) else f"{self.place}: {one}" for one in error.problems]
        self.problems.extend(one for one in placed if one not in self.problems)
        return True


@contextmanager
def warnings_as(notes: list[str]) -> Iterator[None]:
    """What Stilla's own code warns of becomes notes instead of lines on the terminal."""
    logger = logging.getLogger("stilla")
    handler = _Collector(notes)
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


class _Collector(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        if (message := record.getMessage()) not in self.notes:
            self.notes.append(message)
