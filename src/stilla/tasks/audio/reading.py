"""Sounds of a split as both models hear them: checked, cut into windows, changed at random, kept where they fit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.data.sound_folders import SOUNDS
from stilla.errors import DataError, all_of, one_of
from stilla.recipe import Data
from stilla.tasks.audio.hearing import Ear
from stilla.tasks.audio.sections import Sounds as SoundsSection
from stilla.tasks.audio.sounds import Known, Sounds, Wave, holds_sounds, light
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.columns import columns_of, existing

logger = logging.getLogger(__name__)

WINDOW = 30.0
"""Seconds that are heard at once where neither recipe nor model says it."""
_KEEP = 2**29  # bytes of features that a split may keep in memory


def audio_column(section: SoundsSection, train: Dataset, taken: Sequence[str] = ()) -> str:
    """The sound's column: the recipe's, the only one that can hold sounds, or one with a usual name.

    Raises:
        DataError: no such column, or the names leave it open.
    """
    if section.audio is not None:
        return existing("audio", (section.audio,), train, holds_sounds, "sounds")[0]
    candidates = [name for name in train.column_names if name not in taken and holds_sounds(train.features[name])]
    usual = [name for name in candidates if name.lower() in SOUNDS.columns]
    for unambiguous in (candidates, usual):
        if len(unambiguous) == 1:
            return str(unambiguous[0])
    why = f"{one_of(candidates)} could be it" if candidates else (
        "no column holds sounds, names of their files beside the table, or samples with their rate")
    raise DataError(f"data.audio: which column is the sound? {why}. {columns_of(train)} Set data.audio.")


def usual_sounds(pool: Dataset, fitting: Sequence[str]) -> Sequence[str] | None:
    usual = [name for name in fitting if name.lower() in SOUNDS.columns]
    return next((found for found in (fitting, usual) if len(found) == 1), None)


def checked(section: Data | None, name: str, split: Dataset, column: str) -> list[Known]:
    """What is known of every sound. Says which rates there are, what is mixed down, and what is silent.

    Raises:
        DataError: some cannot be read, and the recipe does not leave them out.
    """
    sounds = Sounds.of(split, column)
    known = sounds.check()
    broken = [(row, one.broken) for row, one in enumerate(known) if one.broken is not None]
    if broken and section is not None:
        listed = "; ".join(f"{sounds.name(row)}: {reason}" for row, reason in broken[:5])
        refuse_or_leave_out(section, f"data.{name}: {len(broken)} of {len(known)} sounds cannot be read",
                            listed + (" ..." if len(broken) > 5 else ""))
    _tell(name, [one for one in known if one.broken is None], sounds, known)
    return known


def _tell(name: str, fine: Sequence[Known], sounds: Sounds, known: Sequence[Known]) -> None:
    rates = Counter(one.rate for one in fine)
    several = sum(one.channels > 1 for one in fine)
    silent = [row for row, one in enumerate(known) if one.broken is None and one.silent]
    if len(rates) > 1:
        listed = all_of([f"{count} of {rate:,} Hz" for rate, count in rates.most_common(5)])
        logger.warning("data.%s: sounds of several rates (%s), each resampled to its model's: what was recorded at a lower "
                       "rate lacks what lies above half of it", name, listed)
    if several:
        logger.info("data.%s: %d of %d sounds have several channels; heard is their mean", name, several, len(fine))
    if silent:
        logger.warning("data.%s: %d of %d sounds are silent, first %s", name, len(silent), len(fine), sounds.name(silent[0]))


def tell_rates(known: Sequence[Known], ears: Sequence[Ear]) -> None:
    """Which sounds are resampled for which model."""
    tell_resampled(known, {ear.rate for ear in ears})


def tell_resampled(known: Sequence[Known], wanted: Collection[int]) -> None:
    """Which sounds are resampled to which of these rates."""
    rates = Counter(one.rate for one in known if one.broken is None)
    for rate in sorted(wanted):
        other = sum(count for own, count in rates.items() if own != rate)
        if other:
            own = all_of([f"{one:,}" for one in sorted(rates) if one != rate][:5])
            logger.info("%d of %d sounds are resampled from %s to %s Hz, at which their model works", other,
                        sum(rates.values()), own, f"{rate:,}")


@dataclass(frozen=True)
class Piece:
    """A window of a sound, from `start` for `seconds`; of a whole one from 0 for all of it (`part`: no)."""

    row: int
    start: float
    seconds: float
    part: bool = False


def pieces(known: Sequence[Known], longest: float) -> list[Piece]:
    """Every readable sound whole, or in windows of `longest` seconds at even distances, of which the last ends with it."""
    found = []
    for row, one in enumerate(known):
        if one.broken is not None:
            continue
        if one.seconds <= longest:
            found.append(Piece(row, 0.0, one.seconds))
            continue
        count = int(np.ceil(one.seconds / longest - 1e-6))
        found += [Piece(row, float(start), longest, part=True) for start in np.linspace(0, one.seconds - longest, count)]
    return found


def own_seconds(cut: Sequence[Piece], known: Sequence[Known]) -> list[float]:
    """Of every window its part of its sound's seconds: windows overlap, and those of a sound last as long as it does."""
    number = Counter(one.row for one in cut)
    return [known[one.row].seconds / number[one.row] for one in cut]


def window_of(section: SoundsSection | None, ears: Sequence[Ear]) -> float:
    """Seconds that are heard at once: what the recipe says, and no more than every model can.

    Raises:
        DataError: the recipe asks for more than a model can hear.
    """
    limits = [ear.window for ear in ears if ear.window is not None]
    wanted = None if section is None else section.window
    if wanted is not None and limits and wanted > min(limits) + 1e-6:
        raise DataError(f"data.window: got {wanted:g} seconds, and a model hears {min(limits):g} at most; the rest would be "
                        "cut off without a word. Take less, or leave it out.")
    return wanted if wanted is not None else min([WINDOW, *limits])


class Source:
    """Pieces of sounds as both sides hear them. `seed`: of the augmentation; None for none. `told`: the sounds that teachers
    hear in place of the students', of which pieces are the same moments, or all of them."""

    def __init__(
        self, sounds: Sounds, cut: Sequence[Piece], student: Ear, teacher: Ear, seed: int | None, *, training: bool,
        told: Sounds | None = None,
    ) -> None:
        self.training = training
        self.sounds, self.cut, self.student, self.teacher, self.seed = sounds, cut, student, teacher, seed
        self.told = sounds if told is None else told
        self.shared = teacher is student and told is None
        # shared, so that the loader's processes see it change
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._kept: dict[int, tuple[NDArray[np.float32], ...]] = {}
        self._bytes = 0
        self._last: dict[str, tuple[int, Wave]] = {}

    def set_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def wave(self, position: int, sounds: Sounds) -> Wave:
        """Of the students' sounds, or of the teachers'; both are changed in the same way."""
        piece = self.cut[position]
        row, whole = self._last.get(sounds.column, (-1, None))
        if whole is None or row != piece.row:  # the windows of a sound follow each other
            try:
                whole = sounds.wave(piece.row)
            except OSError as error:
                raise DataError(f"{sounds.name(piece.row)} cannot be read: {error}") from error
            self._last[sounds.column] = piece.row, whole
        wave = whole.part(piece.start, piece.seconds) if piece.part else whole
        if self.seed is None:
            return wave
        return light(wave, (self.seed, int(self.epoch), piece.row, round(piece.start * 1000)))

    def features(self, position: int) -> tuple[NDArray[np.float32], ...]:
        """The student's, and the teacher's where they are others. Kept in memory, as far as they fit and do not change."""
        if position in self._kept:
            return self._kept[position]
        wave = self.wave(position, self.sounds)
        made: tuple[NDArray[np.float32], ...] = (self.student.features(wave),)
        if not self.shared:
            other = wave if self.told is self.sounds else self.wave(position, self.told)
            made = (*made, self.teacher.features(other))
        if self.seed is None:
            size = sum(one.nbytes for one in made)
            if self._bytes + size <= _KEEP:
                self._kept[position] = made
                self._bytes += size
        return made

    def batch(self, positions: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs of both models; one mapping where they are shared."""
        made = [self.features(position) for position in positions]
        student = self.student.batch([one[0] for one in made], training=self.training)
        if self.shared:
            return student, student
        return student, self.teacher.batch([one[1] for one in made], training=self.training)


def frames_of(source: Source, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By side which frames are of the sound, where that is not all of them."""
    sides: tuple[tuple[str, Callable[..., Any], Mapping[str, Tensor]], ...] = (
        ("student", source.student.valid, student), ("teacher", source.teacher.valid, teacher))
    found = {side: valid(inputs) for side, valid, inputs in sides}
    return {side: mask for side, mask in found.items() if mask is not None}
