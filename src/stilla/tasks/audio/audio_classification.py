"""Audio classification: sounds with a class, several labels, or a number."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForAudioClassification

from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.recipe import ModelSource, StudentSpec
from stilla.signals import Batch
from stilla.tasks.answers import Answers, Metric
from stilla.tasks.audio import hearing
from stilla.tasks.audio.norms import leave_padding_out
from stilla.tasks.audio.privileged import Both, sounds_of_teacher
from stilla.tasks.audio.reading import (
    Source,
    audio_column,
    checked,
    frames_of,
    own_seconds,
    pieces,
    tell_rates,
    window_of,
)
from stilla.tasks.audio.sections import AudioClassificationData
from stilla.tasks.audio.sounds import Sounds, data_uri
from stilla.tasks.audio.unlabelled import beside, traces, unlabelled, usable
from stilla.tasks.audio.usage import HEARING
from stilla.tasks.base import Loaded, Prepared, Side
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import loading
from stilla.tasks.shared.class_exam import ClassExam
from stilla.tasks.shared.classification import Classification, Positions, attempt
from stilla.tasks.shared.imported import check_answers
from stilla.tasks.shared.label_weights import problem_of
from stilla.tasks.shared.metrics import average_precision
from stilla.views import Sound, View

logger = logging.getLogger(__name__)

_SHOWN = 5.0  # seconds
_FRAMES_FROM = ("conv_kernel", "conv_stride", "feat_extract_norm", "num_mel_bins", "max_length", "squeeze_factor",
                "subsampling_factor", "subsampling_conv_kernel_size", "subsampling_conv_stride")


@dataclass(frozen=True)
class SoundExam(ClassExam):
    """A sound that is heard in several windows is answered by the mean of its windows' logits."""

    def metrics(self) -> tuple[Metric, ...]:
        """Of several labels, mean average precision before all others."""
        found = super().metrics()
        return (average_precision(), *found) if self.problem.kind == "multi_label" else found

    def finished(self, answers: Answers) -> Answers:
        keys, first, owner = np.unique(answers.keys, return_index=True, return_inverse=True)
        if len(keys) == len(answers):
            return answers
        given = np.asarray(answers.given)
        total = np.zeros((len(keys), *given.shape[1:]), np.float64)
        np.add.at(total, owner, given)
        share = np.bincount(owner).reshape(-1, *[1] * (given.ndim - 1))
        return Answers(keys, (total / share).astype(given.dtype), np.asarray(answers.references)[first])


@dataclass(frozen=True)
class AudioClassification(Classification[AudioClassificationData]):
    """Sounds by class; several labels per sound; or a number per sound."""

    audio: str = ""
    """The column."""
    teachers: str = ""
    """The column that teachers hear instead; empty: the same."""
    also: str = ""
    """A column that others hear, of the examples that can be heard."""

    kind: ClassVar[str] = "audio-classification"
    given = '"sound.wav"'
    preparing = HEARING
    data_section = AudioClassificationData
    heads: ClassVar[tuple[str, ...]] = (
        *(f"{family}ForSequenceClassification" for family in (
            "Wav2Vec2", "Wav2Vec2Bert", "Wav2Vec2Conformer", "Hubert", "WavLM", "Data2VecAudio", "SEW", "SEWD", "UniSpeech",
            "UniSpeechSat")), "ForAudioClassification")
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input_values": ("batch", "samples"), "input_features": ("batch",), "attention_mask": ("batch", "samples")}

    def axes_of(self, inputs: Mapping[str, Tensor]) -> Mapping[str, tuple[str, ...]]:
        """Spectrograms of one length have no mask, and those of any (w2v-BERT) have one."""
        steps = ("batch", "steps") if "attention_mask" in inputs else ("batch",)
        return {**self.axes, "input_features": steps}

    @classmethod
    def understand(cls, section: AudioClassificationData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        label = attempt(problems, _columns.labels, section, train) or ()
        audio = attempt(problems, audio_column, section, train, label)
        absent = _columns.missing([*label, *([audio] if audio else [])], splits)
        problem = None
        if not absent:
            for name, split in splits.items() if audio else ():
                attempt(problems, checked, section, name, split, audio)
            problem = attempt(problems, problem_of, section, label, splits) if label else None
        problems += absent
        if problems or problem is None or audio is None:
            raise all_at_once(problems, DataError)
        return cls(problem, section, audio)

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        return replace(self, teachers=sounds_of_teacher(columns, self.section, self.audio, splits, self.problem.columns))

    def of_teacher(self) -> Self:
        return replace(self, audio=self.teachers, teachers="", also=self.audio) if self.teachers else self

    def resolved(self, section: AudioClassificationData) -> AudioClassificationData:
        return section.model_copy(update={**self.labels_resolved(), "audio": self.audio})

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        model = loading.classifier(source, self.problem, AutoModelForAudioClassification, labelled=labelled)
        ear = hearing.ear_for(source, model)
        check_answers(model, hearing.sample(ear), source.model)
        return Loaded(model, ear, source.model)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        refuse_other_frames(spec)
        leave_padding_out(model)
        return super().started(model, spec)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        other: hearing.Ear = student if teacher is None or hearing.same(student, teacher) else teacher
        ears: tuple[hearing.Ear, ...] = (student,) if other is student else (student, other)
        longest = window_of(self.section, ears)
        both = Both.of(self.section, split, self.audio, self.teachers, self.also, asked=teacher is not None)
        both = both.without_same_windows(self.section, split, longest)
        known, cut = both.known, pieces(both.known, longest)
        if not cut:
            raise DataError(f"there is no sound left in {self.audio!r}: all {len(split)} are broken.")
        heard = len({one.row for one in cut})
        if len(cut) > heard:
            logger.info("%d sounds are heard in %d windows; their answer is the mean of their windows'", heard, len(cut))
        if training:
            tell_rates([*known, *(both.theirs or ())], ears)
        keys = np.array([one.row for one in cut], np.int64)
        augment = training and self.section.augment == "light"
        source = Source(both.own, cut, student, other, seed if augment else None, training=training, told=both.told)
        labels = self.encoded(split, keys)
        return Prepared(
            examples=Positions(len(keys)), collate=_Collate(source, labels, keys), keys=keys, references=labels,
            lengths=None if student.fixed and other.fixed else [round(one.seconds * 1000) for one in cut],
            seconds=own_seconds(cut, known), on_epoch=source.set_epoch if augment else None,
            aligned=source.shared or (both.told is None and hearing.same_frames(student, teacher)))

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        return unlabelled(pool, self.heard, called, self.problem.columns)

    def usable(self, pool: Dataset) -> Dataset:
        return usable(self.section, pool, self.heard)

    def beside(self, split: Dataset) -> Dataset:
        return beside(split, self.heard, self.problem.columns)

    @property
    def heard(self) -> tuple[str, ...]:
        """All columns that models hear."""
        return (self.audio, self.teachers) if self.teachers else (self.audio,)

    def traces(self, split: Dataset) -> Iterable[tuple[bytes]]:
        return traces(split, self.audio)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """A sound's frames count as its tokens, where they are known; else the sound as one."""
        counts = self.label_counts(batch)
        frames = self.mask(batch, Side.STUDENT)
        return {**counts, "tokens": counts["examples"] if frames is None else int(frames.sum())}

    def mask(self, batch: Batch, side: Side) -> Tensor | None:
        found: Tensor | None = batch.get("frames", {}).get(side.value)
        return found

    def exam(self) -> SoundExam:
        return SoundExam(self.problem, self.show, tuned=self.settles)

    def show(self, split: Dataset, key: int) -> View:
        return Sound(data_uri(Sounds.of(split.select([int(key)]), self.audio).wave(0), _SHOWN))

    def alike(self, student: Any, teacher: Any) -> bool:
        """Each is asked about the same windows."""
        return True


def refuse_other_frames(spec: StudentSpec) -> None:
    """Raises:
        CompatibilityError: a student that is made by its teacher's config would hear otherwise than its extractor says.
    """
    said = spec.config or {}
    parts = {"": said} | {f"{name}.": part for name, part in said.items() if isinstance(part, Mapping)}
    changed = [f"{place}{name}" for place, part in parts.items() for name in _FRAMES_FROM if name in part]
    if changed:
        raise CompatibilityError(f"student.config.{changed[0]}: changes how the student hears, and it has its teacher's "
                                 "feature extractor. Give a student with its own (`student: {model: ...}`)")


@dataclass(frozen=True)
class _Collate:
    source: Source
    labels: NDArray[Any] | None
    keys: NDArray[np.int64]

    def __call__(self, examples: Sequence[int]) -> Batch:
        student, teacher = self.source.batch(examples)
        batch = Batch(student=student, teacher=teacher, keys=torch.from_numpy(self.keys[list(examples)]))
        if frames := frames_of(self.source, student, teacher):
            batch["frames"] = frames
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[list(examples)])
        return batch
