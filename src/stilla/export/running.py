"""Exported files, run by onnxruntime: as one function from a model's inputs to what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stilla.export import ENCODER, HEADS, MERGED, TOWER, tower_file
from stilla.export.session import OnnxModel, Session
from stilla.export.writers import OnnxCausal, OnnxPair, OnnxSeeing
from stilla.tasks.base import Task

Inputs = Mapping[str, Tensor]


def open_exported(path: Path, task: Task | None = None) -> Any:
    """What lies in a format's folder as a function from model inputs to logits; what writes has a `writer` as well. `task`:
    that of the model, which knows how its files go together where they are its own (`Task.by_graphs`)."""
    if task is not None and task.by_graphs:
        return task.opened(path.name, lambda name: Session(path.with_name(name)))
    if path.name == HEADS:
        return OnnxHeads(path)
    if path.name == ENCODER:
        return OnnxPair(path.parent)
    if path.name == MERGED:
        return OnnxSeeing(path.parent)
    if path.name == TOWER:
        return OnnxTowers(path)
    session = Session(path)
    keeps = any(name.startswith("past_key_values") for name in session.inputs)
    return OnnxCausal(path, session) if keeps else OnnxModel(path)


class OnnxTowers:
    """Towers of a model, each a file of its own. `path`: the first's, which stands for all. A tower that is given nothing of
    what it takes is not asked; answers stand one after the other, those of pictures first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._towers = [OnnxModel(path), OnnxModel(path.with_name(tower_file("text")))]
        self.inputs = tuple(name for one in self._towers for name in one.inputs)
        self.bytes = sum(one.bytes for one in self._towers)

    def __call__(self, inputs: Inputs) -> Tensor:
        """(pictures and texts, width) in float32."""
        return torch.cat([one(inputs) for one in self._towers if any(name in inputs for name in one.inputs)])


class OnnxHeads:
    """The exported heads of one model: from inputs named `head/input` to what each of them answers, by name."""

    def __init__(self, path: Path) -> None:
        listed: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        self.path = path
        self.each = {name: OnnxModel(path.parent / file) for name, file in listed.items()}
        self.bytes = sum(one.bytes for one in self.each.values())

    def __call__(self, inputs: Inputs) -> dict[str, Tensor]:
        own: dict[str, dict[str, Tensor]] = {}
        for key, value in inputs.items():
            name, _, inside = key.partition("/")
            own.setdefault(name, {})[inside] = value
        return {name: self.each[name](values) for name, values in own.items()}
