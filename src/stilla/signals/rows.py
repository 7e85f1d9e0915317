"""The forms that a distribution over classes comes in, row by row: all logits, a head, the likeliest, draws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError


@dataclass(frozen=True)
class Dense:
    """All logits of every row: the form for classifiers."""

    logits: Float[Tensor, "rows classes"]

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def rows(self, start: int, end: int) -> Dense:
        return Dense(self.logits[start:end])


@dataclass(frozen=True)
class Head:
    """How a family makes logits of a hidden state: z = cap(scale · h Wᵀ + bias), cap(y) = softcap · tanh(y / softcap).

    The product is made in the hidden state's precision. `bias` already holds all that the family adds. `used`: only
    the first so many classes exist (a padded vocabulary); None: all.
    """

    weight: Float[Tensor, "vocab width"]
    bias: Float[Tensor, " vocab"] | None = None
    scale: float = 1.0
    softcap: float | None = None
    used: int | None = None

    @property
    def classes(self) -> int:
        return len(self.weight) if self.used is None else self.used

    def first(self, classes: int) -> Head:
        """The same head for its first classes only.

        Raises:
            CompatibilityError: it does not have so many.
        """
        if not 0 < classes <= self.classes:
            raise CompatibilityError(f"the head has {self.classes} classes, its first {classes} cannot be taken")
        return replace(self, used=classes)

    def logits(self, hidden: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows classes"]:
        """All of them, differentiable, in at least float32. For few rows: the engine never builds so many at once."""
        product = hidden @ self.weight[: self.classes].to(hidden.dtype).T
        product = product.to(torch.promote_types(product.dtype, torch.float32))
        if self.scale != 1:
            product = product * self.scale
        if self.bias is not None:
            product = product + self.bias[: self.classes]
        return product if self.softcap is None else self.softcap * torch.tanh(product / self.softcap)


@dataclass(frozen=True)
class Headed:
    """Hidden states and the head that makes logits of them: the form for vocabularies, whose logits fit no memory.

    hidden: as the head got it, in the precision of its product. A task gets it over (batch, positions) and gives it
    back over rows.
    """

    hidden: Float[Tensor, "*rows width"]
    head: Head

    def __len__(self) -> int:
        return len(self.hidden)

    @property
    def device(self) -> torch.device:
        return self.hidden.device

    def rows(self, start: int, end: int) -> Headed:
        return Headed(self.hidden[start:end], self.head)

    def held(self) -> Headed:
        """With a copy of the head's weights, which last where the head's own do not."""
        bias = self.head.bias
        return Headed(self.hidden, replace(self.head, weight=self.head.weight.clone(),
                                           bias=None if bias is None else bias.clone()))

    def first(self, classes: int) -> Headed:
        """Over the first classes of the vocabulary only."""
        return Headed(self.hidden, self.head.first(classes))

    def dense(self) -> Dense:
        return Dense(self.head.logits(self.hidden))


@dataclass(frozen=True)
class TopK:
    """A distribution's k likeliest classes and the mass of all others, both at one temperature.

    ids: sorted, without repetition. log_tail: log of the mass outside, stored and never derived (1 - P has no digits
    where P is near 1); -inf where k is all classes. there: None, or which places hold anything: the others repeat the first
    class that is there, with log_probs of -inf (a student has fewer classes, `rows/among.py`).
    """

    ids: Int[Tensor, "rows k"]
    log_probs: Float[Tensor, "rows k"]
    log_tail: Float[Tensor, " rows"]
    temperature: float = 1.0
    there: Bool[Tensor, "rows k"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        return self.ids.device

    def rows(self, start: int, end: int) -> TopK:
        there = None if self.there is None else self.there[start:end]
        return TopK(self.ids[start:end], self.log_probs[start:end], self.log_tail[start:end], self.temperature, there)


@dataclass(frozen=True)
class Samples:
    """Classes drawn from a distribution at temperature 1, how often (0: padding), and the distribution's entropy in nats.

    counts / sum of counts is an unbiased estimate of the distribution: of forward KL's gradient, of nothing else's.
    """

    ids: Int[Tensor, "rows u"]
    counts: Float[Tensor, "rows u"]
    entropy: Float[Tensor, " rows"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        return self.ids.device

    def rows(self, start: int, end: int) -> Samples:
        return Samples(self.ids[start:end], self.counts[start:end], self.entropy[start:end])


Form = Dense | Headed | TopK | Samples
"""The forms that a distribution over classes comes in. Each has `len()`, its rows, and `rows(start, end)`, some of them."""




@dataclass(frozen=True)
class Heads:
    """Two answers of a student with a head to learn labels and one to learn from the teacher; it says their mean."""

    labels: Dense
    teacher: Dense
