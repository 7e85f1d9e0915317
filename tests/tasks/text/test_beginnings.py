"""Texts of megabytes are cut before they are tokenised, and no kept token changes by it."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from stilla.tasks.language.documents import answers
from stilla.tasks.text import tokens

from ..tiny import bert_tokenizer

DRAW = random.Random(0)
WORDS = ["".join(DRAW.choices("abcdefghij", weights=range(10, 0, -1), k=DRAW.randint(1, 9))) for _ in range(300)]
CORPUS = [" ".join(DRAW.choices(WORDS, k=40)) for _ in range(60)]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


@functools.cache
def made(kind: str) -> Any:
    if kind == "wordpiece":
        return bert_tokenizer(WORDS)
    options = {"special_tokens": SPECIAL, "show_progress": False}
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer: Any = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", **options)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        # as Llama has it: a whole text is one word, with its spaces
        tokenizer.normalizer = normalizers.Replace(" ", "▁") if kind == "whole" else None
        tokenizer.pre_tokenizer = None if kind == "whole" else pre_tokenizers.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=400, **options)
    tokenizer.train_from_iterator([text[:200] for text in CORPUS] if kind == "whole" else CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>",
                                   model_max_length=512)


def long_texts(count: int = 10) -> list[str]:
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(3, 400))) for _ in range(count)]
    texts += ["".join(draw.choices("abcdefghij", k=2000)), " " * 2000 + "a b", "a" * 2000, "a " * 1000, "\n".join(texts[:5])]
    return texts


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "whole", "unigram"])
def test_no_kept_token_changes(kind: str, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, texts = made(kind), long_texts()
    monkeypatch.setattr(tokenizer, "truncation_side", side)
    shorter = tokens._without_the_rest(tokenizer, [texts], 8)
    assert sum(map(len, shorter[0])) < sum(map(len, texts)) / 2
    found, cut = tokens.tokenise(tokenizer, [texts], 8)
    monkeypatch.setattr(tokens, "_CHARACTERS", 10**9)
    whole, whole_cut = tokens.tokenise(tokenizer, [texts], 8)
    assert np.array_equal(found.ids, whole.ids)
    assert np.array_equal(found.starts, whole.starts)
    assert cut == whole_cut


@pytest.mark.slow
@pytest.mark.parametrize("length", [8, 9])
def test_no_kept_token_of_a_pair_changes(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, first = made("wordpiece"), long_texts()
    second = [text[:30] if row % 3 else text for row, text in enumerate(reversed(first))]
    found, cut = tokens.tokenise(tokenizer, [first, second], length)
    monkeypatch.setattr(tokens, "_CHARACTERS", 10**9)
    whole, whole_cut = tokens.tokenise(tokenizer, [first, second], length)
    assert np.array_equal(found.ids, whole.ids)
    assert cut == whole_cut


def test_no_kept_token_of_an_answer_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, texts = made("bytes"), long_texts()
    prompts = [text[:20 * (row % 40)] for row, text in enumerate(texts)]
    found = answers(tokenizer, prompts, texts, np.arange(len(texts)), 16)
    monkeypatch.setattr(tokens, "_CHARACTERS", 10**9)
    whole = answers(tokenizer, prompts, texts, np.arange(len(texts)), 16)
    assert np.array_equal(found.ids, whole.ids)
    assert np.array_equal(found.starts, whole.starts)


def test_thirty_megabytes_are_not_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = made("bytes")
    asked: list[int] = []
    monkeypatch.setattr(type(tokenizer), "_encode_plus", _counting(type(tokenizer)._encode_plus, asked))
    found, cut = tokens.tokenise(tokenizer, [["a bc " * 6_000_000]], 16)
    assert (found.lengths.tolist(), cut) == ([16], 1)
    assert max(asked) < 10_000


def _counting(encode: Any, asked: list[int]) -> Any:
    def counted(self: Any, text: Any, *more: Any, **options: Any) -> Any:
        asked.append(max(map(len, text)) if isinstance(text, list) else len(text))
        return encode(self, text, *more, **options)

    return counted
