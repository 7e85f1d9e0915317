"""The objectives of a recipe that names none; what was measured for it stands in docs/defaults.md."""

from __future__ import annotations

from stilla.recipe import ObjectiveSpec


def objectives_for(classes: int) -> tuple[ObjectiveSpec, ...]:
    """The labels and the teacher's logits, softened; a number (one output) is compared as it is.

    Hidden states are not among them: on students cut from a fine-tuned encoder they cost accuracy.
    """
    logits = {"divergence": "mse"} if classes == 1 else {"temperature": 2.0}
    return ObjectiveSpec(kind="labels", weight=0.3), ObjectiveSpec(kind="logits", weight=0.7, **logits)
