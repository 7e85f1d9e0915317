"""Prompts as causal language models are given them when they write, and what they wrote as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stilla.signals import Batch
from stilla.tasks.language import documents
from stilla.tasks.text.sequences import NO_ROW
from stilla.tasks.text.tokens import Tokens

_BEGINNING = "Below is an instruction that describes a task"
_REQUEST = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
_RESPONSE = "\n\n### Response:\n"


def alpaca(instruction: str, context: str | None) -> str:
    """An instruction with what belongs to it, in the words of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca)."""
    if context is None or not context.strip():
        return f"{_BEGINNING}. {_REQUEST}{instruction}{_RESPONSE}"
    return (f"{_BEGINNING}, paired with an input that provides further context. {_REQUEST}{instruction}"
            f"\n\n### Input:\n{context}{_RESPONSE}")


def given(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of prompts, as they stand before a completion: begun, not ended."""
    # a text of no tokens cannot be continued: it is begun by what ends another
    return [ids or [int(tokenizer.eos_token_id)] for ids in documents.given(tokenizer, prompts)]


def left_padded(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> Tokens:
    """Padded before the prompt: what is written must follow it."""
    lengths = [len(one) for one in prompts]
    return Tokens(
        ids=np.concatenate([np.array(one, np.int32) for one in prompts]),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), types=None,
        padding={"input_ids": int(tokenizer.pad_token_id), "attention_mask": 0}, left=True)


def continued(inputs: Mapping[str, Tensor], written: Sequence[Sequence[int]], padding: int) -> Batch:
    """Prompts with what was written after them, padded behind; rows are the written tokens, each at the place before it."""
    texts = [[*ids[mask.bool()].tolist(), *more] for ids, mask, more in zip(
        inputs["input_ids"].cpu(), inputs["attention_mask"].cpu(), written)]
    width = max(map(len, texts))
    ids = torch.full((len(texts), width), padding)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, NO_ROW)
    for row, (text, more) in enumerate(zip(texts, written)):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
        labels[row, len(text) - len(more) - 1 : len(text) - 1] = torch.tensor(list(more))
    whole = {"input_ids": ids, "attention_mask": mask}
    return Batch(student=whole, teacher=whole, labels=labels)
