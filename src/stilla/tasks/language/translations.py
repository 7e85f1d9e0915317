"""Pairs of texts, a source and its target: which columns they are, and their tokens as encoder and decoder take them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Translation
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stilla.errors import CompatibilityError, DataError, did_you_mean, one_of
from stilla.runtime.narrate import tracked
from stilla.tasks.language.ends import Ends
from stilla.tasks.language.sections import Seq2SeqData
from stilla.tasks.language.weighed import weighed
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import left_out
from stilla.tasks.shared.bound import bound
from stilla.tasks.text import tokens
from stilla.tasks.text.sequences import NO_ROW
from stilla.tasks.text.tokens import beginning

logger = logging.getLogger(__name__)

PAIRS = (("source", "target"), ("src", "tgt"), ("src", "trg"), ("source_text", "target_text"), ("input", "target"),
         ("input_text", "target_text"), ("question", "answer"), ("input", "output"))
SUMMARIES = ("summary", "highlights", "abstract", "headline", "tldr")
DOCUMENTS = ("article", "document", "dialogue", "text", "content", "body", "maintext", "report", "story")

CUT = "stilla_cut"
"""A column of completions: whether the text was cut at the length limit, so that it has no end to learn."""

_WAY_OUT = "Set data.source and data.target; what they do not name is then left out."
_NEW = "stilla_new"
_AT_ONCE = 1000


# --- columns ---


def columns(section: Seq2SeqData, train: Dataset) -> tuple[str, str]:
    """The source's and the target's column; `column.field` within a column of several languages.

    Raises:
        DataError: no such column, half of a pair, the names leave it open, or another text would be left out.
    """
    said = {key: _existing(key, name, train)
            for key, name in (("source", section.source), ("target", section.target)) if name is not None}
    if len(said) == 2:
        return said["source"], said["target"]
    names = [name for name in texts_of(train) if name != section.source and name != section.target]
    lower = {name.lower(): name for name in reversed(names)}
    pairs = [(lower[a], lower[b]) for a, b in PAIRS if a in lower and b in lower]
    if section.source is None and section.target is None and pairs:
        left_out.refuse(train, pairs[0], _WAY_OUT)
        return pairs[0]
    summaries = [lower[name] for name in SUMMARIES if name in lower]
    documents = [lower[name] for name in DOCUMENTS if name in lower]
    source = section.source or (documents[0] if len(documents) == 1 and (summaries or section.target) else None)
    target = section.target or (summaries[0] if len(summaries) == 1 and (documents or section.source) else None)
    # the other of only two texts
    if len(texts_of(train)) == 2 and len(names) == 1:
        source, target = source or names[0], target or names[0]
    if source is None or target is None:
        lacking = "source" if source is None else "target"
        many = f"{one_of(names)} could be it" if names else "no other column holds text"
        raise DataError(f"data.{lacking}: which column is the {lacking}? {many}. Set data.source and data.target.")
    both = _existing("source", source, train), _existing("target", target, train)
    left_out.refuse(train, both, _WAY_OUT)
    return both


def sources(pool: Dataset, names: Sequence[str], target: str, called: Mapping[str, str]) -> Dataset:
    """Unlabelled sources as columns of these names, and nothing else (no `target`): as `bound` finds them, also within a
    column of several languages; a single one also of its language alone (`en` for `translation.en`). Which of two is the
    teacher's, nobody guesses.

    Raises:
        DataError: there is no such column, or which one is meant is left open.
    """
    flat = pool if all(_columns.is_text(feature) for feature in pool.features.values()) else pool.flatten()
    language = names[0].rpartition(".")[2]
    known = (language, *(source for source, _ in PAIRS), *DOCUMENTS, *_columns.TEXTS)

    def usual(_: Dataset, texts: Sequence[str]) -> Sequence[str] | None:
        if len(names) > 1:
            return None
        lower = {one.lower(): one for one in reversed(texts)}
        meant = list(dict.fromkeys(lower[one] for one in known if one in lower))
        first = meant[:1] if meant and meant[0] == language else meant
        return next((found for found in (first, texts) if len(found) == 1), None)

    return bound(flat, names, called, _columns.is_text, "text", usual, (target,))


def texts_of(split: Dataset) -> list[str]:
    """The columns of text, those within columns of translations by `column.field`."""
    found = []
    for name, feature in split.features.items():
        if _columns.is_text(feature):
            found.append(name)
        else:
            found += [f"{name}.{field}" for field in _fields(feature)]
    return found


def _fields(feature: Any) -> tuple[str, ...]:
    if isinstance(feature, Translation):
        return tuple(feature.languages)
    if isinstance(feature, Mapping):
        return tuple(name for name, inner in feature.items() if _columns.is_text(inner))
    return ()


def _existing(key: str, name: str, train: Dataset) -> str:
    known = texts_of(train)
    if name not in known:
        raise DataError(f"data.{key}: got {name!r}; expected a column of text: {one_of(known) or 'there is none'}."
                        f"{did_you_mean(name, known)}")
    return name


def missing(names: Sequence[str], splits: Mapping[str, Dataset]) -> list[str]:
    """Problems: columns of the training data that another split does not have."""
    return [f"data.{split}: there is no column {name!r} of text.{did_you_mean(name, texts_of(data))}"
            for split, data in splits.items() for name in names if name not in texts_of(data)]


def values(split: Dataset, name: str) -> list[str | None]:
    """The texts of a column, or of a field within one."""
    if name in split.column_names:
        return _columns.values(split, name)
    column, _, field = name.rpartition(".")
    return [None if row is None else row[field] for row in _columns.values(split, column)]


def replaced(split: Dataset, name: str, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
    """The same examples with other targets, and which of those were cut."""
    column, _, field = name.rpartition(".")
    if name in split.column_names or not column:
        written: list[Any] = list(texts)
    else:
        written = [{**row, field: text} for row, text in zip(_columns.values(split, column), texts)]
    top = name if name in split.column_names else column
    # before the old one goes: a table without columns has no rows
    both = split.with_format(None).add_column(CUT, list(cut)).add_column(_NEW, written, feature=split.features[top])
    return both.remove_columns([top]).rename_column(_NEW, top)


def with_cuts(split: Dataset, cut: Sequence[bool]) -> Dataset:
    """The same examples, with which of their texts were cut."""
    return split.with_format(None).add_column(CUT, list(cut))


def reasoned(
    split: Dataset, columns: Sequence[str], asked: str, reasons: Sequence[str], weight: float
) -> Dataset:
    """The same examples with a reason as target, and a source that asks for it: `asked`, with the source in the place of
    `{source}`. `weight`: what a token of it counts."""
    sources = [asked.replace("{source}", str(one)) for one in values(split, columns[0])]
    with_reasons = replaced(split, columns[1], reasons, [False] * len(split))
    both = replaced(with_reasons.remove_columns([CUT]), columns[0], sources, [False] * len(split))
    return weighed(both, weight)


# --- tokens ---


@dataclass(frozen=True)
class PairProcessor:
    """A tokenizer and what its model's decoder begins with.

    `start`: what stands before the first token of a target. `first`: the token that every target begins with, where its
    tokenizer puts one (BART's `<s>`, a language of mBART-50); generated texts are made to begin with it as well.
    """

    tokenizer: PreTrainedTokenizerBase
    start: int
    first: int | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, model: nn.Module, section: Seq2SeqData | None) -> PairProcessor:
        """What the model itself makes decoder inputs of, found by asking it.

        Raises:
            CompatibilityError: the model does not say; the tokenizer does not know the languages, or knows several and is
                told none.
        """
        if section is not None:
            _set_languages(tokenizer, section)
        ids = tokenizer(text_target="a")["input_ids"]
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        first = ids[0] if len(ids) > 1 and ids[0] in special else None
        return cls(tokenizer, _start(model, ids), first)

    def to_dict(self) -> dict[str, Any]:
        """What it does to texts, as plain data: what fingerprints are made of."""
        return {"tokens": tokens.fingerprint(self.tokenizer), "start": self.start, "first": self.first}

    def save_pretrained(self, folder: str | Path) -> None:
        self.tokenizer.save_pretrained(folder)


def _start(model: nn.Module, ids: Sequence[int]) -> int:
    """T5's and Marian's padding, BART's end of text; mBART takes the last token of the target, its language."""
    make = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if make is None:  # M2M100 has only the number
        config: Any = model.config
        start = config.decoder_start_token_id
        if start is None:
            raise CompatibilityError(f"{type(model).__name__} does not say what its decoder begins with: set "
                                     "decoder_start_token_id in its config.json.")
        return int(start)
    try:
        return int(make(torch.tensor([list(ids)]))[0, 0])
    except Exception as error:  # each class complains in its own way about a config without the numbers
        raise CompatibilityError(f"{type(model).__name__} cannot make decoder inputs of a target ({error}): set "
                                 "decoder_start_token_id and pad_token_id in its config.json.") from error


def tidied(model: PreTrainedModel, pair: PairProcessor) -> None:
    """What a model is written out with says how its texts begin, the language among it, so that plain `generate()` writes as
    was measured."""
    settings: Any = model.generation_config
    settings.decoder_start_token_id, settings.forced_bos_token_id = pair.start, pair.first


def _set_languages(tokenizer: PreTrainedTokenizerBase, section: Seq2SeqData) -> None:
    for key, attribute in (("source_language", "src_lang"), ("target_language", "tgt_lang")):
        code = getattr(section, key)
        if code is None:
            continue
        if not _knows(tokenizer, attribute):
            raise CompatibilityError(f"data.{key}: {type(tokenizer).__name__} knows no languages; leave it out, or tell the "
                                     "model in words (`data.prefix`).")
        if code not in tokenizer.get_vocab():
            near = did_you_mean(code, list(tokenizer.all_special_tokens))
            raise CompatibilityError(f"data.{key}: the tokenizer does not know {code!r}.{near}")
        setattr(tokenizer, attribute, code)
    if _knows(tokenizer, "tgt_lang") and tokenizer.tgt_lang is None:
        raise CompatibilityError(f"data.target_language: {type(tokenizer).__name__} knows several languages, and nobody says "
                                 f"which the targets are in: they would be learnt as {tokenizer.src_lang!r}, as the sources "
                                 "are read. Name both (`data.source_language` too).")


def _knows(tokenizer: PreTrainedTokenizerBase, attribute: str) -> bool:
    return attribute in dir(type(tokenizer)) or attribute in vars(tokenizer)


@dataclass(frozen=True)
class Targets:
    """The tokens of targets, end to end, as `Tokens`; ends are part of them, where the texts have one."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[Sequence[int] | NDArray[np.int32]]) -> Targets:
        ids = np.concatenate([np.asarray(part, np.int32) for part in parts])
        return cls(ids, np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64))

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def labels(self, examples: Sequence[int]) -> Int[Tensor, "batch positions"]:
        """What each decoder position predicts; NO_ROW behind a target's end."""
        parts = [self.ids[self.starts[one] : self.starts[one + 1]] for one in examples]
        labels = np.full((len(parts), max(map(len, parts))), NO_ROW, np.int64)
        for row, part in enumerate(parts):
            labels[row, : len(part)] = part
        return torch.from_numpy(labels)


def decoder_inputs(
    labels: Int[Tensor, "batch positions"], start: int, padding: int
) -> Int[Tensor, "batch positions"]:
    """What stands before each label: the start, then the labels. Behind a target anything may stand: it is never seen."""
    before = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], dim=1)
    return before.masked_fill(before == NO_ROW, padding)


def prompted(
    labels: Int[Tensor, "batch positions"], prompt: Sequence[int], padding: int
) -> tuple[Int[Tensor, "batch more"], Int[Tensor, "batch more"]]:
    """Labels and what stands before each of them, where a decoder begins with a prompt of one token or several. The places at
    which it reads the prompt are no rows."""
    whole = torch.cat([labels.new_full((len(labels), len(prompt) - 1), NO_ROW), labels], dim=1)
    before = decoder_inputs(whole, prompt[0], padding)
    before[:, : len(prompt)] = torch.tensor(list(prompt), device=labels.device)
    return whole, before


def targets(processor: PairProcessor, texts: Sequence[str], cut: Sequence[bool], length: int) -> tuple[Targets, int]:
    """Tokens of target texts, and how many were shortened to `length`.

    A text that is shortened here, or was `cut` when it was written, gets no end: a limit is not an end to learn. Beginnings
    and ends that the texts write themselves are not written again.
    """
    ends = Ends.of(processor.tokenizer)
    texts = [ends.begun_once(ends.unended(text)) for text in texts]
    special = set(processor.tokenizer.all_special_ids) - {processor.tokenizer.unk_token_id}
    parts, shortened = [], 0
    for start in tracked(range(0, len(texts), _AT_ONCE), "tokenising"):
        part = [beginning(processor.tokenizer, text, length) for text in texts[start : start + _AT_ONCE]]
        encoded = processor.tokenizer(text_target=part, truncation=False, padding=False, return_attention_mask=False,
                                      verbose=False)["input_ids"]
        for ids, unended in zip(encoded, cut[start : start + _AT_ONCE]):
            if unended or len(ids) > length:
                ids = _without_end(ids, special)
            shortened += len(ids) > length
            parts.append(np.array(ids[:length], np.int32))
    return Targets.of(parts), shortened


def _without_end(ids: Sequence[int], special: set[int]) -> list[int]:
    """Without the end of text, and the language that some write after it."""
    last = len(ids)
    while last > 1 and ids[last - 1] in special:
        last -= 1
    return list(ids[:last])
