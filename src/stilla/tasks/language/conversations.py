"""Conversations in the tokenizer's own chat template: what the assistant says is learnt, and its last answer can be asked
for."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from stilla.errors import CompatibilityError, DataError, StillaError
from stilla.runtime.narrate import tracked
from stilla.runtime.watch import Watch
from stilla.tasks.language import calls
from stilla.tasks.language.documents import shortened
from stilla.tasks.language.talks import PICTURE, Message, Talk
from stilla.tasks.text.sequences import Pieces, Sequence_, joined

logger = logging.getLogger(__name__)

Made = TypeVar("Made")

PATIENCE = 5.0
"""Seconds that a template may take to write a conversation: thousands of times what it needs."""

LONGEST = 10_000_000
"""Characters that a template may write of a conversation."""


def conversations(
    tokenizer: PreTrainedTokenizerBase, talks: Sequence[Talk], keys: NDArray[np.int64], length: int,
    cut: Sequence[bool] | None = None, *, skip: bool = False,
) -> Pieces:
    """Conversations in the tokenizer's own template; what the assistant says in them is wanted.

    `cut`: in which of them the last answer has no end, because a limit cut it when it was written. Of those it alone is
    wanted, without the end that the template would put there. `skip`: leave out those that the template refuses.

    Raises:
        CompatibilityError: no template, or one that does not show which part of its text the assistant says.
        DataError: conversations that the template refuses.
    """
    template = Template(tokenizer)
    unended = [False] * len(keys) if cut is None else cut
    endless = {key for key, one in zip(keys.tolist(), unended) if one}

    def make(talk: Talk, key: int) -> Sequence_:
        return template.unended(talk, key) if key in endless else template.tokens(talk, key)

    made = joined(shortened(template.each(talks, keys, make, skip=skip), length, "assistant's turn"))
    template.tell()
    return made


def written(
    tokenizer: PreTrainedTokenizerBase, talks: Sequence[Talk], keys: NDArray[np.int64], *, skip: bool
) -> Iterator[str]:
    """Conversations as texts; errors as for `conversations`."""
    template = Template(tokenizer)
    return (text for text, _ in template.each(talks, keys, template.text, skip=skip))


class Template:
    """A chat template as tokens, with the assistant's turns known.

    Where the template marks them (`{% generation %}`), as it says. Else by what rendering more and more turns adds: the
    text up to a turn (with the template's own beginning of an answer) and the text up to its end must each begin what
    comes next, or nobody could say which tokens are the assistant's.

    Raises:
        CompatibilityError: the tokenizer has no template, or cannot say where its tokens stand in a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, parts: bool = False) -> None:
        """`parts`: what messages say is given as lists of parts, pictures among them, as templates of such models expect."""
        if not tokenizer.chat_template:
            raise CompatibilityError("data.messages: the tokenizer has no chat template. Use the tokenizer of a chat model "
                                     "(`processor`), or write prompts and completions (`data.prompt`, `data.completion`).")
        if not tokenizer.is_fast:
            raise CompatibilityError(f"data.messages: {type(tokenizer).__name__} does not say where its tokens stand in a "
                                     "text, so that the assistant's cannot be told; expected a fast tokenizer.")
        self.tokenizer = tokenizer
        self._parts = parts
        self._marks = {tools: _marks(tokenizer, [{}] if tools else None) for tools in (False, True)}
        self._arguments: Callable[[Any], Any] | None = None
        self._has_tools = False
        self._watch: Watch | None = None
        self._lost: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()

    def each(
        self, talks: Sequence[Talk], keys: NDArray[np.int64], make: Callable[[Talk, int], Made], *, skip: bool
    ) -> Iterator[tuple[Made, int]]:
        """What `make` makes of each conversation, with its key; the template has `PATIENCE` for each time it writes one.

        Raises:
            DataError: the template refuses one, unless they are to be skipped: then it is left out, and counted.
            CompatibilityError: the template is of no use.
        """
        refused: list[str] = []
        with Watch(PATIENCE) as self._watch:
            for key, talk in zip(keys.tolist(), tracked(talks, "tokenising")):
                try:
                    made = make(talk, key)
                except DataError as error:
                    if not skip:
                        raise
                    refused.append(str(error))
                    continue
                yield made, key
        self._watch = None
        if refused:
            logger.warning("%d of %d conversations are left out; the first: %s", len(refused), len(keys), refused[0])

    def tell(self) -> None:
        """Warn of messages that the template did not write."""
        for role, lost in self._lost.items():
            logger.warning("the chat template leaves out what %r says, in %d of %d messages", role, lost, self._seen[role])

    def tokens(self, talk: Talk, key: int) -> Sequence_:
        text, spans = self.learnt(talk, key)
        ids, wanted = self.within(text, spans)
        if self._marks[bool(talk.tools)] and not wanted.any():
            raise CompatibilityError(f"data.messages: the chat template marks nothing of conversation {key} as generated: "
                                     "nothing could be learnt. Its `{% generation %}` has to stand around what the "
                                     "assistant says.")
        return ids, wanted

    def learnt(self, talk: Talk, key: int) -> tuple[str, list[tuple[int, int]]]:
        """A conversation as text, and where in it stands what is to be learnt."""
        messages = self._called(talk, key)
        if not self._marks[bool(talk.tools)]:
            text = self._text(messages, talk, key)
            self._count(messages, text)
            return text, self._spans(messages, talk, key, text)
        text, regions = self._rendered(messages, talk, key, regions=True)
        self._count(messages, text)
        if len(talk.learnt) < sum(one["role"] == "assistant" for one in messages):
            learnt = self._spans(messages, talk, key, text)
            regions = [(max(start, first), min(end, last)) for start, end in regions for first, last in learnt]
        return text, regions

    def text(self, talk: Talk, key: int) -> str:
        return self._text(self._called(talk, key), talk, key)

    def asked(self, talk: Talk, key: int) -> list[int]:
        """What a model is given to write the last answer."""
        return [int(one) for one in self.within(self.before(talk, key), [])[0]]

    def before(self, talk: Talk, key: int) -> str:
        """The same as text: all before it, and the template's beginning of an answer."""
        return self._before(self._called(talk, key), talk, key, talk.asked)

    def answer(self, talk: Talk, key: int) -> str:
        """What the data answer there, as a model would write it: calls of tools as the template writes them."""
        message = talk.messages[talk.asked]
        if "tool_calls" not in message and "function_call" not in message:
            return str(message["content"])
        messages = self._called(talk, key)
        before = self._before(messages, talk, key, talk.asked)
        after = self._text(messages[: talk.asked + 1], talk, key)
        ids = self.tokenizer(after.removeprefix(before), add_special_tokens=False, verbose=False)["input_ids"]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def unended(self, talk: Talk, key: int) -> Sequence_:
        """The last answer as far as it was written, after what was asked."""
        before = self.asked(talk, key)
        said = self.tokenizer(talk.messages[talk.asked]["content"], add_special_tokens=False, verbose=False)["input_ids"]
        return np.array([*before, *said], np.int32), np.repeat([False, True], [len(before), len(said)])

    # --- where the assistant speaks ---

    def _spans(self, messages: Sequence[Message], talk: Talk, key: int, text: str) -> list[tuple[int, int]]:
        """Where in the whole text the turns stand that are to be learnt."""
        spans = []
        for turn in talk.learnt:
            before = self._before(messages, talk, key, turn)
            after = self._text(messages[: turn + 1], talk, key)
            if not (text.startswith(after) and after.startswith(before)):
                raise CompatibilityError(
                    f"data.messages: the chat template writes turn {turn} of conversation {key} otherwise when other "
                    "turns follow it, so that it does not show which tokens are the assistant's. Mark them in the "
                    "template (`{% generation %}...{% endgeneration %}`), or give prompts and completions")
            self._refuse_unsaid(messages[turn], after[len(before) :], turn, key)
            spans.append((len(before), len(after)))
        return spans

    def _before(self, messages: Sequence[Message], talk: Talk, key: int, turn: int) -> str:
        """The text up to where the assistant begins to speak."""
        if turn:
            return self._text(messages[:turn], talk, key, add_generation_prompt=True)
        # a template of nothing at all is an error: what it writes before any answer is what it writes before two of them
        one, other = (self._text([{"role": "assistant", "content": said}], talk, key) for said in ("a", "b"))
        return one[: next((place for place, both in enumerate(zip(one, other)) if both[0] != both[1]), None)]

    def _refuse_unsaid(self, message: Message, said: str, turn: int, key: int) -> None:
        names = [str(call["function"]["name"]) for call in message.get("tool_calls", ()) if "function" in call]
        if not (said and _shows(said, message.get("content", ""))) or not all(name in said for name in names):
            what = "the calls of tools" if said and _shows(said, message.get("content", "")) else "what the assistant says"
            raise CompatibilityError(f"data.messages: the chat template does not write {what} in turn {turn} of conversation "
                                     f"{key}: it could not be learnt. Use a tokenizer whose template does (`processor`).")

    def within(self, text: str, spans: Sequence[tuple[int, int]]) -> Sequence_:
        """The tokens of a text, and which of them stand within the spans; the space before a word is a part of its token."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2)
        wanted = np.zeros(len(offsets), np.bool_)
        for start, end in spans:
            wanted |= (offsets[:, 1] > start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0])
        return _tidy(self.tokenizer, np.array(encoded["input_ids"], np.int32), wanted)

    def _count(self, messages: Sequence[Message], text: str) -> None:
        """Messages of others that the template leaves out; the assistant's are refused."""
        for message in messages:
            said = str(message.get("content", "")).replace(PICTURE, " ")
            if message["role"] != "assistant" and said.strip():
                self._seen[message["role"]] += 1
                if not _shows(text, said):
                    self._lost[message["role"]] += 1

    # --- rendering ---

    def _called(self, talk: Talk, key: int) -> Sequence[Message]:
        """The messages, with the arguments of calls as the template wants them: as a mapping, or as JSON text."""
        if not any(message.get("tool_calls") for message in talk.messages):
            return talk.messages
        if self._arguments is None:
            self._arguments = self._wanted_form(talk, key)
        return calls.with_arguments(talk.messages, self._arguments or calls.mapping)

    def _wanted_form(self, talk: Talk, key: int) -> Callable[[Any], Any] | None:
        """How the template wants arguments; None where these do not tell."""
        mappings, texts = (calls.with_arguments(talk.messages, form) for form in (calls.mapping, calls.json_text))
        try:
            shown = self._text(mappings, talk, key)
        except DataError:
            self._text(texts, talk, key)  # raises what is wrong if both are
            return calls.json_text
        given = [function["arguments"] for function in calls.functions(mappings) if function.get("arguments")]
        # Python's own writing of a mapping is in no language that a model has learnt
        if any(isinstance(one, Mapping) and str(one) in shown and str(one) != json.dumps(one) for one in given):
            return calls.json_text
        return calls.mapping if given else None

    def _text(self, messages: Sequence[Message], talk: Talk, key: int, **options: Any) -> str:
        text = str(self._rendered(messages, talk, key, **options))
        if len(text) > LONGEST:
            raise CompatibilityError(f"data.messages: the chat template writes {len(text):,} characters of conversation "
                                     f"{key}; expected at most {LONGEST:,}. Use another tokenizer (`processor`), or mend its "
                                     "chat_template.")
        return text

    def _rendered(self, messages: Sequence[Message], talk: Talk, key: int, **options: Any) -> Any:
        try:
            with self._watch.once() if self._watch else nullcontext():
                return self._written(list(messages), list(talk.tools) or None, **options)
        except StillaError:
            raise
        except TimeoutError:
            raise CompatibilityError(f"data.messages: the chat template takes longer than {PATIENCE:g} s for conversation "
                                     f"{key}: it may never end. Use another tokenizer (`processor`), or mend its "
                                     "chat_template.") from None
        except Exception as error:  # a template raises what it likes
            said = str(error) or type(error).__name__
            raise DataError(f"data.messages: the chat template refuses conversation {key}: {said}") from None

    def _written(
        self, messages: list[Message], tools: list[Any] | None, *, regions: bool = False, **options: Any
    ) -> str | tuple[str, list[tuple[int, int]]]:
        """The text; with `regions`, also where in it the template marks what is generated."""
        if self._parts:
            messages = [{**one, "content": _in_parts(one.get("content", ""))} for one in messages]
        if regions:
            texts, marked = render_jinja_template(
                [messages], tools, chat_template=self.tokenizer.get_chat_template(None, tools),
                return_assistant_tokens_mask=True, **self.tokenizer.special_tokens_map)
            return texts[0], marked[0]
        made = str(self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **options))
        if tools and not self._has_tools:
            if made == self.tokenizer.apply_chat_template(messages, tokenize=False, **options):
                raise CompatibilityError("data.tools: the chat template has no place for tools: they would be left out. "
                                         "Use a tokenizer whose template writes them (`processor`), or remove the column.")
            self._has_tools = True
        return made


def _in_parts(said: str) -> list[dict[str, str]]:
    """Texts and pictures, in their order; a line break between a text and a picture parts them, and is of neither."""
    texts = said.split(PICTURE)
    if len(texts) > 1:
        texts = [one.strip("\n") for one in texts]
    parts = [part for text in texts for part in ({"type": "image"}, {"type": "text", "text": text})][1:]
    return [part for part in parts if part.get("text") != ""]


def _marks(tokenizer: PreTrainedTokenizerBase, tools: Any) -> bool:
    """Whether the template (of several: that for conversations with tools) says itself what the assistant says."""
    try:
        template = tokenizer.get_chat_template(None, tools)
    except ValueError as error:  # several, and none of them is the default
        raise CompatibilityError(f"data.messages: {error}") from None
    return re.search(r"\{%[-+]?\s*generation\b", template) is not None


def _tidy(tokenizer: PreTrainedTokenizerBase, ids: NDArray[np.int32], wanted: NDArray[np.bool_]) -> Sequence_:
    """One beginning and one end where the template and a message both write it."""
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    again = np.zeros(len(ids), np.bool_)
    if begin is not None:
        again[1:] = (ids[1:] == begin) & np.logical_and.accumulate(ids == begin)[:-1]
    if end is not None and end != begin:
        again[1:] |= (ids[1:] == end) & (ids[:-1] == end)
    return ids[~again], wanted[~again]


def _shows(text: str, content: str) -> bool:
    """Whether a text has what a message says: templates may trim it, and write parts of it in another order."""
    words = content.split()
    return not words or content.strip() in text or words[0] in text or words[-1] in text
