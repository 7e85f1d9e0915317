"""What a teacher makes of texts by itself: the sounds of those that nobody has spoken, how long each token lasts along the
data's own sounds, and whether a recogniser hears in it what it was to say."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.errors import CompatibilityError, DataError, counted
from stilla.recipe import ModelSource, StudentSpec, Teacher
from stilla.runtime.narrate import tracked
from stilla.runtime.processes import processes
from stilla.tasks.audio import talking
from stilla.tasks.audio.durations import Given, Lasting, along, evenly, refuse_zeros
from stilla.tasks.audio.listening import listener
from stilla.tasks.audio.sections import TextToSpeechData
from stilla.tasks.audio.spoken import Frames, Own, Script
from stilla.tasks.audio.voice import Voice
from stilla.tasks.audio.waves import to_wave
from stilla.tasks.exam import array
from stilla.tasks.shared.transcripts import character_error_rate
from stilla.tasks.text import tokens

logger = logging.getLogger(__name__)

_AT_ONCE = 16
_LONGEST = 4
"""A teacher's own speech of a text is cut at so many times the length of the data's, and half a second."""

_STEP_BY_STEP = (
    "data.durations: a SpeechT5 says frame after frame, and not how long each token lasts; where it looks meanwhile is no "
    "proof of that. Give a column of how many frames each token lasts (of a forced aligner), with which a student learns its "
    "frames")
_UNTOLD = (
    "data.unlabelled: a SpeechT5 speaks texts and does not say how long each token lasts in what it has spoken, which a "
    "model that makes all frames at once has to be told. Leave it out, or take a FastSpeech2-Conformer as teacher, or a "
    "student that speaks frame after frame")
_OTHER_TOKENS = (
    "durations: the teacher says how long each of its own tokens lasts, and the student reads others. Take a student with "
    "its teacher's tokenizer, or give data.durations")
_UNTAUGHT = (
    "data.durations: a FastSpeech2-Conformer makes all frames at once of how long each token lasts, and no teacher that has "
    "learnt to speak is there to say it. Give a column of how many frames each token lasts (of a forced aligner), or a "
    "teacher that can speak (without train:)")

Speech = tuple[list[int], list[NDArray[np.float32]], list[Lasting] | None]
"""Of a few texts: which they are, the frames of each, and how many of them each token lasts, where the teacher says it."""


@dataclass(frozen=True)
class Teller:
    """A teacher that is at hand. By content, as several trainings of a run ask for the same: known: durations; heard:
    character error rates; own: its speech of texts that nobody has spoken, None where there is none to learn from."""

    model: Any
    voice: Voice
    known: dict[bytes, Lasting] = field(default_factory=dict, repr=False)
    heard: dict[bytes, float] = field(default_factory=dict, repr=False)
    own: dict[bytes, Own | None] = field(default_factory=dict, repr=False)

    def speech(self, script: Script, most: int) -> list[Own | None]:
        """Of every text what it speaks; None where it has not ended after `most` frames, or says nothing. `script`: its own.
        How many are left out is told."""
        names = [_name(script, None, one) for one in range(len(script.read.lengths))]
        new = [place for place, name in enumerate(names) if name not in self.own]
        for places, said, lasting in self._speech(script, new, [most] * len(new), "speaking"):
            for index, (place, frames) in enumerate(zip(places, said, strict=True)):
                whole = self.voice.frames_in(0.0) <= len(frames) < most and np.isfinite(frames).all()
                self.own[names[place]] = Own(frames, None if lasting is None else lasting[index]) if whole else None
        found = [self.own[name] for name in names]
        if out := sum(one is None for one in found):
            logger.warning("%d of %s left out: the teacher does not end them within %.1f seconds (data.window), or says "
                           "nothing", out, counted(len(found), "unlabelled text"), most * self.voice.hop / self.voice.rate)
        return found

    def lasting(self, script: Script, frames: Frames) -> list[Lasting]:
        """Frames of every token of the texts along the sounds.

        Raises:
            CompatibilityError: nobody knows it of this teacher, or it reads other tokens.
        """
        if not self.voice.at_once:
            raise CompatibilityError(_STEP_BY_STEP)
        if not tokens.same(self.voice.tokenizer, script.voice.tokenizer):
            raise CompatibilityError(_OTHER_TOKENS)
        names = {place: _name(script, frames, place) for place, row in enumerate(frames.keys) if int(row) not in frames.own}
        new = [place for place, name in names.items() if name not in self.known]
        for places, said, lasting in self._speech(script, new, self._most(frames, new), "aligning"):
            for place, mels, own in zip(places, said, lasting or (), strict=True):
                self.known[names[place]] = along(mels, own, frames.of(place))
        return [self.known[names[place]] if place in names else _lasting_of(frames.own[int(row)])
                for place, row in enumerate(frames.keys)]

    def clear(
        self, section: TextToSpeechData, script: Script, frames: Frames, texts: Sequence[str]
    ) -> NDArray[np.int64]:
        """Places of those texts that a recogniser hears in this teacher's speech of them, up to `max_cer`; the others are
        counted and told. `script`: the teacher's.

        Raises:
            DataError: there are none.
        """
        assert section.recogniser is not None  # the section sees to it
        assert section.max_cer is not None
        hear = listener(section.recogniser, "data.recogniser")
        names = [_name(script, frames, one) for one in range(len(texts))]
        new = [place for place, name in enumerate(names) if name not in self.heard]
        there = [place for place in new if int(frames.keys[place]) in frames.own]
        spoken = ((some, [frames.of(place) for place in some])
                  for some in (there[start : start + _AT_ONCE] for start in range(0, len(there), _AT_ONCE)))
        rest = [place for place in new if place not in {*there}]
        asked = ((places, said) for places, said, _ in self._speech(script, rest, self._most(frames, rest), "listening"))
        for places, said in chain(spoken, asked):
            heard = hear([to_wave(one, self.voice, section.vocoder, "data.vocoder") for one in said])
            for one, place in zip(heard, places, strict=True):
                self.heard[names[place]] = character_error_rate(one, texts[place])
        rates = [self.heard[name] for name in names]
        kept = np.flatnonzero(np.array(rates) <= section.max_cer)
        if not len(kept):
            raise DataError(f"data.max_cer: a recogniser hears all {len(rates)} texts otherwise than the teacher was to "
                            f"speak them, the nearest with a character error rate of {min(rates):.2f}. Raise it, train the "
                            "teacher longer, or look whether the recogniser knows this language")
        if len(kept) < len(rates):
            logger.warning("%d of %s left out: a recogniser hears them otherwise than the teacher was to speak them "
                           "(data.max_cer %g)", len(rates) - len(kept), counted(len(rates), "text"), section.max_cer)
        return kept

    def _most(self, frames: Frames, places: Sequence[int]) -> list[int]:
        more = 0.5 * self.voice.rate / self.voice.hop
        return [int(_LONGEST * len(frames.of(one)) + more) for one in places]

    def _speech(self, script: Script, places: Sequence[int], limits: Sequence[int], title: str) -> Iterator[Speech]:
        """limits: frames of each at most."""
        device = processes().device
        self.model.to(device).eval()
        for start in tracked(range(0, len(places), _AT_ONCE), title) if places else ():
            some = list(places[start : start + _AT_ONCE])
            inputs = {name: value.to(device) for name, value in script.texts(some).items()}
            most = list(limits[start : start + _AT_ONCE])
            if self.voice.at_once:
                said, lasting = talking.lasting(self.model, inputs, most)
                yield some, [array(one) for one in said], [one.cpu().numpy() for one in lasting]
            else:
                yield some, [array(one) for one in talking.speak(self.model, inputs, most)], None


def _name(script: Script, frames: Frames | None, place: int) -> bytes:
    """Of what is asked about one text: its tokens, whose voice, and the sound, where there is one."""
    made = hashlib.blake2b(digest_size=16)
    for one in (*script.texts([place]).values(), *(() if frames is None else [frames.of(place)])):
        made.update(np.ascontiguousarray(one).tobytes())
    return made.digest()


def _lasting_of(own: Own) -> Lasting:
    """Raises:
        CompatibilityError: the teacher did not say it.
    """
    if own.lasting is None:
        raise CompatibilityError(_UNTOLD)
    return own.lasting


def refuse_untold(teacher: Teacher, student: StudentSpec) -> None:
    """Of a recipe without a column of durations.

    Raises:
        CompatibilityError: nobody will know them, as far as the models' configs say.
    """
    told = talking.makes_all_at_once(teacher)
    if told and teacher.train is not None:
        raise CompatibilityError(_UNTAUGHT)
    other = student.model is not None and talking.makes_all_at_once(
        ModelSource(model=student.model, revision=student.revision, trust_remote_code=student.trust_remote_code))
    if told is False and other:
        raise CompatibilityError(_STEP_BY_STEP)


def with_durations(
    scripts: Sequence[Script], frames: Frames, given: Given | None, teller: Teller | None, *, sketch: bool
) -> list[Script]:
    """With how long every token lasts, for models that make all frames at once: as the data or else the teacher say.

    `sketch`: where neither does, all last as long.

    Raises:
        CompatibilityError: nobody says it.
        DataError: texts have a token that such models never learn.
    """
    at_once = [one for one in scripts if one.voice.at_once]
    if not at_once:
        return [*scripts]
    first, *others = at_once
    if any(not tokens.same(first.voice.tokenizer, one.voice.tokenizer) for one in others):
        raise CompatibilityError("text-to-speech: teacher and student make all frames of how long each token lasts, and read "
                                 "other tokens. Take a student with its teacher's tokenizer")
    refuse_zeros(first.read)
    of_own = {row: _lasting_of(frames.own[row]) for row in frames.keys.tolist() if row in frames.own}
    rows = frames.keys.tolist()
    if of_own and teller is not None and not tokens.same(teller.voice.tokenizer, first.voice.tokenizer):
        raise CompatibilityError(_OTHER_TOKENS)
    if given is not None:
        lasting = [of_own[row] if row in of_own else given.lasting(row) for row in rows]
    elif teller is not None:
        lasting = teller.lasting(first, frames)
    elif sketch:
        lasting = [of_own[row] if row in of_own else evenly(int(first.read.lengths[place]), len(frames.of(place)))
                   for place, row in enumerate(rows)]
    else:
        raise CompatibilityError(_UNTAUGHT)
    return [replace(one, lasting=lasting) if one.voice.at_once else one for one in scripts]
