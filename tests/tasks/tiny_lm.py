"""Tiny language models and tokenizers, made from configs in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

WORDS = ("the", "a", "cat", "dog", "eel", "sat", "ran", "on", "under", "mat", "log", "and", "then", "slept", "old", "new")
CHAT = ("{% for message in messages %}<{{ message.role }}> {{ message.content }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}")
MARKED = ("{% for message in messages %}<{{ message.role }}> {% if message.role == 'assistant' %}{% generation %}"
          "{{ message.content }}<end>{% endgeneration %}{% else %}{{ message.content }}<end>{% endif %}\n{% endfor %}"
          "{% if add_generation_prompt %}<assistant> {% endif %}")


def byte_tokenizer(*, begin: bool = True, template: str | None = None, extra: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Every byte is a token; no merges, so that any text comes back as it was."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "</s>", "<pad>", *alphabet, *extra]
    made = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if begin:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                        model_max_length=128)
    tokenizer.chat_template = template
    return tokenizer


def llama(vocabulary: int = 300, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{
        "vocab_size": vocabulary, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
        "initializer_range": 0.3, "tie_word_embeddings": True, **changes})).eval()


def gpt2(vocabulary: int = 300, **changes: Any) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**{
        "vocab_size": vocabulary, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 128, "bos_token_id": 0,
        "eos_token_id": 1, "initializer_range": 0.3, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        **changes})).eval()


def bert_lm(vocabulary: int = 40, **changes: Any) -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**{
        "vocab_size": vocabulary, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.3, **changes})).eval()


def bert_lm_tokenizer() -> BertTokenizer:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "play", "##ed", "##ing", "##s", "."]
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, model_max_length=32)


def folder(path: Path, model: PreTrainedModel, tokenizer: Any) -> str:
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def sentences(count: int, seed: int = 0, *, words: int = 9) -> list[str]:
    """Sentences in which the next word can be guessed: the same few orders of the same words."""
    draw = torch.Generator().manual_seed(seed)

    def pick(choices: Sequence[str]) -> str:
        return choices[int(torch.randint(len(choices), (1,), generator=draw))]

    made = []
    for _ in range(count):
        one = ["the", pick(("old", "new")), pick(("cat", "dog", "eel")), pick(("sat", "ran")), pick(("on", "under")), "the",
               pick(("mat", "log")), "and", "then", "slept"]
        made.append(" ".join(one[: 3 + int(torch.randint(words, (1,), generator=draw))]))
    return made
