"""What a small copy of a model, with random weights, says of which of its weights go together.

Nothing is known of modules, of their order or of their names. While some slices of a matrix are zero, weights that get no
gradient have no other way to the outputs; and what can change places with its like, without a change of the outputs, counts
by its number alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.configs import Axis
from stilla.models.features import varied_inputs
from stilla.models.members import NOBODYS, Member, Units
from stilla.models.shallow import scramble, shallow


class Probe:
    """A model of the same class with random weights and few layers, and what it says of a few made-up inputs.

    model: that model. layers: which layers of the whole one its layers stand for.

    inputs: by default made up too, for models that read token ids, pictures or both.

    Raises:
        CompatibilityError: it could not be run on such inputs.
    """

    def __init__(self, model: PreTrainedModel, inputs: Mapping[str, Tensor] | None = None) -> None:
        self.model, self.layers = shallow(model)
        scramble(self.model)
        self.weights = dict(self.model.named_parameters(remove_duplicate=False))
        saved = self.model.state_dict(keep_vars=True)
        self._saved = {**{name: buffer for name, buffer in self.model.named_buffers() if name in saved}, **self.weights}
        try:
            self._inputs = dict(varied_inputs(self.model) if inputs is None else inputs)
            self._inner = {"output_hidden_states": True}
            try:
                self._said()
            except TypeError:  # some classes do not hand them out
                self._inner = {}
                self._said()
        except Exception as error:  # whatever a class says to inputs that it does not take
            raise CompatibilityError(f"{type(model).__name__} could not be run on made-up inputs, to see which of its "
                                     f"weights go together: {error}") from error

    def answer(self, model: nn.Module | None = None) -> Tensor:
        """All that the model, or another on the same inputs, says, as one vector: of no unit more than of its like."""
        with torch.no_grad():
            said = self._said(model)
        # a hidden state that is handed out too has its numbers in another order when these change places
        answers = [value for name, value in said if "hidden_state" not in name] or [value for _, value in said]
        return torch.cat([value.flatten() for value in answers])

    def _said(self, model: nn.Module | None = None) -> list[tuple[str, Tensor]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # some layers draw even when they only answer
            outputs = (self.model if model is None else model)(**self._inputs, **self._inner)
        named = ((name, one) for name, value in outputs.items()
                 for one in (value if isinstance(value, tuple | list) else (value,)))
        return [(name, one) for name, one in named if isinstance(one, Tensor) and one.is_floating_point()]

    def run(self, model: PreTrainedModel) -> None:
        """Run another model on the same inputs, to see whether it can be: on the meta device, whether its shapes fit."""
        with torch.no_grad():
            model(**{name: value.to(model.device) for name, value in self._inputs.items()})

    def silent(
        self, axes: Iterable[Axis], zeroed: Mapping[Axis, Bool[Tensor, "index"]]
    ) -> dict[Axis, Bool[Tensor, "index"]]:
        """Which slices along each axis get no gradient while others are zero."""
        axes = list(axes)
        asked = {name: self.weights[name] for name, _ in axes}
        if not asked:
            return {}
        with self._without(zeroed):
            # also hidden states: else the last layer would count by what the head reads of it alone
            said = torch.cat([value.flatten() for _, value in self._said()])
            weights = torch.randn(said.shape, generator=torch.Generator().manual_seed(1)).to(said)
            gradients = torch.autograd.grad((said * weights).sum(), list(asked.values()), allow_unused=True)
        found = dict(zip(asked, gradients, strict=True))
        return {(name, axis): _zero_slices(found[name], asked[name], axis) for name, axis in axes}

    def interchangeable(self, units: Sequence[Units]) -> bool:
        """Whether the model says the same when all units change places among their like."""
        before = self.answer()
        with self._shuffled(units):
            after = self.answer()
        return close(after, before)

    def answer_without(self, units: Sequence[Units], kept: Mapping[str, Int[Tensor, "unit"]]) -> Tensor:
        """What the model says while all but the kept units are zero."""
        zeroed = {(sink.tensor, sink.axis): ~torch.isin(sink.unit, torch.cat([kept[one.name], torch.tensor([NOBODYS])]))
                  for one in units for sink in one.sinks}
        with self._without(zeroed):
            return self.answer()

    @contextmanager
    def _without(self, zeroed: Mapping[Axis, Bool[Tensor, "index"]]) -> Iterator[None]:
        before = {name: self.weights[name].detach().clone() for name, _ in zeroed}
        with torch.no_grad():
            for (name, axis), mask in zeroed.items():
                self.weights[name].index_fill_(axis, mask.nonzero().flatten().to(self.weights[name].device), 0.0)
        try:
            yield
        finally:
            self._put_back(before)

    @contextmanager
    def _shuffled(self, units: Sequence[Units]) -> Iterator[None]:
        before: dict[str, Tensor] = {}
        done: set[tuple[int, int]] = set()
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for one in units:
                order = torch.cat([torch.randperm(one.count // one.pools, generator=generator) + start
                                   for start in range(0, one.count, one.count // one.pools)])
                for member in one.members:
                    weight = self._saved[member.tensor]
                    if (id(weight), member.axis) in done:  # a tied one has several names
                        continue
                    done.add((id(weight), member.axis))
                    before.setdefault(member.tensor, weight.detach().clone())
                    weight.copy_(weight.index_select(member.axis, _moved(member, order).to(weight.device)))
        try:
            yield
        finally:
            self._put_back(before)

    def _put_back(self, before: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in before.items():
                self._saved[name].copy_(value)


def close(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding; of random models, whatever is not the same is far apart."""
    return one.shape == other.shape and bool((one - other).norm() <= 1e-4 * (other.norm() + 1e-6))


def _zero_slices(gradient: Tensor | None, weight: Tensor, axis: int) -> Bool[Tensor, "index"]:
    if gradient is None:
        return torch.ones(weight.shape[axis], dtype=torch.bool)
    return (gradient.movedim(axis, 0).flatten(1) == 0).all(1).cpu() if gradient.dim() > 1 else (gradient == 0).cpu()


def _moved(member: Member, order: Int[Tensor, "unit"]) -> Int[Tensor, "index"]:
    """From where each index comes when unit `order[u]` takes the place of unit u."""
    comes_from = torch.arange(len(member.unit))
    owned = (member.unit != NOBODYS).nonzero().flatten()
    places = owned[member.unit[owned].argsort(stable=True)].view(len(order), -1)  # a row per unit
    comes_from[places] = places[order]
    return comes_from
