"""What is found, piece by piece: one part's refusal does not keep the others from being looked at."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stilla.errors import RecipeError, StillaError, all_at_once
from stilla.recipe import Recipe

_SECTION = re.compile(rf"({'|'.join(Recipe.model_fields)})[.:\[]")
"""How a problem begins that names its place in the recipe itself, wherever it was found."""


@dataclass
class Found:
    """What was found so far."""

    problems: list[str]
    notes: list[str] = field(default_factory=list)
    kinds: dict[str, type[StillaError]] = field(default_factory=dict)
    """Of the problems that a part of the way raised; the others are the recipe's own."""

    warned: list[str] = field(default_factory=list)
    """Notes that a run begins with too: what it measures is not what its reader would think."""

    def warn(self, note: str) -> None:
        if note not in self.warned:
            self.notes.append(note)
            self.warned.append(note)

    def attempt(self, place: str = "") -> Attempt:
        """`with found.attempt():` a part whose refusal is a finding, not the end; `place` is put before it."""
        return Attempt(self, place)

    def error(self) -> StillaError:
        """All problems as one error: of their own kind where they have one in common."""
        kinds = {self.kinds.get(problem, RecipeError) for problem in self.problems}
        return all_at_once(self.problems, kinds.pop() if len(kinds) == 1 else RecipeError)


@dataclass(frozen=True)
class Attempt:
    """Turns an error that a person can put right into problems."""

    found: Found
    place: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, StillaError):
            return False
        for problem in map(self._placed, error.problems):
            if problem not in self.found.problems:
                self.found.problems.append(problem)
                self.found.kinds[problem] = type(error)
        return True

    def _placed(self, problem: str) -> str:
        """`teacher.model: ...` of `model: ...`; what says a place of the recipe itself stays (`data.text: ...`)."""
        if problem.startswith(self.place) or _SECTION.match(problem):
            return problem
        return f"{self.place}{'.' if re.match(r'[a-z_.]+: ', problem) else ': '}{problem}"


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
