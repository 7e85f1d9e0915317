"""What is asked: templates filled with the columns of an example, and by what a question is known again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stilla.errors import RecipeError, did_you_mean, one_of
from stilla.recipe.api import Api

Messages = Sequence[Mapping[str, str]]

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_BESIDE = 32
"""Tokens at most that a server puts around one message: whose it is, and where it begins and ends."""


@dataclass(frozen=True)
class Question:
    """One request. `number`: of several answers to the same, which one; it is not sent."""

    url: str
    body: Mapping[str, Any]
    number: int = 0

    @classmethod
    def of(cls, api: Api, model: str, messages: Messages, number: int = 0) -> Question:
        """`messages`: what is said before the answer, without the recipe's `system`."""
        told = [] if api.system is None else [{"role": "system", "content": api.system}]
        drawn = {} if api.temperature is None else {"temperature": api.temperature}
        likely = {} if api.logprobs is None else {"logprobs": True, "top_logprobs": api.logprobs}
        return cls(api.url, {**api.body, **likely, "model": model, "messages": [*told, *messages], **drawn,
                             api.limit_as: api.max_tokens}, number)

    @cached_property
    def key(self) -> str:
        """A hash of all that the answer depends on."""
        said = json.dumps([self.url, self.body, self.number], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    @property
    def messages(self) -> Messages:
        found: Messages = self.body["messages"]
        return found

    @cached_property
    def bytes(self) -> int:
        """Of the texts in it: no tokenizer makes more tokens of a text than it has bytes."""
        return sum(len(one["content"].encode(errors="replace")) for one in self.messages)

    @property
    def most(self) -> int:
        """Tokens that it has at most: with what a server may make of further fields (a schema of the answer)."""
        beside = {name: value for name, value in self.body.items() if name != "messages"}
        return self.bytes + _BESIDE * (len(self.messages) + 1) + len(json.dumps(beside))


def filled(template: str, values: Mapping[str, object]) -> str:
    """The template with values in the place of `{names}`, nothing where a value is missing; `{{` and `}}` are braces.

    Raises:
        RecipeError: a name that there is no value for.
    """
    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        if found[1] not in values:
            raise RecipeError(f"teacher.api.template: got {{{found[1]}}}; expected {one_of(list(values))}, and {{{{ }}}} for "
                              f"braces.{did_you_mean(found[1], values)}")
        said = values[found[1]]
        return "" if said is None or said != said else str(said)  # NaN: an empty place among numbers

    return _PLACE.sub(value, template)
