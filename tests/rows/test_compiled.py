"""Compiled blocks: the same numbers, few graphs, and words where there is nothing to compile with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stilla.errors import CompatibilityError
from stilla.objectives import Labels, Logits
from stilla.rows import blocks, compiler_problem, fused_divergence, row_loss
from tests.rows.setting import sides

TORCH_NEEDS = compiler_problem()


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    if TORCH_NEEDS is not None:
        pytest.skip(TORCH_NEEDS)
    said = subprocess.run([sys.executable, "-m", "tests.rows.compiled"], check=True, capture_output=True, text=True,
                          cwd=Path(__file__).parents[2])
    answers: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return answers


@pytest.mark.slow
def test_compiled_numbers_equal_plain_ones(found: dict[str, Any]) -> None:
    # beside rounding, a compiled sum is added up in another order
    bounds = {"torch.float32": 2e-6, "torch.bfloat16": 5e-3}
    cases = {name: answer for name, answer in found.items() if isinstance(answer, list)}
    assert len(cases) == 18
    for name, (difference, _) in cases.items():
        assert difference <= bounds.get(name, 1e-12), name


@pytest.mark.slow
def test_what_changes_from_step_to_step_compiles_nothing_anew(found: dict[str, Any]) -> None:
    for name in ("40 rows", "31 rows", "15 drawn", "progress 0.3", "progress 0.4"):
        assert found[name][1] == 0, name
    assert found["23 rows"][1] == 1


@pytest.mark.slow
def test_what_cannot_be_compiled_says_so(found: dict[str, Any]) -> None:
    assert "`branching` cannot be compiled" in found["branches"]
    assert "Leave `compile` out" in found["branches"]
    assert "top-k were stored at 1" in found["temperature"]  # what is wrong anyway is said as ever


def test_without_a_compiler_it_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks.compiled.cache_clear()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    given = sides()
    with pytest.raises(CompatibilityError, match=r"no no-such-compiler; install one .*leave `compile` out"):
        row_loss([(Labels(), 1.0)], given.student, None, given.labels, 0.0, compile=True)
    blocks.compiled.cache_clear()


def test_asking_for_it_reaches_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def block(*given: Any) -> Any:
        calls.append(1)
        return blocks.compare(*given)

    monkeypatch.setattr("stilla.rows.engine.compiled", lambda device: block)
    given = sides()
    sideways = (given.student.hidden, given.student.head, given.teacher.hidden, given.teacher.head)
    plain = fused_divergence(*sideways)
    assert not calls
    assert torch.equal(fused_divergence(*sideways, compile=True), plain)
    assert calls


def test_an_objective_without_a_gradient_by_hand_has_one_by_autograd() -> None:
    from stilla.objectives.base import RowObjective

    class Own(Logits):
        losses_and_gradients = RowObjective.losses_and_gradients

    given = sides()
    losses = [row_loss([(kind(divergence="jsd"), 1.0)], given.student, given.teacher, None, 0.0)[0] for kind in (Own, Logits)]
    for one, other in zip(*(torch.autograd.grad(loss, given.leaves) for loss in losses), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
