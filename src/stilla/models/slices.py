"""A model of which slices are left out: its class built from an edited config, with the rest of its tensors.

It is built as `from_pretrained` would build it: what a file does not hold (tables of positions, say) is made by the class.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from stilla.errors import CompatibilityError
from stilla.models.configs import ConfigPath, edited_config, with_buffers
from stilla.models.members import Units

Slices = dict[str, dict[int, Int[Tensor, "index"]]]
"""By tensor and axis, the indices that stay."""
Kept = Mapping[str, Int[Tensor, "unit"]]
"""By the name of units, those that stay; all of others do."""


def slices_of(units: Iterable[Units], kept: Kept) -> Slices:
    """What stays of every tensor when these units do."""
    slices: Slices = {}
    for one in units:
        for member in one.members:
            if one.name in kept and len(kept[one.name]) < one.count:
                slices.setdefault(member.tensor, {})[member.axis] = member.kept(kept[one.name])
    return slices


def sliced(model: PreTrainedModel, changes: Mapping[ConfigPath, object], slices: Slices) -> PreTrainedModel:
    """The model with these slices of its tensors and a config that says so; it shares no tensor with the other.

    Raises:
        CompatibilityError: what is left does not fit the config, or is not what a saved model is loaded with.
    """
    unsaved = [name for name in slices if name in (model._keys_to_ignore_on_save or ())]
    if unsaved:
        raise CompatibilityError(f"{type(model).__name__} cannot be cut so: `{unsaved[0]}` is not saved but made when a "
                                 "model is loaded, by its width, and would then be another one")
    made = with_buffers(model, edited_config(model.config, changes))
    state = {name: _left(tensor, slices.get(name, {})) for name, tensor in model.state_dict().items()}
    wanted = {name: tensor.shape for name, tensor in made.state_dict().items()}
    odd = [f"{name} {tuple(state[name].shape) if name in state else 'missing'} for {tuple(wanted.get(name, ()))}"
           for name in sorted({*state, *wanted}) if name not in state or state[name].shape != wanted.get(name)]
    if odd:
        raise CompatibilityError(f"{type(model).__name__} cannot be cut so: {len(odd)} weights would not fit its config: "
                                 f"{', '.join(odd[:3])}{', ...' if len(odd) > 3 else ''}")
    made.load_state_dict(state, assign=True)
    made.tie_weights()
    if model.can_generate():
        made.generation_config = copy.deepcopy(model.generation_config)
    made.config.dtype = model.config.dtype
    return made.to(model.device).train(model.training)


def _left(tensor: Tensor, kept: Mapping[int, Int[Tensor, "index"]]) -> Tensor:
    left = tensor.detach()
    for axis, indices in kept.items():
        left = left.index_select(axis, indices.to(left.device))
    return left.clone() if left.data_ptr() == tensor.data_ptr() else left
