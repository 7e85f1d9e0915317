"""The ways of teaching that are compared: what a recipe says of each, beside the case's own data and student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABELS = ({"kind": "labels"},)
"""Labels alone, as any baseline learns."""


def labels(epochs: float, rate: float) -> dict[str, Any]:
    return {"distill": {"objectives": list(LABELS), "epochs": epochs, "learning_rate": rate}}


def taught(epochs: float, rate: float, *, share: float = 0.3, temperature: float = 2.0, **data: Any) -> dict[str, Any]:
    """`share`: the weight of the labels; the teacher has the rest."""
    terms = [{"kind": "labels", "weight": share}] if share else []
    terms.append({"kind": "logits", "weight": round(1 - share, 3), "temperature": temperature})
    return {"distill": {"objectives": terms, "epochs": epochs, "learning_rate": rate}, **({"data": data} if data else {})}


EPOCHS = (3, 8, 24)
RATES = (1e-4, 3e-4)

BASELINES: Mapping[str, Mapping[str, Any]] = {
    f"labels, {epochs} epochs, {rate:g}": labels(epochs, rate) for epochs in EPOCHS for rate in RATES
}
"""Of which the best on validation data is what a student is compared with."""

STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    **{f"taught, {epochs} epochs, {rate:g}": taught(epochs, rate) for epochs in EPOCHS for rate in RATES},
    **{f"plain, {epochs} epochs, {rate:g}": taught(epochs, rate, augment="none") for epochs in EPOCHS for rate in RATES},
    "little labels, 24 epochs, 0.0003": taught(24, 3e-4, share=0.1),
}

ARMS: Mapping[str, Mapping[str, Any]] = {**BASELINES, **STUDENTS}
