"""What can be learnt of a split by a causal language model: conversations, prompts with completions, or texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from stilla.errors import DataError, all_at_once, all_of, one_of
from stilla.tasks.language import prompts as _prompts
from stilla.tasks.language import talks
from stilla.tasks.language.columns import Layout
from stilla.tasks.language.sections import CausalLMData
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import attempt
from stilla.tasks.shared.label_checks import rows_in_words


@dataclass(frozen=True)
class Read:
    """What can be learnt of a split: conversations, prompts with completions, or texts; the rows' numbers; and what cannot,
    by where that stands and the reason."""

    rows: list[Any]
    keys: NDArray[np.int64]
    broken: Mapping[tuple[Layout, str], list[int]]


def read(
    split: Dataset, layout: Layout, unanswered: NDArray[np.bool_] | None = None, *, also: Layout | None = None
) -> Read:
    """`unanswered`: the rows to which an answer is only asked for. `also`: what another model reads of the same rows; those
    that it cannot read are left out too."""
    rows = _rows(split, layout)
    broken: dict[tuple[Layout, str], list[int]] = {}
    for number, row in enumerate(rows):
        if why := _why_not(row, unanswered=unanswered is not None and bool(unanswered[number])):
            broken.setdefault((layout, why), []).append(number)
    if also is not None and also != layout:
        there = {number for known in broken.values() for number in known}
        for place, numbers in read(split, also, unanswered).broken.items():
            if others := [number for number in numbers if number not in there]:
                broken[place] = others
    keys = np.setdiff1d(np.arange(len(rows)), [number for numbers in broken.values() for number in numbers])
    return Read([rows[key] for key in keys], keys.astype(np.int64), broken)


def _rows(split: Dataset, layout: Layout) -> list[Any]:
    if layout.source == "messages":
        return list(talks.read(split, layout.columns, layout.tools))
    columns = [_columns.values(split, column) for column in layout.columns]
    if layout.source == "text":
        return columns[0]
    prompts, completions = columns
    if layout.context is not None:
        contexts = _columns.values(split, layout.context)
        prompts = [None if one is None else _prompts.alpaca(one, more) for one, more in zip(prompts, contexts)]
    return list(zip(prompts, completions))


def row_of(split: Dataset, key: int, layout: Layout) -> Any:
    return _rows(split.select([int(key)]), layout)[0]


def _why_not(row: Any, *, unanswered: bool = False) -> str | None:
    """Why a row cannot be learnt, or be asked where it is `unanswered`, after the names of its columns."""
    if isinstance(row, talks.UnreadableError):
        return str(row)
    if isinstance(row, tuple):
        return "are null or empty" if row[0] is None or not (row[1] or unanswered) else None
    return "is null or empty" if not isinstance(row, talks.Talk) and not (row and row.strip()) else None


def refuse_broken(section: CausalLMData, name: str, split: Dataset, layout: Layout) -> None:
    refuse_unread(section, name, split, read(split, layout))


def refuse_unread(section: CausalLMData, name: str, split: Dataset, read: Read) -> None:
    problems: list[str] = []
    for (layout, why), rows in read.broken.items():
        named = one_of([repr(column) for column in layout.columns])
        found = f"data.{name}: {named} {why} in {len(rows)} of {len(split)} examples"
        if layout.source == "messages":
            found += f" (who speaks there: {_said(talks.roles(split, layout.columns, rows[:100]))})"
        attempt(problems, refuse_or_leave_out, section, found, rows_in_words(split, rows))
    if problems:
        raise all_at_once(problems, DataError)


def _said(roles: Sequence[str]) -> str:
    return all_of([repr(role) for role in roles]) or "nobody"
