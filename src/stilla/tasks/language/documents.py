"""What causal language models read: plain text, prompts with their completions; as tokens to be predicted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from stilla.runtime.narrate import tracked
from stilla.tasks.language.ends import Ends
from stilla.tasks.text.sequences import Pieces, Sequence_, cut, joined
from stilla.tasks.text.tokens import beginning

logger = logging.getLogger(__name__)

_AT_ONCE = 1000


def plain(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], keys: NDArray[np.int64], length: int, most: int | None = None
) -> Pieces:
    """Every token of every text, with an end of text where the tokenizer has one; long texts in several pieces.

    A beginning or an end that the text writes itself is the one that it has. `most`: as for `cut`.
    """
    end, ends = tokenizer.eos_token_id, Ends.of(tokenizer)
    once = [ends.begun_once(ends.unended(text)) for text in texts]

    def pieces() -> Iterator[tuple[Sequence_, int]]:
        for key, ids in zip(keys.tolist(), _encoded(tokenizer, once, special=True)):
            whole = np.array(ids if end is None or ids[-1:] == [end] else [*ids, end], np.int32)
            yield from ((piece, key) for piece in cut(whole, length, most))

    return joined(pieces())


def answers(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], completions: Sequence[str], keys: NDArray[np.int64],
    length: int, cut: Sequence[bool] | None = None,
) -> Pieces:
    """Prompts as they are given when text is generated, then the completions' tokens and an end of text: those are wanted.

    `cut`: which completions have no end, because a limit cut them when they were written.

    Both are tokenised apart, as they are in use: what follows a prompt begins with a token of its own. A beginning of the
    prompt or an end of the completion that the texts write themselves is the one that they have.
    """
    end, ends = tokenizer.eos_token_id, Ends.of(tokenizer)
    before = given(tokenizer, [beginning(tokenizer, text, length) for text in prompts])
    said_once = (ends.begun_once(ends.unended(text)) for text in completions)
    after = _encoded(tokenizer, [beginning(tokenizer, text, length) for text in said_once], special=False)

    def whole() -> Iterator[tuple[Sequence_, int]]:
        unended = [False] * len(keys) if cut is None else cut
        for key, asked, completion, endless in zip(keys.tolist(), before, after, unended):
            said = completion if end is None or endless else [*completion, end]
            wanted = np.repeat([False, True], [len(asked), len(said)])
            yield (np.array([*asked, *said], np.int32), wanted), key

    return joined(shortened(whole(), length, "completion"))


def given(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> Iterator[list[int]]:
    """The tokens of prompts as they stand before a completion: begun once, and not ended by the tokenizer."""
    ends = Ends.of(tokenizer)
    for ids in _encoded(tokenizer, [ends.begun_once(prompt) for prompt in prompts], special=True):
        yield ids[:-1] if ends.ends else ids


def shortened(whole: Iterable[tuple[Sequence_, int]], length: int, wanted_part: str) -> Iterator[tuple[Sequence_, int]]:
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
