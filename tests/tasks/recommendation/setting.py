"""Users who go round among a few items, each in a way of his own, and tiny models over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, set_seed

from stilla import data
from stilla.recipe import ModelSource
from stilla.tasks.base import Loaded
from stilla.tasks.recommendation import models
from stilla.tasks.recommendation.recommendation import Recommendation
from stilla.tasks.recommendation.sections import RecommendationData

ITEMS = 24
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
              "intermediate_size": 32, "tie_word_embeddings": True},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
             "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
"""Decoders foretell what comes next, encoders what is hidden."""


def histories(users: int = 60, seed: int = 0, items: int = ITEMS) -> list[list[str]]:
    """Mostly one item on, the rest anywhere; no item twice."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(users):
        line = [int(draw.integers(items))]
        for _ in range(int(draw.integers(3, 12))):
            step = int(draw.integers(items)) if draw.random() < 0.2 else (line[-1] + 1) % items
            if step not in line:
                line.append(step)
        found.append([f"i{one}" for one in line])
    return found


def events(path: Path, users: int = 60, seed: int = 0, *, segments: bool = False) -> str:
    """A table of events in the order of the rows."""
    names = "user,item,segment" if segments else "user,item"
    rows = [f"{seed}-{user},{item}{',' + ('odd' if user % 2 else 'even') if segments else ''}"
            for user, line in enumerate(histories(users, seed)) for item in line]
    path.write_text("\n".join([names, *rows]) + "\n", encoding="utf-8")
    return str(path)


def split(users: int = 60, seed: int = 0) -> Dataset:
    return Dataset.from_dict({"user": [str(user) for user in range(users)], "items": histories(users, seed)})


def task(train: Dataset | None = None, **said: Any) -> Recommendation:
    section = RecommendationData(train="x", **{"max_length": 8, **said})
    return Recommendation.understand(section, {"train": split() if train is None else train})


def loaded(made: Recommendation, kind: str | None = None, **config: Any) -> Loaded:
    """A model of random weights."""
    kind = kind or ("bert" if made.catalogue.masked else "llama")
    set_seed(0)
    source = ModelSource(model=kind, config={**CONFIGS[kind], **config})
    return Loaded(models.made(source, made.catalogue), made.catalogue, kind)


def folder(place: Path, made: Recommendation, **config: Any) -> str:
    one = loaded(made, **config)
    assert isinstance(one.model, PreTrainedModel)
    one.model.save_pretrained(place)
    one.processor.save_pretrained(place)
    return str(place)


def spread(place: Path, **said: Any) -> dict[str, Dataset]:
    """What a recipe's `data` would be read into."""
    return data.load(RecommendationData(train=events(place / "events.csv"), **said), seed=0)
