"""Sounds that nobody has labelled, beside those that somebody has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from datasets import Audio, Dataset

from stilla.errors import CompatibilityError
from stilla.recipe import Data
from stilla.tasks.audio.reading import checked, usual_sounds
from stilla.tasks.audio.sounds import Sounds, has_parts, holds_sounds
from stilla.tasks.shared.bound import bound


def unlabelled(pool: Dataset, columns: Sequence[str], called: Mapping[str, str], labels: Sequence[str]) -> Dataset:
    """See `Task.unlabelled`. `columns`: of the sounds; `labels`: columns that a sound is not looked for in."""
    found = bound(pool, tuple(columns), called, holds_sounds, "sounds", usual_sounds, tuple(labels))
    return _undecoded(found, columns)


def usable(section: Data | None, pool: Dataset, columns: Sequence[str]) -> Dataset:
    """See `Task.usable`."""
    broken = {row for column in columns for row, one in enumerate(checked(section, "unlabelled", pool, column))
              if one.broken is not None}
    return pool.select([row for row in range(len(pool)) if row not in broken]) if broken else pool


def beside(split: Dataset, columns: Sequence[str], labels: Sequence[str]) -> Dataset:
    """See `Task.beside`.

    Raises:
        CompatibilityError: the sounds are parts of files.
    """
    if has_parts(split):
        raise CompatibilityError("data.unlabelled: the labelled sounds are parts of files (columns offset and duration), "
                                 "which unlabelled ones cannot stand beside; cut them into files of their own")
    return _undecoded(split.select_columns([*columns, *labels]), columns)


def traces(split: Dataset, column: str) -> Iterable[tuple[bytes]]:
    """See `Task.traces`."""
    return ((digest,) for digest in Sounds.of(split, column).digests())


def _undecoded(rows: Dataset, columns: Sequence[str]) -> Dataset:
    for column in columns:
        rows = rows.cast_column(column, Audio(decode=False))
    return rows
