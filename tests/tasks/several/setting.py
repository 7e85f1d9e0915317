"""Tiny data and models of two tasks over the same words: a topic for every text, and what kind every word is."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from tests import tiny

TAGS = ("FILLER", "NAMED")


def tagged(folder: Path, *, train: int = 48, validation: int = 24, test: int = 24, seed: int = 3) -> dict[str, str]:
    """JSON lines with `tokens` and `tags`: whether a word is one of a topic's."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, size in (("train", train), ("validation", validation), ("test", test)):
        lines = []
        for _ in range(size):
            named = tiny.TOPICS[draw.choice(list(tiny.TOPICS))]
            words = draw.choices(tiny.FILLER, k=draw.randint(1, 6)) + draw.choices(named, k=2)
            draw.shuffle(words)
            lines.append(json.dumps({"tokens": words, "tags": [TAGS[word not in tiny.FILLER] for word in words]}))
        path = folder / f"{split}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        files[split] = str(path)
    return files


def tagger(folder: Path, *, layers: int = 4, width: int = 32, seed: int = 1) -> str:
    """A model with a head for the tags, untrained, in their order."""
    torch.manual_seed(seed)
    made = tiny.tokenizer()
    config = _config(len(made), layers, width)
    config.id2label, config.label2id = dict(enumerate(TAGS)), {name: index for index, name in enumerate(TAGS)}
    BertForTokenClassification(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return str(folder)


def topics(folder: Path, *, layers: int = 4, width: int = 32, seed: int = 0) -> str:
    """A model with a head for the topics, untrained, in their order."""
    torch.manual_seed(seed)
    made = tiny.tokenizer()
    config = _config(len(made), layers, width)
    names = list(tiny.TOPICS)
    config.id2label, config.label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
    BertForSequenceClassification(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return str(folder)


def parts(folder: Path, *, train: tuple[int, int] = (120, 48)) -> dict[str, Any]:
    """What a recipe says of both tasks, without teachers."""
    return {"topics": {"task": "text-classification", "data": tiny.texts(folder / "topics", train=train[0])},
            "words": {"task": "token-classification", "data": tagged(folder / "words", train=train[1])}}


def recipe(folder: Path, *, own: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """A whole recipe; `own`: teachers by task, else one is trained on both."""
    made = parts(folder / "data")
    for name, place in (own or {}).items():
        made[name] = {**made[name], "teacher": place}
    start = topics(folder / "start")
    train = {"epochs": 6, "batch_size": 16, "learning_rate": 2e-3, "precision": "float32"}
    return {
        "task": "several",
        "data": {"parts": made},
        "teacher": {"model": start, "train": train} if own is None else {"model": start},
        "student": {"layers": 2},
        "distill": {"epochs": 3, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"baseline": True, "resamples": 100, "speed": False},
        "output": str(folder / "run"),
        **changes,
    }


def _config(words: int, layers: int, width: int) -> BertConfig:
    return BertConfig(
        vocab_size=words, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=2 * width,
        max_position_embeddings=64, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.2)
