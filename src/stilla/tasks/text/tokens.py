"""Tokenizers: read, fitted to their model, compared; and texts as flat arrays of tokens."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from stilla.errors import CompatibilityError
from stilla.models.entry import table_of
from stilla.recipe import ModelSource
from stilla.runtime.narrate import tracked
from stilla.students.vocabulary.counting import MARGIN
from stilla.tasks.base import Texts
from stilla.tasks.shared.imported import ImportedModel
from stilla.tasks.shared.loading import Classifier, explained, where_processor

logger = logging.getLogger(__name__)

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_NO_LIMIT = 2**31
_LONGEST = 512  # where neither recipe nor model says how much is read
_AT_ONCE = 1000
_CHARACTERS = 32  # per token, of a text that is looked at first: languages have 2 to 6
_FILES = ("tokenizer*", "vocab*", "*.model", "*.spm", "*.tiktoken", "spiece*", "merges.txt")


def tokenizer_for(source: ModelSource, model: Classifier) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: padding, longest text and inputs as the model takes them.

    Raises:
        CompatibilityError: there is none, it cannot pad, or it has tokens that the model has no embedding
        for.
    """
    place, options = where_processor(source)
    folder = Path(place).expanduser()
    # without any file, transformers makes up an empty vocabulary, and every word is unknown
    if folder.is_dir() and not any(path for pattern in _FILES for path in folder.glob(pattern)):
        raise CompatibilityError(f"{place!r} holds no tokenizer; copy the tokenizer's files there, or name "
                                 "its place: processor.")
    with explained(place, "processor"):
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
    _fit_padding(tokenizer, model, place)
    _fit_vocabulary(tokenizer, model, place)
    if tokenizer.padding_side == "left" and _counts_from_the_padding(model):
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "right"  # in the student's folder too
    tokenizer.model_max_length = min(tokenizer.model_max_length, _positions(model) or _NO_LIMIT)
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if _takes(model, name)]
    return tokenizer


def _fit_padding(tokenizer: PreTrainedTokenizerBase, model: Classifier, place: str) -> None:
    """A token for padding, and the model's config of the same opinion where its answer hangs on it.

    Decoders often come without one: the one that the model's config names serves, else the end of text, as the mask hides it
    anyway. Classifiers on decoders answer at the last token that is not `config.pad_token_id`: where texts are padded with
    another one, they would answer at the padding.
    """
    config = None if isinstance(model, ImportedModel) else model.config.get_text_config()
    known = getattr(config, "pad_token_id", None)
    if tokenizer.pad_token is None:
        named = isinstance(known, int) and 0 <= known < len(tokenizer)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(known) if named else tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise CompatibilityError(f"{place!r}: the tokenizer has neither a padding token nor an end of "
                                     "text.")
    if getattr(model.config, "pad_token_id", None) is None or config is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if config is not None and (known is None or _looks_for_padding(model)):
        config.pad_token_id = tokenizer.pad_token_id


def _looks_for_padding(model: nn.Module) -> bool:
    """Whether the model finds a text's end by the number of the padding, and not by the mask."""
    try:
        return "pad_token_id" in inspect.getsource(type(model).forward)
    except (OSError, TypeError):  # nobody knows its source
        return False


def _fit_vocabulary(tokenizer: PreTrainedTokenizerBase, model: Classifier, place: str) -> None:
    if unknown := unknown_tokens(tokenizer, model):
        last, known = unknown
        raise CompatibilityError(f"{place!r}: the tokenizer's tokens go up to {last}, the model knows {known}: they do not "
                                 "belong together.")


def unknown_tokens(tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> tuple[int, int] | None:
    """The tokenizer's last token and how many the model has an embedding for, if these are too few."""
    embedding = table_of(model)
    if embedding is None or (last := max(tokenizer.get_vocab().values())) < embedding.num_embeddings:
        return None
    return last, embedding.num_embeddings


def _positions(model: Classifier) -> int | None:
    """How many tokens the model has positions for; None if it has no limit."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    table = _table_of_positions(model, positions)
    # RoBERTa's positions begin after the padding's
    return positions if table is None or table.padding_idx is None else positions - table.padding_idx - 1


def _table_of_positions(model: nn.Module, positions: int) -> nn.Embedding | None:
    words = table_of(model)
    return next((module for module in model.modules() if isinstance(module, nn.Embedding)
                 and module.num_embeddings == positions and module is not words), None)


def _counts_from_the_padding(model: Classifier) -> bool:
    """Whether padding before a text would move it to other positions, and so change what a model that reads it once says
    (GPT-2). Where they count from the first token (RoBERTa), or only differences count, it does not; what writes asks for its
    positions itself."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(model, ImportedModel) or not isinstance(positions, int) or model.get_output_embeddings() is not None:
        return False
    table = _table_of_positions(model, positions)
    return table is not None and table.padding_idx is None


def _takes(model: Classifier, name: str) -> bool:
    if isinstance(model, ImportedModel):
        return model.takes_input(name)
    return name in inspect.signature(model.forward).parameters


def same(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether both turn every text into the same inputs."""
    return one is other or _identity(one) == _identity(other)


def fingerprint(tokenizer: PreTrainedTokenizerBase, *more: Any) -> str:
    """A hash of how it turns texts into inputs."""
    return hashlib.blake2b(repr((_identity(tokenizer), more)).encode(), digest_size=16).hexdigest()


def _identity(tokenizer: PreTrainedTokenizerBase) -> Any:
    settings = (sorted(tokenizer.model_input_names), tokenizer.padding_side, tokenizer.truncation_side,
                tokenizer.pad_token_id, tokenizer.pad_token_type_id)
    if not tokenizer.is_fast:
        return (settings, type(tokenizer).__name__, tokenizer.get_vocab(), str(tokenizer.init_kwargs))
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return settings, {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}


def no_longer(
    tokenizer: PreTrainedTokenizerBase, others: Sequence[Reads | PreTrainedTokenizerBase], wanted: int | None
) -> PreTrainedTokenizerBase:
    """The same, or a copy that cuts texts where they are cut that others read too: see `longest`."""
    length = readable([tokenizer, *others], wanted)
    if length >= tokenizer.model_max_length:
        return tokenizer
    made = copy.deepcopy(tokenizer)
    made.model_max_length = length
    return made


# --- tokens of a split ---


@dataclass(frozen=True)
class Tokens:
    """The tokens of many texts, end to end: example i is `ids[starts[i] : starts[i + 1]]`.

    Flat arrays instead of lists: a twentieth of the memory, and a batch is made of a few copies.
    `types` is None for models without token types.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    types: NDArray[np.int8] | None
    padding: Mapping[str, int]
    """What stands at padded places of each input."""
    left: bool

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def select(self, examples: Sequence[int] | NDArray[np.int64]) -> Tokens:
        """Some of the texts."""
        spans = [slice(int(self.starts[one]), int(self.starts[one + 1])) for one in examples]
        return replace(
            self, ids=np.concatenate([self.ids[span] for span in spans]),
            starts=np.concatenate([[0], np.cumsum([span.stop - span.start for span in spans])]).astype(np.int64),
            types=None if self.types is None else np.concatenate([self.types[span] for span in spans]))

    def batch(self, examples: Sequence[int]) -> dict[str, Tensor]:
        """Inputs of some examples, padded to the longest of them."""
        spans = [(self.starts[one], self.starts[one + 1]) for one in examples]
        width = max(int(end - start) for start, end in spans)
        shape = (len(spans), width)
        inputs = {name: np.full(shape, value, np.int64) for name, value in self.padding.items()}
        for row, (start, end) in enumerate(spans):
            here = slice(width - (end - start), width) if self.left else slice(0, end - start)
            inputs["input_ids"][row, here] = self.ids[start:end]
            inputs["attention_mask"][row, here] = 1
            if self.types is not None:
                inputs["token_type_ids"][row, here] = self.types[start:end]
        return {name: torch.from_numpy(value) for name, value in inputs.items()}

    def widened(self, value: Tensor, name: str, width: int) -> Tensor:
        """An input of a batch, padded to so many places."""
        more = width - value.shape[1]
        return functional.pad(value, (more, 0) if self.left else (0, more), value=self.padding[name])


def tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]], max_length: int
) -> tuple[Tokens, int]:
    """Tokens of texts (or pairs: two sequences of texts), and how many of them were cut to `max_length`."""
    wanted = [name for name in INPUTS if name in tokenizer.model_input_names or name != "token_type_ids"]
    ids, types, lengths, cut = [], [], [], 0
    starts = range(0, len(texts[0]), _AT_ONCE)
    for start in tracked(starts, "tokenising") if len(starts) > 1 else starts:  # no bar for every batch of a training
        part = _without_the_rest(tokenizer, [column[start : start + _AT_ONCE] for column in texts], max_length)
        encoded = tokenizer(
            *part, truncation=True, max_length=max_length, padding=False,
            return_token_type_ids="token_type_ids" in wanted, return_attention_mask=False,
        )  # fmt: skip
        for row in encoded["input_ids"]:
            ids.append(np.array(row, np.int32))
            lengths.append(len(row))
        if "token_type_ids" in wanted:
            types += [np.array(row, np.int8) for row in encoded["token_type_ids"]]
        cut += _count_cut(tokenizer, part, encoded, max_length)
    padding = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0}
    if types:
        padding["token_type_ids"] = tokenizer.pad_token_type_id
    return Tokens(
        ids=np.concatenate(ids),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        types=np.concatenate(types) if types else None,
        padding=padding,
        left=tokenizer.padding_side == "left",
    ), cut


def _without_the_rest(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]], max_length: int
) -> Sequence[Sequence[str]]:
    """Texts without what is cut off in any case; pairs as they are where both are so long, as one's length then counts."""
    if all(len(text) <= max_length * _CHARACTERS for column in texts for text in column):
        return texts
    rows = [row if sum(len(text) > max_length * _CHARACTERS for text in row) > 1 else
            [beginning(tokenizer, text, max_length) for text in row] for row in zip(*texts)]
    return [list(column) for column in zip(*rows)]


def beginning(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> str:
    """A beginning of a long text that has the same first `max_length` tokens (its end, where a tokenizer cuts at the left).

    A text of megabytes is thus not tokenised as a whole. The beginning ends at a space, where there is one, and has at least
    twice as many tokens: what is cut off can change those beside the cut (a word's, or in SentencePiece a few more), not
    those that far away. Tests compare it with whole texts for WordPiece, BPE and Unigram.
    """
    size = max_length * _CHARACTERS
    while size < len(text):
        if tokenizer.truncation_side == "left":
            space = text.find(" ", len(text) - size, len(text) - size + size // 8)
            part = text[space if space >= 0 else len(text) - size:]
        else:
            space = text.rfind(" ", size - size // 8, size)
            part = text[:space if space >= 0 else size]
        if len(tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]) >= 2 * max_length:
            return part
        size *= 4
    return text


def beginnings(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], max_length: int) -> Texts:
    """Texts that models read `max_length` tokens of, without what nobody would tokenise."""
    return Texts((beginning(tokenizer, text, max_length + MARGIN) for text in texts), max_length)


def _count_cut(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]], encoded: Any, max_length: int
) -> int:
    """How many were cut: those with an overflow, and of the others that are full those that are longer when they are not cut.

    Tokenizers in Python do not say, nor do all of the others.
    """
    over = [bool(one.overflowing) for one in encoded.encodings] if encoded.encodings is not None else [False] * len(texts[0])
    full = [row for row, ids in enumerate(encoded["input_ids"]) if len(ids) >= max_length and not over[row]]
    if not full:
        return sum(over)
    whole = tokenizer(*[[column[row] for row in full] for column in texts], truncation=False, padding=False, verbose=False,
                      return_token_type_ids=False, return_attention_mask=False)
    return sum(over) + sum(len(ids) > max_length for ids in whole["input_ids"])


class Reads(Protocol):
    """Whatever reads texts of a certain length: a tokenizer, or what has one."""

    @property
    def model_max_length(self) -> int: ...


def longest(tokenizers: Sequence[Reads | PreTrainedTokenizerBase], wanted: int | None) -> int:
    """What all of them can read, at most what the recipe wants."""
    length = readable(tokenizers, wanted)
    if wanted is not None and wanted > length:
        logger.warning("data.max_length: got %d, but the models read at most %d tokens", wanted, length)
    return length


def readable(tokenizers: Sequence[Reads | PreTrainedTokenizerBase], wanted: int | None) -> int:
    """The same, where nobody needs to be told."""
    return min(*(int(tokenizer.model_max_length) for tokenizer in tokenizers), wanted or _LONGEST)
