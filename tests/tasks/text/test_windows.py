"""Words as tokens of any tokenizer, and long texts in windows that two tokenizers share."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from stilla.errors import DataError
from stilla.tasks.text.windows import UNSEEN, Window, placed, shared_out, spans, windows
from stilla.tasks.text.words import Words
from tests.tasks.text import taggers

TOKENIZERS = {"wordpieces": taggers.wordpieces, "byte-level": taggers.byte_level, "unigram": taggers.unigram}
every = pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)


def answers(tokenizer: Any, words: Words, answering: Any = "first") -> list[str]:
    """The token that answers for each word."""
    one = Window(0, 0, len(words), 0, len(words))
    found = placed(tokenizer, [words], [one], 500, answering)
    return ["" if place < 0 else tokenizer.convert_ids_to_tokens(int(found.tokens.ids[place])) for place in found.places]


def test_the_first_or_the_last_piece_answers_for_a_word() -> None:
    words = Words.of(["Marianne", "walks", "in", "Winterthur"])
    assert answers(taggers.wordpieces(), words) == ["mari", "wal", "in", "winter"]
    assert answers(taggers.wordpieces(), words, "last") == ["##anne", "##ks", "in", "##thur"]


@every
def test_a_word_is_answered_by_a_piece_of_itself(make: Any) -> None:
    tokenizer = make()
    for tokens in taggers.sentences(40, seed=3)["tokens"]:
        words = Words.of(tokens)
        first, last = answers(tokenizer, words), answers(tokenizer, words, "last")
        for word, begins, ends in zip(tokens, first, last):
            assert word.lower().startswith(begins.strip("Ġ▁").lower()), (word, begins)
            assert word.lower().endswith(ends.strip("Ġ▁#").lower()), (word, ends)


def test_a_piece_that_is_only_the_space_before_a_word_does_not_answer() -> None:
    tokenizer = taggers.byte_level()
    words = Words.of(["Ann", "\u2026"])
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(words.text)["input_ids"])
    assert "Ġ" in tokens
    assert answers(tokenizer, words)[1] == "â"


def test_a_piece_of_two_words_answers_for_both() -> None:
    words = Words.split("un-believable Ann's", "words")
    tokenizer = taggers.wordpieces("'s")
    assert words.listed()[-2:] == ["'", "s"]
    assert len(answers(tokenizer, words)) == 6
    glued = Words("mariann", (0, 3), (3, 7))  # "mari" holds a character of the second
    assert answers(taggers.wordpieces("##ann"), Words("mariann", (0, 3), (3, 7)))[:2] == ["mari", "mari"]
    assert glued.listed() == ["mar", "iann"]


def test_a_word_that_a_tokenizer_drops_has_no_token() -> None:
    words = Words.of(["Ann", "\u200b", "Bern"])
    one = Window(0, 0, 3, 0, 3)
    assert placed(taggers.wordpieces(), [words], [one], 64, "first").places.tolist() == [1, UNSEEN, 2]
    assert (placed(taggers.byte_level(), [words], [one], 64, "first").places >= 0).all()


def test_short_texts_are_whole() -> None:
    examples = [Words.of(tokens) for tokens in taggers.sentences(20)["tokens"]]
    cut = windows(examples, [taggers.wordpieces(), taggers.byte_level()], 64, 0.25)
    assert cut == [Window(number, 0, len(one), 0, len(one)) for number, one in enumerate(examples)]


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_every_word_of_a_long_document_is_answered_once_where_most_stands_around_it(overlap: float) -> None:
    draw = random.Random(1)
    document = Words.of(draw.choices([*taggers.NAMES, *taggers.PLACES, *taggers.FILLER], k=2000))
    both = [taggers.wordpieces(), taggers.byte_level()]
    cut = windows([document], both, 40, overlap)
    answered = [word for one in cut for word in range(one.answers, one.until)]
    assert answered == list(range(2000))
    for one in cut:
        for tokenizer in both:
            assert len(tokenizer(one.words([document]).text)["input_ids"]) <= 40
    for word in range(0, 2000, 37):
        def poorer(one: Window, word: int = word) -> float:
            return min(np.inf if one.first == 0 else word - one.first, np.inf if one.end == 2000 else one.end - 1 - word)
        there = [one for one in cut if one.first <= word < one.end]
        owner = next(one for one in cut if one.answers <= word < one.until)
        assert poorer(owner) == max(map(poorer, there))


def test_windows_go_on_by_what_they_do_not_share() -> None:
    assert spans([1] * 10, 4, 0.0) == [(0, 4), (4, 8), (8, 10)]
    assert spans([1] * 10, 4, 0.5) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert spans([1, 1, 9, 1], 3, 0.0) == [(0, 2), (2, 3), (3, 4)]  # a word that is longer than a window
    assert [(one.answers, one.until) for one in shared_out(0, [(0, 4), (2, 6), (4, 8)])] == [(0, 3), (3, 5), (5, 8)]


def test_tokens_of_no_character_count_where_a_text_is_cut() -> None:
    tokenizer = taggers.byte_level()
    document = Words.of(["\u2026"] * 60)  # each is four tokens, the first of which is only the space
    assert len(tokenizer(document.text)["input_ids"]) > 200
    for overlap in (0.0, 0.5):
        cut = windows([document], [tokenizer], 60, overlap)
        assert all(len(tokenizer(one.words([document]).text)["input_ids"]) <= 60 for one in cut)
        assert (placed(tokenizer, [document], cut, 60, "first").places >= 0).all()


def test_no_room_for_a_word_is_refused() -> None:
    with pytest.raises(DataError, match="more than the 2 special tokens"):
        windows([Words.of(["Ann"])], [taggers.wordpieces()], 2, 0.25)


def test_padding_before_the_text_moves_the_places_along() -> None:
    tokenizer = taggers.wordpieces()
    examples = [Words.of(["Ann", "sees", "Bern"]), Words.of(["Bob"])]
    cut = windows(examples, [tokenizer], 64, 0.25)
    right, places = placed(tokenizer, examples, cut, 64, "first").batch([0, 1])
    tokenizer.padding_side = "left"
    left, moved = placed(tokenizer, examples, cut, 64, "first").batch([0, 1])
    assert places.tolist() == [[1, 2, 3], [1, -1, -1]]
    assert moved.tolist() == [[1, 2, 3], [3, -1, -1]]
    assert left["input_ids"][1, 3] == right["input_ids"][1, 1]
