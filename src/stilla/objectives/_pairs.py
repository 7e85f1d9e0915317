"""What the objectives over pictures and texts, or queries and what answers them, share: the table of a step's vectors, and
losses of their products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.signals import NOBODYS, UNSAID, Pairs, Signals

_BEFORE = 12
"""Numbers of an entry before the answers of its query, and its vectors: see `entries`."""
_LEAST = -1e30
"""A logit of what is no candidate; finite, as 0 times it has to be 0."""


def unpaired(*, pairs: bool) -> list[str]:
    """Why there is nothing to compare, in words."""
    if pairs:
        return []
    return ["compares pictures with the texts of the same step, or queries with what answers them, and these examples are "
            "neither. Leave it out (`embedding` needs no pairs)"]


def entries(
    name: str, student: Signals, teacher: Signals | None, vectors: Float[Tensor, "entries width"] | None = None
) -> Float[Tensor, "entries numbers"]:
    """An entry for each vector of a batch, pictures (or queries) first: on which side it stands, its number, what it belongs
    to; whether both sides are texts, and are compared by the cosine; the student's scale, bias and whether it has one, the
    teacher's; how many answers a query has at most, and their numbers; its vector by the student, and by the teacher.

    vectors: in place of the student's own. In float64: numbers of examples are whole."""
    pairs = student.pairs
    if pairs is None:
        raise CompatibilityError(f"`{name}` compares pictures with texts, or queries with what answers them, and this task "
                                 "does not say which belong together")
    first, second = len(pairs.first), len(pairs.second)
    side = torch.cat([pairs.first.new_zeros(first), pairs.second.new_ones(second)]).double()
    numbers = torch.cat([pairs.first, pairs.second]).double()
    belongs_to = torch.cat([pairs.first.new_full((first,), UNSAID), pairs.belongs_to]).double()
    answers = pairs.first.new_zeros((first, 0)) if pairs.answers is None else pairs.answers
    most = answers.shape[1]
    both = [*(torch.tensor(float(one)) for one in (pairs.alike, pairs.angle)),
            *_scale_and_bias(pairs), *_scale_and_bias(None if teacher is None else teacher.pairs), torch.tensor(float(most))]
    before = torch.stack([side, numbers, belongs_to, *(one.to(side).reshape(()).expand(len(side)) for one in both)], 1)
    of_queries = torch.cat([answers, answers.new_full((second, most), UNSAID)]).double()
    found = [before, of_queries, (joined(student) if vectors is None else vectors).double()]
    return torch.cat(found if teacher is None else [*found, joined(teacher).detach().to(before)], 1)


def joined(said: Signals) -> Float[Tensor, "entries width"]:
    """A batch's vectors, of pictures (or queries) and then of texts."""
    return torch.cat([*said.embeddings.values()])


def _scale_and_bias(pairs: Pairs | None) -> tuple[Tensor, Tensor, Tensor]:
    none = torch.zeros(())
    if pairs is None:
        return none, none, none
    return pairs.scale, none if pairs.bias is None else pairs.bias, none + float(pairs.bias is not None)


@dataclass(frozen=True)
class Side:
    """One model's vectors of a step, and how it compares them. Of length 1, where by the cosine."""

    first: Float[Tensor, "first width"]
    second: Float[Tensor, "second width"]
    scale: Float[Tensor, ""]
    bias: Float[Tensor, ""] | None


@dataclass(frozen=True)
class Table:
    """All entries of a step. `right`: which texts belong to which picture or query: those that are said to, and all equal
    ones. `own`: where both are one text. `said`: of which texts it is known what they belong to, if anything.
    `alike`: whether both sides are texts."""

    student: Side
    teacher: Side
    right: Bool[Tensor, "first second"]
    own: Bool[Tensor, "first second"]
    said: Bool[Tensor, " second"]
    alike: bool


def table(entries: Float[Tensor, "entries numbers"], width: int) -> Table:
    """`width`: of the student's vectors; what follows are the teacher's."""
    are_texts = entries[:, 0].detach() > 0.5
    first, second = (entries[rows].to(torch.float32) for rows in (~are_texts, are_texts))
    means = entries[:, 3:_BEFORE].mean(0).to(torch.float32)
    alike, angle = (bool(one > 0.5) for one in means[:2].detach())
    start = _BEFORE + (int(means[-1].detach().round()) if len(entries) else 0)
    ours, theirs = (
        Side(_compared(first[:, span], angle=angle), _compared(second[:, span], angle=angle), scale,
             bias if there > 0.5 else None)
        for span, (scale, bias, there) in ((slice(start, start + width), means[2:5]),
                                           (slice(start + width, None), means[5:8])))
    numbers = entries[:, 1:3].detach().round().long()
    (asking, _), (texts, belongs_to) = numbers[~are_texts].T, numbers[are_texts].T
    answers = entries[~are_texts, _BEFORE:start].detach().round().long()
    right = _right(asking, texts, belongs_to, answers)
    same = asking[:, None] == texts[None, :]
    own = same & ~right if alike else torch.zeros_like(same)
    return Table(ours, theirs, right, own, right.any(0) | (belongs_to == NOBODYS), alike)


def _compared(vectors: Float[Tensor, "rows width"], *, angle: bool) -> Float[Tensor, "rows width"]:
    return F.normalize(vectors, dim=-1) if angle else vectors


def _right(
    first: Int[Tensor, " first"], second: Int[Tensor, " second"], belongs_to: Int[Tensor, " second"],
    answers: Int[Tensor, "first most"],
) -> Bool[Tensor, "first second"]:
    texts, which = torch.unique(second, return_inverse=True)
    known = torch.zeros(len(first), len(texts), dtype=torch.bool, device=second.device)
    places, whose = (first[:, None] == belongs_to[None, :]).nonzero(as_tuple=True)
    known[places, which[whose]] = True
    if len(texts):
        found = torch.searchsorted(texts, answers).clamp_max(len(texts) - 1)  # not every answer stands in the step
        rows, nth = (texts[found] == answers).nonzero(as_tuple=True)
        known[rows, found[rows, nth]] = True
    return known[:, which]


def products(
    first: Float[Tensor, "first width"], second: Float[Tensor, "second width"], like: Side
) -> Float[Tensor, "first second"]:
    """scale · cos + bias."""
    made = like.scale * (first @ second.T)
    return made if like.bias is None else made + like.bias


def infonce(logits: Float[Tensor, "first second"], made: Table, *, both: bool = True) -> Float[Tensor, ""]:
    """The mean over pictures (or queries) of - mean_{t right} log softmax_t; with `both`, half of it and half of that over
    texts. Among those of which something is known to be right; texts that belong to none are told apart, and tell
    nothing apart. A text is no candidate for itself."""
    asking, answers = made.right.any(1), made.right.any(0)
    logits = apart(logits, made)[asking]
    if not logits[:, answers].numel():
        return logits[:, answers].sum()
    there = _cross_entropy(logits[:, made.said], made.right[asking][:, made.said])
    if not both:
        return there
    return 0.5 * (there + _cross_entropy(logits[:, answers].T, made.right[asking][:, answers].T))


def apart(logits: Float[Tensor, "first second"], made: Table) -> Float[Tensor, "first second"]:
    """With no text as a candidate for itself."""
    return logits.masked_fill(made.own, _LEAST)


def _cross_entropy(logits: Float[Tensor, "rows classes"], right: Bool[Tensor, "rows classes"]) -> Float[Tensor, ""]:
    target = right.to(logits.dtype)
    mean = (target * logits).sum(1) / target.sum(1)  # Σ of the targets is 1, so that log Z stands alone
    return (torch.logsumexp(logits, 1) - mean).mean()


def sigmoid(logits: Float[Tensor, "first second"], made: Table) -> Float[Tensor, ""]:
    """- 1/n Σ log σ(± logits), + where the text belongs there, over the n texts; among those of which something is known, and
    of none with itself (Zhai et al. 2023, arXiv:2303.15343)."""
    asking = made.right.any(1)
    logits, right, own = (one[asking][:, made.said] for one in (logits, made.right, made.own))
    signs = torch.where(right, 1.0, -1.0)
    return -F.logsigmoid(signs * logits).masked_fill(own, 0.0).sum() / max(1, logits.shape[1])
