"""What columns of queries and of what may answer them are usually called, and what a folder for search holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Value

from stilla.errors import one_of
from stilla.tasks.retrieval.sections import EmbeddingData, RerankingData
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


def nowhere(section: EmbeddingData | RerankingData, splits: Mapping[str, Dataset]) -> list[str]:
    """Columns that the recipe names and no split has."""
    if "train" not in splits:  # what is measured by itself may be something else
        return []
    there = {name for split in splits.values() for name in split.column_names}
    named = {"text": section.text or (), "score": () if section.score is None else (section.score,)}
    return [f"data.{key}: got {name!r}, which is no column; the data have {one_of(sorted(there))}"
            for key, names in named.items() for name in names if name not in there]
