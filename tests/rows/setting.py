"""Hidden states and heads at random, and the textbook that the engine is compared with: dense, float64, autograd."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from stilla.objectives import Labels, Logits
from stilla.objectives.base import RowObjective
from stilla.rows import products
from stilla.signals import Form, Head, Headed, Samples, TopK

ROWS, CLASSES, WIDTH, WIDE = 23, 37, 8, 12
DIVERGENCES = ("forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "tvd")
HEADS = {"plain": {}, "bias": {"bias": True}, "scale": {"scale": 0.25}, "softcap": {"softcap": 3.0},
         "all": {"bias": True, "scale": 1.5, "softcap": 5.0, "used": 31}}


@dataclass(frozen=True)
class Sides:
    student: Headed
    teacher: Headed
    labels: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        given = (self.student.hidden, self.student.head.weight, self.student.head.bias)
        return [one for one in given if one is not None and one.requires_grad]


def sides(rows: int = ROWS, dtype: torch.dtype = torch.float64, seed: int = 0, classes: int = CLASSES,
          **head: object) -> Sides:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def made(width: int) -> Headed:
        options = {name: value for name, value in head.items() if name != "bias"}
        bias = normal(classes).to(dtype) if head.get("bias") else None
        return Headed((2 * normal(rows, width)).to(dtype), Head(normal(classes, width).to(dtype), bias, **options))

    student, teacher = made(WIDTH), made(WIDE)
    student.hidden.requires_grad_()
    student.head.weight.requires_grad_()
    if student.head.bias is not None:
        student.head.bias.requires_grad_()
    labels = torch.randint(0, student.head.classes, (rows,), generator=generator)
    labels[::5] = -100
    return Sides(student, teacher, labels)


def textbook(terms: list[tuple[RowObjective, float]], student: Headed, teacher: Form | None, labels: Tensor | None) -> Tensor:
    """By autograd through all logits at once."""
    said = teacher.dense() if isinstance(teacher, Headed) else teacher
    logits = student.dense().logits
    total = logits.new_zeros(())
    for objective, coefficient in terms:
        total = total + coefficient * objective.losses(logits, said, labels, 0.0).sum()
    return total


def defined(divergence: str, student: Tensor, teacher: Tensor, temperature: float, skew: float) -> Tensor:
    """Of every row, from the probabilities alone, as the papers write it; nothing of `stilla.objectives` is called."""
    p, q = (logits.div(temperature).softmax(-1) for logits in (teacher, student))
    m = (p + q) / 2

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a / b).log()).sum(-1)

    return {
        "forward_kl": lambda: temperature**2 * kl(p, q),
        "reverse_kl": lambda: temperature**2 * kl(q, p),
        "jsd": lambda: temperature**2 * (kl(p, m) + kl(q, m)) / 2,
        "skew_kl": lambda: temperature**2 * kl(p, skew * p + (1 - skew) * q),
        "skew_reverse_kl": lambda: temperature**2 * kl(q, skew * q + (1 - skew) * p),
        "tvd": lambda: temperature * (p - q).abs().sum(-1) / 2,
    }[divergence]()


def some_terms(temperature: float = 2.0) -> list[tuple[RowObjective, float]]:
    return [(Logits(temperature=temperature), 0.7), (Labels(), 0.3), (Logits(divergence="jsd", temperature=1.0), -0.2)]


def top_k(teacher: Headed, k: int, temperature: float = 1.0) -> TopK:
    log_p = torch.log_softmax(teacher.dense().logits / temperature, -1)
    ids = log_p.topk(k, -1).indices.sort(-1).values
    outside = log_p.scatter(-1, ids, -torch.inf).logsumexp(-1)
    return TopK(ids, log_p.gather(-1, ids), outside, temperature)


def draw(teacher: Headed, number: int, seed: int = 0) -> Samples:
    """Independent draws, as counts; the rows filled up with zeros."""
    log_p = torch.log_softmax(teacher.dense().logits, -1)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(log_p.exp(), number, replacement=True, generator=generator)
    counts = torch.zeros_like(log_p).scatter_add_(-1, drawn, torch.ones_like(drawn, dtype=log_p.dtype))
    width = int((counts > 0).sum(-1).max())
    values, ids = counts.topk(width, -1)
    return Samples(ids, values, -(log_p.exp() * log_p).sum(-1))


def in_pieces(patch: pytest.MonkeyPatch, chunk: int, block: int) -> None:
    """Chunks of at most so many rows, blocks of so many."""
    patch.setattr(products, "CHUNK_BYTES", 1)
    patch.setattr(products, "CHUNK_ROWS", chunk)
    patch.setattr("stilla.rows.engine.block_rows", lambda classes, device, **how: block)
    patch.setattr("stilla.rows.measures.block_rows", lambda classes, device, **how: block)
    patch.setattr(products, "TILE", 7)
    patch.setattr(products, "TILE_ROWS", 3)
