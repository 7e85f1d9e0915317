"""Attention in float32 beside bfloat16: right gradients, and nothing else is touched."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from stilla.training import attention
from stilla.training.attention import attention_in_float32
from tests.families import FAMILIES, Family

CPU = torch.device("cpu")
CHOSEN = [one for one in FAMILIES if one.name in ("bert", "gpt2", "llama", "t5", "vit", "whisper")]


def gradients(family: Family, model: Any, *, halved: bool, within: Any = None) -> Tensor:
    model = copy.deepcopy(model)
    with within or nullcontext(), torch.autocast("cpu", torch.bfloat16, enabled=halved):
        model(**family.inputs())[0].float().square().mean().backward()
    return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


@pytest.mark.slow
@pytest.mark.parametrize("family", CHOSEN, ids=lambda one: one.name)
def test_gradients_are_as_near_to_the_exact_ones(family: Family) -> None:
    model = family.build()
    exact = gradients(family, model, halved=False)
    usual = gradients(family, model, halved=True)
    ours = gradients(family, model, halved=True, within=attention_in_float32(CPU))
    far = [torch.linalg.vector_norm(one - exact) / torch.linalg.vector_norm(exact) for one in (usual, ours)]
    assert far[0] < 0.05
    assert far[1] < 0.05


def test_it_is_computed_so_where_a_gradient_is_wanted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    def spy(module: nn.Module, query: Tensor, *others: Any, **options: Any) -> Any:
        seen.append((query.dtype, torch.is_grad_enabled()))
        return sdpa_attention_forward(module, query, *others, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", spy)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", spy)
    family = next(one for one in CHOSEN if one.name == "bert")
    model = family.build()
    with attention_in_float32(CPU):
        with torch.autocast("cpu", torch.bfloat16):
            model(**family.inputs())
            with torch.no_grad():
                model(**family.inputs())
        model(**family.inputs())
    assert {one for one in seen if one[1]} == {(torch.float32, True)}
    assert {one for one in seen if not one[1]} == {(torch.bfloat16, False)}
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        model(**family.inputs())
    assert {dtype for dtype, _ in seen} == {torch.bfloat16}


def test_what_a_person_put_there_stays_and_accelerators_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    with attention_in_float32(torch.device("cuda")):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    with attention_in_float32(CPU):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not sdpa_attention_forward
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward

    def own() -> None: ...

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", own)
    with attention_in_float32(CPU):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is own
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is own
