"""What gradients by hand are made of: softmaxes that the terms of a loss share, and gradients in parts.

On a CPU a loss over a vocabulary is a number of passes over blocks of logits, the exponentials the dearest of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

NO_LABEL = -100


class Softened:
    """A block of logits, and its softmax at every temperature that is asked for, made once for all who ask."""

    def __init__(self, logits: Float[Tensor, "rows classes"]) -> None:
        self.logits = logits
        self._largest: Tensor | None = None
        self._made: list[tuple[float, Tensor, Tensor]] = []

    def softmax(self, temperature: float = 1.0) -> tuple[Float[Tensor, "rows classes"], Float[Tensor, "rows 1"]]:
        """softmax(logits / T), which nobody may change, and log Σ exp(logits / T).

        Whoever needs temperatures T and 2 T should ask for 2 T first: the squares of its exponentials are those of T.
        """
        for known, probabilities, log_z in self._made:
            if known == temperature:
                return probabilities, log_z
        for known, probabilities, log_z in self._made:
            if known == 2 * temperature:
                found = _squared(probabilities, log_z)
                break
        else:
            found = self._exponentials(temperature)
        self._made.append((temperature, *found))
        return found

    def _exponentials(self, temperature: float) -> tuple[Tensor, Tensor]:
        if self._largest is None:
            self._largest = self.logits.amax(-1, keepdim=True)
        largest = _over(self._largest, temperature)
        if torch.compiler.is_compiling():  # whose passes fuse with those of the caller
            masses = torch.exp(_over(self.logits, temperature) - largest)
            total = masses.sum(-1, keepdim=True)
            return masses / total, largest + total.log()
        # one kernel that keeps a row in the cache; at the largest class, 1 / total is what it gave
        probabilities = torch.softmax(_over(self.logits, temperature), -1)
        return probabilities, largest - probabilities.amax(-1, keepdim=True).log_()


def cross_entropy(
    student: Softened, labels: Int[Tensor, " rows"], smoothing: float = 0.0
) -> tuple[Float[Tensor, " rows"], Gradient]:
    """-Σ_c t_c log softmax(student)_c, t = (1 - s) onehot + s / classes, of every row, and its gradient; zero where the label
    is -100."""
    logits = student.logits
    known = (labels != NO_LABEL).unsqueeze(-1)
    chosen, counted = torch.where(known, labels.unsqueeze(-1), 0), known.to(logits.dtype)
    probabilities, log_z = student.softmax()
    losses = log_z - (1 - smoothing) * logits.gather(-1, chosen)
    parts: tuple[tuple[Tensor, Tensor], ...] = ((probabilities, counted),)
    if smoothing:
        losses -= smoothing * logits.mean(-1, keepdim=True)
        parts = (*parts, (logits.new_ones(1, 1), counted * (-smoothing / logits.shape[-1])))
    gradient = Gradient(parts, chosen, counted * (smoothing - 1))
    return torch.where(known, losses, 0).squeeze(-1), gradient


def _squared(probabilities: Tensor, log_z: Tensor) -> tuple[Tensor, Tensor]:
    masses = probabilities.square()
    total = masses.sum(-1, keepdim=True)
    return masses.div_(total), 2 * log_z + total.log()


def _over(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits * (1 / temperature)  # half the time of a division


@dataclass(frozen=True)
class Gradient:
    """Of a block of losses with respect to the logits, in parts, so that several terms can be summed without a detour.

    parts: tensors, which may be shared and are not changed, each with its factor, a number or (rows, 1); the logits
    themselves may be one, a view of them not, as the sum takes their place. ids, values: added at these classes of each
    row, or, where `instead`, what the gradient is there, whatever the parts say.
    """

    parts: tuple[tuple[Tensor, float | Tensor], ...]
    ids: Int[Tensor, "rows k"] | None = None
    values: Float[Tensor, "rows k"] | None = None
    instead: bool = False

    def times(self, factor: float) -> Gradient:
        if factor == 1:
            return self
        values = None if self.values is None else self.values * factor
        return Gradient(tuple((part, own * factor) for part, own in self.parts), self.ids, values, self.instead)

    def added(
        self, total: Float[Tensor, "rows classes"] | None, coefficient: Tensor, out: Tensor | None = None
    ) -> Float[Tensor, "rows classes"]:
        """total + coefficient · gradient, in `total`'s place. Without a total: in the place of `out`, or a new one."""
        # read before, not subtracted after: a part may be many times what is to stand there
        before = total.gather(-1, self.ids) if self.instead and total is not None and self.ids is not None else None
        for part, factor in self.parts:
            if total is None:
                total = torch.mul(part, coefficient * factor, out=out)
            else:
                total.addcmul_(part, coefficient * factor)
        assert total is not None
        if self.ids is not None and self.values is not None:
            values = coefficient * self.values
            if self.instead:
                total.scatter_(-1, self.ids, values if before is None else values + before)
            else:
                total.scatter_add_(-1, self.ids, values)
        return total

    def dense(self) -> Float[Tensor, "rows classes"]:
        """As one tensor."""
        part, _ = self.parts[0]
        return self.added(None, part.new_ones(()))


SPREAD = 1e-8
"""Added to a row's variance, so that equal logits have a gradient: nothing beside logits that differ by a hundredth."""


def standardised(logits: Float[Tensor, "rows classes"]) -> tuple[Float[Tensor, "rows classes"], Float[Tensor, "rows 1"]]:
    """(z - mean z) / s of every row, and s = √(mean (z - mean z)² + 1e-8), its spread over the classes."""
    centred = logits - logits.mean(-1, keepdim=True)
    spread = (torch.linalg.vecdot(centred, centred).unsqueeze(-1) / logits.shape[-1] + SPREAD).sqrt()
    return centred / spread, spread


def before_standardising(
    gradient: Gradient, logits: Float[Tensor, "rows classes"], spread: Float[Tensor, "rows 1"]
) -> Gradient:
    """The gradient with respect to the logits as they were, of one with respect to the standardised.

    (g - y mean(g y)) / s, as dy_i / dz_j = (δ_ij - 1/K - y_i y_j / K) / s and Σ g = 0: nothing that is compared here
    changes by a constant.
    """
    along = sum(factor * torch.linalg.vecdot(part, logits).unsqueeze(-1) for part, factor in gradient.parts)
    parts = [(part, factor / spread) for part, factor in gradient.parts]
    return Gradient((*parts, (logits, -along / (logits.shape[-1] * spread))))
