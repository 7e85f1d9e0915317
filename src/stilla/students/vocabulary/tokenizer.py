"""A tokenizer with some of its tokens: the same rules, other numbers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from stilla.errors import quoted
from stilla.students.vocabulary.pieces import pieces_of, rules_of
from stilla.students.vocabulary.refusal import refusal

_LOOKED_AT, _EDGE = 2000, 16
"""Characters of a text that are looked at, and tokens before its cut that are not."""
_SETTINGS = ("model_max_length", "model_input_names", "padding_side", "truncation_side", "name_or_path")
"""What may have been set since the tokenizer was loaded, and is not in its files."""


def with_tokens(tokenizer: PreTrainedTokenizerBase, order: Mapping[int, int]) -> PreTrainedTokenizerBase:
    """The tokenizer with the tokens in `order` alone (old number -> new number), from 0 on.

    It is written to files, these are changed, and it is read from them, as it will be ever after. Normalising, splitting,
    templates, special and added tokens stay what they were.

    Raises:
        CompatibilityError: a kind of tokenizer that this cannot be done to; its class makes something else of its files.
    """
    rules = rules_of(tokenizer)
    cut = {
        **rules, "model": pieces_of(tokenizer).cut(order), "added_tokens": _added(rules["added_tokens"], order),
        "post_processor": _processor(rules["post_processor"], order), "padding": _padding(rules.get("padding"), order)}
    with tempfile.TemporaryDirectory(prefix="stilla-") as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(cut, ensure_ascii=False), encoding="utf-8")
        made: PreTrainedTokenizerBase = type(tokenizer).from_pretrained(folder, local_files_only=True)
    for name in _SETTINGS:
        setattr(made, name, getattr(tokenizer, name))
    _refuse_other(tokenizer, made, order)
    return made


def refuse_other_pieces(
    tokenizer: PreTrainedTokenizerBase, made: PreTrainedTokenizerBase, texts: Sequence[str], length: int | None = None
) -> None:
    """Raise unless both make the same pieces of the texts, and the same texts of these; of long ones as far as they are read
    (`length` tokens), and of what was counted.

    Raises:
        CompatibilityError: they do not: the tokenizer does something that was not thought of.
    """
    looked_at = [text[:_LOOKED_AT] for text in texts]
    before, after = (one(looked_at, truncation=False, padding=False, verbose=False)["input_ids"] if texts else []
                     for one in (tokenizer, made))
    for text, old, new in zip(texts, before, after, strict=True):
        # where a text is cut here, its last pieces are others than those that were counted
        end = min(length or len(old), len(old) - _EDGE) if len(text) > _LOOKED_AT else length
        old, new = old[:end], new[:end]
        ours, theirs = tokenizer.convert_ids_to_tokens(old), made.convert_ids_to_tokens(new)
        if ours != theirs or tokenizer.decode(old) != made.decode(new):
            raise refusal(
                f"with its other tokens cut off, {type(tokenizer).__name__} makes {_differing(theirs, ours)} of "
                f"{quoted(text)}, and {_differing(ours, theirs)} with them, though it kept all that it needs for it")


def _differing(tokens: Sequence[str], others: Sequence[str]) -> str:
    place = next((place for place, pair in enumerate(zip(tokens, others)) if pair[0] != pair[1]), 0)
    return quoted(" ".join(tokens[max(0, place - 1) : place + 3]))


def _added(tokens: Sequence[Mapping[str, Any]], order: Mapping[int, int]) -> list[dict[str, Any]]:
    return sorted(({**one, "id": order[one["id"]]} for one in tokens), key=lambda one: int(one["id"]))


def _padding(padding: Mapping[str, Any] | None, order: Mapping[int, int]) -> dict[str, Any] | None:
    return None if padding is None else {**padding, "pad_id": order[padding["pad_id"]]}


def _processor(processor: Mapping[str, Any] | None, order: Mapping[int, int]) -> dict[str, Any] | None:
    """What puts special tokens around a text."""
    if processor is None:
        return None
    kind = processor["type"]
    if kind == "Sequence":
        return {**processor, "processors": [_processor(one, order) for one in processor["processors"]]}
    if kind in ("BertProcessing", "RobertaProcessing"):
        return {**processor, **{name: [processor[name][0], order[processor[name][1]]] for name in ("sep", "cls")}}
    if kind == "TemplateProcessing":
        special = processor["special_tokens"].items()
        return {**processor, "special_tokens": {
            name: {**one, "ids": [order[number] for number in one["ids"]]} for name, one in special}}
    if kind == "ByteLevel":
        return dict(processor)
    raise refusal(f"the tokenizer puts special tokens around texts by {kind}, which is not known here")


def _refuse_other(
    tokenizer: PreTrainedTokenizerBase, made: PreTrainedTokenizerBase, order: Mapping[int, int]
) -> None:
    """Raise unless what was read has just these tokens, by these numbers."""
    expected = {token: order[number] for token, number in tokenizer.get_vocab().items() if number in order}
    got = made.get_vocab()
    if got != expected:
        wrong = sorted(token for token in expected.keys() | got.keys() if expected.get(token) != got.get(token))
        one = wrong[0]
        raise refusal(f"{type(tokenizer).__name__} numbers {len(wrong):,} tokens otherwise than its files say, {one!r} "
                      f"{got.get(one, 'not at all')} instead of {expected.get(one, 'not at all')}")
    if made.special_tokens_map != tokenizer.special_tokens_map:
        raise refusal(f"{type(tokenizer).__name__} has other special tokens once it is read from its files "
                      f"({made.special_tokens_map})")
