"""Texts as words, and spans of characters as entities of words."""

from __future__ import annotations

import re

import pytest

from stilla.tasks.text.words import PATTERNS, Splitting, Words


@pytest.mark.parametrize(("text", "how", "words"), [
    ("Ann's U.S. visa_2, 3%", "words", ["Ann", "'", "s", "U", ".", "S", ".", "visa_2", ",", "3", "%"]),
    ("Zürich—Genève", "words", ["Zürich", "—", "Genève"]),
    ("cafe\u0301 x", "words", ["cafe\u0301", "x"]),
    ("हिन्दी में", "words", ["हिन्दी", "में"]),
    ("Ann's  U.S.\n", "spaces", ["Ann's", "U.S."]),
    ("我 在", "characters", ["我", "在"]),
    ("我在北京", "words", ["我在北京"]),
])
def test_a_text_is_cut_as_said(text: str, how: Splitting, words: list[str]) -> None:
    found = Words.split(text, how)
    assert found.listed() == words
    assert found.text == text


@pytest.mark.parametrize("how", PATTERNS)
def test_patterns_are_for_who_has_no_stilla(how: Splitting) -> None:
    for text in ("Ann's U.S. visa_2, 3%", "Zürich—Genève ", " 我 在\n北京"):
        assert re.findall(PATTERNS[how], text) == Words.split(text, how).listed()


def test_given_words_stand_with_a_space_between_them() -> None:
    words = Words.of(["New York", "is", "big"])
    assert words.text == "New York is big"
    assert words.listed() == ["New York", "is", "big"]
    assert words.part(1, 3) == Words("is big", (0, 3), (2, 6))


def test_spans_are_entities_of_words() -> None:
    words = Words.split("Ann Lee's cat in New York.", "words")
    assert words.entities([(17, 25, "LOC"), (0, 7, "PER")]) == [(0, 2, "PER"), (6, 8, "LOC")]
    assert words.entities([]) == []


@pytest.mark.parametrize(("spans", "why"), [
    ([(0, 2, "PER")], r"the span 'An' \(PER, 0 to 2\) begins or ends within a word"),
    ([(1, 3, "PER")], "within a word"),
    ([(0, 4, "PER")], "within a word"),
    ([(0, 7, "PER"), (4, 7, "FAM")], r"the spans 'Ann Lee' \(PER\) and 'Lee' \(FAM\) share words"),
    ([(3, 3, "PER")], "a span from 3 to 3"),
    ([(0, 99, "PER")], "a span from 0 to 99 in a text of 26 characters"),
])
def test_spans_that_are_no_words_are_refused(spans: list[tuple[int, int, str]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Words.split("Ann Lee's cat in New York.", "words").entities(spans)
