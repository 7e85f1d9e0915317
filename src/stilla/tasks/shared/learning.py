"""By what a student learns where neither recipe nor task says it; docs/defaults.md tells what was measured for it."""

from __future__ import annotations

from stilla.recipe import ObjectiveSpec


def objectives_for(classes: int, *, written: bool = False) -> tuple[ObjectiveSpec, ...]:
    """The labels and the teacher's logits, softened; a number (one output) is compared as it is.

    Hidden states are not among them: on students cut from a fine-tuned encoder they cost accuracy. What the teacher has
    `written` is learnt as it is (Kim and Rush 2016).
    """
    if written:
        return (ObjectiveSpec(kind="labels"),)
    logits = {"divergence": "mse"} if classes == 1 else {"temperature": 2.0}
    return ObjectiveSpec(kind="labels", weight=0.3), ObjectiveSpec(kind="logits", weight=0.7, **logits)
