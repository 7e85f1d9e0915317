"""Text-to-speech: texts, and the sounds of their being spoken, as spectrograms that a model makes frame after frame, or all
at once of how long each token lasts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from datasets import Audio, Dataset
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from stilla.errors import CompatibilityError, DataError, all_at_once, all_of, quoted
from stilla.recipe import Evaluate, ModelSource, ObjectiveSpec, StudentSpec, Teacher
from stilla.signals import Batch, Dense, Dims, Side, Signals, Speech
from stilla.tasks.audio import waves
from stilla.tasks.audio.durations import Given, durations_column
from stilla.tasks.audio.fitting import Fitting
from stilla.tasks.audio.reading import audio_column, checked, tell_resampled
from stilla.tasks.audio.recognition import text_column
from stilla.tasks.audio.sections import TextToSpeechData, TextToSpeechEvaluate
from stilla.tasks.audio.sounds import Sounds, has_parts
from stilla.tasks.audio.speaking import Spoken
from stilla.tasks.audio.speaking_programs import program
from stilla.tasks.audio.spoken import Collate, Frames, Script, Utterances
from stilla.tasks.audio.spoken_exam import FrameExam, SpokenExam
from stilla.tasks.audio.spoken_rows import content, own_frames, prosody_of, with_shares
from stilla.tasks.audio.talking import graphs_of, loaded, opened, sizes, teachable
from stilla.tasks.audio.telling import Teller, refuse_untold, with_durations
from stilla.tasks.audio.unspoken import own_speech, read_by, unlabelled
from stilla.tasks.audio.usage import SPEAKING
from stilla.tasks.audio.voice import Voice
from stilla.tasks.audio.voices import Voices
from stilla.tasks.base import File, Graph, Joined, Loaded, Prepared, Segment, Task, Texts
from stilla.tasks.exam import Exam
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import loading
from stilla.tasks.shared.broken import refuse_empty, without_empty
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.text import tokens

logger = logging.getLogger(__name__)

_FRAMES_FROM = ("num_mel_bins", "vocab_size")


@dataclass(frozen=True)
class TextToSpeech(Task[TextToSpeechData]):
    """Texts that are spoken: spectrograms, frame after frame and where each ends (SpeechT5), or of how long each token lasts
    (FastSpeech2-Conformer).

    Rows are the frames of the data's own sounds. Models make each of them of the text and the frames before it, which are
    the data's own, or of the text and the durations that its tokens have in that sound: so frame i of one answers to frame i
    of the other, whatever they are.
    """

    section: TextToSpeechData
    audio: str
    text: str
    voices: Voices
    voice: Voice | None = None
    """The teacher's; None where no teacher is known."""
    teller: Teller | None = None
    """The teacher, where it may be asked to speak."""
    durations: str | None = None
    """The column of them."""
    vocoder: str | None = None
    """A HiFi-GAN that is written beside the files of a model."""

    kind: ClassVar[str] = "text-to-speech"
    counted: ClassVar[tuple[str, ...]] = ("rows", "labelled", "frames", "tokens", "examples")
    usage = SPEAKING
    data_section = TextToSpeechData
    evaluate_section = TextToSpeechEvaluate
    distributions: ClassVar[bool] = False
    heads: ClassVar[tuple[str, ...]] = ("ForTextToSpeech",)
    answer: ClassVar[str] = "frames"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input_ids": ("batch", "positions"), "attention_mask": ("batch", "positions"),
        "decoder_input_values": ("batch", "steps"), "decoder_attention_mask": ("batch", "steps"),
        "speaker_embeddings": ("batch",), "durations": ("batch", "positions"), "speaker_ids": ("batch",),
        "lang_ids": ("batch",), "speaker_embedding": ("batch",)}

    # --- data and models ---

    @classmethod
    def understand(cls, section: TextToSpeechData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        audio = attempt(problems, audio_column, section, train)
        text = attempt(problems, text_column, section.text, train)
        voices = attempt(problems, Voices.of, section, train)
        durations = attempt(problems, durations_column, section.durations, train)
        told = () if voices is None else (voices.column, voices.language)
        named = [one for one in (audio, text, durations, *told) if one]
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
        return cls(section, audio, text, voices, durations=durations)

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        raise CompatibilityError("text-to-speech: which frames of a batch are a sound's own is known only of data that "
                                 "Stilla reads itself. Use a recipe (`stilla.distill`).")

    def resolved(self, section: TextToSpeechData) -> TextToSpeechData:
        return section.model_copy(update={"audio": self.audio, "text": self.text})

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        if columns:
            raise CompatibilityError(f"teacher.data: both models of `{self.kind}` say the same text, of whose tokens it is "
                                     "said how long each lasts. Leave it out")
        return self

    def settled(self, teacher: ModelSource, student: StudentSpec) -> Self:
        if self.durations is None and isinstance(teacher, Teacher):
            refuse_untold(teacher, student)
        return self

    def adapted_to(self, teacher: Loaded) -> Self:
        voice = _voice(teacher.processor)
        return replace(self, voice=voice, teller=Teller(teacher.model, voice))

    def sketched(self) -> Self:
        return replace(self, teller=None)

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        model, info = loaded(source)
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

    # --- files ---

    @property
    def by_graphs(self) -> bool:
        return True

    def graphs_of(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Graph]:
        found = graphs_of(model, batch)
        if self.vocoder is not None:
            last = [*found.values()][-1]
            with torch.no_grad():
                said = last.module(*last.inputs.values())
            found[waves.VOCODER] = waves.graph_of(self._hifigan(model), said if isinstance(said, Tensor) else said[0])
        return found

    def opened(self, name: str, files: Callable[[str], File]) -> Joined:
        return opened(name, files)

    def program(self, model: nn.Module, processor: object) -> str:
        rate = None if self.vocoder is None else waves.rate_of(self._hifigan(model), _voice(processor).rate)
        return program(sizes(model), rate)

    def _hifigan(self, model: nn.Module) -> nn.Module:
        assert self.vocoder is not None  # whoever asks has looked
        found: nn.Module = waves.hifigan(self.vocoder, sizes(model).bins, "evaluate.vocoder")
        return found

    def delivered(self, section: Evaluate) -> Self:
        assert isinstance(section, TextToSpeechEvaluate)  # the task's own
        return replace(self, vocoder=section.vocoder)

    @property
    def companions(self) -> Mapping[str, str]:
        return {} if self.vocoder is None else {"vocoder": self.vocoder}

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        return ObjectiveSpec(kind="spectrogram", weight=0.5), ObjectiveSpec(kind="frames", weight=0.5)

    def labels_by(self) -> ObjectiveSpec:
        return ObjectiveSpec(kind="spectrogram")

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        return unlabelled(pool, self.text, self.voices, self.audio, called)

    @property
    def labels_by_teacher(self) -> bool:
        """The frames that it speaks."""
        return True

    def usable(self, pool: Dataset) -> Dataset:
        return without_empty(self.section, "unlabelled", pool, [_columns.values(pool, self.text)], repr(self.text))

    def beside(self, split: Dataset) -> Dataset:
        read = [self.audio, self.text, *self.voices.columns, *([] if self.durations is None else [self.durations]),
                *(("offset", "duration") if has_parts(split) else ())]
        return split.select_columns([*dict.fromkeys(read)]).cast_column(self.audio, Audio(decode=False))

    def traces(self, split: Dataset) -> Iterable[tuple[str]]:
        return ((text or "",) for text in _columns.values(split, self.text))

    @property
    def text_column(self) -> str | None:
        return None if self.voices.columns else self.text

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
        voices = (ours,) if ours.to_dict() == theirs.to_dict() else (ours, theirs)
        read = [read_by(one, said) for one in voices]
        own = own_speech(split, said, [*zip(voices, read, strict=True)], self.voice, self.teller,
                         lambda rows: self._tellers(split, rows, ()), self.section.window)
        known = [own[row].known(ours) if row in own else one for row, one in enumerate(known)]
        given = None if self.durations is None or self.durations not in split.column_names else \
            Given.of(split, self.durations)
        keys = Fitting(self.section, split, self.text, known, voices, [one.lengths for one in read], given).keys()
        if training:
            tell_resampled(known, {ours.rate})
            _tell_unknown(ours, [said[key] for key in keys])
        scripts = [Script(voice, ids.select(keys), self.voices.inputs(split.select(keys), voice.sizes))
                   for voice, ids in zip(voices, read, strict=True)]
        frames = Frames(sounds, keys, ours, own)
        if training and self.teller is not None and self.section.max_cer is not None:
            kept = self.teller.clear(self.section, self._tellers(split, keys, scripts), frames, [said[key] for key in keys])
            keys, scripts = keys[kept], [one.select(kept) for one in scripts]
            frames = Frames(sounds, keys, ours, own)
        scripts = with_durations(scripts, frames, given, self.teller, sketch=self.voice is not None)
        return Prepared(
            examples=Positions(len(keys)), collate=Collate(frames, *scripts), keys=keys,
            references=Utterances(frames, [said[key] for key in keys]),
            lengths=[ours.frames_in(known[key].seconds) for key in keys], aligned=ours.same_positions(theirs))

    def _tellers(self, split: Dataset, keys: NDArray[np.int64], scripts: Sequence[Script]) -> Script:
        """What the teacher is given of the texts, also where it is not asked beside the student."""
        assert self.teller is not None
        voice, some = self.teller.voice, split.select(keys)
        known = next((one for one in scripts if one.voice.to_dict() == voice.to_dict()), None)
        if known is not None:
            return known
        return Script(voice, read_by(voice, _columns.values(some, self.text)), self.voices.inputs(some, voice.sizes))

    # --- rows ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        rows = int(own_frames(batch).sum())
        return {"rows": rows, "labelled": rows, "frames": rows, "tokens": rows + int(self.mask(batch, Side.STUDENT).sum()),
                "examples": len(batch.student["input_ids"])}

    def mask(self, batch: Batch, side: Side) -> Bool[Tensor, "batch positions"]:
        found: Tensor = batch[side.value]["attention_mask"]
        return found.bool()

    def stack_mask(self, batch: Batch, side: Side, stack: str) -> Bool[Tensor, "batch positions"]:
        """The decoder's positions are its steps, or all frames."""
        if stack != "decoder":
            return self.mask(batch, side)
        steps = batch[side.value].get("decoder_attention_mask")
        return own_frames(batch) if steps is None else steps.bool()

    def signals(self, outputs: Spoken, batch: Batch, side: Side) -> Signals:
        assert batch.labels is not None  # `prepare` makes no batch without
        own = own_frames(batch)
        rows = {name: one[:, : own.shape[1]][own] for name in ("before", "spectrogram", "stop", "strays")
                if (one := outputs.get(name)) is not None}
        speech = Speech(rows["before"], rows["spectrogram"], rows.get("stop"), rows.get("strays"))
        if outputs.prosody is not None:
            speech = replace(speech, prosody=prosody_of(outputs.prosody, batch, side))
        return Signals(speech=speech, labels=batch.labels[own])

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        if teacher.speech is not None or not isinstance(teacher.logits, Dense):
            return student, teacher
        numbers = teacher.logits.logits  # of a cache
        assert self.voice is not None
        bins = self.voice.bins
        before, after, rest = numbers.split([bins, bins, numbers.shape[1] - 2 * bins], -1)
        speech = Speech(before, after, None, prosody=with_shares(rest, batch, Side.TEACHER)) if self.voice.at_once \
            else Speech(before, after, rest[:, 0])
        return student, Signals(speech=speech, stacks=teacher.stacks)

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        assert teacher.speech is not None
        said = teacher.speech
        rest = [said.prosody.said] if said.prosody is not None else [] if said.stop is None else [said.stop[:, None]]
        return Signals(logits=Dense(torch.cat([said.before, said.after, *rest], -1)), stacks=teacher.stacks)

    def segments(self, batch: Batch) -> list[Segment]:
        """Every text with its sound, whatever they are padded to."""
        found, first = [], 0
        told = {name: one.cpu() for name, one in batch.teacher.items()}
        for example, frames in enumerate(own_frames(batch).sum(1).tolist()):
            found.append(Segment(content(told, example, frames), slice(first, first + frames), example))
            first += frames
        return found

    def told(self, stored: Dims) -> Dims:
        return replace(stored, classes=self.row_classes())

    def row_classes(self) -> int:
        """No row of logits: a frame is no choice among classes."""
        return 0

    def teacher_classes(self) -> int:
        """Numbers of a frame without and with the postnet, and of its being the last: what is stored of it."""
        return 0 if self.voice is None else self.voice.numbers

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
