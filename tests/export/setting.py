"""Small students of both tasks with data to export them with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    BertForSequenceClassification,
    PreTrainedConfig,
    ResNetConfig,
    ResNetForImageClassification,
    ViTForImageClassification,
)

from stilla.tasks.base import Prepared, Task
from stilla.tasks.shared.imported import ImportedModel
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.vision.image_classification import ImageClassification
from stilla.tasks.vision.sections import ImageClassificationData

from ..tasks.tiny import WORDS, bert_config, bert_tokenizer, image_processor, labels_of, vit_config

LABELS = labels_of("bad", "good")


@dataclass(frozen=True)
class Student:
    model: nn.Module
    processor: Any
    task: Task
    prepared: Prepared

    @property
    def example(self) -> Mapping[str, Tensor]:
        return self.prepared.collate([self.prepared.examples[index] for index in range(4)]).student


def lively(model: nn.Module) -> nn.Module:
    """With weights that make every part of the model count, in training mode as after training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


def text_student(**config: Any) -> Student:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    rows = {"text": [" ".join(draw.choice(WORDS, 1 + index % 9)) for index in range(24)],
            "label": ["bad", "good"] * 12}
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": Dataset.from_dict(rows)})
    model = lively(BertForSequenceClassification(bert_config(**LABELS, **config)))
    tokenizer = bert_tokenizer()
    tokenizer.model_max_length = 24
    return Student(model, tokenizer, task, _prepared(task, rows, tokenizer))


def vit_student(**config: Any) -> Student:
    torch.manual_seed(0)
    return _image_student(ViTForImageClassification(vit_config(**LABELS, **config)))


def resnet_student() -> Student:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **LABELS)
    return _image_student(ResNetForImageClassification(config))


class Net(nn.Module):
    """A module of a person's own, with two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 2)
        self.alias = self.head

    def forward(self, pixel_values: Tensor) -> Tensor:
        hidden: Tensor = torch.relu(self.norm(self.features(pixel_values)))
        return self.head(hidden.mean((2, 3)))


def plain_student() -> Student:
    torch.manual_seed(0)
    return _image_student(ImportedModel(Net(), PreTrainedConfig(**LABELS)))


def picture(index: int) -> PIL.Image.Image:
    draw = np.random.default_rng(index)
    return PIL.Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))


def _image_student(model: nn.Module) -> Student:
    rows = {"image": [picture(index) for index in range(40)], "label": ["bad", "good"] * 20}
    task = ImageClassification.understand(ImageClassificationData(train="x"), {"train": Dataset.from_dict(rows)})
    processor = image_processor()
    return Student(lively(model), processor, task, _prepared(task, rows, processor))


def _prepared(task: Task, rows: dict[str, list[Any]], processor: Any) -> Prepared:
    return task.prepare(Dataset.from_dict(rows), processor, None, training=False)
