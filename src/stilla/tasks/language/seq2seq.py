"""Sequence to sequence: translations and summaries, by models with an encoder and a decoder (T5, BART, mBART, Marian)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset, Value
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from stilla.data import are_unlabelled, with_nulls
from stilla.errors import CompatibilityError, DataError, all_at_once, all_of
from stilla.recipe import Evaluate, ModelSource, StudentSpec
from stilla.signals import Batch
from stilla.tasks.base import Loaded, Prepared, Segment, Side, Texts
from stilla.tasks.exam import Exam
from stilla.tasks.language import privileged, translations
from stilla.tasks.language.ends import Ends
from stilla.tasks.language.sections import Seq2SeqData, WritingEvaluate
from stilla.tasks.language.translations import CUT, PairProcessor, Targets, decoder_inputs
from stilla.tasks.language.usage import SEQ2SEQ
from stilla.tasks.language.vocabulary import Vocabulary, refuse_other_tokens
from stilla.tasks.language.weighed import weights_in, with_weights
from stilla.tasks.language.writing import Asked, Writes, exams_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import empty, refuse_empty, without_empty
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.numbering import Numbering, numbering
from stilla.tasks.text.sequences import NO_ROW

logger = logging.getLogger(__name__)

_UNWRITTEN = "..."
"""Stands for the target of an unlabelled source until the teacher has written one; it is compared with nothing."""


@dataclass(frozen=True)
class Seq2Seq(Vocabulary[Seq2SeqData], Writes):
    """A text into another: translations, summaries, questions into answers.

    Rows are the decoder's positions, and nothing is shifted: position t of the decoder predicts token t of the target,
    having read what stands before it. What stands before the first token differs between models, so the processor knows
    it; teacher and student read the same targets, each behind its own start.
    """

    columns: tuple[str, ...] = ()
    """The source's and the target's."""
    theirs: Seq2SeqData | None = None
    """The section by which teachers read their sources, where that is another than the students'; targets are the same."""
    as_teacher: bool = False
    """Whether a teacher is asked by itself, and reads by that."""

    kind: ClassVar[str] = "seq2seq"
    pipeline = "translation"
    usage = SEQ2SEQ
    data_section = Seq2SeqData
    evaluate_section = WritingEvaluate
    heads: ClassVar[tuple[str, ...]] = ("ForConditionalGeneration", "MTModel")
    auto: ClassVar[Any] = AutoModelForSeq2SeqLM
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(_tokens.INPUTS, ("batch", "tokens")), "decoder_input_ids": ("batch", "targets")}

    @classmethod
    def understand(cls, section: Seq2SeqData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        columns = attempt(problems, translations.columns, section, train) or ()
        absent = translations.missing(columns, splits)
        if not absent:
            for name, split in splits.items():
                both = [translations.values(split, column) for column in columns]
                attempt(problems, refuse_empty, section, name, split, both, " or ".join(repr(one) for one in columns))
        problems += absent
        if problems:
            raise all_at_once(problems, DataError)
        return cls(section=section, columns=columns)

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        """Sources in another language, or whole documents, with the prefix and the language's code that belong to them."""
        return self._taught(privileged.sources(self._section(), self.columns, columns, splits))

    def taught_at_length(self, length: int) -> Self:
        return self._taught({"max_length": length})

    def _taught(self, otherwise: Mapping[str, Any]) -> Self:
        section = self._section()
        limits = [one for one in (section.max_target_length, section.max_length) if one is not None]
        own = section.model_copy(update={"source": self.columns[0], "max_target_length": min(limits, default=None)})
        theirs = (self.theirs or own).model_copy(update=otherwise)
        return replace(self, theirs=None if theirs == own else theirs)

    def of_teacher(self) -> Self:
        return self if self.theirs is None else replace(self, section=self.theirs, as_teacher=True)

    def teaching(self) -> Self:
        return self.of_teacher()

    def resolved(self, section: Seq2SeqData) -> Seq2SeqData:
        return section.model_copy(update=dict(zip(("source", "target"), self.columns)))

    def tokenizer_of(self, processor: Any) -> Any:
        return _pairs(processor).tokenizer

    def with_tokenizer(self, processor: Any, tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> PairProcessor:
        return PairProcessor.of(tokenizer, model, self.section)

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        loaded = super().load(source, labelled=labelled)
        pair = PairProcessor.of(loaded.processor, loaded.model, self.section)
        if isinstance(loaded.model, PreTrainedModel):
            translations.tidied(loaded.model, pair)
        return replace(loaded, processor=pair)

    def seeing(self, student: Loaded, spec: StudentSpec) -> Loaded:
        """With a tokenizer of its own where its teacher's marks another language."""
        if self.theirs is None or self.theirs.source_language == self._section().source_language:
            return student
        own = copy.deepcopy(self.tokenizer_of(student.processor))
        return replace(student, processor=PairProcessor.of(own, student.model, self.section))

    def texts(self, split: Dataset, processor: Any) -> Texts:
        _, (sources, targets) = self._texts(split)
        prefix, wanted = self._section().prefix or "", self._section().max_length
        tokenizer = self.tokenizer_of(processor)
        lines = chain((prefix + text for text in sources), targets)
        return _tokens.beginnings(tokenizer, lines, _tokens.longest([tokenizer], wanted))

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        section = self._section()
        ours, theirs = _pairs(student), None if teacher is None else _pairs(teacher)
        known = None if theirs is None else numbering(ours.tokenizer, theirs.tokenizer)
        if theirs is not None and known is None:
            refuse_other_tokens(ours.tokenizer, theirs.tokenizer)
        keys, (sources, texts) = self._texts(split)
        length = _tokens.longest([one.tokenizer for one in (ours, theirs) if one is not None], section.max_length)
        tokens = self._sources(ours, sources, length)
        other, told = tokens, self.theirs is not None and not self.as_teacher
        if theirs is not None and told:
            other = self.of_teacher()._sources_of(split, theirs)
        elif theirs is not None and known is None and not _tokens.same(ours.tokenizer, theirs.tokenizer):
            other = self._sources(theirs, sources, length)  # the same tokens, padded or begun otherwise
        cut = _columns.values(split, CUT) if CUT in split.column_names else [False] * len(split)
        most = min(section.max_target_length or length, length)
        targets, shortened = translations.targets(ours, texts, [bool(cut[key]) for key in keys], most)
        if shortened:
            logger.warning("%d of %d targets are longer than %d tokens: cut, without an end", shortened, len(keys), most)
        return Prepared(
            examples=Positions(len(keys)),
            collate=_Collate(tokens, other, targets, keys, ours, theirs or ours, known, weights_in(split)[keys]),
            keys=keys,
            lengths=(tokens.lengths + targets.lengths).tolist(),
            aligned=other is tokens or not told,
        )

    def stack_mask(self, batch: Batch, side: Side, stack: str) -> Bool[Tensor, "batch positions"]:
        """The decoder's positions are those with a label."""
        if stack == "decoder" and batch.labels is not None:
            return batch.labels != NO_ROW
        return self.mask(batch, side)

    def segments(self, batch: Batch) -> list[Segment]:
        """Every example with its source and target."""
        if batch.labels is None:
            raise CompatibilityError("this batch has no `labels`: what the decoder is to say is not known")
        segments, first = [], 0
        inputs = {name: value.cpu() for name, value in batch.teacher.items()}
        for example, (labels, there) in enumerate(zip(batch.labels.cpu(), self.mask(batch, Side.TEACHER).cpu())):
            rows = int((labels != NO_ROW).sum())
            source = inputs["input_ids"][example][there].numpy().astype(np.int32)
            target = self.teacher_labels(labels[:rows]).numpy().astype(np.int32)
            start = inputs["decoder_input_ids"][example, :1].numpy().astype(np.int32)
            content = np.concatenate([np.array([len(source)], np.int32), source, start, target])
            segments.append(Segment(content.tobytes(), slice(first, first + rows), example))
            first += rows
        return segments

    # --- writing ---

    def exams(self, section: Evaluate) -> tuple[Exam, ...]:
        return exams_of(self, self.exam(), section)

    def text_metrics(self) -> tuple[str, ...]:
        """ROUGE for what is called a summary, BLEU and chrF for the rest."""
        name = self.columns[1].rpartition(".")[2].lower() if self.columns else ""
        return ("rougeL", "rouge1", "rouge2") if name in translations.SUMMARIES else ("bleu", "chrf")

    def unasked(self) -> str | None:
        return None

    def asked(self, split: Dataset, processor: Any) -> Asked:
        pair = _pairs(processor)
        keys, (_, texts) = self._texts(split, asked=True)
        tokens = self._sources_of(split, pair, asked=True)
        options = {"decoder_start_token_id": pair.start, "forced_bos_token_id": pair.first}
        ends = Ends.of(pair.tokenizer)
        return Asked(tokens, keys, [ends.begun_once(ends.unended(text)) for text in texts], options)

    def source_of(self, split: Dataset, key: int) -> str:
        return str(translations.values(split.select([int(key)]), self.columns[0])[0])

    def askable(self, split: Dataset) -> NDArray[np.int64]:
        return self._texts(split, asked=True)[0]

    def beside_answers(self, split: Dataset) -> Dataset:
        return self.beside(split)

    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        return translations.replaced(split, self.columns[1], texts, cut)

    def unreasoned(self) -> str | None:
        return None

    def reasoned(self, split: Dataset, asked: str, reasons: Sequence[str], weight: float) -> Dataset:
        return translations.reasoned(split, self.columns, asked, reasons, weight)

    def continued(self, processor: Any, inputs: Mapping[str, Tensor], written: Sequence[Sequence[int]]) -> Batch:
        pair = _pairs(processor)
        labels = Targets.of(written).labels(range(len(written))).to(inputs["input_ids"].device)
        whole = {**inputs, "decoder_input_ids": decoder_inputs(labels, pair.start, _padding(pair))}
        return Batch(student=whole, teacher=whole, labels=labels)

    def text_of(self, processor: Any, ids: Sequence[int]) -> str:
        return str(_pairs(processor).tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def identity(self, processor: Any) -> str:
        pair = _pairs(processor)
        return _tokens.fingerprint(pair.tokenizer, pair.start, pair.first)

    # --- data ---

    def _section(self) -> Seq2SeqData:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        return self.section

    def _texts(self, split: Dataset, *, asked: bool = False) -> tuple[NDArray[np.int64], list[list[str]]]:
        """The keys of the examples with all texts, and of each the source that is read and the target; `asked`: of unlabelled
        ones those with a source, too."""
        sources = {column: translations.values(split, column) for column in self._sourced}
        targets = translations.values(split, self.columns[1])
        if asked:
            targets = [text or _UNWRITTEN if free else text for text, free in zip(targets, are_unlabelled(split))]
        keys = np.setdiff1d(np.arange(len(split)), empty([*sources.values(), targets]))
        if not len(keys):
            raise DataError(f"there is no example with {all_of([repr(one) for one in (*sources, self.columns[1])])}: all "
                            f"{len(split)} lack one.")
        both = sources[self._sourced[-1 if self.as_teacher else 0]], targets
        return keys, [[str(column[key]) for key in keys] for column in both]

    @property
    def _sourced(self) -> tuple[str, ...]:
        """The columns of sources: a student's, and a teacher's where that is another."""
        return tuple(dict.fromkeys([self.columns[0], str((self.theirs or self._section()).source or self.columns[0])]))

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Sources, whose targets the teacher writes."""
        target = self.columns[1]
        return with_nulls(translations.sources(pool, self._sourced, target, called), {target: Value("string")})

    def usable(self, pool: Dataset) -> Dataset:
        sources = [_columns.values(pool, column) for column in self._sourced]
        return without_empty(self.section, "unlabelled", pool, sources, _columns.named(self._sourced))

    def beside(self, split: Dataset) -> Dataset:
        wanted = [*self._sourced, self.columns[1]]
        nested = not set(wanted) <= set(split.column_names)
        return (split.flatten() if nested else split).select_columns(wanted)

    def traces(self, split: Dataset) -> Iterable[tuple[str]]:
        return ((text or "",) for text in translations.values(split, self.columns[0]))

    def _sources_of(self, split: Dataset, pair: PairProcessor, *, asked: bool = False) -> _tokens.Tokens:
        """What a model by itself reads of a split."""
        _, (sources, _) = self._texts(split, asked=asked)
        return self._sources(pair, sources, _tokens.longest([pair.tokenizer], self._section().max_length))

    def _sources(self, pair: PairProcessor, texts: Sequence[str], length: int) -> _tokens.Tokens:
        prefix, ends = self._section().prefix or "", Ends.of(pair.tokenizer)
        once = [ends.unended(text) if ends.ends else text for text in texts]
        tokens, cut = _tokens.tokenise(pair.tokenizer, [[prefix + ends.begun_once(text) for text in once]], length)
        if cut:
            logger.warning("%d of %d sources are longer than %d tokens: cut", cut, len(texts), length)
        return tokens

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        if not model.config.is_encoder_decoder:  # type: ignore[union-attr]
            raise CompatibilityError(f"{type(model).__name__} has no decoder beside its encoder: seq2seq needs one.")
        return super().of_model(model)


@dataclass(frozen=True)
class _Collate:
    """`student`, `teacher`: tokens of the sources, the same object where they are the same. `numbering`: of the teacher's,
    where it is asked about the student's pieces by other numbers, of the targets alone where its sources are others."""

    student: _tokens.Tokens
    teacher: _tokens.Tokens
    targets: Targets
    keys: NDArray[np.int64]
    ours: PairProcessor
    theirs: PairProcessor
    numbering: Numbering | None = None
    weights: NDArray[np.float32] | None = None

    def __call__(self, examples: Sequence[int]) -> Batch:
        labels = self.targets.labels(examples)
        student = self._inputs(self.student, self.ours, labels, examples)
        same = self.teacher is self.student and self.ours.start == self.theirs.start
        if self.numbering is not None:
            told = decoder_inputs(self.numbering.told(labels), self.theirs.start, _padding(self.theirs))
            same = self.teacher is self.student
            sources = self.numbering.inputs(student) if same else self.teacher.batch(examples)
            teacher = {**sources, "decoder_input_ids": told}
        else:
            teacher = student if same else self._inputs(self.teacher, self.theirs, labels, examples)
        batch = Batch(student=student, teacher=teacher, labels=labels, keys=torch.from_numpy(self.keys[list(examples)]))
        return batch if self.weights is None else with_weights(batch, self.weights, examples)

    def _inputs(
        self, tokens: _tokens.Tokens, pair: PairProcessor, labels: Tensor, examples: Sequence[int]
    ) -> dict[str, Tensor]:
        return {**tokens.batch(examples), "decoder_input_ids": decoder_inputs(labels, pair.start, _padding(pair))}


def _pairs(processor: Any) -> PairProcessor:
    if not isinstance(processor, PairProcessor):
        raise CompatibilityError(f"got a {type(processor).__name__}; expected what `Seq2Seq.load` gives: a tokenizer that "
                                 "knows what its model's decoder begins with (`PairProcessor.of(tokenizer, model, None)`).")
    return processor


def _padding(pair: PairProcessor) -> int:
    return int(pair.tokenizer.pad_token_id)
