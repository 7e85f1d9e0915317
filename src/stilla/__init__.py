"""Stilla turns a large Transformer into a small one, and says honestly how much it kept.

    import stilla
    run = stilla.distill("recipe.yaml")
    run = stilla.distill(task="text-classification", data=dataset, teacher=(model, tokenizer), student=3)
    run.scores.student["accuracy"], run.scores.retention, run.scores.ratio, run.report

Names load on first use, so that `import stilla` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stilla import objectives
    from stilla.after import evaluate_run
    from stilla.errors import (
        CacheError,
        CompatibilityError,
        DataError,
        ExportError,
        RecipeError,
        StillaError,
        TrainingError,
    )
    from stilla.objectives.base import Term
    from stilla.recipe import Recipe
    from stilla.run import Run, capture, distill
    from stilla.scores import Scores
    from stilla.series import curve, search
    from stilla.signals import Batch, Signals
    from stilla.students import Student, by_layers
    from stilla.training.trainer import DistillationTrainer

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "CacheError",
    "CompatibilityError",
    "DataError",
    "DistillationTrainer",
    "ExportError",
    "Recipe",
    "RecipeError",
    "Run",
    "Scores",
    "Signals",
    "StillaError",
    "Student",
    "Term",
    "TrainingError",
    "by_layers",
    "capture",
    "curve",
    "distill",
    "evaluate_run",
    "objectives",
    "search",
]

_HOMES = {
    **dict.fromkeys(("CacheError", "CompatibilityError", "DataError", "ExportError", "RecipeError", "StillaError",
                     "TrainingError"), "errors"),
    **dict.fromkeys(("Run", "capture", "distill"), "run"),
    **dict.fromkeys(("Batch", "Signals"), "signals"),
    **dict.fromkeys(("Student", "by_layers"), "students"),
    "DistillationTrainer": "training.trainer",
    "Recipe": "recipe",
    "Scores": "scores",
    "Term": "objectives.base",
    "evaluate_run": "after",
    **dict.fromkeys(("curve", "search"), "series"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"stilla.{_HOMES[name]}"), name)
    if name == "objectives":
        return importlib.import_module(f"stilla.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
