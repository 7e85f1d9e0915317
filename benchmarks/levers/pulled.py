"""The teacher's weights: given at the start, held by the loss, pulled along the training, kept; against the plain recipe."""

from __future__ import annotations

from typing import Any

from benchmarks.levers.setting import TEACHER_SAYS, Setting, table
from stilla import Run

STEPS = 60
DEPTH = 2


def show(setting: Setting) -> str:
    """Of few labels without the unlabelled examples: where there is room for more than the plain recipe reaches."""
    how: dict[str, Any] = {**setting.recipe()["distill"][0], "epochs": None, "max_steps": STEPS}
    held = {**how, "objectives": [*TEACHER_SAYS, {"kind": "weights", "weight": 0.01}]}
    pulled = {**how, "pull": {"share": 0.1, "every": 10}}
    random, cut = {"config": {"num_hidden_layers": DEPTH}}, {"layers": DEPTH}
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "random weights": (random, how),
        "random, pull 0.1 every 10": (random, pulled),
        "interpolate 1": ({**random, "interpolate": 1.0}, how),
        "layers": (cut, how),
        "layers, weights 0.01": (cut, held),
        "layers, pull 0.1 every 10": (cut, pulled),
    }
    runs: dict[str, Run] = {}
    for name, (student, distill) in ways.items():
        lender = next((runs[one] for one in runs if ways[one][0] == student), None)
        runs[name] = setting.run(f"weights {name}".replace(",", ""), lender=lender, student=student, distill=distill,
                                 data={"unlabelled": None})
    return table(runs)
