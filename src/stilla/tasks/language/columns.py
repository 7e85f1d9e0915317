"""Which columns a causal language model learns from: what the recipe says, else what their names say, else a question."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from datasets import Dataset, Json, LargeList, List, Value, concatenate_datasets

from stilla.data import with_nulls
from stilla.errors import DataError, all_of, one_of
from stilla.tasks.language import talks
from stilla.tasks.language.sections import CausalLMData
from stilla.tasks.shared import left_out
from stilla.tasks.shared.bound import bound, usual_texts
from stilla.tasks.shared.columns import columns_of, existing, is_text, one_text, said

Source = Literal["text", "prompt", "messages"]

TALKS = ("messages", "conversation", "conversations")
ANSWERS = (
    ("prompt", "completion"), ("prompt", "response"), ("instruction", "response"), ("instruction", "output"),
    ("question", "answer"), ("question", "response"), ("query", "response"), ("query", "answer"), ("input", "output"),
)  # fmt: skip
CONTEXTS: Mapping[str, tuple[str, ...]] = {"instruction": ("input", "context")}
"""What belongs to a prompt of that name in Alpaca's data and Dolly's."""
TOOLS = ("tools", "functions")


@dataclass(frozen=True)
class Layout:
    """`source`: what a row is; `columns`: the text's, the prompt's and the completion's, or the messages' (where prompts and
    completions are messages, both). `context`: written with the prompt in Alpaca's words. `tools`: offered in a conversation.
    """

    source: Source = "text"
    columns: tuple[str, ...] = ()
    context: str | None = None
    tools: str | None = None

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.columns, *(one for one in (self.context, self.tools) if one is not None))

    def resolved(self) -> dict[str, Any]:
        """As the recipe would say it."""
        if self.source == "text":
            return {"text": self.columns}
        names = ("messages",) if len(self.columns) == 1 else ("prompt", "completion")
        return {**dict(zip(names, self.columns)), "context": self.context, "tools": self.tools}


def layout(section: CausalLMData, train: Dataset) -> Layout:
    """What a causal language model learns from.

    Raises:
        DataError: no such column, half of a pair, the names leave it open, or something would be left out.
    """
    if (section.prompt is None) != (section.completion is None):
        lacking = "completion" if section.completion is None else "prompt"
        raise DataError(f"data.{lacking}: a prompt and its completion come together; name both columns. "
                        f"{columns_of(train)}")
    given = [name for name in ("text", "prompt", "messages") if getattr(section, name) is not None]
    if len(given) > 1:
        raise DataError(f"data: got {all_of(given)}; expected one of text, prompt with completion, or messages.")
    found = _named(section, train) if given else _guessed(section, train)
    if section.context is not None and (found.source != "prompt" or section.prompt is None):
        raise DataError("data.context: it is written with a prompt of text; name data.prompt and data.completion too.")
    if section.tools is not None and found.source != "messages":
        raise DataError("data.tools: only conversations offer tools (data.messages, or prompts and completions that are "
                        "lists of messages).")
    return found


def unlabelled(pool: Dataset, layout: Layout, called: Mapping[str, str], theirs: Layout | None = None) -> Dataset:
    """Unlabelled examples in these columns: texts, prompts with nothing after them, or conversations with an open end.
    `theirs`: what teachers read, which has to be there too, by its name or as `called`.

    Raises:
        DataError: there is no such column, or which one is meant is left open.
    """
    first, *answer = layout.columns
    if layout.source == "text":
        return bound(pool, (first,), called, is_text, "text", partial(usual_texts, count=1))
    told = () if theirs is None else tuple(one for one in theirs.all if one not in layout.all)
    beside = [one for one in (layout.context, layout.tools) if one is not None and called.get(one, one) in pool.column_names]
    beside += told
    if layout.source == "prompt":
        usual = _nobody_knows if told else _usual_prompts
        found = bound(pool, (first, *beside), called, is_text, "text", usual, tuple(answer))
        lacking = [one for one in (*answer, layout.context) if one is not None and one not in found.column_names]
        return with_nulls(found, dict.fromkeys(lacking, Value("string")))
    found = bound(pool, (first, *beside), called, lambda _: True, "conversations",
                  _nobody_knows if told else _usual_talks, tuple(answer))
    talking = tuple(dict.fromkeys([first, *([] if theirs is None else theirs.columns[:1])]))
    if other := [one for one in talking if not is_talk(found, one)]:
        raise DataError(f"data.unlabelled: the column {other[0]!r} holds {said(found.features[other[0]])}; expected lists of "
                        "{role, content}.")
    opened = [talks.unanswered(found, one) if not answer else talks.as_json(found.select_columns([one]), [one])
              for one in talking]
    rest = found.remove_columns([*talking])
    answers = [talks.open_answers(len(found), answer[0])] if answer else []
    parts = [*opened, *([rest] if rest.column_names else []), *answers]
    return concatenate_datasets(parts, axis=1)


def _nobody_knows(_: Dataset, texts: Sequence[str]) -> Sequence[str] | None:
    """Which of several columns is the teacher's."""
    return None


def _usual_prompts(_: Dataset, texts: Sequence[str]) -> Sequence[str] | None:
    lower = {name.lower(): name for name in reversed(texts)}
    known = list(dict.fromkeys(lower[name] for name, _ in ANSWERS if name in lower))
    return next((found for found in (known, texts) if len(found) == 1), None)


def _usual_talks(pool: Dataset, columns: Sequence[str]) -> Sequence[str] | None:
    talking = [name for name in columns if is_talk(pool, name)]
    usual = [name for name in talking if name.lower() in (*TALKS, "prompt")]
    return next((found for found in (talking, usual) if len(found) == 1), None)


def _named(section: CausalLMData, train: Dataset) -> Layout:
    """What the recipe says."""
    if section.messages is not None:
        messages = existing("messages", (section.messages,), train, lambda _: is_talk(train, str(section.messages)),
                            "lists of {role, content}")
        return Layout("messages", messages, tools=_tools(section, train))
    if section.prompt is not None and section.completion is not None:
        both = (section.prompt, section.completion)
        if all(name in train.column_names and is_talk(train, name) for name in both):
            return Layout("messages", both, tools=_tools(section, train))
        _refuse_half_talk(both, train)
        for key, name in zip(("prompt", "completion", "context"), (*both, section.context)):
            if name is not None:
                existing(key, (name,), train, is_text, "text")
        return Layout("prompt", both, section.context)
    return Layout("text", one_text(section, train))


def _guessed(section: CausalLMData, train: Dataset) -> Layout:
    """What the columns' names and types say."""
    lower = {name.lower(): name for name in reversed(train.column_names)}
    if {"chosen", "rejected"} <= set(lower):
        raise DataError(f"data: {lower['chosen']!r} and {lower['rejected']!r} are preferences, and one answer is learnt of "
                        "an example. To learn the chosen ones, set data.messages: chosen where they are lists of messages, "
                        f"else data.prompt and data.completion: chosen. {columns_of(train)}")
    pairs = [(lower[a], lower[b]) for a, b in ANSWERS if a in lower and b in lower and not (a == "input" and
                                                                                           "instruction" in lower)]
    talking = [name for name in train.column_names if is_talk(train, name)]
    if len(pairs) == 1 and set(pairs[0]) <= set(talking):
        return _whole(train, Layout("messages", pairs[0], tools=_tools(section, train)))
    usual = [name for name in talking if name.lower() in TALKS]
    if len(usual or talking) == 1:
        return _whole(train, Layout("messages", tuple(usual or talking), tools=_tools(section, train)))
    if talking:
        raise DataError(f"data.messages: which column are the conversations? {one_of(usual or talking)} could be it. "
                        f"{columns_of(train)} Set data.messages.")
    for name in (lower[name] for name in TALKS if name in lower):
        _refuse_other_talk(name, train)
    texts = [pair for pair in pairs if all(is_text(train.features[name]) for name in pair)]
    if len(texts) > 1:
        raise DataError(f"data.prompt: which columns are the prompt and its completion? "
                        f"{one_of([all_of(pair) for pair in texts])} could be. Set data.prompt and data.completion.")
    if texts:
        around = [lower[name] for name in CONTEXTS.get(texts[0][0].lower(), ()) if name in lower
                  and is_text(train.features[lower[name]])]
        return _whole(train, Layout("prompt", texts[0], around[0] if len(around) == 1 else None))
    return Layout("text", one_text(section, train))


def _whole(train: Dataset, found: Layout) -> Layout:
    """What was guessed, if it leaves nothing out."""
    left_out.refuse(train, found.all, "Name the columns that are meant: data.prompt and data.completion, with data.context "
                                      "for what belongs to the prompt; data.messages; or data.text. What they do not name "
                                      "is then left out.")
    return found


def _tools(section: CausalLMData, train: Dataset) -> str | None:
    """The column of tools; one of that name is handed to the template wherever there are conversations."""
    if section.tools is not None:
        return existing("tools", (section.tools,), train)[0]
    lower = {name.lower(): name for name in reversed(train.column_names)}
    return next((lower[name] for name in TOOLS if name in lower), None)


def is_talk(train: Dataset, name: str) -> bool:
    """Whether a column holds lists of messages: by its type, or, where that is JSON, by its values."""
    feature = train.features[name]
    inside = feature.feature if isinstance(feature, List | LargeList) else None
    if isinstance(inside, Mapping):
        return {"role", "content"} <= set(inside) or {"from", "value"} <= set(inside)
    if not isinstance(inside, Json) and not isinstance(feature, Json):
        return False
    some = next((talk for talk in talks.plain(train.select(range(min(len(train), 20))), name) if talk), None)
    return isinstance(some, list) and all(isinstance(one, Mapping) and (
        "role" in one or {"from", "value"} <= set(one)) for one in some)


def _refuse_half_talk(both: tuple[str, str], train: Dataset) -> None:
    talking = [name for name in both if name in train.column_names and is_talk(train, name)]
    if talking:
        raise DataError(f"data.prompt: {talking[0]!r} holds messages and the other text; expected both to be text, or both "
                        f"lists of {{role, content}}. {columns_of(train)}")


def _refuse_other_talk(name: str, train: Dataset) -> None:
    """A column that is called like conversations and holds them in another shape; as text, their marks would be learnt."""
    feature = train.features[name]
    if isinstance(feature, List) and isinstance(feature.feature, Mapping):
        raise DataError(f"data.messages: the column {name!r} holds {said(feature)}; expected lists of {{role, content}}, "
                        "where one of the roles is assistant. Rename the keys, and roles that are called otherwise.")
    first = next((one for one in train.select(range(min(len(train), 20)))[name] if one), None)
    if is_text(feature) and re.match(r'\s*\[?\s*\{\s*"', str(first)):
        raise DataError(f"data.messages: the column {name!r} holds conversations as JSON text; expected lists of {{role, "
                        "content}. Write them as lists, not as strings, or name a column of plain text (data.text).")
