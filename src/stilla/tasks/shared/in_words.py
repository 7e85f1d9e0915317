"""What a task adds whose examples somebody can be asked about in words: the question, and what of an answer is learnt."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from stilla.errors import CompatibilityError
from stilla.tasks.shared.probable import Token


class InWords(ABC):
    """Mixed into a `Task`. Its teacher may be one that gives texts and nothing else."""

    question: ClassVar[str] = "{source}"
    """What is asked about an example where the recipe does not say it."""
    shown: ClassVar[bool] = True
    """Whether what is asked about can be shown as text; not a sound."""
    once: ClassVar[bool] = True
    """Whether of equal answers to a question one is learnt; else each counts, as classes do that are named several times."""

    @abstractmethod
    def unasked(self) -> str | None:
        """Why these data ask for no text, and what to do; None where they do."""

    @abstractmethod
    def source_of(self, split: Dataset, key: int) -> str:
        """What an example asks, as text."""

    @abstractmethod
    def askable(self, split: Dataset) -> NDArray[np.int64]:
        """The examples that can be asked about: not those that are broken and left out."""

    @abstractmethod
    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        """The split with these texts to learn in place of its own; a text that was `cut` has no end."""

    def talk_of(self, split: Dataset, key: int) -> list[dict[str, str]] | None:
        """What was said before the answer, where an example is a conversation.

        Raises:
            CompatibilityError: something in it is no text.
        """
        return None

    def values_of(self) -> Mapping[str, str]:
        """What a template may name beside columns and the source."""
        return {}

    def meant(self, text: str, *, cut: bool) -> str | None:
        """What of an answer is learnt; None where it says nothing that could be. `cut`: it would have gone on."""
        return text

    def unreasoned(self) -> str | None:
        """Why no reason is learnt beside an answer; None where one can be."""
        return "reasons are texts, and these models write none"

    def reasoned(self, split: Dataset, asked: str, reasons: Sequence[str], weight: float) -> Dataset:
        """The split with the reasons of its answers to learn, which are `asked` for and of which a token counts `weight`.

        Raises:
            CompatibilityError: `unreasoned`.
        """
        raise CompatibilityError(str(self.unreasoned()))

    def chances(self, tokens: Sequence[Token], said: str) -> NDArray[np.float64] | None:
        """(classes,) how likely each class is, by the tokens of an answer of which `said` is learnt; None where they do not
        say it, or answers name no class."""
        return None

    def chances_of_labels(self, split: Dataset) -> NDArray[np.float64] | None:
        """(examples, classes) the same of labelled examples, whose class is certain; None where answers name no class."""
        return None

    @abstractmethod
    def judged(self, split: Dataset, said: Mapping[int, str | None], processor: Any, metrics: Sequence[str]) -> str:
        """How good answers to labelled examples are, in words. `said`: by example what is `meant`, None counts as wrong.
        `metrics`: of texts, by name."""

    def beside_answers(self, split: Dataset) -> Dataset:
        """Labelled examples in the form in which answered ones can stand beside them."""
        raise CompatibilityError("this task's labelled examples have no such form")


def named_in(text: str, names: Sequence[str], *, cut: bool = False) -> str | None:
    """The class that an answer names: it is that name, or a field of its JSON or its last line is, or no other occurs in it.

    Case, quotes and stops around a name do not matter. Of names within names (`card`, `card lost`) the longest counts.
    Fields that name several classes name none. An answer that was `cut` has not come to its end: it names a class if it is
    that name, and no other begins so.
    """
    known = {_plain(name): name for name in names}
    if len(known) < len(names):  # told apart by their case alone
        known = {name: name for name in names}

    def name(said: str) -> str | None:
        return known.get(said.strip()) or known.get(_plain(said))

    if cut:
        return name(text) if sum(_plain(one).startswith(_plain(text)) for one in names) == 1 else None
    fields = {found for one in _fields(text) if (found := name(one)) is not None}
    if len(fields) > 1:
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    for said in (text, *fields, *lines[-1:], *(line.rpartition(":")[2] for line in lines[-1:])):
        found = name(said)
        if found is not None:
            return found
    left, there = text.casefold(), set[str]()
    for one in sorted(names, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(one.casefold())}(?!\w)"
        if re.search(pattern, left):
            there.add(one)
            left = re.sub(pattern, " ", left)
    return there.pop() if len(there) == 1 else None


def wilson(right: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); of `right` answers, 1 or 0 each."""
    number, share, z = len(right), float(right.mean()), 1.959964
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    width = z / (1 + z * z / number) * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    return middle - width, middle + width


def _plain(text: str) -> str:
    return text.strip().strip("\"'`*.,;:!()[]<>“”‘’ \n\t").casefold()


def _fields(text: str) -> list[str]:
    """Of an answer that is JSON, also within a fence."""
    fenced = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        found: Any = json.loads(fenced[0]) if fenced else None
    except (ValueError, RecursionError):
        return []
    return [one for one in found.values() if isinstance(one, str)] if isinstance(found, Mapping) else []
