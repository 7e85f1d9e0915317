"""What items are called: a table of ids and names."""

from __future__ import annotations

from datasets import Dataset

from stilla.data import sources
from stilla.data.event_columns import ITEMS, texts
from stilla.errors import DataError, one_of, quoted
from stilla.tasks.recommendation.catalogue import Catalogue
from stilla.tasks.recommendation.sections import RecommendationData

TITLES = ("title", "name", "item_name", "movie_title", "product_name", "description")


def titles(section: RecommendationData, catalogue: Catalogue) -> dict[int, str]:
    """By number.

    Raises:
        DataError: the table cannot be read, has no ids or no names, or none of its ids is an item's.
    """
    try:
        found = sources.read(str(section.names), hub=False)
    except DataError as error:
        raise DataError(f"data.names: {error}") from error
    table = next(iter(found.values()))
    item, title = _column(table, ([section.item] if section.item else []) + list(ITEMS)), _column(table, TITLES)
    if item is None or title is None:
        what = f"ids ({one_of(ITEMS[:3])})" if item is None else f"names ({one_of(TITLES[:3])})"
        raise DataError(f"data.names: {section.names!r} has no column of {what}; there are {one_of(table.column_names)}")
    arrow = table.with_format("arrow")[:]
    said = zip(texts(arrow.column(item)).to_pylist(), texts(arrow.column(title)).to_pylist())
    found_names: dict[int, str] = {}
    there = 0
    for one, name in said:
        if one not in catalogue.numbers:
            continue
        there += 1
        if name and found_names.setdefault(catalogue.numbers[one], str(name)) != str(name):
            raise DataError(f"data.names: {section.names!r} has two names for the item {quoted(one)}: "
                            f"{quoted(found_names[catalogue.numbers[one]])} and {quoted(name)}. Leave one of them")
    if not found_names:
        why = f"none of the ids in {quoted(item)} of {section.names!r} is an item of the training data" if not there else \
            f"{quoted(title)} of {section.names!r} is empty for all {there} items of the training data"
        raise DataError(f"data.names: {why}")
    return found_names


def _column(table: Dataset, names: list[str] | tuple[str, ...]) -> str | None:
    lower = {one.lower(): one for one in reversed(table.column_names)}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)
