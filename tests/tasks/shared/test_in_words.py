"""Classes that answers name, and how sure one is of a share of right ones."""

from __future__ import annotations

import numpy as np
import pytest

from stilla.tasks.shared.in_words import named_in, wilson

NAMES = ("sport", "world news", "news", "card lost")


@pytest.mark.parametrize(("said", "name"), [
    ("sport", "sport"), (" Sport.\n", "sport"), ("**News**", "news"), ('"world news"', "world news"),
    ("The class is: sport", "sport"), ("It could be sport or news.\nsport", "sport"), ("Class: world news", "world news"),
    ('{"class": "news", "sure": 0.9}', "news"), ('```json\n{"label": "Card lost"}\n```', "card lost"),
    ("I think this belongs to world news, clearly.", "world news"),
])
def test_a_class_is_read_from_what_people_and_models_write(said: str, name: str) -> None:
    assert named_in(said, NAMES) == name


@pytest.mark.parametrize("said", ["", "politics", "sport or news", "transport", "world news and news", "newsworthy", "{",
                                  '{"a": 1}', '{"considered": "sport", "class": "news"}',
                                  'It is no sport.\n{"first": "news", "second": "card lost"}'])
def test_what_names_none_or_several_is_not_understood(said: str) -> None:
    assert named_in(said, NAMES) is None


def test_names_that_differ_in_case_alone_are_told_apart() -> None:
    assert named_in("us", ("US", "us")) == "us"
    assert named_in("US", ("US", "us")) == "US"


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = wilson(np.array([1.0] * 81 + [0.0] * 19))
    assert (round(low, 4), round(high, 4)) == (0.7222, 0.8749)  # Newcombe 1998, of 81 in 100, by the closed form
    assert wilson(np.ones(10))[1] == pytest.approx(1.0)
