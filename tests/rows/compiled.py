"""Compiled blocks against plain ones, in a process of its own: the shape checks of the tests cannot be compiled.

    python -m tests.rows.compiled

Prints one line of JSON: by case the largest relative difference of loss, sums and gradients, and the graphs compiled for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from stilla.errors import CompatibilityError
from stilla.objectives import DKD, Labels, Logits
from stilla.objectives.base import RowObjective
from stilla.rows import row_loss
from stilla.signals import Dense, Form
from tests.rows.setting import HEADS, Sides, draw, sides, some_terms, top_k

Terms = list[tuple[RowObjective, float]]


class Own(RowObjective):
    """As somebody else might write it: no gradient by hand."""

    def losses(self, logits: Tensor, teacher: Form | None, labels: Tensor | None, progress: float) -> Tensor:
        assert isinstance(teacher, Dense)
        return (torch.tanh(logits) - torch.tanh(teacher.logits)).square().sum(-1)


class Branching(Own):
    def losses(self, logits: Tensor, teacher: Form | None, labels: Tensor | None, progress: float) -> Tensor:
        return super().losses(logits, teacher, labels, progress) * (2 if logits.sum() > 0 else 1)


def difference(terms: Terms, given: Sides, teacher: Form | None, progress: float = 0.0) -> float:
    found = []
    for compile in (False, True):
        loss, sums = row_loss(terms, given.student, teacher, given.labels, progress, compile=compile)
        found.append([loss.detach(), sums, *torch.autograd.grad(loss, given.leaves)])
    return max(float((one - other).double().norm() / other.double().norm()) for other, one in zip(*found, strict=True))


def cases() -> Iterator[tuple[str, Callable[[], float]]]:
    for rows in (23, 40, 31):
        yield f"{rows} rows", lambda rows=rows: _some(rows, 0.3 + rows)
    for dtype in (torch.float32, torch.bfloat16):
        yield str(dtype), lambda dtype=dtype: _some(23, 1.0, dtype)
    given = sides()
    logits = given.teacher.dense().logits
    logits[:, 3] = -torch.inf
    pairs: dict[str, Terms] = {
        "reverse and skewed": [(Logits(divergence="reverse_kl"), 1.0), (Logits(divergence="skew_kl"), 1.0)],
        "skewed and total": [(Logits(divergence="skew_reverse_kl"), 1.0), (Logits(divergence="tvd"), 1.0)],
        "squares and its own": [(Logits(divergence="mse"), 1.0), (Own(), 0.1)],
        "standardised and decoupled": [(Logits(standardise=True), 1.0), (DKD(), 0.5)],
    }
    for name, terms in pairs.items():
        yield name, lambda terms=terms: difference(terms, given, given.teacher)
    yield "excluded", lambda: difference([(Logits(), 1.0), (Labels(), 0.0)], given, Dense(logits))
    likeliest: Terms = [(Logits(temperature=3.0), 1.0), (Logits(divergence="jsd", temperature=3.0), 0.5)]
    yield "top-k", lambda: difference([*likeliest, (Labels(label_smoothing=0.1), 1.0)], given, top_k(given.teacher, 9, 3.0))
    for number in (20, 12, 15):
        yield f"{number} drawn", lambda number=number: difference(
            [(Logits(temperature=1.0), 1.0), (Labels(), 1.0)], given, draw(given.teacher, number))
    for progress in (0.1, 0.2, 0.3, 0.4):
        yield f"progress {progress}", lambda progress=progress: difference(
            [(Logits(temperature={"linear": [4.0, 2.0]}), progress)], given, given.teacher, progress)


def _some(rows: int, factor: float, dtype: torch.dtype = torch.float64) -> float:
    given = sides(rows=rows, dtype=dtype, **HEADS["all"])
    return difference([(one, factor * coefficient) for one, coefficient in some_terms()], given, given.teacher)


def refusal(terms: Terms, teacher: Any) -> str:
    given = sides()
    try:
        row_loss(terms, given.student, teacher(given.teacher), given.labels, 0.0, compile=True)
    except CompatibilityError as error:
        return str(error)
    return "none"


def main() -> None:
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    for name, call in cases():
        before = counters["stats"]["unique_graphs"]
        found[name] = (call(), counters["stats"]["unique_graphs"] - before)
    found["branches"] = refusal([(Branching(), 1.0)], lambda teacher: teacher)
    found["temperature"] = refusal([(Logits(temperature=2.0), 1.0)], lambda teacher: top_k(teacher, 5))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
