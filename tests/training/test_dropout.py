"""Dropout switched off leaves no chance in a forward in training mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stilla.training.dropout import dropping
from tests.families import FAMILIES, Family


def logits(family: Family, model: nn.Module, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    np.random.seed(seed)  # SpecAugment's
    outputs = model(**family.inputs())
    return next(value for value in outputs.values() if isinstance(value, torch.Tensor))


def keep_whole_paths(model: nn.Module) -> None:
    """Stochastic depth is not dropout."""
    for holder in (*model.modules(), model.config):
        if "drop_prob" in vars(holder):
            holder.drop_prob = 0.0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_without_dropout_training_is_certain(family: Family) -> None:
    model = family.build().train()
    keep_whole_paths(model)
    with torch.no_grad():
        own = logits(family, model, 1)
        with dropping(model, 0.0):
            assert torch.equal(logits(family, model, 1), logits(family, model, 2))
        with dropping(model, 0.9):
            strong = [logits(family, model, seed) for seed in (1, 2)]
        assert torch.equal(logits(family, model, 1), own) or family.name in NORMALISED
    if family.name not in WITHOUT_DROPOUT:
        assert not torch.equal(*strong)


NORMALISED = {"resnet"}
"""Their batch norms move with every forward in training mode."""
WITHOUT_DROPOUT = {"resnet", "convnext"}


def fail_without_dropout(model: nn.Module) -> None:
    assert model[1].p == 0.0
    raise RuntimeError


def test_everything_is_as_before_also_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))
    with pytest.raises(RuntimeError), dropping(model, 0.0):
        fail_without_dropout(model)
    assert model[1].p == 0.3
    with dropping(model, None):
        assert model[1].p == 0.3
