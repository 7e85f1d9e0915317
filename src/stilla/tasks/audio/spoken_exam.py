"""What models that speak are asked: the next frame of the data's own sounds, and to speak by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from stilla.signals import Batch, Side
from stilla.tasks.answers import NO_ANSWER, Answers, Metric
from stilla.tasks.audio.at_once_files import AtOnceFile
from stilla.tasks.audio.cepstra import mel_cepstral_distance
from stilla.tasks.audio.listening import listener
from stilla.tasks.audio.rating import Rating, rater
from stilla.tasks.audio.sections import TextToSpeechEvaluate
from stilla.tasks.audio.sounds import Sounds, Wave, data_uri
from stilla.tasks.audio.speaking_files import SpeakingFiles
from stilla.tasks.audio.spoken import Right
from stilla.tasks.audio.talking import speak
from stilla.tasks.audio.voice import Voice
from stilla.tasks.audio.waves import to_wave, vocoder
from stilla.tasks.exam import ForwardExam, any_of, array
from stilla.tasks.shared.columns import values
from stilla.tasks.shared.strings import find
from stilla.views import RIGHT, Sounding, View

_SHOWN = 8.0  # seconds
_RECOGNISER, _VOCODER = "evaluate.recogniser", "evaluate.vocoder"

Numbers = NDArray[np.float32]
"""(frames, numbers) of one utterance."""


class Said(NamedTuple):
    """What was spoken, (frames, bins); what a recogniser has heard in it, and how DNSMOS rates it (overall, the voice, the
    background), None where neither was asked."""

    frames: Numbers
    heard: str | None = None
    rated: Rating | None = None


@dataclass(frozen=True)
class FrameExam(ForwardExam):
    """An answer is (frames, bins + 1): every frame as the model makes it of those before it, which are the data's own, and
    the log-odds that it is the last, where the model says it: else (frames, bins). What it is held against is `Right`."""

    units: ClassVar[str] = "utterances"

    def outputs(self, outputs: Any) -> Tensor:
        if isinstance(outputs, Tensor):
            return outputs
        stop = outputs.get("stop")
        said = [outputs["spectrogram"], *([] if stop is None else [stop[..., None]])]
        return torch.cat(said, -1).float()

    def concerns(self, metric: Metric, answers: Answers) -> bool:
        """Models that are told how long every token lasts say no end."""
        return metric.name != "stop_accuracy" or all(
            one.shape == right.frames.shape for one, right in zip(answers.given, answers.references, strict=True))

    def given(self, said: Tensor, batch: Batch, teacher: Any | None) -> list[Numbers]:
        return [one[:length] for one, length in zip(array(said), _lengths(batch), strict=True)]

    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("frame_error", _errors, from_sums=_ratio, higher_is_better=False, bounded=False),
                Metric("stop_accuracy", _ends, from_sums=_ratio))

    def constant(self, answers: Answers) -> list[Numbers]:
        """The mean frame."""
        own = [right.frames for right in answers.references]
        mean = np.concatenate(own).mean(0)
        return [np.repeat(mean[None], len(one), 0) for one in own]

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> None:
        """Utterances of other lengths say nothing of each other's frames."""
        return

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> View:
        raise NotImplementedError  # nothing is decided of frames, and none is a sample


@dataclass(frozen=True)
class SpokenExam(ForwardExam):
    """Models speak texts by themselves. An answer is `Said`, what it is held against `Right`.

    voice: by which frames become waves. audio, text: the columns.
    """

    section: TextToSpeechEvaluate
    voice: Voice
    audio: str
    text: str

    units: ClassVar[str] = "utterances"
    samples: ClassVar[int] = 8

    @classmethod
    def of(cls, section: TextToSpeechEvaluate, voice: Voice, audio: str, text: str) -> SpokenExam:
        """Raises:
            CompatibilityError: the recogniser, the vocoder or DNSMOS is not there.
            DataError: the vocoder is made for other frames.
        """
        if section.recogniser is not None:
            listener(section.recogniser, _RECOGNISER)
        if section.vocoder is not None:
            vocoder(section.vocoder, voice.bins, voice.rate, _VOCODER)
        if section.dnsmos is not None:
            rater(section.dnsmos)
        return cls(section, voice, audio, text)

    def outputs(self, outputs: Any) -> Tensor:
        return FrameExam().outputs(outputs)

    def ask(self, forward: Any, batch: Batch, side: Side) -> list[Tensor]:
        assert isinstance(forward, PreTrainedModel | AtOnceFile | SpeakingFiles)  # what this task loads and opens
        inputs, more = batch[side.value], 0.5 * self.voice.rate / self.voice.hop
        most = [int(self.section.longest * one + more) for one in _lengths(batch)]
        return speak(forward, inputs, most)

    def given(self, said: list[Tensor], batch: Batch, teacher: Any | None) -> list[Said]:
        return self._judged([array(one) for one in said])

    def _judged(self, spoken: Sequence[Numbers]) -> list[Said]:
        recogniser, rated = self.section.recogniser, self.section.dnsmos
        if recogniser is None and rated is None:
            return [Said(one) for one in spoken]
        waves = [self.wave(one) for one in spoken]
        heard = [None] * len(waves) if recogniser is None else listener(recogniser, _RECOGNISER)(waves)
        ratings = [None] * len(waves) if rated is None else [rater(rated)(one) for one in waves]
        return [Said(*one) for one in zip(spoken, heard, ratings, strict=True)]

    def metrics(self) -> tuple[Metric, ...]:
        return spoken_metrics(heard=self.section.recogniser is not None, rated=self.section.dnsmos is not None)

    def constant(self, answers: Answers) -> list[Said]:
        """The mean frame, as long as it should be."""
        return self._judged([one[:, :-1] for one in FrameExam().constant(answers)])

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Sounding:
        """The text, the data's own sound, and what each model makes of it."""
        row = split.select([int(any_of(answers).keys[example])])
        own = Sounds.of(row, self.audio).wave(0)
        spoken = {name: self.wave(one.given[example].frames) for name, one in answers.items()}
        return Sounding(str(values(row, self.text)[0]), {
            name: data_uri(one, _SHOWN) for name, one in {RIGHT: own, **spoken}.items()})

    def wave(self, frames: Numbers) -> Wave:
        return to_wave(frames, self.voice, self.section.vocoder, _VOCODER)


def spoken_metrics(*, heard: bool = False, rated: bool = False) -> tuple[Metric, ...]:
    """How far from the data's own sound, at whatever pace; by how much too long or too short; where a recogniser has `heard`
    it, in how many characters it was misheard; and where DNSMOS has `rated` it, how."""
    own = (Metric("mcd", _distances, from_sums=_ratio, higher_is_better=False, bounded=False),
           Metric("duration_error", _durations, from_sums=_ratio, higher_is_better=False, bounded=False))
    (cer,) = find(("cer",))
    misheard = replace(cer, statistics=lambda given, references: cer.statistics(
        [said.heard for said in given], [right.text for right in references]))
    return (*own, *((misheard,) if heard else ()), *(_ratings() if rated else ()))


def _ratings() -> tuple[Metric, ...]:
    """From 1 to 5."""
    return tuple(Metric(name, partial(_rated, place=place), from_sums=_ratio, bounded=False)
                 for place, name in enumerate(("dnsmos", "dnsmos_voice", "dnsmos_background")))


def _rated(given: Sequence[Said], references: Sequence[Right], place: int) -> NDArray[np.float64]:
    """(utterances, 2): a rating, of one utterance."""
    return np.array([[said.rated[place], 1.0] for said in given if said.rated is not None])


def _lengths(batch: Batch) -> list[int]:
    """Frames of every utterance."""
    found: list[int] = (batch["labels"][..., 0] != NO_ANSWER).sum(1).tolist()
    return found


def _errors(given: Sequence[Numbers], references: Sequence[Right]) -> NDArray[np.float64]:
    """(utterances, 2): Σ |s - y| over frames and bins, and of how many numbers."""
    bins = [right.frames[:, :-1] for right in references]
    apart = [np.abs(one[:, : right.shape[1]].astype(np.float64) - right) for one, right in zip(given, bins, strict=True)]
    return np.array([[one.sum(), one.size] for one in apart])


def _ends(given: Sequence[Numbers], references: Sequence[Right]) -> NDArray[np.float64]:
    """(utterances, 2): frames of which it is rightly said whether they are the last, of how many; none where no end is
    said."""
    right = [(one[:, -1] > 0) == (right.frames[:, -1] > 0.5) if one.shape == right.frames.shape else np.zeros(0, bool)
             for one, right in zip(given, references, strict=True)]
    return np.array([[one.sum(), len(one)] for one in right], np.float64)


def _distances(given: Sequence[Said], references: Sequence[Right]) -> NDArray[np.float64]:
    """(utterances, 2): decibels, of one utterance."""
    return np.array([[mel_cepstral_distance(said.frames, right.frames[:, :-1]), 1.0]
                     for said, right in zip(given, references, strict=True)])


def _durations(given: Sequence[Said], references: Sequence[Right]) -> NDArray[np.float64]:
    """(utterances, 2): by how much of its own length an utterance is too short or too long, of one utterance."""
    pairs = [(len(said.frames), len(right.frames)) for said, right in zip(given, references, strict=True)]
    return np.array([[abs(one - right) / right, 1.0] for one, right in pairs])


def _ratio(sums: NDArray[np.float64]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")
