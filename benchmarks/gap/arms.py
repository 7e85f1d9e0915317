"""The ways of teaching that are compared: what a recipe says of each, beside the case's own data and student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Arm:
    """A way of teaching. `passes` are over the labelled examples: an arm with other texts beside them takes as many steps.

    Without passes the recipe says nothing of the student's training: what Stilla does by itself.
    """

    passes: float | None = None
    rate: float = 1e-4
    labels: float = 0.3
    """Weight of the labels; the teacher has the rest."""
    logits: Mapping[str, Any] = field(default_factory=lambda: {"kind": "logits", "temperature": 2.0})
    data: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    """Of `distill`."""
    pool: float | None = None
    """Share of the case's unlabelled examples in every step."""

    def recipe(self, rows: int, pool: Path, pooled: int) -> dict[str, Any]:
        """`rows` labelled examples, `pooled` unlabelled ones in the folder `pool`."""
        data = {**self.data, **({"unlabelled": str(pool)} if self.pool is not None else {})}
        if self.passes is None:
            return {**({"data": data} if data else {}), **({"distill": dict(self.more)} if self.more else {})}
        terms = [{"kind": "labels", "weight": self.labels}] if self.labels else []
        if self.labels < 1:
            terms.append({**self.logits, "weight": round(1 - self.labels, 3)})
        distill = {"objectives": terms, "epochs": self.passes, "learning_rate": self.rate, **self.more}
        if self.pool is not None:
            distill |= {"unlabelled": self.pool, "epochs": round(self.passes * rows / (rows + pooled), 4)}
        return {"distill": distill, **({"data": data} if data else {})}


PASSES = (3, 8, 24)
PATIENT = (*PASSES, 72)
"""Of arms that are asked for by name: for small students of few examples, which still learn after 24."""
RATES = (1e-4, 3e-4, 1e-3)
NONE = {"augment": "none"}
SIMILAR = {"augment": "light", "clean_passes": 3}
"""Similar words, whatever the student is: `auto` takes none for one that is given."""
STANDARDISED = {"kind": "logits", "standardise": True, "temperature": 2.0}

LEVERS: Mapping[str, Arm] = {
    "T = 1": Arm(logits={"kind": "logits", "temperature": 1.0}),
    "T = 4": Arm(logits={"kind": "logits", "temperature": 4.0}),
    "T by spread": Arm(logits=STANDARDISED),
    "DKD": Arm(logits={"kind": "dkd"}),
    "DIST": Arm(logits={"kind": "dist"}),
    "mean of weights": Arm(more={"average": {"last": 0.25}}),
}
"""One thing at a time that differs from labels at 0.3 and logits at T = 2: `plain` of the same length and rate."""

LABELS: Mapping[str, Arm] = {
    f"labels, {passes} passes, {rate:g}": Arm(passes, rate, labels=1.0) for passes in PATIENT for rate in RATES
}
"""Of those measured, the best on validation data is what a student is compared with."""
BASELINES: Mapping[str, Arm] = {name: arm for name, arm in LABELS.items() if arm.passes in PASSES}
"""Those of them that are measured where no length is named."""

STUDENTS: Mapping[str, Arm] = {
    "default": Arm(),
    "default, unlabelled": Arm(pool=0.5),  # passed over as often as the others, as nothing is said
    "default, similar": Arm(data={"augment": "light"}),  # numbers and pairs have none where nothing is said
    "thorough": Arm(more={"effort": "thorough"}),
    **{f"taught, {passes} passes, {rate:g}": Arm(passes, rate) for passes in PATIENT for rate in RATES},
    **{f"plain, {passes} passes, {rate:g}": Arm(passes, rate, data=NONE) for passes in PATIENT for rate in RATES},
    **{f"taught, {passes} passes, {rate:g}, labels {share:g}": Arm(passes, rate, labels=share)
       for passes in PATIENT for rate in RATES for share in (0.0, 0.1)},
    **{f"plain, {passes} passes, {rate:g}, labels {share:g}": Arm(passes, rate, labels=share, data=NONE)
       for passes in PATIENT for rate in RATES for share in (0.0, 0.1)},
    **{f"pool {share:g}, {passes} passes, {rate:g}": Arm(passes, rate, data=NONE, pool=share)
       for passes in PATIENT for rate in RATES for share in (0.5, 0.8)},
    **{f"taught, pool {share:g}, {passes} passes, {rate:g}": Arm(passes, rate, pool=share)
       for passes in PATIENT for rate in RATES for share in (0.5, 0.8)},
    **{f"{name}, {passes} passes, {rate:g}": replace(arm, passes=passes, rate=rate, data=NONE)
       for name, arm in LEVERS.items() for passes in PATIENT for rate in RATES},
    **{f"similar, {name}, {passes} passes, {rate:g}": replace(arm, passes=passes, rate=rate, data=SIMILAR)
       for name, arm in {"T = 2": Arm(), "T = 1": LEVERS["T = 1"]}.items() for passes in PATIENT for rate in RATES},
}

ARMS: Mapping[str, Arm] = {**LABELS, **STUDENTS}
