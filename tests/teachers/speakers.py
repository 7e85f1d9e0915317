"""Tiny teachers with batches to ask them: a classifier, and a language model that says what enters its head."""

from __future__ import annotations

import torch
from transformers import LlamaForCausalLM

from stilla.signals import Batch, Dims, Head, Headed, Signals
from stilla.tasks.base import Side
from stilla.tasks.language.causal_lm import CausalLM
from tests.tasks.tiny_lm import llama

VOCABULARY = 300
PADDED = 320


class LanguageModel:
    """Answers with `Headed` rows over a vocabulary that is padded to 320; counts what it was asked."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model: LlamaForCausalLM = llama(PADDED, tie_word_embeddings=False)
        if seed:
            torch.nn.init.normal_(self.model.lm_head.weight, std=0.3)
        self.task = CausalLM(classes=VOCABULARY)
        self.asked = 0

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Signals:
        self.asked += 1
        hidden = self.model.model(**batch.teacher).last_hidden_state
        return self.task.signals(Headed(hidden, Head(self.model.lm_head.weight.detach())), batch, Side.TEACHER)

    def to(self, device: torch.device | str) -> None:
        self.model.to(device)

    def dims(self, batch: Batch | None = None) -> Dims:
        return Dims(VOCABULARY)


def language_batch(*texts: list[int], prompt: int = 1) -> Batch:
    """Texts as ids, padded on the right; what follows the first `prompt` tokens is to be predicted."""
    width = max(map(len, texts))
    ids, mask = torch.full((len(texts), width), 2), torch.zeros(len(texts), width, dtype=torch.long)
    labels = torch.full((len(texts), width), -100)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
        labels[row, prompt - 1 : len(text) - 1] = torch.tensor(text[prompt:])
    inputs = {"input_ids": ids, "attention_mask": mask}
    return Batch(student=inputs, teacher=inputs, labels=labels)
