"""What causal language models read: plain text, prompts with their completions, conversations; as tokens to be predicted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from stilla.errors import CompatibilityError, DataError
from stilla.narrate import tracked
from stilla.tasks._sequences import Pieces, Sequence_, cut, joined

logger = logging.getLogger(__name__)

_AT_ONCE = 1000


def plain(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], keys: NDArray[np.int64], length: int) -> Pieces:
    """Every token of every text, with an end of text where the tokenizer has one; long texts in several pieces."""
    end = tokenizer.eos_token_id

    def pieces() -> Iterator[tuple[Sequence_, int]]:
        for key, ids in zip(keys.tolist(), _encoded(tokenizer, texts, special=True)):
            whole = np.array(ids if end is None or ids[-1:] == [end] else [*ids, end], np.int32)
            yield from ((piece, key) for piece in cut(whole, length))

    return joined(pieces())


def answers(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], completions: Sequence[str], keys: NDArray[np.int64],
    length: int, cut: Sequence[bool] | None = None,
) -> Pieces:
    """Prompts as they are given when text is generated, then the completions' tokens and an end of text: those are wanted.

    `cut`: which completions have no end, because a limit cut them when they were written.

    Both are tokenised apart, as they are in use: what follows a prompt begins with a token of its own.
    """
    end = tokenizer.eos_token_id
    before = _encoded(tokenizer, prompts, special=True)
    after = _encoded(tokenizer, completions, special=False)

    def whole() -> Iterator[tuple[Sequence_, int]]:
        unended = [False] * len(keys) if cut is None else cut
        for key, prompt, completion, endless in zip(keys.tolist(), before, after, unended):
            asked = prompt[:-1] if end is not None and prompt[-1:] == [end] else prompt
            said = completion if end is None or endless else [*completion, end]
            wanted = np.repeat([False, True], [len(asked), len(said)])
            yield (np.array([*asked, *said], np.int32), wanted), key

    return joined(_shortened(whole(), length, "completion"))


def conversations(
    tokenizer: PreTrainedTokenizerBase, talks: Sequence[Sequence[Mapping[str, Any]]], keys: NDArray[np.int64], length: int
) -> Pieces:
    """Conversations in the tokenizer's own template; what the assistant says in them is wanted.

    Raises:
        CompatibilityError: no template, or one that does not show which part of its text the assistant says.
        DataError: conversations that the template refuses.
    """
    template = Template(tokenizer)
    whole = ((template.tokens(talk, key), key) for key, talk in zip(keys.tolist(), tracked(talks, "tokenising")))
    return joined(_shortened(whole, length, "assistant's turn"))


class Template:
    """A chat template as tokens, with the assistant's turns known.

    Where the template marks them (`{% generation %}`), as it says. Else by what rendering more and more turns adds: the
    text up to a turn (with the template's own beginning of an answer) and the text up to its end must each begin what
    comes next, or nobody could say which tokens are the assistant's.

    Raises:
        CompatibilityError: the tokenizer has no template, or cannot say where its tokens stand in a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise CompatibilityError("data.messages: the tokenizer has no chat template. Use the tokenizer of a chat model "
                                     "(`processor`), or write prompts and completions (`data.prompt`, `data.completion`).")
        if not tokenizer.is_fast:
            raise CompatibilityError(f"data.messages: {type(tokenizer).__name__} does not say where its tokens stand in a "
                                     "text, so that the assistant's cannot be told; expected a fast tokenizer.")
        self.tokenizer = tokenizer
        self.marked = "{% generation" in str(tokenizer.chat_template) or "{%- generation" in str(tokenizer.chat_template)

    def tokens(self, talk: Sequence[Mapping[str, Any]], key: int) -> Sequence_:
        if self.marked:
            made: Any = self._rendered(talk, key, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            return np.array(made["input_ids"], np.int32), np.array(made["assistant_masks"], np.bool_)
        spans, text = self._spans(talk, key)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2)
        wanted = np.zeros(len(offsets), np.bool_)
        for start, end in spans:
            wanted |= (offsets[:, 0] >= start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0])
        return np.array(encoded["input_ids"], np.int32), wanted

    def _spans(self, talk: Sequence[Mapping[str, Any]], key: int) -> tuple[list[tuple[int, int]], str]:
        """Where in the whole text the assistant speaks."""
        text = str(self._rendered(talk, key, tokenize=False))
        spans = []
        for turn, message in enumerate(talk):
            if message["role"] == "assistant":
                before = str(self._rendered(talk[:turn], key, tokenize=False, add_generation_prompt=True))
                after = str(self._rendered(talk[: turn + 1], key, tokenize=False))
                if not (text.startswith(after) and after.startswith(before)):
                    raise CompatibilityError(
                        f"data.messages: the chat template writes turn {turn} of conversation {key} otherwise when other "
                        "turns follow it, so that it does not show which tokens are the assistant's. Mark them in the "
                        "template (`{% generation %}...{% endgeneration %}`), or give prompts and completions")
                spans.append((len(before), len(after)))
        return spans, text

    def _rendered(self, talk: Sequence[Mapping[str, Any]], key: int, **options: Any) -> Any:
        try:
            # a table has every field in every message: those that are not there are None
            plain = [{name: value for name, value in message.items() if value is not None} for message in talk]
            return self.tokenizer.apply_chat_template(plain, **options)
        except Exception as error:  # a template raises what it likes
            raise DataError(f"data.messages: the chat template refuses conversation {key}: {error}") from error


def _shortened(whole: Iterable[tuple[Sequence_, int]], length: int, wanted_part: str) -> Iterator[tuple[Sequence_, int]]:
    """Cut at the end, where no end of text is put in its place; says how many lost something."""
    count = shortened = lost = 0
    for (ids, wanted), key in whole:
        count += 1
        shortened += len(ids) > length
        lost += not wanted[1:length].any()
        yield (ids[:length], wanted[:length]), key
    if shortened:
        logger.warning("%d of %d examples are longer than %d tokens: cut at the end", shortened, count, length)
    if lost:
        logger.warning("%d of %d examples are left out: no %s within %d tokens", lost, count, wanted_part, length)


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, special: bool) -> Iterator[list[int]]:
    for start in tracked(range(0, len(texts), _AT_ONCE), "tokenising"):
        # whole texts are meant to be longer than the model reads: they are cut here
        yield from tokenizer(list(texts[start : start + _AT_ONCE]), add_special_tokens=special, truncation=False,
                             padding=False, return_attention_mask=False, return_token_type_ids=False,
                             verbose=False)["input_ids"]
