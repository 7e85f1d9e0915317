"""What the objectives over pictures and texts share: the table of a step's vectors, and losses of their products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.signals import Pairs, Signals

_NAMES = ("image", "text")
_BEFORE = 9
"""Numbers of an entry before its vectors: see `entries`."""


def unpaired(*, pairs: bool) -> list[str]:
    """Why there is nothing to compare, in words."""
    if pairs:
        return []
    return ["compares pictures with the texts of the same step, and these examples are no pictures with texts. Leave it out "
            "(`embedding` needs no pairs)"]


def entries(
    name: str, student: Signals, teacher: Signals | None, vectors: Float[Tensor, "entries width"] | None = None
) -> Float[Tensor, "entries numbers"]:
    """An entry for each vector of a batch, pictures first: whether it is a text, its number, the picture that it was written
    for; the student's scale, bias and whether it has one, the teacher's; its vector by the student, and by the teacher.

    vectors: in place of the student's own. In float64: numbers of examples are whole."""
    pairs = student.pairs
    if pairs is None:
        raise CompatibilityError(f"`{name}` compares pictures with texts, and this task does not say which belong together")
    pictures, texts = len(pairs.pictures), len(pairs.texts)
    kind = torch.cat([pairs.pictures.new_zeros(pictures), pairs.texts.new_ones(texts)]).double()
    numbers = torch.cat([pairs.pictures, pairs.texts]).double()
    written = torch.cat([pairs.pictures.new_full((pictures,), -1), pairs.written_for]).double()
    both = [*_scale_and_bias(pairs), *_scale_and_bias(None if teacher is None else teacher.pairs)]
    before = torch.stack([kind, numbers, written, *(one.to(kind).reshape(()).expand(len(kind)) for one in both)], 1)
    found = [before, (joined(student) if vectors is None else vectors).double()]
    return torch.cat(found if teacher is None else [*found, joined(teacher).detach().to(before)], 1)


def joined(said: Signals) -> Float[Tensor, "entries width"]:
    """A batch's vectors, of pictures and then of texts."""
    return torch.cat([said.embeddings[name] for name in _NAMES if name in said.embeddings])


def _scale_and_bias(pairs: Pairs | None) -> tuple[Tensor, Tensor, Tensor]:
    none = torch.zeros(())
    if pairs is None:
        return none, none, none
    return pairs.scale, none if pairs.bias is None else pairs.bias, none + float(pairs.bias is not None)


@dataclass(frozen=True)
class Side:
    """One model's vectors of a step, of length 1, and how it compares them."""

    pictures: Float[Tensor, "pictures width"]
    texts: Float[Tensor, "texts width"]
    scale: Float[Tensor, ""]
    bias: Float[Tensor, ""] | None


@dataclass(frozen=True)
class Table:
    """All entries of a step. `right`: which texts belong to which picture: those written for it, and all equal ones."""

    student: Side
    teacher: Side
    right: Bool[Tensor, "pictures texts"]


def table(entries: Float[Tensor, "entries numbers"], width: int) -> Table:
    """`width`: of the student's vectors; what follows are the teacher's."""
    are_texts = entries[:, 0].detach() > 0.5
    pictures, texts = (entries[rows].to(torch.float32) for rows in (~are_texts, are_texts))
    means = entries[:, 3:_BEFORE].mean(0).to(torch.float32)
    ours, theirs = (
        Side(F.normalize(pictures[:, span], dim=-1), F.normalize(texts[:, span], dim=-1), scale,
             bias if there > 0.5 else None)
        for span, (scale, bias, there) in ((slice(_BEFORE, _BEFORE + width), means[:3]),
                                           (slice(_BEFORE + width, None), means[3:])))
    numbers = entries[:, 1:3].detach().round().long()
    return Table(ours, theirs, _right(numbers[~are_texts, 0], numbers[are_texts, 0], numbers[are_texts, 1]))


def _right(
    pictures: Int[Tensor, " pictures"], texts: Int[Tensor, " texts"], written_for: Int[Tensor, " texts"]
) -> Bool[Tensor, "pictures texts"]:
    _, which = torch.unique(texts, return_inverse=True)
    known = torch.zeros(len(pictures), int(which.max()) + 1 if len(which) else 0, dtype=torch.bool, device=texts.device)
    places, whose = (pictures[:, None] == written_for[None, :]).nonzero(as_tuple=True)
    known[places, which[whose]] = True
    return known[:, which]


def products(
    pictures: Float[Tensor, "pictures width"], texts: Float[Tensor, "texts width"], like: Side
) -> Float[Tensor, "pictures texts"]:
    """scale · cos + bias."""
    made = like.scale * (pictures @ texts.T)
    return made if like.bias is None else made + like.bias


def infonce(logits: Float[Tensor, "pictures texts"], right: Bool[Tensor, "pictures texts"]) -> Float[Tensor, ""]:
    """½ of the mean over pictures of - mean_{t right} log softmax_t, and of the same over texts; among those of which
    something is known to be right."""
    some_pictures, some_texts = right.any(1), right.any(0)
    logits, right = (one[some_pictures][:, some_texts] for one in (logits, right))
    if not logits.numel():
        return logits.sum()
    target = right.to(logits.dtype)
    return 0.5 * (_cross_entropy(logits, target) + _cross_entropy(logits.T, target.T))


def _cross_entropy(logits: Float[Tensor, "rows classes"], right: Float[Tensor, "rows classes"]) -> Float[Tensor, ""]:
    mean = (right * logits).sum(1) / right.sum(1)  # Σ of the targets is 1, so that log Z stands alone
    return (torch.logsumexp(logits, 1) - mean).mean()


def sigmoid(logits: Float[Tensor, "pictures texts"], right: Bool[Tensor, "pictures texts"]) -> Float[Tensor, ""]:
    """- 1/n Σ log σ(± logits), + where the text belongs to the picture, over the n texts; among those of which something is
    known to be right (Zhai et al. 2023, arXiv:2303.15343)."""
    some_pictures, some_texts = right.any(1), right.any(0)
    logits, right = (one[some_pictures][:, some_texts] for one in (logits, right))
    signs = torch.where(right, 1.0, -1.0)
    return -F.logsigmoid(signs * logits).sum() / max(1, logits.shape[1])
