"""Divergences between two distributions over classes, and their gradients by hand.

p is the teacher's, q the student's. A slope is u = ∂D/∂(log q); with q = softmax(z), dD/dz = u − q Σ u.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stilla.objectives._analytic import NO_LABEL, Gradient, Softened
from stilla.signals import Samples, TopK


def forward_kl(log_p: Float[Tensor, "rows classes"], log_q: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """KL(p || q) in nats; classes that p excludes contribute nothing."""
    return _times(log_p.exp(), log_p - log_q).sum(-1)


def reverse_kl(log_p: Float[Tensor, "rows classes"], log_q: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """KL(q || p) in nats."""
    return forward_kl(log_q, log_p)


def jsd(log_p: Float[Tensor, "rows classes"], log_q: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """Jensen-Shannon divergence in nats."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (forward_kl(log_p, log_m) + forward_kl(log_q, log_m)) / 2


def tvd(log_p: Float[Tensor, "rows classes"], log_q: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """Total variation distance, at most 1."""
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def mixed(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """log(share · a + (1 − share) · b)."""
    return torch.logaddexp(log_a + math.log(share), log_b + math.log1p(-share))


def _times(probability: Tensor, log_ratio: Tensor) -> Tensor:
    # 0 · log 0 = 0, also in the gradient: a class at -inf on both sides would give nan otherwise
    return torch.where(probability > 0, probability * torch.where(probability > 0, log_ratio, 0), 0)


@dataclass(frozen=True)
class Measure:
    """A divergence, its slope with respect to log q, and its order in the difference of the logits."""

    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    order: int = 2

    def at(self, temperature: float) -> Measure:
        """Of logits that were divided by the temperature: times T^order, its slope with respect to what they were."""
        if temperature == 1:
            return self
        larger, steeper = temperature**self.order, temperature ** (self.order - 1)
        return Measure(lambda log_p, log_q: larger * self.value(log_p, log_q),
                       lambda log_p, log_q: self.slope(log_p, log_q).mul_(steeper), self.order)


def _skew_kl(skew: float) -> Measure:
    def slope(log_p: Tensor, log_q: Tensor) -> Tensor:
        # -(1 - skew) p q / m
        return (log_p + log_q - mixed(log_p, log_q, skew)).nan_to_num_(nan=-math.inf).exp_().mul_(skew - 1)

    return Measure(lambda log_p, log_q: forward_kl(log_p, mixed(log_p, log_q, skew)), slope)


def _skew_reverse_kl(skew: float) -> Measure:
    def slope(log_p: Tensor, log_q: Tensor) -> Tensor:
        # q (log(q / m) + 1 - skew q / m)
        log_ratio = log_q - mixed(log_q, log_p, skew)
        return _times(log_q.exp(), log_ratio + 1 - skew * log_ratio.exp())

    return Measure(lambda log_p, log_q: forward_kl(log_q, mixed(log_q, log_p, skew)), slope)


def _jsd_slope(log_p: Tensor, log_q: Tensor) -> Tensor:
    return _times(log_q.exp(), (log_q - torch.logaddexp(log_p, log_q) + math.log(2)) / 2)


def _tvd_slope(log_p: Tensor, log_q: Tensor) -> Tensor:
    q = log_q.exp()
    return q * (q - log_p.exp()).sign() / 2


def measure(name: str, skew: float) -> Measure:
    """By its name in a recipe; `skew` matters to two of them."""
    if name == "skew_kl":
        return _skew_kl(skew)
    return _skew_reverse_kl(skew) if name == "skew_reverse_kl" else _MEASURES[name]


_MEASURES = {
    "forward_kl": Measure(forward_kl, lambda log_p, log_q: -log_p.exp()),
    "reverse_kl": Measure(reverse_kl, lambda log_p, log_q: _times(log_q.exp(), log_q - log_p + 1)),
    "jsd": Measure(jsd, _jsd_slope),
    "tvd": Measure(tvd, _tvd_slope, order=1),
}


# --- all classes ---


def dense(
    how: Measure, teacher: Softened, student: Softened, temperature: float
) -> tuple[Float[Tensor, " rows"], Gradient]:
    """The divergence, and its gradient with respect to the student's logits. `how`: at the temperature."""
    log_p, log_q = (torch.log_softmax(one.logits / temperature, -1) for one in (teacher, student))
    slope = how.slope(log_p, log_q)
    whole = slope.sum(-1, keepdim=True)
    return how.value(log_p, log_q), Gradient(((slope, 1.0), (log_q.exp_(), -whole)))


def dense_forward_kl(
    teacher: Softened, student: Softened, temperature: float
) -> tuple[Float[Tensor, " rows"], Gradient]:
    """The same for forward KL in two exponentials per class rather than four: Σ p (z_p − z_q) / T − (log Z_p − log Z_q)."""
    (theirs, log_z_p), (ours, log_z_q) = teacher.softmax(temperature), student.softmax(temperature)
    gap = expectation(theirs, teacher.logits - student.logits) / temperature
    losses = gap - (log_z_p - log_z_q).squeeze(-1)
    return temperature**2 * losses, Gradient(((ours, temperature), (theirs, -temperature)))


def expectation(
    probability: Float[Tensor, "rows classes"], log_ratio: Float[Tensor, "rows classes"]
) -> Float[Tensor, " rows"]:
    """Σ probability · log_ratio; classes of no probability contribute nothing, whatever their ratio."""
    if not torch.compiler.is_compiling():  # there, choosing is free; here, it would be passes over memory
        mean: Tensor = torch.linalg.vecdot(probability, log_ratio)
        if bool(torch.isfinite(mean).all()):
            return mean
    return _times(probability, log_ratio).sum(-1)


# --- some classes, as if there were no others ---


@dataclass(frozen=True)
class Union:
    """Classes of every row, each once. there: not where a place repeats a class that stands before it."""

    ids: Int[Tensor, "rows k"]
    there: Bool[Tensor, "rows k"]

    def of(self, logits: Float[Tensor, "rows classes"]) -> Float[Tensor, "rows k"]:
        """Theirs; -inf at places that hold nothing."""
        return torch.where(self.there, logits.gather(-1, self.ids), -torch.inf)


def union(
    teacher: Float[Tensor, "rows classes"], student: Float[Tensor, "rows classes"], labels: Int[Tensor, " rows"] | None,
    k: int,
) -> Union:
    """The k likeliest classes of either, and the labelled one where there is one."""
    most = min(k, student.shape[-1])
    best = [logits.detach().topk(most, -1).indices for logits in (teacher, student)]
    if labels is not None:
        best.append(torch.where(labels == NO_LABEL, best[0][:, 0], labels).unsqueeze(-1))
    ids = torch.cat(best, -1).sort(-1).values
    return Union(ids, torch.cat([torch.ones_like(ids[:, :1], dtype=torch.bool), ids[:, 1:] != ids[:, :-1]], -1))


def among(
    how: Measure, classes: Union, teacher: Float[Tensor, "rows classes"], student: Float[Tensor, "rows classes"],
    temperature: float,
) -> tuple[Float[Tensor, " rows"], Gradient]:
    """The divergence of the distributions given that it is one of these classes; no other has a gradient."""
    log_p, log_q = (torch.log_softmax(classes.of(one) / temperature, -1) for one in (teacher, student))
    slope = torch.where(classes.there, how.slope(log_p, log_q), 0)
    values = slope - log_q.exp() * slope.sum(-1, keepdim=True)
    return how.value(log_p, log_q), Gradient(((student, 0.0),), classes.ids, values)


# --- some classes and the mass of the others ---


def coarse(
    how: Measure, teacher: TopK, q: Float[Tensor, "rows classes"]
) -> Float[Tensor, " rows"]:
    """The divergence over the teacher's classes and one more, of all others together: at most that over all classes."""
    log_q = torch.log_softmax(q, -1)
    inside = log_q.gather(-1, teacher.ids)
    if teacher.there is None and teacher.ids.shape[-1] == q.shape[-1]:
        return how.value(teacher.log_probs.to(q.dtype), inside)
    others = log_q.scatter(-1, teacher.ids, -torch.inf)
    none = (others == -torch.inf).all(-1, keepdim=True)
    outside = torch.where(none, -torch.inf, torch.where(none, log_q, others).logsumexp(-1, keepdim=True))
    losses = how.value(_with_tail(teacher, q.dtype), torch.cat([_there(teacher, inside, -torch.inf), outside], -1))
    return losses if teacher.there is None else torch.where(teacher.there.any(-1), losses, 0)


def coarse_with_gradient(
    how: Measure, teacher: TopK, student: Softened, temperature: float
) -> tuple[Float[Tensor, " rows"], Gradient]:
    """`coarse` and its gradient with respect to the student's logits, in one exponential per class."""
    ours, log_z = student.softmax(temperature)
    k, tiny = teacher.ids.shape[-1], torch.finfo(ours.dtype).tiny
    inside = ours.gather(-1, teacher.ids)
    # the logarithm of a small probability has more digits in the logits, that of one near 1 in the probability
    log_inside = torch.where(inside > 0.5, inside.log(), student.logits.gather(-1, teacher.ids) / temperature - log_z)
    log_inside = _there(teacher, log_inside, -torch.inf)
    if teacher.there is None and k == ours.shape[-1]:
        log_p, log_q = teacher.log_probs.to(ours.dtype), log_inside
        slope = how.slope(log_p, log_q)
        whole = slope.sum(-1, keepdim=True)
        return how.value(log_p, log_q), Gradient(((ours, -whole),), teacher.ids, slope)
    log_p, outside = _with_tail(teacher, ours.dtype), _mass_outside(ours, teacher.ids, inside)
    if not torch.compiler.is_compiling() and bool((outside < tiny).any()):
        return _coarse_far_outside(how, teacher, student, temperature, ours, log_inside)
    log_q = torch.cat([log_inside, outside.clamp_min(tiny).log()], -1)
    losses, slope = _of_rows_with_any(teacher, how.value(log_p, log_q), how.slope(log_p, log_q))
    whole = slope.sum(-1, keepdim=True)
    # the others share their slope: u_tail q_j / Q_tail - q_j Σ u
    others = slope[:, k:] / outside.clamp_min(tiny) - whole
    values = slope[:, :k] - inside * whole
    if teacher.there is not None:  # what a place that is not there repeats: both are written, in any order
        values = torch.where(teacher.there, values, values.gather(-1, teacher.there.int().argmax(-1, keepdim=True)))
    return losses, Gradient(((ours, others),), teacher.ids, values, instead=True)


def _coarse_far_outside(
    how: Measure, teacher: TopK, student: Softened, temperature: float, ours: Tensor, log_inside: Tensor
) -> tuple[Float[Tensor, " rows"], Gradient]:
    """The same where the student's mass outside is less than a number can be: by its logarithm, in two exponentials."""
    k = teacher.ids.shape[-1]
    others = (student.logits / temperature).scatter_(-1, teacher.ids, -torch.inf)
    log_outside = others.logsumexp(-1, keepdim=True)
    log_q = torch.cat([log_inside, log_outside - student.softmax(temperature)[1]], -1)
    log_p = _with_tail(teacher, ours.dtype)
    losses, slope = _of_rows_with_any(teacher, how.value(log_p, log_q), how.slope(log_p, log_q))
    whole = slope.sum(-1, keepdim=True)
    within = others.sub_(torch.where(torch.isfinite(log_outside), log_outside, 0)).exp_()
    return losses, Gradient(((ours, -whole), (within, slope[:, k:])), teacher.ids, slope[:, :k])


def _there(teacher: TopK, values: Tensor, otherwise: float) -> Tensor:
    """Without what stands at places that hold nothing: the likeliest classes that a student does not have."""
    return values if teacher.there is None else torch.where(teacher.there, values, otherwise)


def _of_rows_with_any(teacher: TopK, losses: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Nothing of rows of which no class is left: that something else is likely says nothing of any."""
    if teacher.there is None:
        return losses, slope
    some = teacher.there.any(-1)
    return torch.where(some, losses, 0), torch.where(some[:, None], slope, 0)


def _mass_outside(probabilities: Tensor, ids: Tensor, inside: Tensor) -> Float[Tensor, "rows 1"]:
    """Summed and never subtracted: 1 - Q has no digits where Q is near 1."""
    mass = probabilities.scatter_(-1, ids, 0).sum(-1, keepdim=True)
    probabilities.scatter_(-1, ids, inside)  # put back: a copy would be a pass more
    return mass


def _with_tail(teacher: TopK, precision: torch.dtype) -> Float[Tensor, "rows more"]:
    return torch.cat([teacher.log_probs, teacher.log_tail.unsqueeze(-1)], -1).to(precision)


# --- drawn classes ---


def drawn(teacher: Samples, q: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """An unbiased estimate of forward KL: cross-entropy with the drawn frequencies, less the teacher's entropy."""
    shares = _shares(teacher, q.dtype)
    losses = -(shares * torch.log_softmax(q, -1).gather(-1, teacher.ids)).sum(-1) - teacher.entropy.to(q.dtype)
    return _any_drawn(teacher).squeeze(-1) * losses


def drawn_with_gradient(teacher: Samples, student: Softened) -> tuple[Float[Tensor, " rows"], Gradient]:
    logits, (ours, log_z) = student.logits, student.softmax()
    shares = _shares(teacher, logits.dtype)
    log_q = logits.gather(-1, teacher.ids) - log_z
    some = _any_drawn(teacher)
    # places that fill a row up add nothing, wherever they point
    return some.squeeze(-1) * (-(shares * log_q).sum(-1) - teacher.entropy.to(logits.dtype)), Gradient(
        ((ours, some.to(logits.dtype)),), teacher.ids, -shares)


def _any_drawn(teacher: Samples) -> Float[Tensor, "rows 1"]:
    """1, or 0 where none of the drawn classes is the student's: such a row says nothing."""
    return (teacher.counts.sum(-1, keepdim=True) > 0).float()


def _shares(teacher: Samples, precision: torch.dtype) -> Float[Tensor, "rows u"]:
    counts = teacher.counts.to(precision)
    return counts / counts.sum(-1, keepdim=True).clamp_min(1)
