"""What columns of queries and of what may answer them are usually called, and what a folder for search holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Value

from stilla.tasks.shared import columns as _columns

ASKING = ("query", "anchor", "question", "prompt")
ANSWERING = ("positive", "pos", "answer", "passage", "document", "response", "context")
OTHERS = ("negative", "neg", "hard_negative", *(f"negative_{number}" for number in range(1, 51)))


def is_number(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "float"))


def relevant_in(split: Dataset) -> tuple[list[str], list[str], list[Mapping[str, int]]]:
    """Of a search: ids, roles, and the grades of what is relevant to each query."""
    ids, roles, relevant = (_columns.values(split, name) for name in ("id", "role", "relevant"))
    return ids, roles, [{one["id"]: one["grade"] for one in found or ()} for found in relevant]
