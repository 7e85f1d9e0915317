"""Conversations in the tokenizer's own chat template: what the assistant says is learnt, and its last answer can be asked
for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from stilla.errors import CompatibilityError, DataError
from stilla.runtime.narrate import tracked
from stilla.tasks.language.documents import shortened
from stilla.tasks.language.translations import CUT
from stilla.tasks.shared import columns
from stilla.tasks.text.sequences import Pieces, Sequence_, joined

Talk = Sequence[Mapping[str, Any]]
"""Who says what, in order: {role, content}."""


def is_talk(talk: Any) -> bool:
    """Whether somebody speaks in it, each with role and content, and an assistant too."""
    if not isinstance(talk, list) or not all(isinstance(one, Mapping) for one in talk):
        return False
    said = [one.get("role") for one in talk if isinstance(one.get("content"), str)]
    return len(said) == len(talk) and "assistant" in said


def roles(talks: Sequence[Any]) -> list[str]:
    """Who speaks in them, in the order of their first words; of broken conversations too."""
    said = (one for talk in talks if isinstance(talk, list) for one in talk if isinstance(one, Mapping))
    return list(dict.fromkeys(str(one["role"]) for one in said if one.get("role") is not None))


def last_answer(talk: Talk) -> int:
    """The assistant's last turn: what models are asked for, everything before it being given."""
    return max(turn for turn, message in enumerate(talk) if message["role"] == "assistant")


def answered(split: Dataset, column: str, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
    """The same conversations up to their last answers, which are these texts; and which of those were cut."""
    talks = []
    for talk, text in zip(columns.values(split, column), texts):
        turn = last_answer(talk)
        talks.append([*talk[:turn], {**talk[turn], "content": text}])
    feature = split.features[column]
    # before the old one goes: a table without columns has no rows
    both = split.with_format(None).add_column(CUT, list(cut)).add_column("_answered", talks, feature=feature)
    return both.remove_columns([column]).rename_column("_answered", column)


def conversations(
    tokenizer: PreTrainedTokenizerBase, talks: Sequence[Talk], keys: NDArray[np.int64], length: int,
    cut: Sequence[bool] | None = None,
) -> Pieces:
    """Conversations in the tokenizer's own template; what the assistant says in them is wanted.

    `cut`: in which of them the last answer has no end, because a limit cut it when it was written. Of those it alone is
    wanted, without the end that the template would put there.

    Raises:
        CompatibilityError: no template, or one that does not show which part of its text the assistant says.
        DataError: conversations that the template refuses.
    """
    template = Template(tokenizer)
    unended = [False] * len(keys) if cut is None else cut

    def whole() -> Iterator[tuple[Sequence_, int]]:
        for key, talk, endless in zip(keys.tolist(), tracked(talks, "tokenising"), unended):
            yield template.unended(talk, key) if endless else template.tokens(talk, key), key

    return joined(shortened(whole(), length, "assistant's turn"))


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

    def tokens(self, talk: Talk, key: int) -> Sequence_:
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

    def asked(self, talk: Talk, key: int) -> list[int]:
        """What a model is given to write the last answer: all before it, and the template's beginning of an answer."""
        before = talk[: last_answer(talk)]
        made: Any = self._rendered(before, key, tokenize=True, return_dict=True, add_generation_prompt=True)
        return [int(one) for one in made["input_ids"]]

    def unended(self, talk: Talk, key: int) -> Sequence_:
        """The last answer as far as it was written, after what was asked."""
        before = self.asked(talk, key)
        said = self.tokenizer(talk[last_answer(talk)]["content"], add_special_tokens=False, verbose=False)["input_ids"]
        return np.array([*before, *said], np.int32), np.repeat([False, True], [len(before), len(said)])

    def _spans(self, talk: Talk, key: int) -> tuple[list[tuple[int, int]], str]:
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

    def _rendered(self, talk: Talk, key: int, **options: Any) -> Any:
        try:
            # a table has every field in every message: those that are not there are None
            plain = [{name: value for name, value in message.items() if value is not None} for message in talk]
            return self.tokenizer.apply_chat_template(plain, **options)
        except Exception as error:  # a template raises what it likes
            raise DataError(f"data.messages: the chat template refuses conversation {key}: {error}") from error
