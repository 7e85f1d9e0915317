"""Which utterances can be learnt by models of these sizes: what is too long, or does not fit what is said of it, is refused
by name, or left out and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from stilla.errors import DataError
from stilla.tasks.audio.durations import Given
from stilla.tasks.audio.reading import WINDOW
from stilla.tasks.audio.sections import TextToSpeechData
from stilla.tasks.audio.sounds import Known
from stilla.tasks.audio.voice import Voice
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.columns import values
from stilla.tasks.shared.label_checks import rows_in_words


@dataclass(frozen=True)
class Fitting:
    """The utterances of a split. known: of each, what is known of its sound. voices, tokens: of each model, its sizes and how
    many tokens it reads of every text. given: what a column says of durations."""

    section: TextToSpeechData
    split: Dataset
    text: str
    known: Sequence[Known]
    voices: Sequence[Voice]
    tokens: Sequence[NDArray[np.int64]]
    given: Given | None = None

    def keys(self) -> NDArray[np.int64]:
        """Those that can be learnt.

        Raises:
            DataError: some cannot, and the recipe does not leave them out; or none can.
        """
        there = [row for row, text in enumerate(values(self.split, self.text))
                 if text and text.strip() and self.known[row].broken is None]
        left: set[int] = set()
        for why, rows in self._unfit(there):
            if new := [row for row in rows if row not in left]:
                refuse_or_leave_out(self.section, f"data: {len(new)} of {len(there)} examples: each {why}",
                                    rows_in_words(self.split, new))
                left |= {*new}
        keys = np.array([row for row in there if row not in left], np.int64)
        if not len(keys):
            raise DataError(f"there is nothing left to speak in {self.text!r}: all {len(self.split)} examples are left out.")
        return keys

    def _unfit(self, there: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
        longest = self.section.window or WINDOW
        yield (f"is spoken for longer than {longest:g} seconds (data.window)",
               [row for row in there if self.known[row].seconds > longest + 1e-6])
        yield (f"has more frames than the {min(one.longest for one in self.voices):,} that a decoder has places for",
               [row for row in there if any(self._frames(row) > one.longest for one in self.voices)])
        yield (f"has more tokens than the {min(one.room for one in self.voices):,} that a model has places for",
               [row for row in there if any(own[row] > one.room for one, own in zip(self.voices, self.tokens))])
        at_once = next((own for one, own in zip(self.voices, self.tokens) if one.at_once), None)
        if at_once is None:
            return
        yield ("has fewer frames than tokens, which would have to last none",
               [row for row in there if at_once[row] > self._frames(row)])
        if self.given is not None:
            counts, frames = at_once.tolist(), [self._frames(row) for row in range(len(self.split))]
            rows = self.given.unfit(there, counts, frames)
            if rows:
                first, odd = rows[0], self.given.said[rows[0]] or ()
                yield (f"has durations ({self.section.durations!r}) that are not one for each of its tokens, or do not add "
                       f"up to its frames (in one, {len(odd)} add up to {sum(odd)}, of {counts[first]} tokens and "
                       f"{frames[first]} frames)", rows)

    def _frames(self, row: int) -> int:
        """Of a sound, in every model's spectrogram."""
        return self.voices[0].frames_in(self.known[row].seconds)
