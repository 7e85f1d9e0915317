"""Text-to-speech: texts, and the sounds of their being spoken, as spectrograms that a model makes frame after frame."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForTextToSpectrogram, PreTrainedTokenizerBase

from stilla.errors import CompatibilityError, DataError, all_at_once, all_of, quoted
from stilla.recipe import Evaluate, ModelSource, ObjectiveSpec, StudentSpec
from stilla.signals import Batch, Dense, Dims, Side, Signals, Speech
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.audio.reading import WINDOW, audio_column, checked, tell_resampled
from stilla.tasks.audio.recognition import text_column
from stilla.tasks.audio.sections import TextToSpeechData, TextToSpeechEvaluate
from stilla.tasks.audio.sounds import Known, Sounds
from stilla.tasks.audio.speaking import Spoken, teachable
from stilla.tasks.audio.spoken import Collate, Frames, Utterances
from stilla.tasks.audio.spoken_exam import FrameExam, SpokenExam
from stilla.tasks.audio.usage import SPEAKING
from stilla.tasks.audio.voice import Voice
from stilla.tasks.audio.voices import Voices
from stilla.tasks.base import Loaded, Prepared, Segment, Task, Texts
from stilla.tasks.exam import Exam
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import loading
from stilla.tasks.shared.broken import refuse_empty, refuse_or_leave_out
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.text import tokens

logger = logging.getLogger(__name__)

_FRAMES_FROM = ("num_mel_bins", "vocab_size")


@dataclass(frozen=True)
class TextToSpeech(Task[TextToSpeechData]):
    """Texts that are spoken: spectrograms, frame after frame, and where each ends (SpeechT5).

    Rows are the frames of the data's own sounds. Both models make each of them of the text and the frames before it, which
    are the data's own: so frame i of one answers to frame i of the other, whatever their tokens are.
    """

    section: TextToSpeechData
    audio: str
    text: str
    voices: Voices
    voice: Voice | None = None
    """The teacher's; None where no teacher is known."""

    kind: ClassVar[str] = "text-to-speech"
    usage = SPEAKING
    data_section = TextToSpeechData
    evaluate_section = TextToSpeechEvaluate
    distributions: ClassVar[bool] = False
    heads: ClassVar[tuple[str, ...]] = ("ForTextToSpeech",)
    answer: ClassVar[str] = "frames"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input_ids": ("batch", "positions"), "attention_mask": ("batch", "positions"),
        "decoder_input_values": ("batch", "steps"), "decoder_attention_mask": ("batch", "steps"),
        "speaker_embeddings": ("batch",)}

    # --- data and models ---

    @classmethod
    def understand(cls, section: TextToSpeechData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        audio = attempt(problems, audio_column, section, train)
        text = attempt(problems, text_column, section.text, train)
        voices = attempt(problems, Voices.of, section, train)
        named = [one for one in (audio, text, None if voices is None else voices.column) if one]
        absent = _columns.missing(named, splits)
        for name, split in splits.items() if not absent else ():
            if audio:
                attempt(problems, checked, section, name, split, audio)
            if text:
                attempt(problems, refuse_empty, section, name, split, [_columns.values(split, text)], repr(text))
            if voices is not None:
                attempt(problems, voices.refuse_unknown, name, split)
        problems += absent
        if problems or audio is None or text is None or voices is None:
            raise all_at_once(problems, DataError)
        return cls(section, audio, text, voices)

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        raise CompatibilityError("text-to-speech: which frames of a batch are a sound's own is known only of data that "
                                 "Stilla reads itself. Use a recipe (`stilla.distill`).")

    def resolved(self, section: TextToSpeechData) -> TextToSpeechData:
        return section.model_copy(update={"audio": self.audio, "text": self.text})

    def adapted_to(self, teacher: Loaded) -> Self:
        return replace(self, voice=_voice(teacher.processor))

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        model, info = loading.from_pretrained(source, loading.read_config(source), AutoModelForTextToSpectrogram)
        teachable(model, source.model)
        fresh = sorted(info["missing_keys"])
        loading.refuse_lost_body(model, fresh, source)
        if labelled and fresh:
            raise CompatibilityError(f"{source.model!r} has not learnt to speak: its checkpoint lacks {all_of(fresh[:5])}. "
                                     f"Train it first: teacher: {{model: {source.model}, train: {{}}}}.")
        if labelled:
            loading.lowered(model, source)
        return Loaded(model, Voice.of(source, model), source.model)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        changed = [name for name in _FRAMES_FROM if name in (spec.config or {})]
        if changed:
            raise CompatibilityError(f"student.config.{changed[0]}: the student has its teacher's tokenizer and "
                                     "spectrograms, which say it. Leave it out, or give a student with its own "
                                     "(`student: {model: ...}`)")
        teachable(model, "student")
        return model

    def seeing(self, student: Loaded, spec: StudentSpec) -> Loaded:
        """With a voice of its own sizes: a config may change how many frames a step has."""
        known = _voice(student.processor)
        return replace(student, processor=Voice.fitted(known.tokenizer, known.extractor, student.model, student.source))

    def unwritten(self, model: nn.Module, formats: Sequence[str]) -> list[str]:
        return [f"{one}: models that speak frame after frame are not exported: a file would make one step of those before "
                "it, and need a loop around it that knows when to end. Deploy the folder `student/`, which "
                "SpeechT5ForTextToSpeech.from_pretrained loads" for one in formats]

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        return ObjectiveSpec(kind="spectrogram", weight=0.5), ObjectiveSpec(kind="frames", weight=0.5)

    def labels_by(self) -> ObjectiveSpec:
        return ObjectiveSpec(kind="spectrogram")

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        raise CompatibilityError("data.unlabelled: models that speak make every frame of those before it, and a text without "
                                 "a sound has none. Leave it out, or give texts with their sounds as data.train")

    def texts(self, split: Dataset, processor: object) -> Texts:
        voice = _voice(processor)
        return tokens.beginnings(voice.tokenizer, _columns.values(split, self.text), voice.room)

    def tokenizer_of(self, processor: object) -> PreTrainedTokenizerBase:
        return _voice(processor).tokenizer

    def with_tokenizer(self, processor: object, tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> Voice:
        return replace(_voice(processor), tokenizer=tokenizer)

    def prepare(
        self, split: Dataset, student: object, teacher: object | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        ours = _voice(student)
        theirs = ours if teacher is None else _voice(teacher)
        if not ours.same_frames(theirs):
            raise CompatibilityError("text-to-speech: teacher and student make other spectrograms (another rate, hop or "
                                     "number of mel bins), so that no frame of one answers to one of the other. Take a "
                                     "student with its teacher's (preprocessor_config.json)")
        sounds = Sounds.of(split, self.audio)
        known, said = sounds.check(), _columns.values(split, self.text)
        sides = (ours,) if ours.to_dict() == theirs.to_dict() else (ours, theirs)
        read = [tokens.tokenise(one.tokenizer, [[text or "" for text in said]], 2**20)[0] for one in sides]
        keys = self._kept(split, known, sides, [one.lengths for one in read])
        if training:
            tell_resampled(known, {ours.rate})
            _tell_unknown(ours, [said[key] for key in keys])
        inputs = [(one, ids.select(keys), self.voices.vectors(split.select(keys), one.width))
                  for one, ids in zip(sides, read, strict=True)]
        frames = Frames(sounds, keys, ours)
        return Prepared(
            examples=Positions(len(keys)), collate=Collate(frames, *inputs), keys=keys,
            references=Utterances(frames, [said[key] for key in keys]),
            lengths=[ours.frames_in(known[key].seconds) for key in keys], aligned=ours.same_positions(theirs))

    def _kept(
        self, split: Dataset, known: Sequence[Known], voices: Sequence[Voice], lengths: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        """The examples that can be learnt: what is too long is refused, or left out and counted."""
        there = [row for row, text in enumerate(_columns.values(split, self.text))
                 if text and text.strip() and known[row].broken is None]
        longest = self.section.window or WINDOW
        left: set[int] = set()
        for why, rows in (
            (f"is spoken for longer than {longest:g} seconds (data.window)",
             [row for row in there if known[row].seconds > longest + 1e-6]),
            (f"has more frames than the {min(one.longest for one in voices):,} that a decoder has places for",
             [row for row in there if any(one.frames_in(known[row].seconds) > one.longest for one in voices)]),
            (f"has more tokens than the {min(one.room for one in voices):,} that a model has places for",
             [row for row in there if any(own[row] > one.room for one, own in zip(voices, lengths))]),
        ):
            if new := [row for row in rows if row not in left]:
                refuse_or_leave_out(self.section, f"data: {len(new)} of {len(there)} examples: each {why}",
                                    rows_in_words(split, new))
                left |= {*new}
        keys = np.array([row for row in there if row not in left], np.int64)
        if not len(keys):
            raise DataError(f"there is nothing left to speak in {self.text!r}: all {len(split)} examples are left out.")
        return keys

    # --- rows ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        rows = int(_own(batch).sum())
        return {"rows": rows, "labelled": rows, "tokens": rows + int(self.mask(batch, Side.STUDENT).sum()),
                "examples": len(batch.student["input_ids"])}

    def mask(self, batch: Batch, side: Side) -> Bool[Tensor, "batch positions"]:
        found: Tensor = batch[side.value]["attention_mask"]
        return found.bool()

    def stack_mask(self, batch: Batch, side: Side, stack: str) -> Bool[Tensor, "batch positions"]:
        """The decoder's positions are its steps."""
        found: Tensor = batch[side.value]["decoder_attention_mask" if stack == "decoder" else "attention_mask"]
        return found.bool()

    def signals(self, outputs: Spoken, batch: Batch, side: Side) -> Signals:
        assert batch.labels is not None  # `prepare` makes no batch without
        own = _own(batch)
        rows = {name: one[:, : own.shape[1]][own] for name, one in outputs.items()}
        return Signals(speech=Speech(rows["before"], rows["spectrogram"], rows["stop"], rows.get("strays")),
                       labels=batch.labels[own])

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        if teacher.speech is not None or not isinstance(teacher.logits, Dense):
            return student, teacher
        numbers = teacher.logits.logits  # of a cache
        before, after, stop = numbers.split([numbers.shape[1] // 2, numbers.shape[1] // 2, 1], -1)
        return student, Signals(speech=Speech(before, after, stop[:, 0]), stacks=teacher.stacks)

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        assert teacher.speech is not None
        said = teacher.speech
        return Signals(logits=Dense(torch.cat([said.before, said.after, said.stop[:, None]], -1)), stacks=teacher.stacks)

    def segments(self, batch: Batch) -> list[Segment]:
        """Every text with its sound, whatever they are padded to."""
        found, first = [], 0
        told = {name: one.cpu() for name, one in batch.teacher.items()}
        for example, frames in enumerate(_own(batch).sum(1).tolist()):
            read, steps = (int(told[name][example].sum()) for name in ("attention_mask", "decoder_attention_mask"))
            content = b"".join([
                np.array([read, frames], np.int64).tobytes(),
                told["input_ids"][example, :read].numpy().astype(np.int32).tobytes(),
                told["speaker_embeddings"][example].numpy().tobytes(),
                told["decoder_input_values"][example, :steps].numpy().tobytes()])
            found.append(Segment(content, slice(first, first + frames), example))
            first += frames
        return found

    def told(self, stored: Dims) -> Dims:
        return replace(stored, classes=self.row_classes())

    def row_classes(self) -> int:
        """No row of logits: a frame is no choice among classes."""
        return 0

    def teacher_classes(self) -> int:
        """Numbers of a frame without and with the postnet, and of its being the last: what is stored of it."""
        return 0 if self.voice is None else 2 * self.voice.bins + 1

    def numbers_of(self, length: int) -> int:
        """`length`: in frames."""
        return self.teacher_classes() * length

    # --- what is asked ---

    def exam(self) -> FrameExam:
        return FrameExam()

    def exams(self, section: Evaluate) -> tuple[Exam, ...]:
        assert isinstance(section, TextToSpeechEvaluate)  # the task's own
        if self.voice is None or not section.speaking:
            return (self.exam(),)
        return SpokenExam.of(section, self.voice, self.audio, self.text), self.exam()

    def alike(self, student: object, teacher: object) -> bool:
        return _voice(student).to_dict() == _voice(teacher).to_dict()

    def comparable(self, student: object, teacher: object) -> bool:
        return _voice(student).same_frames(_voice(teacher))


def _own(batch: Batch) -> Bool[Tensor, "batch frames"]:
    labels: Float[Tensor, "batch frames numbers"] = batch["labels"]
    return labels[..., 0] != NO_ANSWER


def _voice(processor: object) -> Voice:
    if not isinstance(processor, Voice):
        raise CompatibilityError(f"got a {type(processor).__name__}; expected what `TextToSpeech.load` gives: a tokenizer "
                                 "and what makes spectrograms, as a model takes them")
    return processor


def _tell_unknown(voice: Voice, texts: list[str]) -> None:
    number, characters = voice.unknown(texts)
    if number:
        logger.warning("%d of %d texts have pieces that the tokenizer has no token for (%s): all of them are the same "
                       "unknown sound. Write numbers and signs in words", number, len(texts),
                       all_of([quoted(one) for one in characters[:8]]))
