"""Events by user: tables of who did what when, or lists, as one row for every user; and what is held out of them.

A row to learn from has `user`, `items` (and `times`), in order. A row that is measured has `next` too, which `items` stop
before. Columns in which all events of a user agree (a segment, a country) stay.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from numpy.typing import NDArray

from stilla.data.event_columns import Columns, columns_of, counts_only, texts, times
from stilla.errors import DataError, quoted
from stilla.recipe.events import Events

logger = logging.getLogger(__name__)

USER, ITEMS, TIMES, NEXT = "user", "items", "times", "next"

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Histories:
    """User i did `items[starts[i] : starts[i + 1]]`, in this order, at `times` (None: nobody said when).

    `beside`: what else is known of every user. `asked`: (users,) where in his events the one stands that has to be foretold
    of those before it; None for what is learnt from.
    """

    users: pa.Array
    items: pa.Array
    starts: NDArray[np.int64]
    times: NDArray[np.float64] | None
    beside: pa.Table
    asked: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def of(self, users: NDArray[np.int64], ends: NDArray[np.int64] | None = None) -> Histories:
        """Some users, with the first `ends` of their events each; by default all."""
        count = self.lengths[users] if ends is None else ends
        starts = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        places = np.arange(starts[-1]) + np.repeat(self.starts[users] - starts[:-1], count)
        return replace(self, users=self.users.take(users), items=self.items.take(places), starts=starts,
                       times=None if self.times is None else self.times[places], beside=self.beside.take(users), asked=None)

    def asking(self, users: NDArray[np.int64], places: NDArray[np.int64]) -> Histories:
        """Some users, of each of whom the event at `places` is to be foretold."""
        return replace(self.of(users, places + 1), asked=places)

    def dataset(self) -> Dataset:
        ends = self.starts[1:] if self.asked is None else self.starts[:-1] + self.asked
        columns = {USER: self.users, ITEMS: _lists(self.items, self.starts[:-1], ends)}
        if self.times is not None:
            columns[TIMES] = _lists(pa.array(self.times), self.starts[:-1], ends)
        if self.asked is not None:
            columns[NEXT] = self.items.take(ends)
        for name in self.beside.column_names:
            columns.setdefault(name, self.beside.column(name).combine_chunks())
        return Dataset(pa.table(columns))


def _lists(values: pa.Array, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> pa.Array:
    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(places))


def again(split: Dataset) -> Histories:
    """What `dataset` wrote of histories that are learnt from, as they were."""
    table: pa.Table = split.with_format("arrow")[:]
    lists = table.column(ITEMS).combine_chunks()
    starts = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())]).astype(np.int64)
    moments = table.column(TIMES).combine_chunks().flatten().to_numpy() if TIMES in table.column_names else None
    rest = table.select([name for name in table.column_names if name not in (USER, ITEMS, TIMES)])
    return Histories(table.column(USER).combine_chunks(), lists.flatten(), starts, moments, rest)


def gathered(split: Dataset, events: Events) -> Histories:
    """A table's events by user, the users in the order in which they first appear.

    Raises:
        DataError: columns that are missing, events without a user, an item or a time, events that stand there twice, a time
            that only counts; every problem at once.
    """
    columns = columns_of(events, split)
    table: pa.Table = split.with_format("arrow")[:]
    if columns.items is not None:
        return _of_lists(table, columns, events)
    return _of_events(table, columns, events)


def _of_lists(table: pa.Table, columns: Columns, events: Events) -> Histories:
    name = str(columns.items)
    lists = table.column(name).combine_chunks()
    flat = texts(pa.chunked_array([lists.flatten()])).combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    holes = np.add.reduceat(np.append(flat.is_null().to_numpy(zero_copy_only=False), False).astype(int),
                            np.cumsum([0, *lengths[:-1]])) * (lengths > 0) if len(lengths) else np.zeros(0)
    problems = _Problems(len(table), "rows", skip=events.skip)
    problems.note(f"{quoted(name)} is empty", lengths == 0)
    problems.note(f"{quoted(name)} holds items that are null", holes > 0)
    users = pa.array(np.arange(len(table)).astype(str)) if columns.user is None else \
        texts(table.column(columns.user)).combine_chunks()
    problems.note(f"{quoted(columns.user or '')} is null", users.is_null().to_numpy(zero_copy_only=False))
    first = np.unique(users.dictionary_encode().indices.fill_null(-1).to_numpy(), return_index=True)[1]
    problems.note("there is a row before of the same user", ~np.isin(np.arange(len(users)), first))
    kept = np.flatnonzero(problems.left())
    others = [one for one in table.column_names if one not in (columns.user, columns.items)]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Histories(users, flat, starts, None, table.select(others)).of(kept)


def _of_events(table: pa.Table, columns: Columns, events: Events) -> Histories:
    user, item = (texts(table.column(str(name))).combine_chunks() for name in (columns.user, columns.item))
    by = columns.time or columns.order
    moments = np.arange(len(table), dtype=np.float64) if by is None else times(table.column(by))
    problems = _Problems(len(table), "events", skip=events.skip)
    for name, values in ((columns.user, user), (columns.item, item)):
        problems.note(f"{quoted(str(name))} is null", values.is_null().to_numpy(zero_copy_only=False))
    what = "time: expected numbers, or dates as 2024-05-17 12:30:00" if columns.time else "number"
    problems.note(f"{quoted(str(by))} is no {what}", np.isnan(moments))
    codes = user.dictionary_encode().indices.fill_null(-1).to_numpy()
    order = np.lexsort((np.arange(len(codes)), moments, codes))
    problems.note(*_twice(columns, codes, item, moments, order))
    order = order[problems.left()[order]]
    lengths = np.bincount(codes[order], minlength=int(codes.max(initial=-1)) + 1)
    lengths = lengths[lengths > 0]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if columns.time is not None and counts_only(moments[order], starts):
        raise DataError(f"data.time: {quoted(columns.time)} is no time: it only counts the events of every user, 0, 1, 2 and "
                        f"so on. Say data.order: {columns.time}, and no time")
    others = [name for name in table.column_names if name not in (columns.user, columns.item, by)]
    beside = _agreed(table.select(others), order, starts)
    return Histories(user.take(order[starts[:-1]]), item.take(order), starts,
                     moments[order] if columns.time is not None else None, beside)


def _twice(
    columns: Columns, codes: NDArray[np.int64], item: pa.Array, moments: NDArray[np.float64], order: NDArray[np.int64]
) -> tuple[str, NDArray[np.bool_]]:
    """Of what is at a time: the same item at the same time; of what has a place: two at the same. What stands in no order but
    that of the rows may well come back."""
    again_ = np.zeros(len(codes), bool)
    if columns.time is None and columns.order is None:
        return "stands there twice", again_
    kinds = item.dictionary_encode().indices.fill_null(-1).to_numpy() if columns.time else np.zeros(len(codes), np.int64)
    sorted_ = np.lexsort((np.arange(len(codes)), kinds, moments, codes))
    same = np.all([one[sorted_][1:] == one[sorted_][:-1] for one in (codes, moments, kinds)], axis=0)
    again_[sorted_[1:][same]] = True
    what = "the same user, item and time stand" if columns.time else f"the same user and {quoted(str(columns.order))} stand"
    return f"{what} there before", again_


def _agreed(table: pa.Table, order: NDArray[np.int64], starts: NDArray[np.int64]) -> pa.Table:
    """A row a user, of the columns in which all of his events say the same."""
    kept = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if pa.types.is_nested(column.type):
            continue
        codes = column.dictionary_encode().indices.fill_null(-1).to_numpy()[order]
        if (codes == np.repeat(codes[starts[:-1]], np.diff(starts))).all():
            kept[name] = column.take(order[starts[:-1]])
    return pa.table(kept) if kept else pa.table({"": pa.nulls(len(starts) - 1)}).select([])


class _Problems:
    """What is wrong with rows: refused all at once, or left out where the recipe says so."""

    def __init__(self, count: int, what: str, *, skip: bool) -> None:
        self.what, self.skip = what, skip
        self.bad = np.zeros(count, bool)
        self.said: list[str] = []

    def note(self, why: str, rows: NDArray[np.bool_]) -> None:
        if rows.any():
            first = ", ".join(str(row) for row in np.flatnonzero(rows)[:_SHOWN])
            self.said.append(f"{why} in {int(rows.sum()):,} of {len(rows):,} {self.what} (rows {first}"
                             f"{', ...' * (int(rows.sum()) > _SHOWN)})")
            self.bad |= rows

    def left(self) -> NDArray[np.bool_]:
        """Raises:
            DataError: some are wrong, and are not to be left out.
        """
        if self.said and not self.skip:
            raise DataError("; ".join(self.said) + ". Mend them, or leave them out (data.broken: skip)",
                            [f"{one}. Mend them, or leave them out (data.broken: skip)" for one in self.said])
        for one in self.said:
            logger.warning("%s: left out", one)
        return ~self.bad


# --- what is held out ---


def ending(whole: Histories) -> Histories:
    """Everybody's last event, to be foretold of those before; users of a single event are left out."""
    users = np.flatnonzero(whole.lengths > 1)
    if lost := len(whole) - len(users):
        logger.info("data: %d of %d users have a single event, and nothing to foretell it of: not measured", lost, len(whole))
    return whole.asking(users, whole.lengths[users] - 1)


def last(train: Histories) -> dict[str, Histories]:
    """Leave-last-out: the last event of every user is for the test, the one before for validation.

    It looks ahead: what one user is tested on may lie before what was learnt of another.
    """
    enough = np.flatnonzero(train.lengths > 2)
    if not len(enough):
        raise DataError("data.hold_out: last: no user has three events or more; one for the test, one for validation, one to "
                        "learn from. Say hold_out: users")
    lengths = train.lengths
    ends = np.where(lengths > 2, lengths - 2, lengths)
    logger.warning("data.hold_out: last: what is measured lies in the past of what was learnt of others%s",
                   "" if train.times is None else "; hold_out: time does not")
    return {"train": train.of(np.arange(len(train)), ends), "validation": train.asking(enough, lengths[enough] - 2),
            "test": train.asking(enough, lengths[enough] - 1)}


def by_time(train: Histories, validation: float, test: float) -> dict[str, Histories]:
    """All events from a moment on are held out: `test` of them for the test, `validation` of those before. Of every user the
    first event behind the moment is foretold of all that he did before.

    Raises:
        DataError: nobody said when; the events are at too few different times.
    """
    if train.times is None:
        raise DataError("data.hold_out: time: there is no column of times (data.time); expected last or users")
    moments = np.sort(train.times)
    begins = [float(moments[min(len(moments) - 1, int(len(moments) * (1 - share)))]) for share in (validation + test, test)]
    if not moments[0] < begins[0] < begins[1]:
        raise DataError("data.hold_out: time: the events are at too few different times to part them by a moment; expected "
                        "last or users")
    user = np.repeat(np.arange(len(train)), train.lengths)
    before = [np.bincount(user[train.times < begin], minlength=len(train)) for begin in (*begins, np.inf)]
    learnt = np.flatnonzero(before[0] > 0)
    found = {"train": train.of(learnt, before[0][learnt])}
    for place, name in enumerate(("validation", "test")):
        here = (before[place] > 0) & (before[place + 1] > before[place])
        new = int(((before[place] == 0) & (before[place + 1] > 0)).sum())
        if new:
            logger.info("data.%s: %d users did nothing before, and nothing can be foretold of them: not measured", name, new)
        if not here.any():
            raise DataError(f"data.hold_out: time: nobody who did something before does so in the time of the {name} data; "
                            f"take more for it (data.{name}: {{split: ...}}), or hold_out: last")
        found[name] = train.asking(np.flatnonzero(here), before[place][here])
    return found


def following(earlier: Mapping[str, Histories], later: Histories) -> Histories:
    """What users do in a file, of what they did in the ones before: the first event there is to be foretold."""
    known = {name: {user: place for place, user in enumerate(one.users.to_pylist())} for name, one in earlier.items()}
    parts, users, asked, lost = [], [], [], 0
    for place, user in enumerate(later.users.to_pylist()):
        past = [one.items[one.starts[at] : one.starts[at + 1]] for name, one in earlier.items()
                if (at := known[name].get(user)) is not None]
        if not past:
            lost += 1
            continue
        asked.append(sum(map(len, past)))
        users.append(place)
        parts += [*past, later.items[later.starts[place] : later.starts[place] + 1]]
    if not users:
        raise DataError("data.users: same: none of its users is in the files before; say users: apart, if they are others")
    if lost:
        logger.info("data: %d of %d users did nothing in the files before: not measured", lost, len(later))
    places = np.array(asked, np.int64)
    starts = np.concatenate([[0], np.cumsum(places + 1)]).astype(np.int64)
    rows = np.array(users, np.int64)
    return Histories(later.users.take(rows), pa.concat_arrays(parts), starts, None, later.beside.take(rows), places)
