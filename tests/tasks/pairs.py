"""Tiny models with encoder and decoder, their tokenizer, and pairs of texts: a toy language in which every word is turned
around, and a last word says how many there were."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from stilla.tasks.language.translations import PairProcessor

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "xx_XX", "yy_YY")
WORDS = ("cat", "dog", "sun", "tea", "map", "red", "big", "run")
VOCABULARY = (*SPECIAL, *WORDS, *(word[::-1] for word in WORDS), "one", "two", "three", "four")


def pairs(count: int, seed: int = 0) -> dict[str, list[str]]:
    draw = random.Random(seed)
    sources = [" ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for _ in range(count)]
    return {"source": sources, "target": [translated(one) for one in sources]}


def translated(source: str) -> str:
    words = source.split()
    return " ".join([word[::-1] for word in words] + [("one", "two", "three", "four")[len(words) - 1]])


def files(folder: Path, *, train: int = 60, validation: int = 20, test: int = 20) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for seed, (split, size) in enumerate((("train", train), ("validation", validation), ("test", test))):
        rows = [json.dumps(dict(zip(("source", "target"), row))) for row in zip(*pairs(size, seed).values())]
        path = folder / f"{split}.jsonl"
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        made[split] = str(path)
    return made


def tokenizer(family: str = "t5", *, words: tuple[str, ...] = VOCABULARY) -> hf.PreTrainedTokenizerFast:
    """Words; BART's with <s> before, mBART's with a language behind."""
    numbers = {word: index for index, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    single = {"bart": "<s> $A </s>", "mbart": "$A </s> yy_YY"}.get(family, "$A </s>")
    used = [(one, numbers[one]) for one in SPECIAL if one in single]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=used)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=48,
        additional_special_tokens=["xx_XX", "yy_YY"])


def config(family: str, *, layers: int = 2, width: int = 16, vocabulary: int = len(VOCABULARY) + 3, **more: Any) -> Any:
    """The vocabulary is padded, as those of published models are."""
    shared = {"vocab_size": vocabulary, "d_model": width, "pad_token_id": 1, "eos_token_id": 2, "dropout": 0.0,
              "tie_word_embeddings": True, **more}
    if family == "t5":
        return hf.T5Config(**{**shared, "dropout_rate": 0.0}, d_kv=8, d_ff=2 * width, num_layers=layers, num_heads=2,
                           num_decoder_layers=layers, decoder_start_token_id=1)
    bart = {**shared, "encoder_layers": layers, "decoder_layers": layers, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 2 * width, "decoder_ffn_dim": 2 * width,
            "max_position_embeddings": 64, "bos_token_id": 0, "activation_dropout": 0.0, "attention_dropout": 0.0}
    if family == "bart":
        return hf.BartConfig(**bart, decoder_start_token_id=2, forced_eos_token_id=2)
    if family == "mbart":
        return hf.MBartConfig(**bart, forced_eos_token_id=2)
    return hf.MarianConfig(**bart, decoder_start_token_id=1, forced_eos_token_id=2)


CLASSES: Mapping[str, Callable[[Any], hf.PreTrainedModel]] = {
    "t5": hf.T5ForConditionalGeneration, "bart": hf.BartForConditionalGeneration,
    "mbart": hf.MBartForConditionalGeneration, "marian": hf.MarianMTModel,
}
FAMILIES = tuple(CLASSES)


def model(family: str, seed: int = 0, **changes: Any) -> hf.PreTrainedModel:
    """Untrained; its added bias is not zero, so that leaving it out would show."""
    torch.manual_seed(seed)
    made = CLASSES[family](config(family, **changes))
    for name, buffer in made.named_buffers():
        if name == "final_logits_bias":
            nn.init.normal_(buffer)
    return made.eval()


def processor(family: str, made: nn.Module | None = None) -> PairProcessor:
    return PairProcessor.of(tokenizer(family), made if made is not None else model(family), None)


def folder(path: Path, family: str = "t5", seed: int = 0, **changes: Any) -> str:
    model(family, seed, **changes).save_pretrained(path)
    tokenizer(family).save_pretrained(path)
    return str(path)


@functools.cache
def trained(family: str = "bart", steps: int = 150) -> hf.PreTrainedModel:
    """A model that has learnt the toy language a little: it ends what it writes."""
    made = model(family, width=32).train()
    data = pairs(64 * 8, seed=9)
    spoken = processor(family, made)
    encode: Any = spoken.tokenizer
    optimiser = torch.optim.AdamW(made.parameters(), 5e-3)
    for step in range(steps):
        rows = slice(step % 8 * 64, (step % 8 + 1) * 64)
        source = encode(data["source"][rows], padding=True, return_tensors="pt", return_token_type_ids=False)
        labels = encode(text_target=data["target"][rows], padding=True, return_tensors="pt")["input_ids"]
        labels = labels.masked_fill(labels == encode.pad_token_id, -100)
        made(**source, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return made.requires_grad_(False).eval()
