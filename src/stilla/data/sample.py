"""A few examples of a split, to look at."""

from __future__ import annotations

from collections.abc import Collection

from datasets import Dataset

from stilla.data.retrieval_folders import CANDIDATES, COLUMNS


def from_all_over(split: Dataset, count: int) -> Dataset:
    """At most `count` examples at even distances: the first may all be of one class, or the shortest. Of a search, with the
    documents that its queries name beside these: a query by itself has no candidates."""
    chosen = {len(split) * number // count for number in range(count)}
    return split.select(sorted(chosen | _named_by(split, chosen)))


def _named_by(split: Dataset, rows: Collection[int]) -> set[int]:
    """Where those documents stand that some queries of a search name, as found or as relevant; of other splits nowhere."""
    if not set(COLUMNS) <= set(split.column_names):
        return set()
    plain = split.select_columns(["id", "role"]).with_format(None)
    places = {name: row for row, (name, role) in enumerate(zip(plain["id"][:], plain["role"][:])) if role == "document"}
    asked = split.select(sorted(rows)).with_format(None)
    found = {one["id"] for relevant in asked["relevant"][:] for one in relevant or ()}
    if CANDIDATES in split.column_names:
        found |= {name for names in asked[CANDIDATES][:] for name in names or ()}
    return {places[name] for name in found if name in places}
