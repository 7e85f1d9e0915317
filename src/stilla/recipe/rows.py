"""How rows that are words become sentences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WordRows:
    """The columns with what sentence a word stands in, and with the word; None where their names say it. `usual`: names of
    the latter, in lower case."""

    sentence: str | None
    word: str | None
    usual: tuple[str, ...]
