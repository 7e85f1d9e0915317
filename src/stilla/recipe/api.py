"""Of a recipe: a teacher that somebody else serves, which answers in texts: where it is, what it is asked, what it costs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stilla.recipe.paths import PathName
from stilla.recipe.section import BATCH, TOKENS, Section, Strings
from stilla.secrets import is_known_variable

MONEY = 1e9
"""Bound of prices and ceilings, in whatever currency."""
ASKED_BY_US = ("model", "messages", "n", "best_of", "stream", "temperature", "max_tokens", "max_completion_tokens", "tools",
               "functions", "modalities", "audio", "logprobs", "top_logprobs")
"""Fields of a request that other fields of the recipe say, or that would bring answers of another shape or number."""
REFUSALS = ("I'm sorry, but", "I’m sorry, but", "I am sorry, but", "I can't assist", "I can’t assist", "I cannot assist",
            "I can't help with", "I can’t help with", "I cannot help with", "As an AI")


class Price(Section):
    """What a million tokens cost, in the currency of `ceiling`."""

    input: float = Field(ge=0, le=MONEY)
    """Of what is asked."""
    output: float = Field(ge=0, le=MONEY)
    """Of what is answered."""

    def of(self, asked: float, answered: float) -> float:
        """What so many tokens cost."""
        return (self.input * asked + self.output * answered) / 1e6


class Told(Section):
    """The teacher's reason before its answer, learnt beside the answer as a second task (Hsieh et al. 2023,
    arXiv:2305.02301): the student is asked for the one or for the other, and writes no reason where it answers."""

    answer: str = Field("Answer:", min_length=1, max_length=1000)
    """What stands between the reason and the answer; where it stands several times, the last of them."""
    asked: str = Field("Explain: {source}", max_length=100_000)
    """How the student is asked for the reason, with what an example asks in the place of `{source}`."""
    weight: float = Field(1.0, gt=0, le=1000)
    """What a token of a reason counts in the loss, where one of an answer counts 1."""

    @field_validator("asked")
    @classmethod
    def _has_the_source(cls, asked: str) -> str:
        if asked.count("{source}") != 1 or asked.strip() == "{source}":
            raise ValueError(f"got {asked!r}; expected {{source}} in it once, and words beside it by which the student knows "
                             "that it is to reason")
        return asked


class Api(Section):
    """A teacher behind an address that speaks OpenAI's chat completions. It is asked for texts, which the student learns;
    every answer is stored and nothing is asked twice (docs/api.md)."""

    url: str
    """Up to the version: `https://api.openai.com/v1`, `http://localhost:8000/v1`."""
    key_env: str | None = None
    """The environment variable that holds the key, `OPENAI_API_KEY`; by default none is sent. The key itself is never
    written down."""
    template: str | None = None
    """What is asked about an example, with columns of the data in braces, `{source}` for what it asks and `{labels}` for the
    names of its classes. By default the source alone, or a question for the class. Conversations are sent as they are."""
    system: str | None = None
    """What the model is told before every question."""
    answers: int = Field(1, ge=1, le=1000)
    """Answers to every question, each asked for by itself; of equal texts one is learnt."""
    temperature: float | None = Field(None, ge=0, le=2)
    """At which the answers are drawn; by default the server's own."""
    max_tokens: int = Field(256, ge=1, le=TOKENS)
    """Longest answer in tokens; longer ones come cut, and are not taught as if they ended (`completions.cut`)."""
    limit_as: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the server calls that limit; OpenAI's models that think first take only `max_completion_tokens`."""
    logprobs: int | None = Field(None, ge=1, le=1000)
    """Of classes: so many of the likeliest tokens at every place of an answer, with their log-probabilities, from which the
    student learns how sure the teacher is of each class; many servers give at most 20, models that think first give none."""
    reasons: Told | None = None
    """Learn the reason that stands before the answer too: `{answer: "Answer:", weight: 0.5}`."""
    body: Mapping[str, Any] = Field(default_factory=dict)
    """Further fields of every request: `{top_p: 0.9, reasoning_effort: low}`."""
    price: Price | None = None
    """Per million tokens: `{input: 0.25, output: 2.00}`."""
    ceiling: float | None = Field(None, gt=0, le=MONEY)
    """What all questions together may cost, those of earlier runs into the same `store` included. Before a request is sent,
    the most that it can cost is set aside; where that is not left, the run stops, and goes on with a higher ceiling."""
    requests_per_minute: int | None = Field(None, ge=1, le=10_000_000)
    """Requests begun within a minute."""
    tokens_per_minute: int | None = Field(None, ge=1, le=10**12)
    """Tokens asked and answered within a minute, with `max_tokens` for every answer, as servers count them."""
    concurrency: int = Field(8, ge=1, le=BATCH)
    """Requests under way at the same time."""
    timeout: float = Field(120.0, gt=0, le=86_400)
    """Seconds that an answer is waited for."""
    attempts: int = Field(6, ge=1, le=1000)
    """How often a question is asked that the server was too busy for, that broke off, or whose answer cannot be read."""
    refusals: Strings = REFUSALS
    """How answers begin that refuse; they are left out, as are those that the server itself marks as refused."""
    store: PathName | None = None
    """The folder for the answers; by default `answers` in the run folder, which `--overwrite` leaves there. Runs that name
    the same one ask the same only once."""
    measured: Annotated[int, Field(ge=0, le=10**9)] = 0
    """How many examples of the test data (of the validation data, where there are none) it is asked about too, to say in the
    scores how good its answers are."""

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", url):
            raise ValueError(f"got {url!r}; expected an address up to its version: https://api.openai.com/v1")
        return url.rstrip("/").removesuffix("/chat/completions")

    @field_validator("key_env")
    @classmethod
    def _a_variable(cls, name: str | None) -> str | None:
        if name is not None and not (re.fullmatch(r"[A-Za-z_]\w*", name) and is_known_variable(name)):
            raise ValueError("expected the name of an environment variable that ends in API_KEY, ACCESS_KEY, TOKEN, SECRET "
                             "or PASSWORD: by that its value is known as a secret, and cut out of all that is written. The "
                             "key itself does not belong into a recipe")
        return name

    @field_validator("body")
    @classmethod
    def _not_ours(cls, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if wrong := [name for name in body if name in ASKED_BY_US]:
            raise ValueError(f"got {', '.join(wrong)}; these are said by fields of their own (answers, temperature, "
                             "max_tokens, limit_as), or would bring answers of another shape")
        try:
            json.dumps(body, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            raise ValueError("expected what JSON can hold: text, finite numbers, true or false, lists, keys and "
                             "values") from None
        return body

    @model_validator(mode="after")
    def _a_ceiling_of_something(self) -> Self:
        if self.ceiling is not None and self.price is None:
            raise ValueError("ceiling: nobody knows what is spent without a price; expected price: {input: 0.25, output: 2} "
                             "beside it, per million tokens")
        said = f"{self.template}\n{self.system}"
        if self.reasons is not None and self.template is not None and self.reasons.answer not in said:
            raise ValueError(f"template: it does not ask for {self.reasons.answer!r} between the reason and the answer, by "
                             "which they are told apart (reasons.answer); expected it in template or system")
        if self.answers > 1 and self.temperature == 0:
            raise ValueError(f"answers: {self.answers} at temperature 0 are one and the same; expected temperature: 0.7, or "
                             "answers: 1")
        return self
