"""The cases: real data, a teacher, and a student of at most a third of its parameters where that can be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gap import data
from benchmarks.inputs import minilm


@dataclass(frozen=True)
class Case:
    """`prepare(data, folder)` writes the splits; `start(folder)` gives what the teacher begins with."""

    task: str
    prepare: Callable[[Path | None, Path], None]
    start: Callable[[Path], Path]
    data: Mapping[str, Any]
    teacher: Mapping[str, Any]
    student: Mapping[str, Any]
    evaluate: Mapping[str, Any] = field(default_factory=dict)


def _minilm(_: Path) -> Path:
    return minilm()


def _made(folder: Path) -> Path:
    return folder.parent / "start"


THIRD = {"size": 0.33}
"""Of the teacher's parameters: layers, neurons and tokens are chosen once, by the first run."""
ENCODER = {"epochs": 6, "learning_rate": 1e-4}
"""How a pretrained encoder becomes a teacher."""

CASES: Mapping[str, Case] = {
    "clinc150": Case("text-classification", data.intents, _minilm, {"text": "text", "label": "intent"}, ENCODER, THIRD),
    "clinc150-known": Case("text-classification", data.known_intents, _minilm, {"text": "text", "label": "intent"}, ENCODER,
                           THIRD),
    "clinc150-few": Case("text-classification", data.few_intents, _minilm, {"text": "text", "label": "intent"},
                         {"epochs": 30, "learning_rate": 1e-4}, THIRD),
    # 3,000 of its texts for a student of random weights
    "clinc150-scratch": Case("text-classification", data.intents, _minilm, {"text": "text", "label": "intent", "limit": 3000},
                             ENCODER, {"config": {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 256,
                                                  "num_attention_heads": 4}}),
    "sib200": Case("text-classification", data.topics, _minilm, {"text": "text", "label": "topic"},
                   {"epochs": 12, "learning_rate": 1e-4}, THIRD),
    "titles": Case("text-classification", data.titles, _minilm, {"text": ["title", "sentence"], "label": "answer"}, ENCODER,
                   THIRD),
    "worth": Case("text-classification", data.worth, _minilm, {"text": ["title", "sentence"], "label": "worth"}, ENCODER,
                  THIRD),
    "praise": Case("text-classification", data.praise, _minilm, {"text": "text", "label": "says"}, ENCODER, THIRD),
    "felt": Case("text-classification", data.felt, _minilm, {"text": "text", "label": "felt", "kind": "regression"}, ENCODER,
                 THIRD),
    "years": Case("text-classification", data.years, _minilm, {"text": "text", "label": "year", "kind": "regression"},
                  ENCODER, THIRD),
    # a third of its sentences: on one thread all of them take hours
    "ud-ewt": Case("token-classification", data.words, _minilm, {"tokens": "tokens", "tags": "upos", "limit": 4000},
                   {"epochs": 3, "learning_rate": 1e-4}, THIRD),
    # its teacher takes two minutes a pass on one thread, and is a weak one: 784 questions
    "xquad": Case("question-answering", data.questions, _minilm, {"max_length": 192, "overlap": 0.2, "longest_answer": 20},
                  {"epochs": 3, "learning_rate": 3e-4, "batch_size": 16}, THIRD),
    "authors": Case("text-classification", data.authors, _minilm, {"text": "text", "label": "author"},
                    {"epochs": 3, "learning_rate": 1e-4}, THIRD),
    "docstrings": Case("text-classification", data.docstrings, _made, {"text": "text", "label": "topic"},
                       {"epochs": 10, "learning_rate": 5e-4},
                       {"config": {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 128}}),
    "digits": Case("image-classification", data.digits, _made, {}, {"epochs": 30, "learning_rate": 1e-3}, THIRD),
    "flowers": Case("image-classification", data.flower_photos, _made, {"augment": "light"},
                    {"epochs": 30, "learning_rate": 1e-3}, THIRD),
    "flowers-resnet": Case("image-classification", data.resnet_flowers, _made, {"augment": "light"},
                           {"epochs": 24, "learning_rate": 2e-3, "batch_size": 64},
                           {"config": {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1]}}),
    # these three by bits per byte, as tokens may be others; nothing is written
    "novels": Case("causal-lm", data.novels, _made, {"text": "text", "max_length": 256},
                   # of 2,000 paragraphs and 12 passes at 2e-3 it is behind labels alone
                   {"epochs": 8, "learning_rate": 1e-3, "batch_size": 4}, THIRD),
    "masked": Case("masked-lm", data.masked, _made, {"text": "text"},
                   # of 12 passes at 2e-3 it is worse than a student on labels alone
                   {"epochs": 32, "learning_rate": 1e-3, "batch_size": 64}, THIRD),
    "translations": Case("seq2seq", data.translations, _made, {"source": "en", "target": "de"},
                         {"epochs": 12, "learning_rate": 2e-3, "batch_size": 64}, THIRD, {"generation": {"metrics": []}}),
}
SINGLE_TEXTS = tuple(name for name, case in CASES.items()
                     if case.task == "text-classification" and isinstance(case.data["text"], str) and "kind" not in case.data)
"""Of classes of one text each."""
