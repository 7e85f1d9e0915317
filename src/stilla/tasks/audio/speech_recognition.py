"""Speech recognition: sounds and what is said in them, by frames that each stand for a symbol or none (CTC)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCTC, ParakeetTokenizer, Wav2Vec2CTCTokenizer

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError, all_of, brief
from stilla.recipe import ModelSource, ObjectiveSpec, StudentSpec
from stilla.signals import Batch, Dense, Side, Signals, Spoken
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.audio import hearing
from stilla.tasks.audio.audio_classification import refuse_other_frames
from stilla.tasks.audio.dictation import Dictation
from stilla.tasks.audio.frames import best_of, chosen, needed, renumbered, some_of
from stilla.tasks.audio.letters import Scribe, symbols_for
from stilla.tasks.audio.norms import leave_padding_out
from stilla.tasks.audio.privileged import Both
from stilla.tasks.audio.reading import (
    Piece,
    Source,
    frames_of,
    pieces,
    tell_rates,
    window_of,
)
from stilla.tasks.audio.recognition import Recognition
from stilla.tasks.audio.sections import SpeechRecognitionData
from stilla.tasks.audio.sounds import Known
from stilla.tasks.audio.speech_exam import SpeechExam
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import loading
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import Positions
from stilla.tasks.shared.label_checks import rows_in_words

logger = logging.getLogger(__name__)

_READING = """
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
print([tokenizer.decode({symbols}).strip() for best in frame_logits.argmax(-1)])
"""
_GROUPED = "best[np.append(True, best[1:] != best[:-1]) & (best != tokenizer.pad_token_id)]"
"""Repeats are one symbol, blanks are none: what tokenizers of CTC do themselves."""
_FORMS = {True: "writes token by token", False: "has a symbol for every frame (CTC)"}


@dataclass(frozen=True)
class SpeechRecognition(Recognition):
    """What is said in a sound: by frames that each stand for a symbol or none (CTC), or written word by word (Whisper)."""

    scribe: Scribe | None = None
    """Of the models that are asked: the student's, once it is known; before, the teacher's."""
    theirs: Scribe | None = None
    """The teacher's."""

    heads: ClassVar[tuple[str, ...]] = ("ForCTC",)
    counted: ClassVar[tuple[str, ...]] = ("rows", "symbols", "tokens", "examples")
    answer: ClassVar[str] = "frame_logits"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input_values": ("batch", "samples"), "input_features": ("batch", "steps"), "attention_mask": ("batch", "samples")}

    def settled(self, teacher: ModelSource, student: StudentSpec) -> Task[SpeechRecognitionData]:
        """This form for models of frames, or the one of models that write, as the teacher's class is."""
        writes = _writes(teacher)
        other = None if student.model is None else _writes(ModelSource(
            model=student.model, revision=student.revision, trust_remote_code=student.trust_remote_code))
        if None not in (writes, other) and writes != other:
            raise CompatibilityError(
                f"student.model: {student.model!r} {_FORMS[bool(other)]}, and the teacher {_FORMS[bool(writes)]}: nothing "
                "that one says can be compared with what the other says. Take a student of the teacher's form")
        if not writes:
            if writes is False and self.section.language is not None:
                raise DataError("data.language: is told to models that write (Whisper); this teacher has a symbol for every "
                                "frame. Leave it out")
            if writes is False and self.section.timestamps is not None:
                raise DataError("data.timestamps: is of models that write (Whisper); this teacher has a symbol for every "
                                "frame. Leave it out")
            return self
        if self.section.frames != "around":
            raise DataError(f"data.frames: got {self.section.frames!r}, and this teacher writes tokens, not symbols by "
                            "frame. Leave it out")
        return Dictation(section=self.section, audio=self.audio, text=self.text, teachers=self.teachers, also=self.also)

    @property
    def reading(self) -> str:
        groups = self.scribe is None or isinstance(self.scribe.symbols, Wav2Vec2CTCTokenizer | ParakeetTokenizer)
        return _READING.format(symbols="best" if groups else _GROUPED)

    def adapted_to(self, teacher: Loaded) -> Self:
        return replace(self, scribe=teacher.processor, theirs=teacher.processor)

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        return replace(self, scribe=student.processor, theirs=teacher.processor)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        refuse_other_frames(spec)
        leave_padding_out(model)
        return model

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        return ObjectiveSpec(kind="ctc", weight=0.5), ObjectiveSpec(kind="logits", weight=0.5, temperature=1.0)

    def labels_by(self) -> ObjectiveSpec:
        return ObjectiveSpec(kind="ctc")

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        return recogniser(source, labelled=labelled)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if teacher is not None and (why := _unlike(student, teacher)):
            raise CompatibilityError(f"speech-recognition: {why}, so that no frame of one answers to one of the other. Learn "
                                     "from transcripts alone (objectives: [{kind: ctc}]), or take a student with its "
                                     "teacher's frames and symbols (student: {layers: ...})")
        own: hearing.Ear = student.ear
        other: hearing.Ear = own if teacher is None or hearing.same(own, teacher.ear) else teacher.ear
        ears = (own,) if other is own else (own, other)
        longest = window_of(self.section, ears)
        both = Both.of(self.section, split, self.audio, self.teachers, self.also, asked=teacher is not None)
        cut, targets = self._spoken(split, self._in_step(split, both, student), longest, student, training=training)
        if not cut:
            raise DataError(f"there is nothing left to hear in {self.audio!r}: all {len(split)} examples are left out.")
        if training:
            tell_rates([*both.known, *(both.theirs or ())], ears)
        keys = np.array([one.row for one in cut], np.int64)
        source = Source(both.own, cut, own, other, None, training=training, told=both.told)
        said = _columns.values(split, self.text) if self.text in split.column_names else [None] * len(split)
        references = None if any(said[row] is None for row in keys) else [said[row] for row in keys]
        return Prepared(
            examples=Positions(len(keys)), collate=_Collate(source, student, targets, keys), keys=keys, references=references,
            lengths=[round(one.seconds * 1000) for one in cut], seconds=[one.seconds for one in cut])

    def _in_step(self, split: Dataset, both: Both, scribe: Scribe) -> Sequence[Known]:
        """What is known of the sounds, without those that have another number of frames than their teacher's: no frame of one
        answers to one of the other. Such are refused, or left out and counted."""
        if both.theirs is None:
            return both.known
        out = [row for row, (one, other) in enumerate(zip(both.known, both.theirs, strict=True)) if one.broken is None
               and _frames(scribe, one.seconds) != _frames(scribe, other.seconds)]
        if not out:
            return both.known
        refuse_or_leave_out(self.section, f"data: {len(out)} of {len(both.known)} examples: each lasts otherwise than its "
                            "teacher's sound (teacher.data), so that no frame of one answers to one of the other",
                            rows_in_words(split, out))
        return [replace(one, broken="another number of frames") if row in set(out) else one
                for row, one in enumerate(both.known)]

    def _spoken(
        self, split: Dataset, known: Sequence[Known], longest: float, scribe: Scribe, *, training: bool
    ) -> tuple[list[Piece], list[NDArray[np.int64]]]:
        """What is heard, and its symbols. What cannot be learnt is refused, or left out and counted."""
        free = are_unlabelled(split)
        texts = _columns.values(split, self.text) if self.text in split.column_names else [""] * len(split)
        said = {row: str(text) for row, text in enumerate(texts)
                if not free[row] and text is not None and text.strip() and known[row].broken is None}
        case = scribe.case_of(list(said.values()))
        ids = {row: scribe.ids(text, case) for row, text in said.items()}
        if training:
            _tell_left_out(scribe, list(said.values()))
        out: dict[str, list[int]] = {
            f"is longer than {longest:g} seconds, and nobody knows where its transcript could be cut (data.window)":
                [row for row in ids if known[row].seconds > longest + 1e-6]}
        if training:  # whatever is measured may be too short, or hold anything
            out["has characters in its transcript that the models have no symbol for"] = [
                row for row, own in ids.items() if scribe.unknown(own) or not own]
            out["has more symbols in its transcript than frames (a repeated symbol needs one more)"] = [
                row for row, own in ids.items()
                if needed(own) > _frames(scribe, known[row].seconds) and known[row].seconds <= longest + 1e-6]
        left: set[int] = set()
        for why, rows in out.items():
            if rows:
                refuse_or_leave_out(self.section, f"data: {len(rows)} of {len(said)} examples: each {why}",
                                    rows_in_words(split, rows))
                left |= set(rows)
        heard = [Piece(row, 0.0, known[row].seconds) for row in ids if row not in left]
        pool = [one for one in pieces(known, longest) if free[one.row]]
        whole = sorted([*heard, *pool], key=lambda one: one.row)
        none = np.zeros(0, np.int64)
        return whole, [np.array(ids[one.row], np.int64) if one.row in ids else none for one in whole]

    # --- rows ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Rows are frames; symbols those of transcripts."""
        labels, frames = batch.labels, int(self.mask(batch, Side.STUDENT).sum())
        return {"rows": frames, "symbols": 0 if labels is None else int((labels != NO_ANSWER).sum()), "tokens": frames,
                "examples": len(next(iter(batch.student.values())))}

    def mask(self, batch: Batch, side: Side) -> Bool[Tensor, "batch frames"]:
        found: Tensor = batch["frames"][side.value]
        return found

    def stack_mask(self, batch: Batch, side: Side, stack: str) -> Bool[Tensor, "batch positions"]:
        """Of layers that pool frames (SEW) fewer than are answered."""
        found: Tensor = batch["heard"][side.value]
        return found

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        logits, own = self.outputs(outputs), self.mask(batch, side)
        logits = logits[:, : own.shape[1]]
        labels = batch.labels
        if labels is None:
            labels = torch.full((len(logits), 1), NO_ANSWER, device=logits.device)
        spoken = Spoken(logits, own.sum(1), labels, batch["scribe"].blank) if side is Side.STUDENT else None
        return Signals(logits=Dense(logits[own]), spoken=spoken)

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """The teacher's classes in the student's order, and of both the frames that are compared."""
        if student.logits is None or teacher.logits is None or self.scribe is None:
            raise CompatibilityError("speech-recognition: needs what both models say of every frame")
        told = teacher.logits
        if self.theirs is not None and self.theirs.names != self.scribe.names:
            order = self.scribe.order_of(self.theirs)
            assert order is not None  # refused when examples were prepared
            told = renumbered(told, torch.from_numpy(order).to(told.device))
        own = self.mask(batch, Side.STUDENT)
        kept = chosen(best_of(told) != self.scribe.blank, own.to(told.device), self.section.frames)
        return (replace(student, logits=some_of(student.logits, kept.to(student.logits.device))),
                replace(teacher, logits=some_of(told, kept)))

    def alone(self, student: Signals, batch: Batch) -> Signals:
        return student

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        return replace(teacher, spoken=None)

    def row_classes(self) -> int:
        return 2 if self.scribe is None else len(self.scribe.names)

    def numbers_of(self, length: int) -> int:
        """`length`: in milliseconds."""
        return self.row_classes() * (1 if self.scribe is None else _frames(self.scribe, length / 1000))

    def alike(self, student: Any, teacher: Any) -> bool:
        """Whether both hear the same frames in the same symbols."""
        return hearing.same(student.ear, teacher.ear) and student.names == teacher.names

    def comparable(self, student: Any, teacher: Any) -> bool:
        return not _unlike(student, teacher)

    def exam(self) -> SpeechExam:
        order = None if self.scribe is None or self.theirs is None else self.scribe.order_of(self.theirs)
        return SpeechExam(order, self.show)


def recogniser(source: ModelSource, *, labelled: bool) -> Loaded:
    """A model of frames with its scribe, as `Task.load` has it."""
    symbols = symbols_for(source)
    config = loading.read_config(source)
    if labelled or config.vocab_size == len(symbols):
        if config.vocab_size < len(symbols) or config.pad_token_id != symbols.pad_token_id:
            raise CompatibilityError(
                f"{source.model!r} gives {config.vocab_size} classes with {config.pad_token_id} for the blank, and its "
                f"tokenizer has {len(symbols)} symbols with {symbols.pad_token_id}: it is another model's. Name its own "
                "(processor:)")
    else:
        config.vocab_size, config.pad_token_id = len(symbols), symbols.pad_token_id
    model, info = loading.from_pretrained(source, config, AutoModelForCTC, ignore_mismatched_sizes=not labelled)
    fresh = sorted([*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])])
    loading.refuse_lost_body(model, [name for name in fresh if "masked_spec_embed" not in name], source)
    if labelled and fresh:
        raise CompatibilityError(f"{source.model!r} has no trained head over symbols: its checkpoint lacks "
                                 f"{all_of(fresh[:5])}. Train it first: teacher: {{model: {source.model}, train: {{}}}}.")
    if labelled:
        loading.lowered(model, source)
    scribe = Scribe(hearing.ear_for(source, model), symbols)
    _refuse_unknown_frames(scribe, model, source.model)
    return Loaded(model, scribe, source.model)


def _writes(source: ModelSource) -> bool | None:
    """Whether a model has a decoder that writes; None where its config cannot be read, which loading it will say."""
    try:
        return bool(loading.read_config(source).is_encoder_decoder)
    except CompatibilityError:
        return None


def _frames(scribe: Scribe, seconds: float) -> int:
    frames, ear = scribe.ear.frames, scribe.ear
    assert frames is not None  # refused when it was loaded
    # a product of fractions may lie a little below a whole number of samples
    return frames.number(max(int(seconds * ear.rate + 1e-6), frames.least(1)))


def _tell_left_out(scribe: Scribe, texts: Sequence[str]) -> None:
    left = [one for one in map(scribe.left_out, texts) if one]
    if left:
        signs = sorted(set().union(*left))
        logger.info("%d of %d transcripts hold punctuation that the models have no symbol for (%s); it is left out, as it is "
                    "of what is measured", len(left), len(texts), all_of([repr(one) for one in signs[:8]]))


def _unlike(student: Scribe, teacher: Scribe) -> str:
    """Why frames of two models cannot be compared; empty if they can."""
    if not hearing.same_frames(student.ear, teacher.ear):
        return "teacher and student make other frames of a sound (another rate or feature extractor)"
    if student.order_of(teacher) is None:
        ours, theirs = set(student.names), set(teacher.names)
        odd = sorted(ours ^ theirs)[:8]
        return f"teacher and student have other symbols ({all_of([repr(one) for one in odd])} in one of them only)"
    return ""


def _refuse_unknown_frames(scribe: Scribe, model: nn.Module, where: str) -> None:
    """Frames have to be counted before a model is asked."""
    if scribe.ear.frames is None:
        raise CompatibilityError(f"{where!r}: how a {type(model).__name__} makes frames of a sound is not known (its config "
                                 "names no conv_kernel and conv_stride). Known are wav2vec2, HuBERT, WavLM, data2vec, "
                                 "UniSpeech, SEW and others that hear waves, and w2v-BERT and Parakeet (CTC)")
    inputs = hearing.sample(scribe.ear)
    valid = scribe.ear.said(inputs)
    with torch.no_grad():
        dtype = next(model.parameters()).dtype
        cast = {name: one.to(dtype) if one.is_floating_point() else one for name, one in inputs.items()}
        try:
            said = model.eval()(**cast)["logits"]
        except RuntimeError as error:
            raise CompatibilityError(
                f"{where!r}: a {type(model).__name__} does not hear what its feature extractor makes: it is another model's. "
                f"Name its own (processor:). {brief(str(error), 120)}") from error
    assert valid is not None
    if said.shape[1] != valid.shape[1]:
        raise CompatibilityError(f"{where!r}: gives {said.shape[1]} frames where its config says {valid.shape[1]} (an "
                                 "adapter, or pooling): its frames cannot be counted")


@dataclass(frozen=True)
class _Collate:
    source: Source
    scribe: Scribe
    targets: Sequence[NDArray[np.int64]]
    keys: NDArray[np.int64]

    def __call__(self, examples: Sequence[int]) -> Batch:
        student, teacher = self.source.batch(examples)
        batch = Batch(student=student, teacher=teacher, keys=torch.from_numpy(self.keys[list(examples)]))
        heard = frames_of(self.source, student, teacher)
        said = {Side.STUDENT.value: self.source.student.said(student), Side.TEACHER.value: self.source.teacher.said(teacher)}
        batch["frames"] = said
        batch["heard"] = heard
        batch["scribe"] = self.scribe
        some = [self.targets[one] for one in examples]
        labels = np.full((len(some), max(1, *(len(one) for one in some))), NO_ANSWER, np.int64)
        for row, one in enumerate(some):
            labels[row, : len(one)] = one
        batch["labels"] = torch.from_numpy(labels)
        return batch
