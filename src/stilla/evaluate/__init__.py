"""Answers and costs -> `Scores`: quality, fidelity, calibration, cost, and what they say together."""

from __future__ import annotations

from stilla.evaluate.asking import Asked, examine, remarks
from stilla.evaluate.assemble import Examined, headline_split, make_scores
from stilla.evaluate.chance import chance, compared_with_chance, is_weak
from stilla.evaluate.cost import Subject, Workload, batch_for, measure_many, medians, workload
from stilla.evaluate.flops import count_flops, count_parameters, count_tokens, stored_bytes
from stilla.evaluate.slices import Slice, slices_of

__all__ = [
    "Asked",
    "Examined",
    "Slice",
    "Subject",
    "Workload",
    "batch_for",
    "chance",
    "compared_with_chance",
    "count_flops",
    "count_parameters",
    "count_tokens",
    "examine",
    "headline_split",
    "is_weak",
    "make_scores",
    "measure_many",
    "medians",
    "remarks",
    "slices_of",
    "stored_bytes",
    "workload",
]
