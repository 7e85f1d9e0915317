"""Sounds that nobody has labelled, beside those that somebody has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from datasets import Audio, Dataset

from stilla.errors import CompatibilityError
from stilla.recipe import Data
from stilla.tasks.audio.reading import checked, usual_sounds
from stilla.tasks.audio.sounds import Sounds, has_parts, holds_sounds
from stilla.tasks.shared.bound import bound


def unlabelled(pool: Dataset, column: str, called: Mapping[str, str], labels: Sequence[str]) -> Dataset:
    """See `Task.unlabelled`. `column`: of the sounds; `labels`: columns that a sound is not looked for in."""
    found = bound(pool, (column,), called, holds_sounds, "sounds", usual_sounds, tuple(labels))
    return found.cast_column(column, Audio(decode=False))


def usable(section: Data | None, pool: Dataset, column: str) -> Dataset:
    """See `Task.usable`."""
    known = checked(section, "unlabelled", pool, column)
    fine = [row for row, one in enumerate(known) if one.broken is None]
    return pool if len(fine) == len(pool) else pool.select(fine)


def beside(split: Dataset, column: str, labels: Sequence[str]) -> Dataset:
    """See `Task.beside`.

    Raises:
        CompatibilityError: the sounds are parts of files.
    """
    if has_parts(split):
        raise CompatibilityError("data.unlabelled: the labelled sounds are parts of files (columns offset and duration), "
                                 "which unlabelled ones cannot stand beside; cut them into files of their own")
    return split.select_columns([column, *labels]).cast_column(column, Audio(decode=False))


def traces(split: Dataset, column: str) -> Iterable[tuple[bytes]]:
    """See `Task.traces`."""
    return ((digest,) for digest in Sounds.of(split, column).digests())
