"""Words with more of the text around them than a student reads: for teachers that see the document, or more of it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from stilla.tasks.text.windows import SLACK, Answering, Placed, Window, encoded, needs_of, placed
from stilla.tasks.text.words import Words


@dataclass(frozen=True)
class Around:
    """The words of an example stand in `words` from `at` on."""

    words: Words
    at: int = 0


def found(
    own: Mapping[int, Words], theirs: Sequence[Words | None], column: str
) -> tuple[dict[int, Around], dict[str, list[int]]]:
    """By row, where the words of an example stand in what a teacher reads of it; and rows by what is wrong with them."""
    there: dict[int, Around] = {}
    wrong: dict[str, list[int]] = {}
    for row, words in own.items():
        whole = theirs[row]
        places = [] if whole is None else _places(words.listed(), whole.listed())
        if whole is not None and len(places) == 1:
            there[row] = Around(whole, places[0])
        else:
            how = "holds what a student reads more than once" if places else "does not hold the words that a student reads"
            wrong.setdefault(f"{column!r} {how}", []).append(row)
    return there, wrong


def _places(words: list[str], whole: list[str]) -> list[int]:
    """Where some words stand among others, in a row and in their order."""
    ends = range(len(words), len(whole) + 1)
    return [end - len(words) for end in ends if whole[end - 1] == words[-1] and whole[end - len(words) : end] == words]


def placed_around(
    tokenizer: PreTrainedTokenizerBase, read: Sequence[Around], cut: Sequence[Window], length: int, answering: Answering
) -> Placed:
    """Windows as tokens, with as much around each as `length` tokens hold, on both sides alike where there is as much; the
    same words are answered. `read`: of every example."""
    wholes = [one.words for one in read]
    room = length - tokenizer.num_special_tokens_to_add()
    sums = {example: np.concatenate([[0], np.cumsum(needs_of(wholes[example], starts, ends))])
            for example, starts, ends, _ in encoded(tokenizer, wholes)}
    wider = list[Window | None]([None] * len(cut))
    for slack in SLACK:  # a text has other tokens beside a cut than within
        for place, one in enumerate(cut):
            if wider[place] is None:
                wider[place] = _wider(one, read[one.example].at, sums[one.example], room - slack)
        made = [one for one in wider if one is not None]
        totals = {number: total for number, *_, total in encoded(tokenizer, [one.words(wholes) for one in made])}
        if slack == SLACK[-1] or all(total <= length for total in totals.values()):
            break
        for place, total in totals.items():
            if total > length:
                wider[place] = None
    return placed(tokenizer, wholes, made, length, answering)


def _wider(one: Window, at: int, sums: NDArray[np.int64], room: int) -> Window:
    """sums: tokens of the words before each."""
    first, end = at + one.first, at + one.end
    more = max(0, room - int(sums[end] - sums[first]))

    def before(tokens: int) -> int:
        return int(np.searchsorted(sums, sums[first] - tokens, side="left"))

    half = before(more // 2)
    last = max(end, int(np.searchsorted(sums, sums[end] + more - (sums[first] - sums[half]), side="right")) - 1)
    begin = min(first, before(more - int(sums[last] - sums[end])))
    return Window(one.example, begin, last, at + one.answers, at + one.until)
