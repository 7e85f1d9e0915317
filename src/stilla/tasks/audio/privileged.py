"""Sounds that teachers alone hear: clean, near or longer recordings of the same (see `shared.privileged`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from datasets import Dataset

from stilla.recipe import Data
from stilla.tasks.audio.reading import checked
from stilla.tasks.audio.sounds import Known, Sounds, holds_sounds
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.shared.privileged import file_column_of_teacher

SAME = 0.05
"""Seconds by which two sounds of the same moments may differ: what a recorder or a codec leaves at an end."""


def sounds_of_teacher(
    columns: Mapping[str, tuple[str, ...]], section: Data | None, audio: str, splits: Mapping[str, Dataset],
    labels: Collection[str] = (),
) -> str:
    """The column that the recipe says a teacher hears in place of the student's `audio`; empty: the same.

    Raises:
        DataError: see `file_column_of_teacher`.
    """
    return file_column_of_teacher(columns, "audio", audio, splits, labels, fits=holds_sounds, what="sounds",
                                  check=partial(checked, section))


@dataclass(frozen=True)
class Both:
    """The sounds that a student hears and those that its teacher hears in their place, with what is known of them.

    told, theirs: of the teacher's; None where no teacher is asked, or it hears the same.
    """

    own: Sounds
    known: Sequence[Known]
    told: Sounds | None = None
    theirs: Sequence[Known] | None = None

    @classmethod
    def of(cls, section: Data | None, split: Dataset, audio: str, teachers: str, also: str, *, asked: bool) -> Both:
        """also: a column that others hear. asked: a teacher is, too. A sound that one of them cannot hear is broken for all,
        where the recipe leaves such out; elsewhere there is none."""
        own = Sounds.of(split, audio)
        known: list[Known] = list(own.check())
        if section is not None and section.broken == "skip":
            for column in dict.fromkeys(one for one in (teachers, also) if one):
                others = Sounds.of(split, column).check()
                known = [one if other.broken is None or one.broken is not None else replace(one, broken=other.broken)
                         for one, other in zip(known, others, strict=True)]
        if not (teachers and asked):
            return cls(own, known)
        told = Sounds.of(split, teachers)
        return cls(own, known, told, told.check())

    def seconds(self, row: int) -> float:
        """Of the longer of both sounds."""
        return self.known[row].seconds if self.theirs is None else max(self.known[row].seconds, self.theirs[row].seconds)

    def without_same_windows(self, section: Any, split: Dataset, longest: float) -> Both:
        """Without examples of which one sound would be cut into windows, and the other not into those of the same moments.

        Raises:
            DataError: there are such, and the recipe does not leave them out.
        """
        if self.theirs is None:
            return self
        out = [row for row, (one, other) in enumerate(zip(self.known, self.theirs, strict=True))
               if one.broken is None and self.seconds(row) > longest and abs(one.seconds - other.seconds) > SAME]
        if not out:
            return self
        there = sum(one.broken is None for one in self.known)
        why = (f"data: {len(out)} of {there} examples: each has a sound of its own or its teacher's (teacher.data) that is "
               f"longer than the {longest:g} seconds that are heard at once, and the other lasts otherwise, so that windows "
               "of them would be other moments (data.window)")
        refuse_or_leave_out(section, why, rows_in_words(split, out))
        gone = set(out)
        return replace(self, known=[replace(one, broken="no windows of the same moments") if row in gone else one
                                    for row, one in enumerate(self.known)])
