"""Which columns of a table say who did something, with what, and when; and what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, LargeList, List
from numpy.typing import NDArray

from stilla.errors import DataError, did_you_mean, one_of, quoted
from stilla.recipe.events import Events

USERS = ("user", "user_id", "userid", "uid", "customer_id", "customer", "visitor_id", "visitorid", "session_id", "session",
         "sessionid", "reviewer_id", "reviewerid")
ITEMS = ("item", "item_id", "itemid", "iid", "movie_id", "movieid", "product_id", "productid", "article_id", "track_id",
         "song_id", "book_id", "business_id", "parent_asin", "asin", "sku")
TIMES = ("timestamp", "time", "datetime", "date", "ts", "unix_timestamp", "unixreviewtime", "event_time", "created_at")
LISTS = ("items", "item_ids", "item_id_list", "history", "sequence", "item_id")
"""What people call these columns; of lists only where lists stand in them."""


@dataclass(frozen=True)
class Columns:
    """`items`: the column of lists, where a row is a user already. `user` may then be None: each row is one."""

    user: str | None
    item: str | None = None
    time: str | None = None
    order: str | None = None
    items: str | None = None


def columns_of(events: Events, split: Dataset) -> Columns:
    """The columns that the recipe names, or those with a usual name.

    Raises:
        DataError: one is missing, or none is found.
    """
    named = {name: getattr(events, name) for name in ("user", "item", "time", "order", "items")}
    absent = [f"data.{field}: there is no column {quoted(column)}.{did_you_mean(column, split.column_names)} Columns: "
              f"{one_of(split.column_names)}" for field, column in named.items()
              if column is not None and column not in split.column_names]
    if absent:
        raise DataError("; ".join(absent), absent)
    lists = events.items if events.items is not None or events.item is not None else _usual(
        split, LISTS, [name for name, feature in split.features.items() if is_list(feature)])
    plain = [name for name, feature in split.features.items() if not is_list(feature)]
    user = events.user or _usual(split, USERS, plain)
    if lists is not None:
        if not is_list(split.features[lists]):
            raise DataError(f"data.items: {quoted(lists)} holds no lists; expected a list of items in every row. A table "
                            "with one item a row has data.user and data.item")
        return Columns(user, items=lists)
    item = events.item or _usual(split, ITEMS, plain)
    lacking = [f"data.{field}: which column says the {field}? None is called {one_of(usual[:4])}" for field, usual, column in
               (("user", USERS, user), ("item", ITEMS, item)) if column is None]
    if lacking:
        there = f"Columns: {one_of(split.column_names)}"
        raise DataError("; ".join([*lacking, there]), [f"{one}. {there}" for one in lacking])
    time = events.time or (None if events.order is not None else _usual(split, TIMES, plain))
    return Columns(user, item, time, events.order)


def is_list(feature: Any) -> bool:
    return isinstance(feature, List | LargeList)


def _usual(split: Dataset, names: Sequence[str], among: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(among)}
    return next((lower[name] for name in names if name in lower), None)


def texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What stands for somebody or something, as text; 7.0, which is how a table with gaps writes 7, is 7."""
    if pa.types.is_floating(column.type) and bool(pc.all(pc.equal(pc.floor(column), column)).as_py()):
        column = column.cast(pa.int64())
    return column.cast(pa.string())


def times(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Seconds (or whatever unit the numbers are in), NaN where there is no time: of numbers, dates, or text with either."""
    if pa.types.is_temporal(column.type):
        return _seconds(pd.to_datetime(pd.Series(column.to_pandas()), errors="coerce", utc=True))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        found: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.where(np.isfinite(found), found, np.nan)
    said = pd.Series(column.cast(pa.string()).to_pandas())
    numbers = pd.to_numeric(said, errors="coerce").to_numpy(np.float64)
    if np.isfinite(numbers).any():
        return np.where(np.isfinite(numbers), numbers, np.nan)
    return _seconds(pd.to_datetime(said, errors="coerce", utc=True, format="ISO8601"))


def _seconds(moments: pd.Series[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = moments.astype("datetime64[us, UTC]").astype(np.int64).to_numpy(np.float64) / 1e6
    return np.where(moments.isna().to_numpy(), np.nan, found)


def counts_only(values: NDArray[np.float64], starts: NDArray[np.int64]) -> bool:
    """Whether the sorted values of every user only number his events, 0, 1, 2 or 1, 2, 3: an order, and no time."""
    lengths = np.diff(starts)
    if (lengths > 1).sum() < 2:
        return False
    place = np.arange(len(values)) - np.repeat(starts[:-1], lengths)
    first = values[starts[:-1][lengths > 0]]
    return bool(np.isin(first, (0, 1)).all() and (values == np.repeat(values[starts[:-1]], lengths) + place).all())
