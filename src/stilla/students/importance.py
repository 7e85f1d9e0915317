"""What a unit matters: how much the loss would change without it, by the first term of its Taylor series.

For an example x with loss L, a unit whose weights w become zero changes L by about -Σ w · ∂L/∂w. Its importance is the mean
over examples of the absolute value (Molchanov et al. 2019, arXiv:1906.10771, sec. 3.1; Michel et al. 2019,
arXiv:1905.10650, sec. 4.1, for heads, per example too). The sum runs over those weights that the unit reaches the outputs
through, where there are such (what a head's output is multiplied with): without them it is gone. A number of the hidden
state is read and written everywhere, and counts by all its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.models.members import Member, Units


def importance(
    model: nn.Module, units: Sequence[Units], losses: Iterable[Float[Tensor, ""]]
) -> dict[str, Float[Tensor, "unit"]]:
    """By the name of units, what each of them matters, in float64.

    losses: the model's, on one example after the other, each with its graph.

    Every example counts by itself: how they are made into batches, padded or ordered changes nothing.

    Raises:
        CompatibilityError: no example says anything: there is none, or none has a label, or a loss is not finite.
    """
    weights = {name: weight for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad}
    watched = [(one, member) for one in units for member in _once(weights, one)]
    asked = {member.tensor: weights[member.tensor] for _, member in watched}
    scores = {one.name: torch.zeros(one.count, dtype=torch.float64) for one in units}
    examples = 0
    for loss in losses:
        found = dict(zip(asked, torch.autograd.grad(loss, list(asked.values()), allow_unused=True), strict=True))
        changes = {one.name: torch.zeros(one.count, dtype=torch.float64) for one in units}
        for one, member in watched:
            gradient = found[member.tensor]
            if gradient is not None:
                each = _along(member.axis, asked[member.tensor].detach() * gradient)
                owned = (member.unit >= 0).nonzero().flatten()
                changes[one.name].index_add_(0, member.unit[owned], each[owned])
        for name, change in changes.items():
            scores[name] += change.abs()
        examples += 1
    found_none = not examples or not any(bool(score.any()) for score in scores.values())
    if found_none or not all(bool(score.isfinite().all()) for score in scores.values()):
        raise CompatibilityError(f"student.width: by the loss of {examples:,} training examples nothing can be said of what "
                                 f"matters: {'it is 0, or none has a label' if found_none else 'it is not finite'}")
    return {name: score / examples for name, score in scores.items()}


def _along(axis: int, values: Tensor) -> Float[Tensor, "index"]:
    """Sums over all other axes."""
    return values.movedim(axis, 0).reshape(values.shape[axis], -1).sum(1, dtype=torch.float64).cpu()


def _once(weights: Mapping[str, nn.Parameter], units: Units) -> list[Member]:
    """Sinks, or all members; of a weight that has several names (a tied head) the first."""
    seen: set[tuple[int, int]] = set()
    members = []
    for member in units.sinks or units.members:
        weight = weights.get(member.tensor)
        if weight is not None and (id(weight), member.axis) not in seen:
            seen.add((id(weight), member.axis))
            members.append(member)
    return members
