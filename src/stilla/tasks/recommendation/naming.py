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
    known = {catalogue.numbers[one]: str(name) for one, name in said if one in catalogue.numbers and name}
    if not known:
        raise DataError(f"data.names: none of the ids in {quoted(item)} of {section.names!r} is an item of the training data")
    return known


def _column(table: Dataset, names: list[str] | tuple[str, ...]) -> str | None:
    lower = {one.lower(): one for one in reversed(table.column_names)}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)
