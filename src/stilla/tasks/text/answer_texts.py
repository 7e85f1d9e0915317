"""When two answers are the same, and how many of their words are: SQuAD's rules, and MLQA's for other languages.

In English as the official script has it (Rajpurkar et al. 2016, arXiv:1606.05250): lower case, no ASCII punctuation, no
articles, single spaces. In the others as MLQA's (Lewis et al. 2020, arXiv:1910.07475): their own articles, all of Unicode's
punctuation, and in Chinese every character a word.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

Language = Literal["en", "ar", "de", "es", "hi", "vi", "zh"]

_ARTICLES: Mapping[str, str] = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": r"\sال^|ال",
}
_HAN = ("\u4e00", "\u9fa5")


def normalised(text: str, language: Language = "en") -> str:
    """What two texts are compared by; empty where nothing counts."""
    plain = "".join(character for character in text.lower() if not _is_mark(character, language))
    if language in _ARTICLES:
        plain = re.sub(_ARTICLES[language], " ", plain)
    return " ".join(_characters(plain) if language == "zh" else plain.split())


def f1(said: str, true: str, language: Language = "en") -> float:
    """Of the words of two answers, as often as each stands there; where one has none, whether the other has none either."""
    return f1_of(normalised(said, language), normalised(true, language))


def f1_of(said: str, true: str) -> float:
    """The same of texts that are normalised."""
    ours, theirs = said.split(), true.split()
    if not ours or not theirs:
        return float(ours == theirs)
    same = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * same / (len(ours) + len(theirs))


def best(said: str, true: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1) with the right answer that it fits best; all normalised. Without one, nothing is right."""
    answers = true or ("",)
    return max(float(said == one) for one in answers), max(f1_of(said, one) for one in answers)


@cache
def _is_mark(character: str, language: Language) -> bool:
    if character in string.punctuation:
        return True
    return language != "en" and unicodedata.category(character).startswith("P")


def _characters(text: str) -> list[str]:
    """Every Chinese character by itself; what stands between them, word by word."""
    first, last = _HAN
    return "".join(f" {one} " if first <= one <= last else one for one in text).split()
