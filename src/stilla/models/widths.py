"""How wide a model is: the numbers in its config that say so, and the units that they count.

Nothing here knows a model's name. A number of the config is doubled, the model's class is built again on the meta device,
and the axes that doubled show what the number counts: neurons of feed-forward blocks, or heads, where only layers have
grown; the hidden state, where everything has. `units.py` finds what of these axes can only be cut together. What no number
of a config counts, or what was not understood, is said by name, and not cut.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from stilla.models.configs import (
    Axis,
    ConfigPath,
    Shapes,
    config_sections,
    config_value,
    edited_config,
    quiet,
    skeleton,
)
from stilla.models.knobs import Changes, Kind, Knob, Number, Widths, doubled, numbers_in, scaled
from stilla.models.members import Member, Units
from stilla.models.probe import Probe
from stilla.models.units import inner_units

HEAD_SIZE = "head_dim"
"""What classes read a head's size from, where a config has it: not all config classes declare it."""


def find_widths(model: PreTrainedModel, kinds: Collection[Kind], inputs: Mapping[str, Tensor] | None = None) -> Widths:
    """kinds: those that are asked for. inputs: a small batch; by default one is made up, for models that read token ids,
    pictures or both.

    Raises:
        CompatibilityError: the model could not be run on such inputs.
    """
    return _Search(model, inputs).widths(kinds)


class _Search:
    def __init__(self, model: PreTrainedModel, inputs: Mapping[str, Tensor] | None) -> None:
        self.probe = Probe(model, inputs)
        self.model = self.probe.model
        self.shapes = Shapes(self.model)

    def widths(self, kinds: Collection[Kind]) -> Widths:
        sections = list(config_sections(self.model.config))
        ffn = [knob for path, config in sections for knob in self._ffn(path, config)] if {*kinds} != {"heads"} else []
        heads = {path: ways for path, config in sections if {*kinds} != {"ffn"} and (ways := self._heads(path, config))}
        hidden: list[Knob] = []
        if "hidden" in kinds or ("heads" in kinds and not heads):  # which are then bound to it
            for path, config in sections:
                hidden += self._hidden(path, config, ffn, heads.get(path, ()))
        reasons = _reasons(type(self.model).__name__, [path[-1] for knob in hidden if knob.bound for path in knob.now])
        return Widths(self.probe, self.shapes, tuple(ffn), tuple(heads.values()), tuple(hidden), reasons)

    # --- feed-forward blocks ---

    def _ffn(self, path: ConfigPath, config: PreTrainedConfig) -> list[Knob]:
        found = []
        for name, value in vars(config).items():
            if _is_width(name) and (more := doubled(value)) is not None and (units := self._neurons({(*path, name): more})):
                found.append(Knob("ffn", {(*path, name): tuple(value) if isinstance(value, list) else value}, units))
        return found or list(self._unset(path, config))

    def _unset(self, path: ConfigPath, config: PreTrainedConfig) -> Iterator[Knob]:
        """A number that is not said, and then means a multiple of another (GPT-2's `n_inner`)."""
        sizes = sorted({size for name, shape in self.shapes.whole.items() if len(shape) > 1 and self.probe.layers.of(name)
                        for size in shape}, reverse=True)
        for name in [name for name, value in vars(config).items() if value is None and _is_width(name)]:
            for size in sizes:
                units = self._neurons({(*path, name): 2 * size}) if self.shapes.changed({(*path, name): size}) == {} else ()
                if units:
                    yield Knob("ffn", {(*path, name): size}, units)
                    return

    def _neurons(self, changes: Changes) -> tuple[Units, ...]:
        axes = self._doubled_in_layers(changes)
        return self._understood(axes, None) if axes else ()

    def _understood(
        self, axes: Mapping[Axis, object], counts: Sequence[int] | None, pools: int = 1
    ) -> tuple[Units, ...]:
        """The units, if these axes consist of nothing else and all of a pool may change places."""
        found, left = inner_units(self.probe, axes, counts)
        units = tuple(replace(one, pools=pools) for one in found)
        return units if units and not left and self.probe.interchangeable(units) else ()

    def _doubled_in_layers(self, changes: Changes) -> dict[Axis, tuple[int, int]]:
        """The axes that answer, if all are of weights, some within layers, and twice as large as they were."""
        axes = self.shapes.changed(changes) or {}
        weights = all(name in self.probe.weights for name, _ in axes)
        layered = any(self.probe.layers.holds(name) for name, _ in axes)
        return axes if weights and layered and all(abs(new - 2 * old) <= 1 for old, new in axes.values()) else {}

    # --- heads ---

    def _heads(self, path: ConfigPath, config: PreTrainedConfig) -> tuple[Knob, ...]:
        """Ways to have fewer heads of the same size: whole groups that share their keys, or as many of each group."""
        counts = _head_counts(config)
        for name, value in counts.items():
            for pins in self._pins(path, config, value):
                for other, groups in counts.items():
                    if other != name and type(value) is type(groups) is int and value % groups == 0:
                        whole = self._fewer(path, {name: value, other: groups}, pins)
                        within = self._fewer(path, {name: value}, pins, pools=groups) if value > groups else ()
                        if whole or within:
                            return (*whole, *within)
                if alone := self._fewer(path, {name: value}, pins):
                    return alone
        return ()

    def _fewer(
        self, path: ConfigPath, counts: Mapping[str, Number], pins: Changes, pools: int = 1
    ) -> tuple[Knob, ...]:
        now = {(*path, name): value for name, value in counts.items()}
        axes = self._doubled_in_layers({where: doubled(value) for where, value in now.items()} | pins)
        units = self._understood(axes, [min(numbers_in(now.values()))], pools) if axes else ()
        return (Knob("heads", now, units, pins),) if units else ()

    def _pins(self, path: ConfigPath, config: PreTrainedConfig, count: Number) -> Iterator[Changes]:
        """Ways to say how large a head is, where a config leaves it to be computed: at first not to say it."""
        yield {}
        width = _hidden_size(config)
        if width is not None and isinstance(count, int) and width % count == 0 and vars(config).get(HEAD_SIZE) is None:
            yield {(*path, HEAD_SIZE): width // count}

    # --- the hidden state ---

    def _hidden(
        self, path: ConfigPath, config: PreTrainedConfig, ffn: Sequence[Knob], heads: Sequence[Knob]
    ) -> Iterator[Knob]:
        done = {where for knob in ffn for where in knob.now}
        for name, value in vars(config).items():
            if (*path, name) in done or not (type(value) is int and value > 1 and _is_width(name)):
                continue
            if not self.probe.layers.prefixes and value != _hidden_size(config):
                continue  # without layers to tell them apart, the width of an embedding looks like that of all
            axes = self.shapes.changed({(*path, name): 2 * value})
            if axes is not None and not self._everywhere(axes):
                continue
            for also in _with_equals(config, name, value):
                knob = self._hidden_knob(path, config, {(*path, one): value for one in (name, *also)}, ffn, heads)
                if knob is not None:
                    done |= knob.now.keys()
                    yield knob
                    break

    def _hidden_knob(
        self, path: ConfigPath, config: PreTrainedConfig, now: Mapping[ConfigPath, int], ffn: Sequence[Knob],
        free: Sequence[Knob],
    ) -> Knob | None:
        """free: the section's heads, where they can be cut by themselves; else they may be bound to the hidden state."""
        counts: dict[ConfigPath, Number] = {(*path, name): value for name, value in _head_counts(config).items()}
        twice: Changes = {where: 2 * value for where, value in now.items()} | self._same_neurons(ffn, 0.5)
        more = twice | {where: doubled(value) for where, value in counts.items()}
        heads: tuple[Units, ...] = ()
        if not free and counts:
            heads, _ = inner_units(self.probe, self.shapes.changed(more) or {}, [*numbers_in(counts.values())])
        if heads and (units := self._of_the_hidden_state(now, more, heads)):
            return Knob("hidden", now, units, {}, counts)
        pinned: list[Changes] = [pin for value in counts.values() for pin in self._pins(path, config, value) if pin]
        for pins in [free[0].pins] if free else [{}, *pinned]:
            if units := self._of_the_hidden_state(now, twice | pins, ()):
                return Knob("hidden", now, units, pins)
        return None

    def _of_the_hidden_state(
        self, now: Mapping[ConfigPath, int], twice: Changes, heads: tuple[Units, ...]
    ) -> tuple[Units, ...]:
        """Its numbers and the heads, if all that doubles is of these and may change places."""
        axes = self.shapes.changed(twice)
        if not axes or not self._everywhere(axes):
            return ()
        rest = self._residual(".".join(next(iter(now))), next(iter(now.values())), axes, heads)
        found = rest is not None and self._runs(twice) and self.probe.interchangeable((rest, *heads))
        return (rest, *heads) if rest is not None and found else ()

    def _everywhere(self, axes: Mapping[Axis, object]) -> bool:
        """Whether they are of weights in and outside of layers: of most matrices there, which read or write the state."""
        matrices = {name for name, weight in self.probe.weights.items() if weight.dim() > 1 and self.probe.layers.of(name)}
        touched = {name for name, _ in axes}
        return any(self.probe.layers.of(name) is None for name in touched) and 2 * len(touched & matrices) >= len(matrices)

    def _same_neurons(self, ffn: Sequence[Knob], share: float) -> Changes:
        """What keeps feed-forward blocks as they are while the hidden state gets 1 / share times as wide."""
        ratios: Changes = {path: scaled(value, share) for knob in ffn if knob.is_ratio for path, value in knob.now.items()}
        unset = {path: value for knob in ffn for path, value in knob.now.items()
                 if config_value(self.model.config, path) is None}
        return ratios | unset

    @staticmethod
    def _residual(
        name: str, size: int, axes: Mapping[Axis, tuple[int, int]], heads: Sequence[Units]
    ) -> Units | None:
        """All that is no head: numbers of the hidden state, one after the other, perhaps several times."""
        taken = {(member.tensor, member.axis) for one in heads for member in one.members}
        rest = {axis: sizes for axis, sizes in axes.items() if axis not in taken}
        if not rest or any(old % size or new != 2 * old for old, new in rest.values()):
            return None
        return Units(name, size, tuple(Member(*axis, torch.arange(old) % size) for axis, (old, _) in rest.items()))

    def _runs(self, changes: Mapping[ConfigPath, object]) -> bool:
        """Whether a model of such a config can be run; True where not even the whole one runs without memory."""
        for tried in ({}, changes):
            try:
                with quiet():
                    self.probe.run(skeleton(self.model, edited_config(self.model.config, tried)))
            except Exception:  # whatever a class says when its shapes do not fit
                return not tried
        return True


def _is_width(name: str) -> bool:
    """Not what counts experts, layers or heads, not a token's number, and not the rank of a product."""
    return not (name.startswith(("_", "num_", "n_routed", "n_shared")) or name.endswith(("_id", "_ids", "_rank"))
                or "vocab" in name or "head" in name)


def _with_equals(config: PreTrainedConfig, name: str, value: int) -> Iterator[tuple[str, ...]]:
    """Other fields of the same value may have to change too (DeBERTa's `pooler_hidden_size`)."""
    equal = [other for other, same in vars(config).items()
             if other != name and type(same) is int and same == value and _is_width(other)]
    yield ()
    yield from ((other,) for other in equal)
    if len(equal) > 1:
        yield tuple(equal)


def _hidden_size(config: PreTrainedConfig) -> int | None:
    value = vars(config).get(type(config).attribute_map.get("hidden_size", "hidden_size"))
    return value if isinstance(value, int) else None


def _head_counts(config: PreTrainedConfig) -> dict[str, Number]:
    """How many heads there are: fields that speak of heads and not of their size."""
    return {name: tuple(value) if isinstance(value, list | tuple) else value for name, value in vars(config).items()
            if "head" in name and not any(word in name for word in ("dim", "size", "ratio")) and doubled(value) is not None}


def _reasons(model: str, bound_to: Sequence[str]) -> dict[Kind, str]:
    heads = f"no number in {model}'s config can be lowered that leaves its heads as they are, each where it was"
    if bound_to:
        heads = (f"a head of {model} is as large as `{bound_to[0]}` divided by the number of heads, so fewer heads alone "
                 "would be larger ones")
    unseen = "or it was not seen which of its weights go together"
    return {"ffn": f"no number in {model}'s config is the width of its feed-forward blocks alone, {unseen}",
            "heads": heads,
            "hidden": f"no one number in {model}'s config is the width of its hidden state, {unseen}"}
