"""Texts that nobody has spoken, beside those that somebody has: what is read of them, and what a teacher makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from datasets import Audio, Dataset, concatenate_datasets
from numpy.typing import NDArray

from stilla.data import are_unlabelled
from stilla.data.unlabelled import with_nulls
from stilla.errors import CompatibilityError, DataError
from stilla.tasks.audio.durations import evenly
from stilla.tasks.audio.reading import WINDOW
from stilla.tasks.audio.spoken import Own, Script
from stilla.tasks.audio.telling import Teller
from stilla.tasks.audio.voice import Voice
from stilla.tasks.audio.voices import Voices
from stilla.tasks.shared.bound import bound, usual_texts
from stilla.tasks.shared.columns import columns_of, is_text
from stilla.tasks.text import tokens
from stilla.tasks.text.tokens import Tokens

_SECONDS = 0.07
"""That a character takes where only sizes are asked for: some fourteen a second, as English is read aloud."""


def unlabelled(pool: Dataset, text: str, voices: Voices, audio: str, called: Mapping[str, str]) -> Dataset:
    """See `Task.unlabelled`. Their column of sounds is empty.

    Raises:
        DataError: no column of texts, or none of whose voice they are.
    """
    whose = {name: called.get(name, name) for name in voices.columns}
    absent = [name for name in whose if whose[name] not in pool.column_names]
    if absent:
        raise DataError(f"data.unlabelled: whose voice is each text? There is no column {whose[absent[0]]!r}. "
                        f"{columns_of(pool)} Say it in data.unlabelled.columns, for example "
                        f"{{{absent[0]}: {pool.column_names[-1]}}}.")
    named = {name: column for name, column in called.items() if name not in whose}
    rest = pool.remove_columns([*whose.values()])
    found = bound(rest, (text,), named, is_text, "texts", partial(usual_texts, count=1), (audio,))
    if whose:
        beside = pool.select_columns([*whose.values()]).rename_columns({column: name for name, column in whose.items()})
        found = concatenate_datasets([found, beside], axis=1)
    voices.refuse_unknown("unlabelled", found)
    return with_nulls(found, {audio: Audio(decode=False)})


def read_by(voice: Voice, said: Sequence[str | None]) -> Tokens:
    """Texts as a model reads them, whole."""
    return tokens.tokenise(voice.tokenizer, [[text or "" for text in said]], 2**20)[0]


def own_speech(
    split: Dataset, said: Sequence[str | None], ours: Sequence[tuple[Voice, Tokens]], teacher: Voice | None,
    teller: Teller | None, script: Callable[[NDArray[np.int64]], Script], window: float | None,
) -> dict[int, Own]:
    """By row, what the teacher makes of texts that nobody has spoken; not of those that it does not end.

    ours: of each model, what it reads of all texts. teller: None where only sizes are asked for. script: what the teacher is
    given of some rows. window: seconds that it may take at most.

    Raises:
        CompatibilityError: no teacher is known.
    """
    rows = [row for row in np.flatnonzero(are_unlabelled(split)).tolist() if (said[row] or "").strip()]
    if not rows:
        return {}
    if teacher is None:
        raise CompatibilityError("data.unlabelled: texts without sounds are spoken by the teacher, and here none is known")
    both = (*ours, (teacher, read_by(teacher, said)))
    there = [row for row in rows if all(own.lengths[row] <= one.room for one, own in both)]
    # what has no place is no more than named (`Fitting`)
    found = {row: Own(np.zeros((1, teacher.bins), np.float32)) for row in {*rows} - {*there}}
    if teller is None:
        counts = next((own for one, own in both if one.at_once), ours[0][1]).lengths
        return found | {row: _sketched(said[row] or "", int(counts[row]), ours[0][0], teacher) for row in there}
    most = min(teacher.frames_in(window or WINDOW), *(one.longest for one, _ in both))
    spoken = teller.speech(script(np.array(there, np.int64)), most) if there else []
    return found | {row: one for row, one in zip(there, spoken, strict=True) if one is not None}


def _sketched(text: str, tokens: int, voice: Voice, teacher: Voice) -> Own:
    """As long as the text may take, all its tokens alike: where only sizes are asked for."""
    frames = min(max(voice.frames_in(len(text) * _SECONDS), tokens), voice.longest)
    return Own(np.zeros((frames, voice.bins), np.float32), evenly(tokens, frames) if teacher.at_once else None)
