"""Teachers that see more than their students will have: another column, language, resolution (privileged information; Vapnik
and Izmailov 2015, jmlr.org/papers/v16/vapnik15b; Lopez-Paz et al. 2016, arXiv:1511.03643)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset

from stilla.errors import DataError, all_at_once, counted, one_of
from stilla.signals import Batch
from stilla.tasks.base import Prepared
from stilla.tasks.shared.classification import attempt
from stilla.tasks.shared.columns import columns_of, is_text, missing


def columns_of_teacher(
    columns: Mapping[str, tuple[str, ...]], field: str, splits: Mapping[str, Dataset], labels: Collection[str] = (), *,
    fits: Callable[[Any], bool] = is_text, what: str = "text", beside: Collection[str] = (),
) -> tuple[str, ...]:
    """What the recipe says a teacher reads in place of the columns in this field; empty: the same. fits: whether a column can
    be read, which are those of `what`. beside: other fields that may be named.

    Raises:
        DataError: another field is named, or columns that some of the data have not, one of the labels, or one that cannot be
        read.
    """
    if unknown := [name for name in columns if name != field and name not in beside]:
        raise DataError(f"teacher.data: got {unknown[0]!r}; expected {one_of([field, *beside])}, by which students read.")
    found = columns.get(field, ())
    if told := [name for name in found if name in labels]:
        raise DataError(f"teacher.data: {told[0]!r} is the label: the teacher would read the answer instead of finding it.")
    problems = [f"teacher.data: {one}" for one in missing(found, splits)] or [
        f"teacher.data: {column!r} of data.{name} holds no {what}. {columns_of(split)}"
        for name, split in splits.items() for column in found if not fits(split.features[column])]
    if problems:
        raise all_at_once(problems, DataError)
    return found


def column_of_teacher(
    columns: Mapping[str, tuple[str, ...]], field: str, own: str | None, splits: Mapping[str, Dataset],
    labels: Collection[str] = (), *, fits: Callable[[Any], bool] = is_text, what: str = "text", beside: Collection[str] = (),
) -> str:
    """The one column that a teacher reads in place of the student's `own`; empty: the same.

    Raises:
        DataError: see `columns_of_teacher`; or several columns.
    """
    found = columns_of_teacher(columns, field, splits, labels, fits=fits, what=what, beside=beside)
    if len(found) > 1:
        raise DataError(f"teacher.data.{field}: got {len(found)} columns; expected one.")
    return "" if found in ((), (own,)) else found[0]


def file_column_of_teacher(
    columns: Mapping[str, tuple[str, ...]], field: str, own: str, splits: Mapping[str, Dataset],
    labels: Collection[str] = (), *, fits: Callable[[Any], bool], what: str, check: Callable[[str, Dataset, str], object],
    beside: Collection[str] = (),
) -> str:
    """The one column of files that a teacher reads in place of the student's `own`; empty: the same. check: refuses a column
    of a split of this name that cannot be read.

    Raises:
        DataError: see `columns_of_teacher`; several columns, or files that cannot be read.
    """
    found = columns_of_teacher(columns, field, splits, labels, fits=fits, what=what, beside=beside)
    if not found or found == (own,):
        return ""
    if len(found) > 1:
        raise DataError(f"teacher.data: got {len(found)} columns of {what}; expected one.")
    problems: list[str] = []
    for name, split in splits.items():
        attempt(problems, check, name, split, found[0])
    if problems:
        raise all_at_once(problems, DataError)
    return found[0]


def side_by_side(own: Prepared, theirs: Prepared) -> Prepared:
    """The student's examples, with what the teacher reads of the same ones.

    Raises:
        DataError: one of them can read examples that the other cannot.
    """
    alone = np.setxor1d(own.keys, theirs.keys)
    if len(alone):
        listed = ", ".join(str(key) for key in alone[:5])
        raise DataError(f"teacher.data: {counted(len(alone), 'example')} can be read by one of the models only (rows {listed}"
                        f"{' ...' if len(alone) > 5 else ''}): there is nothing in a column, or no picture. Leave these out, "
                        "or fill them.")
    hear = [one for one in (own.on_epoch, theirs.on_epoch) if one is not None]
    untouched = min((one.untouched for one in (own, theirs) if one.changes), default=0)
    return replace(own, examples=_Pairs(own.examples, theirs.examples), collate=_Both(own.collate, theirs.collate),
                   on_epoch=_all_of(hear) if hear else None, untouched=untouched, turns=own.turns + theirs.turns,
                   aligned=False, framed=False)


class _Pairs(TorchDataset[tuple[Any, Any]]):
    def __init__(self, own: TorchDataset[Any], theirs: TorchDataset[Any]) -> None:
        self.both = own, theirs

    def __len__(self) -> int:
        return len(self.both[0])  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        own, theirs = self.both
        return own[index], theirs[index]


@dataclass(frozen=True)
class _Both:
    """Collates both; what the teacher would be asked by itself is what it is asked."""

    own: Callable[[Sequence[Any]], Batch]
    theirs: Callable[[Sequence[Any]], Batch]

    def __call__(self, examples: Sequence[tuple[Any, Any]]) -> Batch:
        own, theirs = self.own([one for one, _ in examples]), self.theirs([other for _, other in examples])
        return Batch({**own, "teacher": theirs["student"]})


def _all_of(hearers: Sequence[Callable[[int], None]]) -> Callable[[int], None]:
    def hear(epoch: int) -> None:
        for one in hearers:
            one(epoch)

    return hear
