"""Conversations as data hold them: read into one form, with the turns to learn and the tools that are offered.

Known are lists of {role, content} as OpenAI and transformers write them (tool calls, content in parts, `weight`), and
ShareGPT's {from, value}. A table has every field in every message: one that is None was never there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, Features, Json, LargeList, List, concatenate_datasets

from stilla.errors import CompatibilityError, DataError

SPEAKERS: Mapping[str, str] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "tool": "tool",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
"""What ShareGPT's `from` says, and which role that is."""

_MARKS = ("train", "training", "trainable", "loss")  # axolotl's and ms-swift's

PICTURE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands in a message where a picture does."""
_IMAGE = "<image>"
"""By which many data mark that place."""

OPEN = "..."
"""Stands for the answer to an unlabelled conversation until the teacher has written one; nothing is compared with it."""

Message = Mapping[str, Any]


class UnreadableError(Exception):
    """Why a conversation cannot be learnt, as the end of a sentence that begins with its column."""


@dataclass(frozen=True)
class Talk:
    """Who says what, in order; `learnt`: the assistant's turns that are to be learnt; `tools`: schemas of functions."""

    messages: tuple[Message, ...]
    learnt: tuple[int, ...]
    tools: tuple[Any, ...] = ()

    @property
    def asked(self) -> int:
        """The last turn that is to be learnt: what models are asked for, everything before it being given."""
        return self.learnt[-1]

    def said_by(self, role: str) -> str:
        """All that one of them says."""
        return "\n".join(str(message.get("content", "")) for message in self.messages if message["role"] == role)

    def in_words(self) -> list[dict[str, str]]:
        """What was said before the answer that is asked for.

        Raises:
            CompatibilityError: calls of functions, pictures, or somebody else who speaks.
        """
        before = self.messages[: self.asked]
        if self.tools or any(set(one) - {"role", "content"} or not isinstance(one.get("content"), str) or
                             one["role"] not in ("system", "user", "assistant") for one in before):
            raise CompatibilityError("teacher.api: conversations with tools, calls or contents that are no text are not "
                                     "asked about; only what system, user and assistant say is sent")
        return [{"role": one["role"], "content": one["content"]} for one in before]

    def lines(self, end: int) -> str:
        """For a person, up to a turn."""
        lines = "\n".join(f"{message['role']}: {_said(message)}" for message in self.messages[:end])
        return lines.replace(PICTURE, "[picture] ")

    @property
    def pictures(self) -> int:
        """How many places for pictures its messages have."""
        return sum(str(message.get("content", "")).count(PICTURE) for message in self.messages)


def read(
    split: Dataset, columns: Sequence[str], tools: str | None = None, *, pictures: bool = False
) -> list[Talk | UnreadableError]:
    """The conversations of a column, or of two: those of the second go on from the first, of which nothing is learnt.

    `pictures`: messages may have them, as parts or as `<image>` in a text; their places are `PICTURE` then.
    """
    parts = [plain(split, column) for column in columns]
    offered = [None] * len(split) if tools is None else plain(split, tools)
    return [_attempt(one, here, pictures=pictures) for one, here in zip(zip(*parts), offered)]


def _attempt(parts: Sequence[Any], tools: Any, *, pictures: bool) -> Talk | UnreadableError:
    try:
        return _talk(parts, tools, pictures=pictures)
    except UnreadableError as why:
        return why


def _talk(parts: Sequence[Any], tools: Any, *, pictures: bool) -> Talk:
    if not all(isinstance(part, list) and all(isinstance(one, Mapping) for one in part) for part in parts):
        raise UnreadableError("is no list of {role, content} in which an assistant speaks")
    given = sum(len(part) for part in parts[:-1])
    messages = tuple(_message(one, pictures=pictures) for part in parts for one in part)
    speaking = [turn for turn, one in enumerate(messages) if one["role"] == "assistant" and turn >= given]
    if not speaking:
        raise UnreadableError("is no list of {role, content} in which an assistant speaks")
    raw = [one for part in parts for one in part]
    learnt = tuple(turn for turn in speaking if _counts(raw[turn]))
    if not learnt:
        raise UnreadableError("has no turn to learn: the weight of every assistant's turn is 0")
    if any(not _says_something(messages[turn]) for turn in learnt):
        raise UnreadableError("has a turn of the assistant that says nothing")
    return Talk(messages, learnt, _tools(tools))


def roles(split: Dataset, columns: Sequence[str], rows: Iterable[int]) -> list[str]:
    """Who speaks in these rows, as the data call them, in the order of their first words; of broken conversations too."""
    some = split.select(list(rows))
    said = (one for column in columns for talk in plain(some, column) if isinstance(talk, list) for one in talk
            if isinstance(one, Mapping))
    return list(dict.fromkeys(str(one.get("role", one.get("from"))) for one in said if "role" in one or "from" in one))


def answered(split: Dataset, columns: Sequence[str], texts: Sequence[str], *, pictures: bool = False) -> Dataset:
    """The same conversations up to their last answers, which are these texts. `pictures`: as for `read`."""
    column = columns[-1]
    before = [len(one) for one in plain(split, columns[0])] if len(columns) > 1 else [0] * len(split)
    new = []
    for talk, raw, given, text in zip(read(split, columns, pictures=pictures), plain(split, column), before, texts):
        if isinstance(talk, UnreadableError):
            raise DataError(f"data.messages: {column!r} {talk}")
        turn = talk.asked - given
        names = ("from", "value") if "role" not in raw[turn] else ("role", "content")
        new.append([*raw[:turn], {names[0]: raw[turn][names[0]], names[1]: text}])
    made = _as_json(column, new)  # of one type again, whatever the messages before have
    rest = split.with_format(None).remove_columns([column])
    return concatenate_datasets([rest, made], axis=1) if rest.column_names else made


def unanswered(split: Dataset, column: str) -> Dataset:
    """Conversations up to an answer that nobody has given, at whose place stands nothing that would be learnt; what an
    assistant said before is read. Where they end with an answer, it is left out."""
    new = []
    for raw in plain(split, column):
        if not isinstance(raw, list) or not all(isinstance(one, Mapping) for one in raw):
            new.append(raw)
            continue
        speaking = [str(one.get("role", one.get("from"))) for one in raw if _is_assistant(one)]
        names = ("from", "value") if raw and "role" not in raw[0] else ("role", "content")
        before = [{**one, "weight": 0} if _is_assistant(one) else one
                  for one in (raw[:-1] if raw and _is_assistant(raw[-1]) else raw)]
        speaker = speaking[-1] if speaking else "assistant" if names[0] == "role" else "gpt"
        new.append([*before, {names[0]: speaker, names[1]: OPEN}] if before else [])
    return _as_json(column, new)


def open_answers(rows: int, column: str) -> Dataset:
    """A column of answers that nobody has given, each behind the messages of another column."""
    return _as_json(column, [[{"role": "assistant", "content": OPEN}]] * rows)


def as_json(split: Dataset, columns: Sequence[str]) -> Dataset:
    """The split with these columns of one type, whatever fields its messages have."""
    for column in columns:
        made = _as_json(column, plain(split, column))
        rest = split.with_format(None).remove_columns([column])
        split = concatenate_datasets([rest, made], axis=1) if rest.column_names else made
    return split


def _as_json(column: str, conversations: list[Any]) -> Dataset:
    # where keys that are not there stay away
    return Dataset.from_dict({column: conversations}, features=Features({column: List(Json())}))


def _is_assistant(raw: Mapping[str, Any]) -> bool:
    said = raw.get("role", raw.get("from"))
    return (said if "role" in raw else SPEAKERS.get(str(said).lower())) == "assistant"


# --- one message ---


def _message(raw: Mapping[str, Any], *, pictures: bool) -> Message:
    """{role, content, ...} without what was never there; empty lists of calls are none."""
    if "role" not in raw and "from" in raw and "value" in raw:
        if str(raw["from"]).lower() not in SPEAKERS:
            raise UnreadableError(f"has a speaker {raw['from']!r} (`from`), who is none of {', '.join(SPEAKERS)}")
        rest = {name: value for name, value in raw.items() if name not in ("from", "value")}
        raw = {"role": SPEAKERS[str(raw["from"]).lower()], "content": raw["value"], **rest}
    if not isinstance(raw.get("role"), str):
        raise UnreadableError("is no list of {role, content} in which an assistant speaks")
    kept = {name: value for name, value in raw.items() if value is not None and name != "weight"}
    calls = kept.pop("tool_calls", [])
    if calls:
        kept["tool_calls"] = calls
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise UnreadableError("has tool calls that are no list of {function: {name, arguments}}")
    if "content" in kept:
        kept["content"] = _with_places(kept["content"], kept["role"]) if pictures else _text(kept["content"])
    elif not (kept["role"] == "assistant" and _calls(kept)):
        raise UnreadableError(f"has a message of {kept['role']!r} without content")
    return kept


def _text(content: Any) -> str:
    """What a message says: a text, or parts of one."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    if all(isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts):
        return "".join(part["text"] for part in parts)
    kinds = sorted({str(part["type"]) if isinstance(part, Mapping) and "type" in part else type(part).__name__
                    for part in parts})
    raise UnreadableError(f"has content that is no text ({', '.join(kinds)})")


def _with_places(content: Any, role: str) -> str:
    """What a message says, with `PICTURE` where a picture stands."""
    texts = [content] if isinstance(content, str) else content if isinstance(content, list) else [content]
    said = "".join(_place(one) if isinstance(one, Mapping) and one.get("type") == "image" else _placed(_text(
        one if isinstance(one, str) else [one])) for one in texts)
    if role == "assistant" and PICTURE in said:
        raise UnreadableError("has a picture in what the assistant says: models of texts show none")
    return said


def _placed(text: str) -> str:
    if PICTURE in text:
        raise UnreadableError(f"has the character {ord(PICTURE):#x} in a text, which stands for a picture here")
    return text.replace(_IMAGE, PICTURE)


def _place(part: Mapping[str, Any]) -> str:
    named = [name for name in ("image", "url", "path", "base64") if part.get(name) is not None]
    if named:
        raise UnreadableError(f"names a picture within a message (`{named[0]}`): pictures stand in a column, in their order")
    return PICTURE


def _calls(message: Message) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))


def _says_something(message: Message) -> bool:
    return bool(message.get("content", "").strip()) or _calls(message)


def _counts(raw: Mapping[str, Any]) -> bool:
    """OpenAI's `weight` of a turn: 0 is read and not learnt."""
    marks = [name for name in _MARKS if raw.get(name) is False]
    if marks:
        raise UnreadableError(f"has a turn with `{marks[0]}: false`; write `weight: 0` for what is read and not learnt")
    weight = raw.get("weight")
    if weight is None or weight in (0, 1):
        return weight is None or bool(weight)
    raise UnreadableError(f"has a turn of weight {weight!r}; known are 0 (read, not learnt) and 1")


def _said(message: Message) -> str:
    calls = [json.dumps(call, ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join([*([message["content"]] if message.get("content") else []), *(f"calls {call}" for call in calls)])


# --- tools ---


def _tools(raw: Any) -> tuple[Any, ...]:
    """A list of schemas, or one as JSON text; none where there is nothing."""
    found = raw
    if isinstance(raw, str):
        try:
            found = json.loads(raw) if raw.strip() else None
        except ValueError:
            raise UnreadableError("has tools that are no list of schemas, and no JSON text of one") from None
    if found is None:
        return ()
    listed = [json.loads(one) if isinstance(one, str) and one.lstrip().startswith("{") else one for one in
              (found if isinstance(found, list) else [found])]
    if not all(isinstance(one, Mapping) for one in listed):
        raise UnreadableError("has tools that are no list of schemas, and no JSON text of one")
    return tuple(listed)


# --- out of the table ---


def plain(split: Dataset, column: str) -> list[Any]:
    """A column as its storage has it: `datasets` would decode a content of `007` in a column of Json as the number 7."""
    read = _reader(split.features[column])
    return [read(value) for value in split.select_columns([column]).with_format("arrow")[:][column].to_pylist()]


def _reader(feature: Any) -> Callable[[Any], Any]:
    """What takes away the None that a table has for keys that are not there; within JSON, null is what the data say."""
    if isinstance(feature, Json):
        return _json
    if isinstance(feature, List | LargeList):
        of_one = _reader(feature.feature)
        return lambda values: None if values is None else [of_one(one) for one in values]
    if not isinstance(feature, Mapping):
        return lambda value: value
    of_field = {name: _reader(inner) for name, inner in feature.items()}
    contents = isinstance(feature.get("content"), Json)

    def of_struct(value: Any) -> Any:
        if value is None:
            return None
        kept = {name: read(value[name]) for name, read in of_field.items() if value[name] is not None}
        if contents and "content" in kept and not _is_content(kept["content"]):
            kept["content"] = value["content"]
        return kept

    return of_struct


def _json(text: Any) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_content(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(part, Mapping) and "type" in part
                                                                     for part in value))
