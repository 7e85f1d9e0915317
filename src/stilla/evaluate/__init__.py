"""Predictions and costs -> `Scores`: quality, fidelity, calibration, cost, and what they say together."""

from __future__ import annotations

from stilla.evaluate.assemble import make_scores
from stilla.evaluate.chance import chance, compared_with_chance, is_weak
from stilla.evaluate.cost import Subject, Workload, batch_for, measure_many, workload
from stilla.evaluate.flops import count_flops, count_parameters, stored_bytes
from stilla.evaluate.predict import Predictions, predict, predict_beside, unused_outputs

__all__ = [
    "Predictions",
    "Subject",
    "Workload",
    "batch_for",
    "chance",
    "compared_with_chance",
    "count_flops",
    "count_parameters",
    "is_weak",
    "make_scores",
    "measure_many",
    "predict",
    "predict_beside",
    "stored_bytes",
    "unused_outputs",
    "workload",
]
