"""What is said, as words and characters: normalised in any script, aligned, and counted where it differs."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

_JOINERS = "\u200c\u200d"
"""Zero-width: between letters of Persian or Devanagari they say how these are written, and stay."""


def normalised(text: str) -> str:
    """Without capitals and punctuation, spaces alike: letters, numbers and *all their marks* stay (vowel signs of Devanagari,
    tones of Thai, accents), in composed form (NFC), and apostrophes within words (don't). What is never seen (directions,
    hyphens that may be) is nothing."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    kept = ("'" if one in "'’" else one if not is_punctuation(one) else "" if unicodedata.category(one) == "Cf" else " "
            for one in composed)
    words = (word.strip("'") for word in "".join(kept).split())
    return " ".join(word for word in words if word)


def is_punctuation(sign: str) -> bool:
    """Neither a letter, a number nor a mark of one."""
    return unicodedata.category(sign)[0] not in "LMN" and sign not in _JOINERS


def edits(said: Sequence[str], right: Sequence[str]) -> int:
    """Levenshtein: the least number of words (or characters) to insert, leave out or replace."""
    return int(_table(said, right)[-1, -1])


def word_error_rate(said: str, right: str) -> float:
    """Edits of words by how many are right, of normalised texts; infinite where none are and some are said."""
    ours, theirs = normalised(said).split(), normalised(right).split()
    return edits(ours, theirs) / len(theirs) if theirs else (float("inf") if ours else 0.0)


def character_error_rate(said: str, right: str) -> float:
    """The same of characters, spaces between words among them."""
    ours, theirs = normalised(said), normalised(right)
    return edits(ours, theirs) / len(theirs) if theirs else (float("inf") if ours else 0.0)


def aligned(said: Sequence[str], right: Sequence[str]) -> list[str | None]:
    """Of the words that are right, what is said in the place of each, by an alignment with the fewest edits; None where
    nothing is."""
    table = _table(said, right)
    found: list[str | None] = [None] * len(right)
    row, column = len(said), len(right)
    while row and column:
        replaced = table[row - 1, column - 1] + (said[row - 1] != right[column - 1])
        if table[row, column] == replaced:
            row, column = row - 1, column - 1
            found[column] = said[row]
        elif table[row, column] == table[row - 1, column] + 1:
            row -= 1
        else:
            column -= 1
    return found


def differing(said: Sequence[str], right: Sequence[str]) -> list[int]:
    """Which of the words that are said are wrong: replaced, or too many."""
    table = _table(said, right)
    wrong, row, column = [], len(said), len(right)
    while row:
        if column and table[row, column] == table[row - 1, column - 1] + (said[row - 1] != right[column - 1]):
            row, column = row - 1, column - 1
            if said[row] != right[column]:
                wrong.append(row)
        elif table[row, column] == table[row - 1, column] + 1:
            row -= 1
            wrong.append(row)
        else:
            column -= 1
    return wrong[::-1]


def _table(said: Sequence[str], right: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(said + 1, right + 1): the edits between what begins each."""
    numbers = {one: number for number, one in enumerate(dict.fromkeys((*said, *right)))}
    ours, theirs = (np.array([numbers[one] for one in some], np.int64) for some in (said, right))
    table = np.zeros((len(ours) + 1, len(theirs) + 1), np.int64)
    table[0] = np.arange(len(theirs) + 1)
    steps = np.arange(1, len(theirs) + 1)
    for row, one in enumerate(ours, 1):
        best = np.minimum(table[row - 1, 1:] + 1, table[row - 1, :-1] + (theirs != one))
        # insertions along the row: the least of best[k] - k before, plus k
        table[row, 0] = row
        along = np.minimum.accumulate(np.concatenate([[row], best - steps]))[1:] + steps
        table[row, 1:] = np.minimum(best, along)
    return table
