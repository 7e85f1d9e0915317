"""Tiny encoders that give a vector per text, as sentence-transformers folders, and data for them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from stilla.recipe import ModelSource
from stilla.signals import Pooling
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval.loading import load
from stilla.tasks.retrieval.model import Layer, Shape, as_embedder
from stilla.tasks.retrieval.reading import Reader
from tests import tiny
from tests.students import speaking

WORDS = [word for group in tiny.TOPICS.values() for word in group]


def rotation(width: int, seed: int = 0) -> Tensor:
    """(width, width), orthonormal."""
    draw = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64))[0]


def encoder(layers: int = 4, width: int = 32, seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    return BertModel(BertConfig(
        vocab_size=len(tiny.tokenizer()), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=64, initializer_range=0.3)).eval()


def tokenizer(*, left: bool = False) -> PreTrainedTokenizerFast:
    made = tiny.tokenizer()
    made.padding_side = "left" if left else "right"
    return made


def folder(
    path: Path, *, pooling: Pooling = "mean", normalised: bool = True, dense: Sequence[Layer] = (), left: bool = False,
    prompts: Mapping[str, str] | None = None, default: str | None = None, similarity: Any = "cosine", **sizes: int,
) -> str:
    """A teacher as sentence-transformers has it."""
    model = as_embedder(encoder(**sizes), Shape(pooling, normalised, similarity, tuple(dense)))
    model.save_pretrained(path)
    Reader(tokenizer(left=left), dict(prompts or {}), default).save_pretrained(path)
    return str(path)


def spelling(path: Path) -> str:
    """A teacher with a tokenizer of pieces, which can be had smaller."""
    pieces = speaking.bert()
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(pieces), hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
                                 intermediate_size=64, max_position_embeddings=64))
    as_embedder(model, Shape("mean", True)).save_pretrained(path)
    Reader(pieces).save_pretrained(path)
    return str(path)


def loaded(path: str | Path) -> Loaded:
    return load(ModelSource(model=str(path)), None, None, {}, trained=True)


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    found = []
    for index in range(count):
        group = list(tiny.TOPICS.values())[index % 3]
        words = draw.choices(tiny.FILLER, k=draw.randint(1, 9)) + draw.choices(group, k=3)
        draw.shuffle(words)
        found.append(" ".join(words))
    return found


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts(path: Path, count: int = 48, seed: int = 0) -> str:
    return lines(path, [{"text": one} for one in sentences(count, seed)])


def scored(path: Path, count: int = 24, seed: int = 1, most: int = 5) -> str:
    """Pairs with how many words they share, from 0 to `most`."""
    ones, others = sentences(count, seed), sentences(count + 1, seed + 1)[1:]
    rows = []
    for number, (one, other) in enumerate(zip(ones, others)):
        other = one if number % 4 == 0 else other
        shared = len({*one.split()} & {*other.split()}) / len({*one.split()} | {*other.split()})
        rows.append({"sentence1": one, "sentence2": other, "score": round(most * shared, 2)})
    return lines(path, rows)


def triples(path: Path, count: int = 24, seed: int = 2) -> str:
    draw = random.Random(seed)
    rows = []
    for number, one in enumerate(sentences(count, seed)):
        mixed = one.split()
        draw.shuffle(mixed)
        rows.append({"query": one, "positive": " ".join(mixed), "negative": sentences(count, seed + 5)[(number + 1) % count]})
    return lines(path, rows)


def search(path: Path, documents: int = 30, queries: int = 9, seed: int = 3) -> str:
    """A folder as BEIR has them; a query is a document in another order."""
    draw = random.Random(seed)
    said = sentences(documents, seed)
    lines(path / "corpus.jsonl", [{"_id": f"d{number}", "title": "the", "text": text} for number, text in enumerate(said)])
    asked = []
    for number in range(queries):
        words = said[number].split()
        draw.shuffle(words)
        asked.append({"_id": f"q{number}", "text": " ".join(words)})
    lines(path / "queries.jsonl", asked)
    judged = "".join(f"q{number}\td{number}\t2\nq{number}\td{(number + 3) % documents}\t1\n" for number in range(queries))
    (path / "qrels").mkdir()
    (path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    return str(path)
