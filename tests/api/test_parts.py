"""The pieces by themselves: how fast, what fits into a template, what a recipe may say."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tenacity import AsyncRetrying, RetryCallState

from stilla.api.asking import _pause
from stilla.api.client import PassingError, _seconds
from stilla.api.pace import Pace
from stilla.api.questions import Question, filled
from stilla.errors import RecipeError
from stilla.recipe.api import Api


def test_requests_and_tokens_of_a_minute_are_spread() -> None:
    pace = Pace(requests=60)
    assert [pace.place(0.0, 1) for _ in range(3)] == [0.0, 1.0, 2.0]
    assert pace.place(10.0, 1) == 10.0
    pace = Pace(requests=60, tokens=600)
    assert [pace.place(0.0, 100), pace.place(0.0, 5), pace.place(0.0, 1)] == [0.0, 10.0, 11.0]
    assert [Pace().place(3.0, 10**9) for _ in range(2)] == [3.0, 3.0]


def test_a_server_says_when_to_come_again() -> None:
    assert _seconds({"retry-after": "7"}) == 7.0
    assert _seconds({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert _seconds({"retry-after": "1e9"}) == 600.0
    assert _seconds({"retry-after": "soon"}) is _seconds({"retry-after": "nan"}) is _seconds({}) is None


@pytest.mark.parametrize(("after", "least", "most"), [(None, 2.0, 4.0), (0.0, 2.0, 4.0), (0.1, 2.0, 4.0), (30.0, 30.0, 30.0)])
def test_nobody_comes_again_sooner_than_was_said_nor_faster_each_time(after: float | None, least: float, most: float) -> None:
    """A server whose clock is behind says a time that is over."""
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = 3
    state.set_exception((PassingError, PassingError("429", after=after), None))  # type: ignore[arg-type]
    assert all(least <= _pause(state) <= most for _ in range(50))


def test_a_template_takes_columns_and_keeps_braces() -> None:
    assert filled('{{"text": "{text}"}} {n}', {"text": "a {b}", "n": 3}) == '{"text": "a {b}"} 3'
    with pytest.raises(RecipeError, match=r"got \{txt\}; expected text or n.*Did you mean text"):
        filled("{txt}", {"text": "a", "n": 1})


def test_an_empty_place_of_a_column_is_no_word() -> None:
    empty = {"text": None, "n": float("nan"), "zero": 0}
    assert filled("[{text}] [{n}] [{zero}]", empty) == "[] [] [0]"


def test_a_question_has_at_most_its_bytes_in_tokens() -> None:
    question = Question.of(Api(url="http://x/v1", system="ä"), "m", [{"role": "user", "content": "abc"}])
    assert question.bytes == 5
    assert question.most > 5


@pytest.mark.parametrize(("said", "words"), [
    ({"url": "api.openai.com"}, "expected an address"),
    ({"url": "https://x/v1?key=a"}, "expected an address"),
    ({"ceiling": 5.0}, "without a price"),
    ({"key_env": "sk-1234567890123456789012"}, "name of an environment variable"),
    ({"key_env": "HOME"}, "that ends in API_KEY"),
    ({"answers": 3, "temperature": 0.0}, "one and the same"),
    ({"body": {"n": 3}}, "got n"),
    ({"reasons": {"asked": "Why?"}}, "expected {source} in it once"),
    ({"reasons": {"asked": "{source}"}}, "words beside it"),
    ({"reasons": {}, "template": "Text: {source}"}, "does not ask for 'Answer:'"),
    ({"requests_per_minute": 0}, "greater than or equal to 1"),
])
def test_what_cannot_be_meant_is_refused(said: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Api.model_validate({"url": "https://x/v1", **said})


def test_the_address_may_be_that_of_the_requests() -> None:
    assert Api(url="https://x/v1/chat/completions/").url == Api(url="https://x/v1").url == "https://x/v1"
