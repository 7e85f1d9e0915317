"""What columns of queries and of what may answer them are usually called, and what a folder for search holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Value

from stilla.errors import did_you_mean, one_of
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
    return [f"data.{key}: got {name!r}, which is no column; the data have {one_of(sorted(there))}."
            f"{did_you_mean(name, sorted(there))}"
            for key, names in named.items() for name in names if name not in there]


def holds_numbers(split: Dataset, name: str) -> bool:
    """Whether a column is of numbers, or of texts that all are some, as those of CSV."""
    feature = split.features[name]
    if not _columns.is_text(feature):
        return is_number(feature)
    try:
        found = [number_in(one) for one in _columns.values(split, name)]
    except ValueError:
        return False
    return not all(math.isnan(one) for one in found)


def number_in(said: Any) -> float:
    """NaN where nothing stands there.

    Raises:
        ValueError: it is no number.
    """
    return math.nan if said is None or (isinstance(said, str) and not said.strip()) else float(said)
