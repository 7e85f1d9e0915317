"""What was measured, as plain data: made by `evaluate/` and `export/`, read by people, `report/` and the model card.

Nothing here computes; nothing here needs torch. Qualities are fractions (accuracy 0.931), not percents.
A *subject* is one measured model: `teacher` (but where it is behind an address), `baseline` (the same student trained on
labels alone), `student`, and one per exported file (`onnx`, `int8`; of the baseline `baseline-onnx`).
"""

from stilla.scores.beside import Adapted, Best, Group, Grouped, Kept, Part, Reason, Reasons
from stilla.scores.values import (
    Bin,
    Calibration,
    ClassScore,
    Cost,
    Flip,
    Interval,
    Measured,
    PairedTest,
    Sample,
    is_fraction,
    metric_title,
    task_title,
)
from stilla.scores.whole import MODELS, OF_BASELINE, PERSONAL, Scores

__all__ = [
    "MODELS",
    "OF_BASELINE",
    "PERSONAL",
    "Adapted",
    "Best",
    "Bin",
    "Calibration",
    "ClassScore",
    "Cost",
    "Flip",
    "Group",
    "Grouped",
    "Interval",
    "Kept",
    "Measured",
    "PairedTest",
    "Part",
    "Reason",
    "Reasons",
    "Sample",
    "Scores",
    "is_fraction",
    "metric_title",
    "task_title",
]
