"""Probabilities of classes from those of an answer's tokens, by arithmetic."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from stilla.tasks.shared.probable import CERTAIN, Token, logs, probabilities


def said(token: str, **likely: float) -> Token:
    """`_` stands for a space."""
    return token, {name.replace("_", " "): log(one) for name, one in likely.items()}


def test_each_class_has_what_the_tokens_that_begin_it_have() -> None:
    found = probabilities([said("yes", yes=0.6, Yes=0.1, no=0.2, _No=0.05, Sure=0.05)], "yes", ["no", "yes"])
    assert found == pytest.approx(np.array([0.25, 0.7]) / 0.95)


def test_a_name_of_several_tokens_goes_along_those_that_were_given() -> None:
    """P(card lost) = 0.8 · 0.7, P(card stolen) = 0.8 · 0.3, P(cash) = 0.2."""
    tokens = [said("card", card=0.8, cash=0.2), said(" lost", _lost=0.7, _stolen=0.3)]
    found = probabilities(tokens, "card lost", ["card lost", "card stolen", "cash"])
    assert found == pytest.approx([0.56, 0.24, 0.2])


def test_a_name_within_another_ends_where_the_answer_ends() -> None:
    found = probabilities([said("card", card=0.9, cash=0.1)], "card", ["card", "card lost", "cash"])
    assert found == pytest.approx(np.array([0.9, 0.0, 0.1]))
    tokens = [said("card", card=1.0), said(" lost", _lost=0.8, **{".": 0.2})]
    found = probabilities(tokens, "card lost", ["card", "card lost"])
    assert found == pytest.approx([0.2, 0.8])


def test_what_could_be_several_is_shared_and_what_nobody_spoke_of_gets_what_is_left() -> None:
    """`c` (0.2) could be card or cash; 0.1 is left for two, and the least that was said is 0.2."""
    found = probabilities([said("yes", yes=0.7, c=0.2)], "yes", ["card", "cash", "yes", "no", "so"])
    assert found == pytest.approx([0.1, 0.1, 0.7, 0.05, 0.05])
    found = probabilities([said("yes", yes=0.7, no=0.01)], "yes", ["yes", "no", "so"])  # at most the least that was said
    assert found == pytest.approx(np.array([0.7, 0.01, 0.01]) / 0.72)


def test_it_is_looked_for_where_it_was_said_last() -> None:
    tokens = [said("Not", Not=1.0), said(" no", _no=0.5, _yes=0.5), said(", but", **{", but": 1.0}),
              said(' "yes', **{' "yes': 0.75, ' "no': 0.25}), said('".', **{'".': 1.0})]
    assert probabilities(tokens, "yes", ["no", "yes"]) == pytest.approx([0.25, 0.75])


def test_what_is_not_in_the_tokens_says_nothing() -> None:
    assert probabilities([], "yes", ["yes", "no"]) is None
    assert probabilities([said("no", no=1.0)], "yes", ["yes", "no"]) is None


def test_a_name_that_does_not_begin_a_token_says_nothing_of_how_sure_it_is() -> None:
    """`:yes` is a token of its own; of what else could have stood there only `no` would begin a name."""
    assert probabilities([said("label"), said(":yes", **{":yes": 0.9, "no": 0.05})], "yes", ["no", "yes"]) is None


def test_tokens_that_are_longer_without_capitals_are_counted_so() -> None:
    tokens = [said("Straße"), said(" or"), said(" no", _no=0.5, _yes=0.5), said(" yes", _yes=0.75, _no=0.25)]
    assert probabilities(tokens, "yes", ["no", "yes"]) == pytest.approx([0.25, 0.75])
    tokens = [said("ßßßß"), said(" yes", _yes=0.75, _no=0.25), said(" or")]
    assert probabilities(tokens, "yes", ["no", "yes"]) == pytest.approx([0.25, 0.75])


def test_logarithms_have_an_end() -> None:
    assert logs(np.array([[1.0, 0.0]])).tolist() == [[0.0, CERTAIN]]
