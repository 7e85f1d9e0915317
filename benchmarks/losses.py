"""A loss over a vocabulary by Stilla and by others, on inputs like a language model's: what `rows` and `gpu` measure."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

COMPILED = ", compiled"
OTHERS = ("ours, with labels", "ours, top-50", "ours, 12 drawn", "ours, labels alone")
"""These compute something else."""
BOUND = "the four products"
NEEDS = {"liger-kernel": "liger_kernel", "liger-kernel, triton": "liger_kernel", "trl": "trl"}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """width: of the student; wide: of the teacher."""

    rows: int
    classes: int
    width: int
    wide: int


Call = Callable[[], Tensor]


class Inputs:
    """Hidden states and heads whose distributions are about as sharp as trained models'."""

    def __init__(self, size: Size, precision: str, device: torch.device = CPU) -> None:
        rows, classes, width, wide = size.rows, size.classes, size.width, size.wide
        generator = torch.Generator(device).manual_seed(0)
        dtype = getattr(torch, precision)

        def normal(*shape: int, scale: float) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device).mul_(scale).to(dtype)

        self.student, self.teacher = normal(rows, width, scale=1), normal(rows, wide, scale=1)
        self.head, self.theirs = normal(classes, width, scale=2 / width**0.5), normal(classes, wide, scale=2 / wide**0.5)
        self.labels = torch.randint(0, classes, (rows,), generator=generator, device=device)
        self.student.requires_grad_()
        self.head.requires_grad_()

    def forget(self) -> None:
        """The gradients."""
        self.student.grad = self.head.grad = None


def bare(given: Inputs) -> Callable[[], None]:
    """The four products."""
    with torch.no_grad():
        ours, told = (given.head.new_empty(len(given.student), len(given.head)) for _ in range(2))
        hidden, weight = torch.empty_like(given.student), torch.empty_like(given.head)

    @torch.no_grad()
    def call() -> None:
        torch.mm(given.student, given.head.T, out=ours)
        torch.mm(given.teacher, given.theirs.T, out=told)
        torch.mm(ours, given.head, out=hidden)
        torch.mm(ours.T, given.student, out=weight)

    return call


class Step:
    """A forward and a backward of a contender, timed; of the bound its products. scale: of the gradients, as trainings in
    float16 need it."""

    def __init__(self, name: str, given: Inputs, clock: Callable[[], float], scale: float = 1.0) -> None:
        self.given, self.clock, self.loss, self.scale = given, clock, 0.0, scale
        self.products = bare(given) if name == BOUND else None
        self.call = contender(name, given) if self.products is None else None

    def __call__(self) -> float:
        self.given.forget()
        start = self.clock()
        if self.call is None:
            assert self.products is not None
            self.products()
        else:
            loss = self.call()
            loss.backward(torch.full_like(loss, self.scale))
            self.loss = loss.item()
        return self.clock() - start


def is_there(name: str) -> bool:
    """Whether what a contender needs is installed."""
    return importlib.util.find_spec(NEEDS.get(name, "torch")) is not None


def contender(name: str, given: Inputs) -> Call:
    if name.startswith("ours"):
        return _ours(name, given)
    return {"all logits": _all_logits, "liger-kernel": _liger, "liger-kernel, triton": _triton, "trl": _trl}[name](given)


def _ours(name: str, given: Inputs) -> Call:
    from stilla.objectives import Labels, Logits
    from stilla.rows import fused_divergence, row_loss
    from stilla.signals import Form, Head, Headed, Samples, TopK

    student, teacher = Head(given.head), Head(given.theirs)
    name, compile = name.removesuffix(COMPILED), name.endswith(COMPILED)
    if name == "ours":
        return lambda: fused_divergence(given.student, student, given.teacher, teacher, compile=compile)
    rows, classes = len(given.labels), len(given.head)
    form: Form | None = Headed(given.teacher, teacher)
    ids = (torch.arange(50) * (classes // 50) + torch.randint(0, classes // 50, (rows, 50))).to(given.labels.device)

    def filled(value: float, *shape: int) -> Tensor:
        return torch.full((rows, *shape), value, device=ids.device)

    if name == "ours, top-50":
        form = TopK(ids, filled(0.018, 50).log(), filled(0.1).log())
    elif name == "ours, 12 drawn":
        form = Samples(ids[:, :12], filled(4.0, 12), filled(3.0))
    elif name == "ours, labels alone":
        form = None
    terms: list[Any] = [(Labels(), 0.5 / rows)]
    if form is not None:
        terms.append((Logits(temperature=1.0), 0.5 / rows))
    return lambda: row_loss(terms, Headed(given.student, student), form, given.labels, 0.0,
                            compile=compile)[0]


def _all_logits(given: Inputs) -> Call:
    def call() -> Tensor:
        with torch.no_grad():
            target = torch.log_softmax((given.teacher @ given.theirs.T).float(), -1)
        said = torch.log_softmax((given.student @ given.head.T).float(), -1)
        return F.kl_div(said, target, log_target=True, reduction="batchmean")

    return call


def _liger(given: Inputs) -> Call:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    # its own default is compiled; on a processor that was no faster
    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0,
                                   compiled=given.head.device.type != "cpu")
    return lambda: loss(given.student, given.head, given.teacher, given.theirs, given.labels)


def _triton(given: Inputs) -> Call:
    from liger_kernel.transformers import LigerFusedLinearJSD

    loss = LigerFusedLinearJSD(jsd_beta=0.0)
    return lambda: loss(given.student, given.head, given.teacher, given.theirs, given.labels)


def _trl(given: Inputs) -> Call:
    from trl.experimental.gkd import GKDTrainer

    def call() -> Tensor:
        with torch.no_grad():
            target = (given.teacher @ given.theirs.T)[None]
        said = (given.student @ given.head.T)[None]
        loss: Tensor = GKDTrainer.generalized_jsd_loss(said, target, given.labels[None], beta=0.0)
        return loss

    return call
