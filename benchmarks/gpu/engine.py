"""The rows engine against the textbook: all logits at once in float64, by autograd, on the same device."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.found import Notebook
from benchmarks.gpu.setting import Setting
from benchmarks.losses import Inputs, Size
from stilla.objectives import Labels, Logits
from stilla.objectives.base import RowObjective
from stilla.objectives.logits import Divergence
from stilla.rows import fused_divergence, row_loss
from stilla.signals import Dense, Form, Head, Headed, Samples, TopK

DIVERGENCES: tuple[Divergence, ...] = ("forward_kl", "reverse_kl", "jsd")
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3}
"""Relative, of loss and gradients: what rounding a logit to so many digits may do."""
Terms = list[tuple[RowObjective, float]]


def ask(setting: Setting, notebook: Notebook) -> None:
    # several chunks of 2**30 bytes on a GPU
    size = Size(192, 1000, 32, 48) if setting.small else Size(6144, 128_256, 256, 384)
    exact = Size(192, 1000, 32, 48) if setting.small else Size(512, 32_000, 256, 384)
    for precision in setting.precisions:
        given = Inputs(exact, precision, setting.device)
        for divergence in DIVERGENCES:
            notebook.check(f"{divergence} in {precision} is the textbook's",
                           partial(_divergence, given, divergence, precision, compile=False))
        for form in ("labels", "top 8", "drawn"):
            notebook.check(f"{form} in {precision} is the textbook's", partial(_form, given, form, precision))
        if precision == "float32" or not setting.small:  # a compiler takes ten seconds of a processor
            notebook.check(f"forward_kl in {precision}, compiled, is the textbook's",
                           partial(_compiled, setting, given, precision))
    notebook.check("many chunks equal few", partial(_chunks, setting, size))


def _divergence(given: Inputs, divergence: Divergence, precision: str, *, compile: bool) -> str:
    student, teacher = Head(given.head), Head(given.theirs)
    given.forget()
    loss = fused_divergence(given.student, student, given.teacher, teacher, divergence, 2.0, compile=compile)
    loss.backward()
    objective = Logits(divergence=divergence, temperature=2.0)
    told = Dense(given.teacher.double() @ given.theirs.double().T)
    return _compared(given, loss.detach(), [(objective, 1 / len(given.labels))], told, precision)


def _compiled(setting: Setting, given: Inputs, precision: str) -> str:
    setting.need_compiler()
    return _divergence(given, "forward_kl", precision, compile=True)


def _form(given: Inputs, name: str, precision: str) -> str:
    rows = len(given.labels)
    terms: Terms = [(Labels(), 1 / rows)]
    log_p = (given.teacher.double() @ given.theirs.double().T).log_softmax(-1)
    told: Form | None = None
    if name != "labels":
        terms.append((Logits(temperature=1.0), 0.5 / rows))
        ids = log_p.topk(8, -1).indices.sort(-1).values
        inside = log_p.gather(-1, ids)
        if name == "drawn":
            told = Samples(ids, (8 * inside.softmax(-1)).float(), -(log_p.exp() * log_p).sum(-1).float())
        else:
            told = TopK(ids, inside.float(), log_p.scatter(-1, ids, -torch.inf).logsumexp(-1).float())
    given.forget()
    loss, _ = row_loss(terms, Headed(given.student, Head(given.head)), told, given.labels, 0.0)
    loss.backward()
    return _compared(given, loss.detach(), terms, told, precision)


def _compared(given: Inputs, loss: Tensor, terms: Terms, told: Form | None, precision: str) -> str:
    """Loss and gradients, which are there already, beside those of the textbook."""
    hidden, head = (one.detach().double().requires_grad_() for one in (given.student, given.head))
    logits = hidden @ head.T
    total = logits.new_zeros(())
    for objective, coefficient in terms:
        total = total + coefficient * objective.losses(logits, _in_float64(told), given.labels, 0.0).sum()
    total.backward()
    assert given.student.grad is not None
    assert given.head.grad is not None
    assert hidden.grad is not None
    assert head.grad is not None
    far = {"loss": _far(loss, total.detach()), "hidden states": _far(given.student.grad, hidden.grad),
           "head": _far(given.head.grad, head.grad)}
    said = ", ".join(f"{name} {value:.1e}" for name, value in far.items())
    assert max(far.values()) < TOLERANCE[precision], f"relative differences: {said}; allowed {TOLERANCE[precision]:.0e}"
    return f"relative differences: {said}"


def _in_float64(told: Form | None) -> Form | None:
    if isinstance(told, TopK):
        return replace(told, log_probs=told.log_probs.double(), log_tail=told.log_tail.double())
    if isinstance(told, Samples):
        return replace(told, counts=told.counts.double(), entropy=told.entropy.double())
    return told


def _chunks(setting: Setting, size: Size) -> str:
    """The mean over all rows is that of two halves."""
    given = Inputs(size, "bfloat16" if setting.on_gpu else "float32", setting.device)
    student, teacher = Head(given.head), Head(given.theirs)

    def walk(start: int, end: int) -> tuple[float, Tensor]:
        given.forget()
        loss = fused_divergence(given.student[start:end], student, given.teacher[start:end], teacher)
        loss.backward()
        assert given.head.grad is not None
        return float(loss.detach()), given.head.grad.float()

    half = size.rows // 2
    whole, first, second = (walk(*one) for one in ((0, size.rows), (0, half), (half, size.rows)))
    loss, gradient = (first[0] + second[0]) / 2, (first[1] + second[1]) / 2
    far = abs(whole[0] - loss) / abs(loss), _far(whole[1], gradient)
    assert far[0] < 1e-5
    assert far[1] < 1e-2, f"the head's gradients differ by {far[1]:.1e}"
    return f"{size.rows} rows of {size.classes:,} classes: loss differs by {far[0]:.1e}, the head's gradient by {far[1]:.1e}"


def _far(one: Tensor, other: Tensor) -> float:
    """Relative, by norm."""
    return float((one.double() - other.double()).norm() / other.double().norm())
