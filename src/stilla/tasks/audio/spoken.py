"""Texts and the spectrograms of their being spoken, as batches for models that make a frame of the text and those before,
or all of them at once of how long each token lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from stilla.errors import DataError
from stilla.signals import Batch
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.audio.durations import Lasting
from stilla.tasks.audio.sounds import Known, Sounds
from stilla.tasks.audio.voice import Voice
from stilla.tasks.text.tokens import Tokens

_KEEP = 2**29  # bytes of spectrograms that a split may keep in memory


@dataclass(frozen=True)
class Own:
    """A teacher's own speech of a text that nobody has spoken. lasting: frames of every token, where it says that."""

    frames: Float32[NDArray[np.float32], "frames bins"]
    lasting: Lasting | None = None

    def known(self, voice: Voice) -> Known:
        """As if it were a sound of so many frames."""
        return Known((len(self.frames) - 1) * voice.hop / voice.rate, voice.rate)


@dataclass
class Frames:
    """Spectrograms of sounds, kept in memory as far as they fit. own: of rows without a sound, what a teacher has spoken."""

    sounds: Sounds
    keys: NDArray[np.int64]
    voice: Voice
    own: Mapping[int, Own] = field(default_factory=dict)
    _kept: dict[int, Float32[NDArray[np.float32], "frames bins"]] = field(default_factory=dict)
    _bytes: int = 0

    def of(self, position: int) -> Float32[NDArray[np.float32], "frames bins"]:
        if position in self._kept:
            return self._kept[position]
        row = int(self.keys[position])
        if row in self.own:
            return self.own[row].frames
        try:
            made = self.voice.spectrogram(self.sounds.wave(row))
        except OSError as error:
            raise DataError(f"{self.sounds.name(row)} cannot be read: {error}") from error
        if self._bytes + made.nbytes <= _KEEP:
            self._kept[position] = made
            self._bytes += made.nbytes
        return made


class Right(NamedTuple):
    """What an utterance should be: its frames, each with whether it is the last, and what is said in it."""

    frames: Float32[NDArray[np.float32], "frames numbers"]
    text: str


@dataclass(frozen=True)
class Utterances(Sequence[Right]):
    """Those of a split, made when they are asked for."""

    frames: Frames
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, which: int) -> Right: ...
    @overload
    def __getitem__(self, which: slice) -> list[Right]: ...
    def __getitem__(self, which: int | slice) -> Right | list[Right]:
        if isinstance(which, slice):
            return [self[one] for one in range(*which.indices(len(self)))]
        made = self.frames.of(range(len(self))[which])
        return Right(np.pad(made, [(0, 0), (0, 1)]) + _last(made), self.texts[which])


def _last(made: Float32[NDArray[np.float32], "frames bins"]) -> Float32[NDArray[np.float32], "frames numbers"]:
    """Zeros, and a one behind the last frame."""
    found = np.zeros((len(made), made.shape[1] + 1), np.float32)
    found[-1, -1] = 1
    return found


@dataclass(frozen=True)
class Script:
    """What one model is given to speak.

    read: the tokens of each. whose: by the names of its inputs, whose voice each is. lasting: of a model that makes all
    frames at once, how many of them every token lasts; None where it decides that itself.
    """

    voice: Voice
    read: Tokens
    whose: Mapping[str, NDArray[Any]]
    lasting: Sequence[Lasting] | None = None

    def select(self, places: NDArray[np.int64]) -> Script:
        """Some of the examples."""
        return replace(self, read=self.read.select(places), whose={name: one[places] for name, one in self.whose.items()},
                       lasting=None if self.lasting is None else [self.lasting[one] for one in places])

    def texts(self, examples: Sequence[int]) -> dict[str, Tensor]:
        """What it is told before it speaks."""
        ids = {name: value for name, value in self.read.batch(examples).items() if name in ("input_ids", "attention_mask")}
        return ids | {name: torch.from_numpy(one[list(examples)]) for name, one in self.whose.items()}

    def inputs(self, examples: Sequence[int], made: Sequence[NDArray[np.float32]]) -> dict[str, Tensor]:
        """The same with what says which frames it is to make of it: those of the sounds `made`."""
        texts = self.texts(examples)
        if not self.voice.at_once:
            return texts | _heard_before(self.voice, made)
        assert self.lasting is not None  # `prepare` makes no batch without
        durations = torch.zeros_like(texts["input_ids"])
        for row, example in zip(durations, examples, strict=True):
            own = torch.from_numpy(self.lasting[example])
            row[: len(own)] = own
        return texts | {"durations": durations}


@dataclass(frozen=True)
class Collate:
    """`teacher`: None where it is asked what the student is."""

    frames: Frames
    student: Script
    teacher: Script | None = None

    def __call__(self, examples: Sequence[int]) -> Batch:
        made = [self.frames.of(one) for one in examples]
        student = self.student.inputs(examples, made)
        teacher = student if self.teacher is None else self.teacher.inputs(examples, made)
        return Batch(student=student, teacher=teacher, labels=_labels(made),
                     keys=torch.from_numpy(self.frames.keys[list(examples)]))


def _heard_before(voice: Voice, made: Sequence[NDArray[np.float32]]) -> dict[str, Tensor]:
    """What a model has heard before each of its steps: a frame of zeros, then the last one of every step."""
    steps = [-(-len(one) // voice.reduction) for one in made]
    values = np.zeros((len(made), max(steps), voice.bins), np.float32)
    mask = np.zeros(values.shape[:2], np.int64)
    for row, (one, count) in enumerate(zip(made, steps, strict=True)):
        values[row, 1:count] = one[voice.reduction - 1 :: voice.reduction][: count - 1]
        mask[row, :count] = 1
    return {"decoder_input_values": torch.from_numpy(values), "decoder_attention_mask": torch.from_numpy(mask)}


def _labels(made: Sequence[NDArray[np.float32]]) -> Tensor:
    """(batch, frames, bins + 1): every frame, and whether it is the last; -100 behind it."""
    labels = np.full((len(made), max(map(len, made)), made[0].shape[1] + 1), NO_ANSWER, np.float32)
    for row, one in zip(labels, made, strict=True):
        row[: len(one)] = np.pad(one, [(0, 0), (0, 1)]) + _last(one)
    return torch.from_numpy(labels)
