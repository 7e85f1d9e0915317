"""Tiny models and tokenizers, made from configs in a second, for the tests of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

WORDS = ["good", "bad", "film", "food", "the", "was", "very", "not", "a", "b", "c", "d"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def bert_tokenizer(words: Sequence[str] = WORDS) -> BertTokenizer:
    return BertTokenizer(vocab={word: index for index, word in enumerate([*SPECIAL, *words])})


def bert_config(**changes: Any) -> BertConfig:
    return BertConfig(
        **{
            "vocab_size": 32,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 24,
            **changes,
        }
    )


def bert_folder(folder: Path, **changes: Any) -> Path:
    """A text classifier as `save_pretrained` leaves it, with random weights."""
    torch.manual_seed(0)
    BertForSequenceClassification(bert_config(**changes)).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def labels_of(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def splits_of(train: dict[str, list[Any]], **others: dict[str, list[Any]]) -> dict[str, Dataset]:
    return {name: Dataset.from_dict(rows) for name, rows in {"train": train, **others}.items()}


def vit_config(**changes: Any) -> ViTConfig:
    return ViTConfig(
        **{
            "image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 32, **changes,
        }
    )  # fmt: skip


def image_processor(size: int = 8, **changes: Any) -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": size, "width": size}, **changes)


def vit_folder(folder: Path, **changes: Any) -> Path:
    """An image classifier as `save_pretrained` leaves it, with random weights."""
    torch.manual_seed(0)
    ViTForImageClassification(vit_config(**changes)).save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return folder
