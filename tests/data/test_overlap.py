"""What of one set of examples stands in another."""

from __future__ import annotations

import random

import pytest

from stilla.data.overlap import COMMON, WORDS, Met, words

LONG = "it was the best of times it was the worst of times"


@pytest.mark.parametrize("text", ["Yes!", "  yes ", "YES", "ｙｅｓ", "yes."])
def test_the_same_text_is_met_however_it_is_written(text: str) -> None:
    assert Met([("yes",)]).has((text,))
    assert not Met([("yes",)]).has((f"{text} no",))


def test_eight_words_in_a_row_are_met_and_seven_are_not() -> None:
    met = Met([(LONG,)])
    eight, seven = LONG.split()[2:10], LONG.split()[2:9]
    assert len(eight) == WORDS == 8
    assert met.has((f"so {' '.join(eight)}, he wrote",))
    assert not met.has((f"so {' '.join(seven)}, he wrote",))
    assert not met.has((" ".join([*eight[:4], "indeed", *eight[4:]]),))


def test_it_finds_what_a_search_of_all_pairs_finds() -> None:
    draw = random.Random(0)

    def some(count: int) -> list[str]:
        return [" ".join(draw.choices("abcd", k=draw.randint(1, 40))) for _ in range(count)]

    measured, pool = some(4), some(300)
    met = Met((text,) for text in measured)

    def shared(one: str, other: str) -> bool:
        spaced = [f" {text} " for text in (one, other)]
        split = one.split()
        runs = [f" {' '.join(split[start : start + WORDS])} " for start in range(len(split) - WORDS + 1)]
        return spaced[0] == spaced[1] or any(run in spaced[1] for run in runs)

    expected = [any(shared(text, other) for other in measured) for text in pool]
    assert [met.has((text,)) for text in pool] == expected
    assert 0 < sum(expected) < len(expected)


def test_a_pair_is_the_same_only_as_a_whole() -> None:
    met = Met([("one", "two")])
    assert met.has(("One", "two."))
    assert not met.has(("one", "three"))
    assert not met.has(("two", "one"))
    assert Met([("x", LONG)]).has((LONG, "y"))


def test_how_such_texts_are_worded_is_nobodys() -> None:
    template = "please translate the following sentence into german for me"
    many = [(f"{template} {number}",) for number in range(COMMON + 1)]
    assert not Met(many).has((f"{template} hello",))
    assert Met(many[:COMMON]).has((f"{template} hello",))
    assert Met(many).has(many[3])  # the same is the same


def test_bytes_are_met_only_if_all_are_equal() -> None:
    assert Met([(b"abc",)]).has((b"abc",))
    assert not Met([(b"abc",)]).has((b"abd",))


def test_texts_without_words_are_compared_as_they_are() -> None:
    assert Met([("!!",)]).has((" !! ",))
    assert not Met([("!!",)]).has(("??",))


def test_characters_that_are_written_without_spaces_are_words() -> None:
    assert words("今天天气ok好") == ["今", "天", "天", "气", "ok", "好"]
    assert Met([("我们今天一起去公园里散步吧",)]).has(("那么今天一起去公园里看看",))
