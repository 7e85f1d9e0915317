"""Calls of tools within messages: their arguments as a mapping or as JSON text, as a chat template wants them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


def functions(messages: Sequence[Message]) -> list[Mapping[str, Any]]:
    """What is called, {name, arguments}, with or without OpenAI's {type, function} around it."""
    return [call.get("function", call) for message in messages for call in message.get("tool_calls", ())]


def with_arguments(messages: Sequence[Message], form: Callable[[Any], Any]) -> list[Message]:
    """The messages with the arguments of their calls in this form."""

    def formed(call: Mapping[str, Any]) -> Mapping[str, Any]:
        if "function" in call:
            return {**call, "function": formed(call["function"])}
        return {**call, "arguments": form(call["arguments"])} if "arguments" in call else call

    return [message if "tool_calls" not in message else
            {**message, "tool_calls": [formed(call) for call in message["tool_calls"]]} for message in messages]


def mapping(arguments: Any) -> Any:
    """As transformers' templates expect them; what is no JSON text of an object stays as it is."""
    if not isinstance(arguments, str):
        return arguments
    try:
        found = json.loads(arguments)
    except ValueError:
        return arguments
    return found if isinstance(found, dict) else arguments


def json_text(arguments: Any) -> Any:
    """As OpenAI writes them."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
