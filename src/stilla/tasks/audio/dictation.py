"""Speech recognition by models with an encoder that hears and a decoder that writes what is said (Whisper, Moonshine)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from datasets import Dataset
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSpeechSeq2Seq, PreTrainedModel, PreTrainedTokenizerBase

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError, counted
from stilla.recipe import Evaluate, Generation, ModelSource, StudentSpec
from stilla.signals import Batch, Side
from stilla.tasks.audio import hearing, timed
from stilla.tasks.audio.dictated import Collate, Heard
from stilla.tasks.audio.norms import leave_padding_out
from stilla.tasks.audio.privileged import Both
from stilla.tasks.audio.reading import WINDOW, Piece, Source, pieces, tell_rates, window_of
from stilla.tasks.audio.recognition import Recognition
from stilla.tasks.audio.sections import SpeechRecognitionData
from stilla.tasks.audio.sounds import Known, Sounds
from stilla.tasks.audio.speech_exam import DictationExam
from stilla.tasks.audio.stenographer import Stenographer, tidied
from stilla.tasks.audio.unlabelled import usable
from stilla.tasks.audio.usage import told
from stilla.tasks.base import Loaded, Prepared, Segment, Texts
from stilla.tasks.exam import Exam
from stilla.tasks.language.models import language_model
from stilla.tasks.language.translations import CUT, Targets, prompted, replaced
from stilla.tasks.language.vocabulary import Vocabulary, in_use, outputs_of, refuse_other_tokens
from stilla.tasks.language.writing import Asked, Writes, exams_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.classification import Positions
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.text.numbering import numbering
from stilla.tasks.text.sequences import NO_ROW
from stilla.tasks.text.tokens import beginnings, tokenizer_for

logger = logging.getLogger(__name__)

_UNWRITTEN = "..."
"""Stands for the transcript of a sound without one until the teacher has written it; it is compared with nothing."""


@dataclass(frozen=True)
class Dictation(Recognition, Vocabulary[SpeechRecognitionData], Writes):
    """What is said in a sound, written token by token; rows are the decoder's positions, as those of `Seq2Seq`.

    The tokens of a prompt are read and not learnt: they are no rows. Teacher and student each hear their own features, and
    have read their own prompt. `timed`: what is written has its times.
    """

    timed: bool = False

    auto: ClassVar[Any] = AutoModelForSpeechSeq2Seq
    shown: ClassVar[bool] = False
    dictated: ClassVar[bool] = True
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input_values": ("batch", "samples"), "input_features": ("batch",), "attention_mask": ("batch", "samples"),
        "decoder_input_ids": ("batch", "targets")}

    def tokenizer_of(self, processor: Any) -> PreTrainedTokenizerBase:
        return _steno(processor).tokenizer

    def with_tokenizer(self, processor: Any, tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> Stenographer:
        assert isinstance(model, PreTrainedModel)  # no other is cut
        return self._writing(_steno(processor), tokenizer, model)

    def texts(self, split: Dataset, processor: Any) -> Texts:
        """Transcripts, also with their times where these are learnt."""
        writes = _steno(processor)
        said = _columns.values(split, self.text) if self.text in split.column_names else []
        lines = (line for text in said if text is not None and text.strip() for line in writes.read(text))
        return beginnings(writes.tokenizer, lines, writes.longest)

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        model = language_model(source, self.auto, labelled=labelled)
        tokenizer = tokenizer_for(source, model)
        outputs, used = outputs_of(model), in_use(tokenizer)
        if outputs < used:
            raise CompatibilityError(f"{source.model!r} has {outputs} outputs, and its tokenizer's tokens go up to "
                                     f"{used - 1}: they do not belong together.")
        writes = Stenographer.of(hearing.ear_for(source, model), tokenizer, model, self.section)
        tidied(model, writes)
        return Loaded(model, writes, source.model)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        leave_padding_out(model)
        return model

    def seeing(self, student: Loaded, spec: StudentSpec) -> Loaded:
        """With what fits the student, which may have fewer layers than its teacher, or other features by its config."""
        assert isinstance(student.model, PreTrainedModel)  # `load` gives no other
        known = _steno(student.processor)
        writes = self._writing(known, known.tokenizer, student.model)
        tidied(student.model, writes)
        return replace(student, processor=writes)

    def _writing(self, known: Stenographer, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Stenographer:
        """What a model needs that was made of another; its norms leave padding out, too."""
        return Stenographer.of(hearing.ear_of(known.ear.extractor, model), tokenizer, model, self.section)

    # --- examples ---

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        ours = _steno(student)
        theirs = ours if teacher is None else _steno(teacher)
        known = None if teacher is None else numbering(ours.tokenizer, theirs.tokenizer)
        if teacher is not None and known is None:
            refuse_other_tokens(ours.tokenizer, theirs.tokenizer)
        if len(ours.prompt) != len(theirs.prompt):
            begins = counted(len(ours.prompt), "token")
            raise CompatibilityError(f"speech-recognition: the student's decoder begins with {begins}, the "
                                     f"teacher's with {len(theirs.prompt)} (one is told a language, the other not), so "
                                     "that no position of one answers to one of the other. Let the teacher write "
                                     "(completions: teacher) and learn from its texts alone (objectives: [{kind: labels}])")
        keys, both, heard = self._heard(split, ours, theirs, told=teacher is not None, training=training)
        targets, with_times = self._targets(split, keys, ours, theirs, self.section.timestamps if training else None)
        if training:
            tell_rates(heard, (ours.ear, theirs.ear))
        source = _source(both, keys, heard, ours, theirs, training=training)
        size = 0 if ours.ear.fixed else 1  # sounds that are filled up take as long as any other
        lengths = targets.lengths + [size * round(one.seconds * 25) for one in heard]
        collate = Collate(source, targets, keys, ours, theirs, known, with_times)
        return Prepared(examples=Positions(len(keys)), collate=collate, keys=keys,
                        lengths=lengths.tolist(), seconds=[one.seconds for one in heard],
                        aligned=both.told is None and ours.hears_in_step_with(theirs))

    def _heard(
        self, split: Dataset, ours: Stenographer, theirs: Stenographer, *, told: bool = False, asked: bool = False,
        training: bool = False,
    ) -> tuple[NDArray[np.int64], Both, list[Known]]:
        """The examples with a sound and a transcript (`asked`: of unlabelled ones those without, too), their sounds (`told`:
        a teacher's, too), and what is known of these. What is too long to be heard, or in training to be learnt, is refused,
        or left out and counted."""
        both = Both.of(self.section, split, self.audio, self.teachers, self.also, asked=told)
        known, free = both.known, are_unlabelled(split)
        said = self._said(split)
        rows = [row for row, text in enumerate(said)
                if known[row].broken is None and ((text is not None and text.strip()) or (asked and free[row]))]
        longest, most = window_of(self.section, (ours.ear, theirs.ear)), min(ours.longest, theirs.longest) - 1
        written = _cut_of(split)
        long = [row for row in rows if both.seconds(row) > longest + 1e-6]
        wordy = [row for row in rows if training and written[row] is None and len(ours.ids(said[row] or "")) > most]
        for why, out in ((f"is longer than the {longest:g} seconds that are heard at once, and nobody knows where its "
                          "transcript could be cut (data.window)", long),
                         (f"has a transcript of more than the {counted(most, 'token')} that the decoder writes", wordy)):
            if out:
                refuse_or_leave_out(self.section, f"data: {len(out)} of {len(rows)} examples: each {why}",
                                    rows_in_words(split, out))
        kept = sorted(set(rows) - set(long) - set(wordy))
        if not kept:
            raise DataError(f"there is nothing left to hear in {self.audio!r}: all {len(split)} examples are left out, or "
                            "have no transcript.")
        return np.array(kept, np.int64), both, [known[row] for row in kept]

    def _said(self, split: Dataset) -> list[str | None]:
        """Transcripts without times, which are not measured."""
        if self.text not in split.column_names:
            return [None] * len(split)
        return [None if one is None else timed.plain(one) for one in _columns.values(split, self.text)]

    def _targets(
        self, split: Dataset, keys: NDArray[np.int64], ours: Stenographer, theirs: Stenographer, share: float | None
    ) -> tuple[Targets, Bool[NDArray[np.bool_], " examples"] | None]:
        """Tokens of transcripts, each with its end. A text that was cut, by the teacher or here, has none to learn. `share`:
        of those with times that are learnt with them, as far as they fit; which ones is said beside, None where there are
        none, and others then begin with the token that says so."""
        said, cut = _columns.values(split, self.text), _cut_of(split)
        most, parts, shortened = min(ours.longest, theirs.longest), list[list[int]](), 0
        drawn = timed.drawn(keys.tolist(), share) if share else np.zeros(len(keys), np.bool_)
        for place, key in enumerate(keys.tolist()):
            end = [] if cut[key] else [ours.end]
            ids = ours.timed_ids(said[key] or "") if drawn[place] else None
            drawn[place] = ids is not None and len(ids) + len(end) <= most + 1  # the prompt is a token shorter
            if not drawn[place]:
                ids = [*ours.ids(said[key] or ""), *end]
                shortened += len(ids) > most
                end = []
            parts.append([*(ids or ()), *end][: most + bool(drawn[place])])
        if shortened:
            logger.warning("%d of %d transcripts are longer than the %d tokens that the decoder writes: cut, without an end",
                           shortened, len(keys), most)
        if share and not drawn.any() and CUT in split.column_names:  # its own may have to be written yet
            logger.warning("data.timestamps: none of the %d transcripts that the teacher has written is learnt with times",
                           len(keys))
        if not drawn.any():
            return Targets.of(parts), None
        return Targets.of([part if own else [ours.untimed, *part] for part, own in zip(parts, drawn, strict=True)]), drawn

    # --- rows ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Rows are tokens of transcripts; tokens the encoder's frames."""
        assert batch.labels is not None  # `prepare` makes no batch without
        rows = int((batch.labels != NO_ROW).sum())
        return {"rows": rows, "labelled": rows, "tokens": int(self.mask(batch, Side.STUDENT).sum()),
                "examples": len(batch.labels)}

    def mask(self, batch: Batch, side: Side) -> Bool[Tensor, "batch frames"]:
        found: Tensor = batch["frames"][side.value]
        return found

    def stack_mask(self, batch: Batch, side: Side, stack: str) -> Bool[Tensor, "batch positions"]:
        """The decoder's positions are those with a label."""
        if stack == "decoder" and batch.labels is not None:
            return batch.labels != NO_ROW
        return self.mask(batch, side)

    def segments(self, batch: Batch) -> list[Segment]:
        """Every sound with its transcript."""
        segments, first = [], 0
        assert batch.labels is not None
        inputs = {name: value.cpu() for name, value in batch.teacher.items() if value.is_floating_point()}
        told = batch.teacher["decoder_input_ids"].cpu()
        for example, labels in enumerate(batch.labels.cpu()):
            there = labels != NO_ROW
            rows = int(there.sum())
            heard = b"".join(one[example][~one[example].isnan()].numpy().tobytes() for one in inputs.values())
            read = told[example, : len(labels) - int(there.flip(0).int().argmax())].numpy().astype(np.int32)
            last = self.teacher_labels(labels[there]).numpy().astype(np.int32)
            content = b"".join([np.array([len(heard), len(read)], np.int64).tobytes(), heard, read.tobytes(), last.tobytes()])
            segments.append(Segment(content, slice(first, first + rows), example))
            first += rows
        return segments

    def comparable(self, student: Any, teacher: Any) -> bool:
        return super().comparable(student, teacher) and len(_steno(student).prompt) == len(_steno(teacher).prompt)

    # --- writing ---

    def teaching(self) -> Self:
        """With times, where some are to be learnt."""
        return replace(self.of_teacher(), timed=bool(self.section.timestamps))

    def words(self, text: str) -> str:
        return timed.plain(text)

    def exams(self, section: Evaluate) -> tuple[Exam, ...]:
        return exams_of(self, self.exam(), section)

    def written_exam(self, section: Generation) -> DictationExam:
        return DictationExam(self, section, self.show)

    def text_metrics(self) -> tuple[str, ...]:
        return ("wer", "cer")

    def unasked(self) -> str | None:
        return None

    def asked(self, split: Dataset, processor: Any) -> Asked:
        writes = _steno(processor)
        keys, both, heard = self._heard(split, writes, writes, asked=True)
        said = self._said(split)
        source = _source(both, keys, heard, writes, writes, training=False)
        prompt = writes.open_prompt if self.timed else writes.prompt
        options = {"logits_processor": timed.rules(writes.end, writes.untimed, len(prompt))} if self.timed else {}
        return Asked(Heard(source, prompt, np.arange(len(keys))), keys, [said[key] or _UNWRITTEN for key in keys.tolist()],
                     options, [one.seconds for one in heard])

    def askable(self, split: Dataset) -> NDArray[np.int64]:
        return np.zeros(0, np.int64)

    def source_of(self, split: Dataset, key: int) -> str:
        """Where the sound came from."""
        return Sounds.of(split, self.audio).name(int(key))

    def own_text(self, split: Dataset, key: int) -> str | None:
        return self._said(split.select([int(key)]))[0]

    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        return replaced(split, self.text, texts, cut)

    def continued(self, processor: Any, inputs: Mapping[str, Tensor], written: Sequence[Sequence[int]]) -> Batch:
        writes = _steno(processor)
        prompt = writes.open_prompt if self.timed else writes.prompt
        labels, told = prompted(Targets.of(written).labels(range(len(written))), prompt, writes.padding)
        whole = {**inputs, "decoder_input_ids": told}
        return Batch(student=whole, teacher=whole, labels=labels)

    def text_of(self, processor: Any, ids: Sequence[int]) -> str:
        return _steno(processor).timed_text(ids) if self.timed else _steno(processor).text(ids)

    def asking(self, processor: Any) -> str:
        writes = _steno(processor)
        return told(writes.tokenizer.convert_ids_to_tokens(writes.prompt), marked=writes.ear.marked)

    def identity(self, processor: Any) -> str:
        return f"{_steno(processor).identity()}{', timed' if self.timed else ''}"

    # --- without labels ---

    def usable(self, pool: Dataset) -> Dataset:
        """Those that can be read; long ones in windows, each a part of its file from `offset` for `duration` seconds."""
        pool, longest = usable(self.section, pool, self.heard), self.section.window or WINDOW
        both = Both.of(self.section, pool, self.audio, self.teachers, self.also, asked=True)
        both = both.without_same_windows(self.section, pool, longest)
        cut = pieces(both.known, longest)
        chosen = pool.select([one.row for one in cut])
        if not any(one.part for one in cut):
            return chosen
        return chosen.with_format(None).add_column("offset", [one.start for one in cut]).add_column(
            "duration", [one.seconds for one in cut])


def _cut_of(split: Dataset) -> list[bool | None]:
    """Of texts that a teacher has written, whether they were cut; None of the data's own."""
    return _columns.values(split, CUT) if CUT in split.column_names else [None] * len(split)


def _source(
    both: Both, keys: NDArray[np.int64], heard: Sequence[Known], ours: Stenographer, theirs: Stenographer, *,
    training: bool,
) -> Source:
    cut = [Piece(key, 0.0, one.seconds) for key, one in zip(keys.tolist(), heard, strict=True)]
    other = ours.ear if hearing.same(ours.ear, theirs.ear) else theirs.ear
    return Source(both.own, cut, ours.ear, other, None, training=training, told=both.told)


def _steno(processor: Any) -> Stenographer:
    if not isinstance(processor, Stenographer):
        raise CompatibilityError(f"got a {type(processor).__name__}; expected what `Dictation.load` gives: a feature "
                                 "extractor and a tokenizer that know what their model's decoder begins with")
    return processor
