"""The sums of row losses: of hidden states and a head by the engine, of dense logits by autograd."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.objectives.base import RowObjective
from stilla.objectives.logits import Divergence, Logits
from stilla.rows.engine import RowLoss, Weighted, Work
from stilla.signals import Dense, Form, Head, Headed, Samples, TopK


def row_loss(
    terms: Weighted, student: Form, teacher: Form | None, labels: Tensor | None, progress: float, *,
    weights: Float[Tensor, " rows"] | None = None, compile: bool = False
) -> tuple[Float[Tensor, ""], Float[Tensor, " terms"]]:
    """Sum over terms and rows of coefficient · loss, and each term's own sum over the rows, detached.

    The first is differentiable and has a gradient path also without rows. Both are in at least float32: logits are brought
    to it before anything is compared; bfloat16 logits alone would put 1e-4 nats and more into a divergence. A `Headed`
    student's gradients are made at once, so a graph is not differentiable twice. Autocast has no say.

    weights: what the label of each row counts in objectives that are divided by the number of labels.

    compile: a `Headed` student's elementwise work goes through torch.compile, which takes seconds once and less time and
    memory traffic ever after; the numbers differ by rounding.

    Raises:
        CompatibilityError: rows or classes of the two sides do not agree, or an objective cannot use what the teacher
            gave; weights of a vocabulary's labels beside a teacher; to be compiled, and there is no compiler or an
            objective branches on data.
    """
    if isinstance(student, TopK | Samples):
        raise CompatibilityError(f"the student gave {type(student).__name__}, a part of its distribution; expected all of "
                                 "its logits, or hidden states and their head")
    _refuse_other_rows(terms, student, teacher)
    if not any(objective.needs_teacher for objective, _ in terms):
        teacher = None  # its product would be for nothing
    with torch.autocast(student.device.type, enabled=False):
        return _summed(terms, student, teacher, labels, weights, progress, compile)


def _summed(
    terms: Weighted, student: Dense | Headed, teacher: Form | None, labels: Tensor | None, weights: Tensor | None,
    progress: float, compile: bool
) -> tuple[Tensor, Tensor]:
    if isinstance(student, Headed):
        if weights is not None and len(weights):
            return _by_weight(terms, student, teacher, labels, weights, progress, compile)
        for objective, _ in terms:
            if any(parameter.requires_grad for parameter in objective.parameters()):
                raise CompatibilityError(f"{type(objective).__name__} has weights of its own, which cannot be trained over a "
                                         "vocabulary")
        given: tuple[Tensor | None, ...] = student.hidden, student.head.weight, student.head.bias
        if not torch.is_grad_enabled():
            given = tuple(None if one is None else one.detach() for one in given)
        loss, sums = RowLoss.apply(Work(tuple(terms), teacher, labels, progress, compile), _detached(student.head), *given)
        return loss, sums
    logits = student.logits.to(torch.promote_types(student.logits.dtype, torch.float32))
    said = teacher.dense() if isinstance(teacher, Headed) else teacher
    losses = [(objective, objective.losses(logits, said, labels, progress)) for objective, _ in terms]
    each = [(loss if weights is None or objective.count != "labelled" else weights.to(loss.dtype) * loss).sum()
            for objective, loss in losses]
    weighted = [coefficient * total for (_, coefficient), total in zip(terms, each, strict=True)]
    return torch.stack(weighted).sum(), torch.stack(each).detach()


def _by_weight(
    terms: Weighted, student: Headed, teacher: Form | None, labels: Tensor | None, weights: Tensor, progress: float,
    compile: bool
) -> tuple[Tensor, Tensor]:
    """Rows whose labels count alike in one walk each: there are few different weights."""
    if teacher is not None:
        raise CompatibilityError("labels of tokens count differently only where no teacher answers beside them; leave their "
                                 "weights out")
    found = []
    for one in weights.unique().tolist():
        rows = (weights == one).nonzero().squeeze(1)
        factors = torch.tensor([one if objective.count == "labelled" else 1.0 for objective, _ in terms])
        scaled = [(objective, coefficient * factor) for (objective, coefficient), factor in
                  zip(terms, factors.tolist(), strict=True)]
        loss, sums = _summed(scaled, Headed(student.hidden[rows], student.head), None,
                             None if labels is None else labels[rows], None, progress, compile)
        found.append((loss, sums * factors.to(sums)))
    losses, each = zip(*found, strict=True)
    return torch.stack(losses).sum(), torch.stack(each).sum(0)


def fused_divergence(
    student_hidden: Tensor,
    student_head: Head | Tensor | nn.Module,
    teacher_hidden: Tensor,
    teacher_head: Head | Tensor | nn.Module,
    divergence: Divergence = "forward_kl",
    temperature: float = 1.0,
    *,
    compile: bool = False,
) -> Float[Tensor, ""]:
    """The mean over rows of the divergence between two models' distributions, without their logits ever existing whole.

    hidden: (rows, width) each, of the positions that count; the widths may differ. head: what makes logits of them: a
    weight matrix (vocab, width), an `nn.Linear`, or a `Head` where a model scales, caps or cuts its logits. Gradients
    reach what of the student requires them, its head's weights too; none reaches the teacher. See `objectives.Logits`
    for what each divergence is, T² included. `compile`: as for `row_loss`.

    Raises:
        CompatibilityError: shapes, types or devices that do not fit each other, in words.
    """
    student = _headed("student", student_hidden, student_head)
    teacher = _headed("teacher", teacher_hidden, teacher_head)
    if student.device != teacher.device:
        raise CompatibilityError(f"the student is on {student.device}, the teacher on {teacher.device}; move one to the "
                                 "other")
    objective = Logits(divergence=divergence, temperature=None if divergence in ("mse", "hard") else temperature)
    told = Headed(teacher.hidden.detach(), teacher.head)
    loss, _ = row_loss([(objective, 1 / max(1, len(student)))], student, told, None, 0.0, compile=compile)
    return loss


def _headed(side: str, hidden: Tensor, given: Head | Tensor | nn.Module) -> Headed:
    """One side of `fused_divergence`, looked at before anything is computed."""
    if isinstance(given, nn.Linear) and type(given).forward is not nn.Linear.forward:
        problem = f"{side}_head: {type(given).__name__} has a forward of its own, so its weights are not the whole of it"
        raise CompatibilityError(f"{problem}; give the weights that it multiplies with, or a stilla.signals.Head")
    if not isinstance(given, Head | Tensor | nn.Linear):
        raise CompatibilityError(f"{side}_head: got {type(given).__name__}; expected a weight matrix (vocab, width), an "
                                 "nn.Linear or a stilla.signals.Head")
    weight = given if isinstance(given, Tensor) else given.weight
    shape, width = tuple(weight.shape), hidden.shape[-1]
    if hidden.ndim != 2:
        raise CompatibilityError(f"{side}_hidden: got shape {tuple(hidden.shape)}; expected (rows, width): choose the "
                                 "positions that count, hidden[mask], or take all of them, hidden.flatten(0, -2)")
    if len(shape) != 2 or shape[1] != width:
        hint = ": give weight.T" if len(shape) == 2 and shape[0] == width else ""
        raise CompatibilityError(f"{side}_head: got weights of shape {shape} for hidden states of width {width}; expected "
                                 f"(vocab, {width}){hint}")
    if not weight.is_floating_point() or not hidden.is_floating_point():
        raise CompatibilityError(f"{side}: got {hidden.dtype} hidden states and {weight.dtype} weights; expected "
                                 "floating-point numbers: of quantised layers, give the weights dequantised")
    if weight.device != hidden.device:
        raise CompatibilityError(f"{side}: the hidden states are on {hidden.device}, the head on {weight.device}; move one "
                                 "to the other")
    if isinstance(given, Head):
        return Headed(hidden, given)
    return Headed(hidden, Head(weight, given.bias if isinstance(given, nn.Linear) else None))


def _detached(head: Head) -> Head:
    """For the walk, which makes the gradients itself."""
    return replace(head, weight=head.weight.detach(), bias=None if head.bias is None else head.bias.detach())


def _refuse_other_rows(terms: Weighted, student: Dense | Headed, teacher: Form | None) -> None:
    if teacher is None:
        return
    if len(teacher) != len(student):
        raise CompatibilityError(f"the student has {len(student)} rows, the teacher {len(teacher)}")
    ours = _classes(student)
    if isinstance(teacher, TopK | Samples):
        beyond = int(teacher.ids.max()) if teacher.ids.numel() else 0
        if beyond >= ours:
            raise CompatibilityError(f"the teacher's classes go up to {beyond}, the student has {ours}")
    elif _classes(teacher) != ours and any(objective.needs_teacher for objective, _ in terms):
        raise CompatibilityError(f"the student has {ours} classes, the teacher {_classes(teacher)}; give both the same ones")
    reaching = Dense if isinstance(teacher, Headed) else type(teacher)
    for objective, _ in terms:
        _refuse_form(objective, reaching)


def _refuse_form(objective: RowObjective, form: type) -> None:
    if objective.needs_teacher and form not in objective.accepts:
        takes = ", ".join(one.__name__ for one in objective.accepts)
        otherwise = f", or {objective.instead}" if objective.instead else ""
        raise CompatibilityError(f"{objective.described} cannot be computed from a teacher's {form.__name__}; it takes "
                                 f"{takes}. Use another form of teacher (a live one gives all){otherwise}")


def _classes(form: Dense | Headed) -> int:
    return form.head.classes if isinstance(form, Headed) else form.logits.shape[-1]
