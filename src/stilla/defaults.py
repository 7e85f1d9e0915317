"""The objectives of a recipe that names none: what measured best, and why (docs/defaults.md)."""

from __future__ import annotations

from stilla.objectives.base import LayerMap
from stilla.recipe import ObjectiveSpec
from stilla.signals import Dims


def objectives_for(student: Dims, teacher: Dims, layer_map: LayerMap, *, same_inputs: bool) -> tuple[ObjectiveSpec, ...]:
    """Labels and softened logits always; hidden states where both models see the same tokens and layers correspond.

    `same_inputs`: one tokenizer or image processor for both, so that positions answer to each other.
    """
    logits = {"divergence": "mse"} if student.classes == 1 else {"temperature": 2.0}
    chosen = [ObjectiveSpec(kind="labels", weight=0.3), ObjectiveSpec(kind="logits", weight=0.7, **logits)]
    if same_inputs and any(layer_map.values()):
        chosen.append(ObjectiveSpec(kind="hidden", weight=1.0))
    return tuple(chosen)
