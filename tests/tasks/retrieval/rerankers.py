"""Tiny cross-encoders, and queries with candidates for them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

from stilla.recipe import ModelSource
from stilla.tasks.base import Loaded
from stilla.tasks.retrieval.reranking import Reranking
from tests import tiny
from tests.students import speaking
from tests.tasks.retrieval.setting import lines, search, sentences

IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


def folder(
    path: Path, *, layers: int = 4, width: int = 32, seed: int = 0, says: str | None = IDENTITY, pieces: bool = False,
    outputs: int = 1,
) -> str:
    """A teacher as sentence-transformers 5 has it. `says`: of its scores. `pieces`: its tokenizer can be had smaller."""
    tokenizer = speaking.bert() if pieces else tiny.tokenizer()
    torch.manual_seed(seed)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
                        intermediate_size=2 * width, max_position_embeddings=64, initializer_range=0.3, num_labels=outputs)
    if says is not None:
        config.sentence_transformers = {"activation_fn": says}
    BertForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def loaded(path: str | Path) -> Loaded:
    return Reranking().load(ModelSource(model=str(path)), labelled=True)


def _shared(one: str, other: str) -> int:
    return len({*one.split()} & {*other.split()})


def lists(path: Path, count: int = 12, each: int = 5, seed: int = 0, *, labelled: bool = True, uneven: bool = True) -> str:
    """Queries with `each` candidates or fewer, graded by how many words they share."""
    draw = random.Random(seed)
    said, rows = sentences(count * each, seed), list[dict[str, Any]]()
    for number, query in enumerate(sentences(count, seed + 1)):
        some = draw.sample(said, draw.randint(2, each) if uneven else each)
        grades = [min(3, max(0, _shared(query, one) - 1)) for one in some]
        rows.append({"query": query, "documents": some} | ({"labels": grades} if labelled else {}))
        rows[number]["query"] = query
    return lines(path, rows)


def pairs(path: Path, count: int = 12, each: int = 4, seed: int = 0, *, labelled: bool = True, scores: bool = False) -> str:
    """Long: a pair a row, of each query several, with 0 and 1 or with scores."""
    said, rows = sentences(count * each, seed), list[dict[str, Any]]()
    for number, query in enumerate(sentences(count, seed + 1)):
        for text in said[number * each : (number + 1) * each]:
            shared = _shared(query, text)
            more: dict[str, Any] = {"score": shared - 0.5} if scores else {"label": int(shared > 1)}
            rows.append({"query": query, "passage": text, **(more if labelled else {})})
    return lines(path, rows)


def searched(path: Path, *, run: bool = True) -> str:
    """A folder for search, with what a first search found for training and test."""
    search(path)
    judged = (path / "qrels" / "test.tsv").read_text()
    for name in ("train", "dev"):
        (path / "qrels" / f"{name}.tsv").write_text(judged)
    if run:
        (path / "runs").mkdir()
        for name in ("train", "dev", "test"):
            found = [f"q{query} Q0 d{(query * 5 + place) % 30} {place + 1} {9.0 - place} first\n"
                     for query in range(9) for place in range(6)]
            (path / "runs" / f"{name}.trec").write_text("".join(found))
    return str(path)
