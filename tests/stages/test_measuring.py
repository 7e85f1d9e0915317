from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stilla.stages import measuring
from stilla.tasks.base import Loaded


def test_models_are_measured_where_the_process_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.device("meta")  # the only other device that every machine has
    monkeypatch.setattr(measuring, "processes", lambda: SimpleNamespace(device=there))
    models = [Loaded(nn.Linear(2, 2), None, "one"), Loaded(nn.Linear(2, 2), None, "other")]
    assert measuring.place(models) == there
    assert all(parameter.device == there for one in models for parameter in one.model.parameters())
