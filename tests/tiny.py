"""Tiny models and data on disk, for tests of whole runs: seconds to train, nothing from the network."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

TOPICS: Mapping[str, tuple[str, ...]] = {
    "food": ("bread", "soup", "cheese", "salt", "oven"),
    "music": ("drum", "song", "choir", "flute", "chord"),
    "sport": ("ball", "race", "goal", "team", "swim"),
}
FILLER = ("the", "a", "of", "and", "with", "very", "good", "old", "new", "that")


def texts(folder: Path, *, train: int = 120, validation: int = 40, test: int = 60, seed: int = 0) -> dict[str, str]:
    """JSON lines with `text` and `topic`; a few words give the topic away, some labels are wrong."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, size in (("train", train), ("validation", validation), ("test", test)):
        lines = []
        for index in range(size):
            topic = list(TOPICS)[index % 3]
            words = draw.choices(FILLER, k=draw.randint(2, 10)) + draw.choices(TOPICS[topic], k=2)
            draw.shuffle(words)
            label = draw.choice(list(TOPICS)) if draw.random() < 0.05 else topic
            lines.append(json.dumps({"text": " ".join(words), "topic": label}))
        path = folder / f"{split}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        files[split] = str(path)
    return files


def tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLER, *(word for group in TOPICS.values() for word in group)]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                                   sep_token="[SEP]", mask_token="[MASK]", model_max_length=64)


def bert(
    folder: Path, *, layers: int = 4, width: int = 32, labels: int = 3, seed: int = 0, dropout: float = 0.1
) -> str:
    """An untrained BERT classifier with its tokenizer, as a Hugging Face folder."""
    torch.manual_seed(seed)
    made = tokenizer()
    model = BertForSequenceClassification(BertConfig(
        vocab_size=len(made), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=64, num_labels=labels, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout))
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return str(folder)


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """A whole text recipe over `texts` and `bert`; `changes` replace its sections."""
    files = texts(folder / "data")
    return {
        "task": "text-classification",
        "data": files,
        "teacher": {"model": bert(folder / "start"),
                    "train": {"epochs": 8, "batch_size": 8, "learning_rate": 5e-3, "precision": "float32"}},
        "student": {"layers": 2},
        "distill": {"epochs": 3, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"baseline": True, "resamples": 200, "speed": False},
        "output": str(folder / "run"),
        **changes,
    }
