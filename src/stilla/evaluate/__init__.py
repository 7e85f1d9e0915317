"""Answers and costs -> `Scores`: quality, fidelity, calibration, cost, and what they say together."""

from __future__ import annotations

from stilla.evaluate.asking import Asked, examine, remarks
from stilla.evaluate.assemble import Examined, make_scores
from stilla.evaluate.chance import chance, compared_with_chance, is_weak
from stilla.evaluate.cost import Subject, Workload, batch_for, measure_many, workload
from stilla.evaluate.flops import count_flops, count_parameters, stored_bytes

__all__ = [
    "Asked",
    "Examined",
    "Subject",
    "Workload",
    "batch_for",
    "chance",
    "compared_with_chance",
    "count_flops",
    "count_parameters",
    "examine",
    "is_weak",
    "make_scores",
    "measure_many",
    "remarks",
    "stored_bytes",
    "workload",
]
