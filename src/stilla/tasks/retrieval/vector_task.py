"""Tasks of models that give vectors of texts: what is made of a teacher and asked of it, and what both say of a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.objectives import Labels
from stilla.objectives.base import Term
from stilla.recipe import ModelSource, ObjectiveSpec, StudentSpec
from stilla.signals import NOBODYS, UNSAID, Batch, Dense, Dims, Pairs, Side, Signals
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.base import Loaded, Segment, Task, content
from stilla.tasks.retrieval import crossing, fewer, loading, mining, static, stored
from stilla.tasks.retrieval.crossing import Crossing
from stilla.tasks.retrieval.exam import EmbeddingExam
from stilla.tasks.retrieval.forms import Form, Kinds
from stilla.tasks.retrieval.mining import Mines, Mining
from stilla.tasks.retrieval.model import Embedder, Shape
from stilla.tasks.retrieval.references import LOST, NOT_DRAWN, NOTHING_BESIDE, OTHER_WIDTH
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.retrieval.static import StaticModel
from stilla.tasks.retrieval.stored import Table
from stilla.tasks.retrieval.texts import ALONE, names_in
from stilla.tasks.text import tokens as _tokens


@dataclass(frozen=True)
class VectorTask(Task[EmbeddingData], Mines):
    """Base of `embedding`, whose examples are of a form: so many texts each, which stand one after the other in a batch.

    A row is what an example's scores are: how near its first text is to each of the others, so that all objectives over rows
    work; a text by itself has none. What is stored of a teacher is a vector of every text.
    """

    section: EmbeddingData | None = None
    """None for a model whose batches a person makes."""
    form: Form = field(default_factory=lambda: Form("texts", ALONE))
    """Of what is learnt from."""
    measured: Mapping[Kinds, Form] = field(default_factory=dict)
    """Of what is measured, by kind, that of the validation data first."""
    found: Form | None = None
    """Of what is learnt once the teacher has found what does not answer its queries."""
    shape: Shape | None = None
    """The teacher's; None where no teacher is known, or only its vectors are."""
    width: int | None = None
    """Numbers of the teacher's vectors."""
    splits: Mapping[str, Dataset] = field(default_factory=dict, compare=False, repr=False)
    """All that is read, until the teacher is known who has to answer for it."""
    teacher: Loaded | None = field(default=None, compare=False, repr=False)
    """Whose vectors those of texts by themselves are held against."""
    crossing: Crossing | None = field(default=None, compare=False, repr=False)
    """How the teacher reads, where it reads a query and a text together and has no vectors."""
    sketch: bool = False
    """Whether a table's numbers are any, and no teacher is asked for them."""

    distributions: ClassVar[bool] = False
    answer: ClassVar[str] = "sentence_embedding"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(_tokens.INPUTS, ("batch", "tokens"))

    @abstractmethod
    def asked(self) -> Iterable[tuple[str, Iterable[str]]]:
        """By split, all that a teacher is asked about."""

    # --- what is made of a teacher ---

    def adapted_to(self, teacher: Loaded) -> Self:
        model: Any = teacher.model
        if isinstance(teacher.processor, Crossing):
            if self.section is not None:
                crossing.refuse_unfit(self.section, self.form, self.measured, teacher.processor, teacher.source)
            return replace(self, crossing=teacher.processor, shape=None, width=None, teacher=None, splits={})
        if self.section is not None:
            fewer.refuse_unfit(self.section, model.width, self.measured, keeps_the_index=self.keeps_the_index)
        known = isinstance(model, Table)
        if known:
            stored.refuse_lacking(teacher.processor, self.asked())  # before a training, not when its end is measured
        shape = None if known else replace(model.shape, width=model.width)
        return replace(self, shape=shape, width=model.width, teacher=teacher, crossing=None, splits={})

    def pattern(self, teacher: Loaded) -> Loaded:
        if isinstance(teacher.model, Table):
            stored.refuse_cut(teacher.source)
        if isinstance(teacher.processor, Crossing):
            crossing.refuse_cut(teacher.source)
        return teacher

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        """A task may be adapted to a student that was trained; vectors are held against the teacher's, where it has some."""
        if isinstance(teacher.processor, Crossing):
            model: Any = student.model
            return replace(self, shape=replace(model.shape, width=model.width), width=model.width, teacher=None)
        if self.keeps_the_index and student.model.width != teacher.model.width:
            raise CompatibilityError(OTHER_WIDTH.format(student.model.width, teacher.model.width))
        return replace(self, teacher=teacher)

    @property
    def keeps_the_index(self) -> bool:
        """Whether what the student makes of queries is searched among the teacher's vectors."""
        return self.section is not None and self.section.documents == "teacher"

    @property
    def incomparable(self) -> str | None:
        return LOST if self.keeps_the_index else None

    def idle(self, terms: Sequence[Term]) -> list[str]:
        if self.keeps_the_index and fewer.undrawn(terms):
            return [NOT_DRAWN]
        misled = [] if self.crossing is None else crossing.misled(terms)
        alone = self.pairs and self._learnt.classes == 1 and self.mining is None
        lone = alone and any(isinstance(term.objective, Labels) for term in terms)
        beside = [NOTHING_BESIDE] if lone else mining.unlearnt(self.mining, terms)
        return [*misled, *beside, *fewer.unlearnt(self._beginnings, terms)]

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        if source.is_stored and labelled:
            return stored.load(source)
        if labelled and crossing.is_one(source):
            return crossing.load(source)
        prompts = {} if self.section is None else self.section.prompts
        said = (None, None)  # of the teacher: a student is like it where its own folder says nothing
        if self.section is not None and self.shape is None:
            said = (self.section.pooling, self.section.normalise)  # type: ignore[assignment]
        return loading.load(source, *said, prompts, None if labelled else self.shape, trained=labelled)

    def sketched(self) -> Self:
        return replace(self, sketch=True)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        wanted = None if self.section is None else self.section.dimensions
        width = wanted or self.width
        if spec.static:
            assert self.teacher is not None  # students are made once it is known
            return static.any_of_its_shape(self.teacher, width) if self.sketch else static.made_from(self.teacher, width)
        if self.crossing is not None and wanted is not None:
            fewer.refuse_more(wanted, model)
        return fewer.widened(model, width, adapters=spec.lora is not None)

    def seeing(self, student: Loaded, spec: StudentSpec) -> Loaded:
        return replace(student, processor=static.reader_of(student.processor)) if spec.static else student

    def unmeasured(self, teacher: Loaded) -> str | None:
        return crossing.UNMEASURED if isinstance(teacher.processor, Crossing) else None

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        if self.crossing is not None:
            return crossing.learnt_by(self._learnt.classes)
        # measured where both models search by whole vectors of their own, and people say what answers
        known = self.pairs and self.mining is None and not (self.keeps_the_index or self._beginnings)
        return (*fewer.learnt_by(self._beginnings), *mining.learnt_by(self.mining), *([self.labels_by()] if known else []))

    def labels_by(self) -> ObjectiveSpec:
        return ObjectiveSpec(kind="contrastive") if self.pairs else super().labels_by()

    def labels_of_each(self) -> ObjectiveSpec:
        """Of several candidates the first answers; of one, the other answers of a step have to say it."""
        return super().labels_by() if self._learnt.classes > 1 else self.labels_by()

    @property
    def pairs(self) -> bool:
        return self.section is not None and self._learnt.kind == "answered"

    @property
    def _beginnings(self) -> tuple[int, ...]:
        return () if self.section is None else self.section.matryoshka

    # --- what the teacher finds ---

    @property
    def _learnt(self) -> Form:
        return self.found or self.form

    @property
    def mining(self) -> Mining | None:
        if self.section is None or self.section.negatives is None:
            return None
        return Mining(self.section.negatives, self.form, self.exam().as_compared, self.shape, self.section.max_length)

    def found_by(self, teacher: Loaded) -> tuple[Mining, Loaded]:
        assert self.section is not None  # the caller knows
        assert self.mining is not None
        if self.mining.section.by is None:
            return self.mining, teacher
        finder, shape = loading.finder(self.mining.section.by, self.section.pooling, self.section.normalise)
        exam = EmbeddingExam(self.measured, dot=shape is not None and shape.similarity == "dot")
        return replace(self.mining, as_compared=exam.as_compared, shape=shape), finder

    def with_found(self, form: Form) -> Self:
        return replace(self, found=form)

    # --- batches and signals ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        mask, labels = self.mask(batch, Side.STUDENT), batch.labels
        known = int(batch["known"].sum()) if "known" in batch else 0
        if labels is not None:
            known = int((~labels.isnan() if labels.is_floating_point() else labels != NO_ANSWER).sum())
        return {"rows": len(mask) // len(names_in(batch)), "labelled": known, "tokens": int(mask.sum()),
                "examples": len(mask)}

    def mask(self, batch: Batch, side: Side) -> Tensor:
        inputs = batch.student if side is Side.STUDENT else batch.teacher
        mask = inputs.get("attention_mask")
        return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        if side is Side.TEACHER and self.crossing is not None:
            return Signals(logits=Dense(self._in_rows(self.outputs(outputs), batch)))
        return self._said(self.outputs(outputs), batch)

    def _in_rows(self, scores: Float[Tensor, "pairs 1"], batch: Batch) -> Float[Tensor, "rows candidates"]:
        return scores.reshape(-1, len(names_in(batch)) - 1)

    def _said(self, vectors: Float[Tensor, "texts width"], batch: Batch) -> Signals:
        names = names_in(batch)
        embeddings = {name: vectors[place :: len(names)] for place, name in enumerate(names)}
        first, *others = embeddings.values()
        if not others:
            return Signals(embeddings=embeddings)
        pairs = self._pairs(batch) if "numbers" in batch else None
        # told apart by a softmax they need a scale; one number is held against a score as it is
        scale = 1.0 if len(others) == 1 or self.section is None else self.section.scale
        scores = torch.stack([self._alike(first, other) for other in others], -1) * scale
        return Signals(logits=Dense(scores), labels=batch.labels, embeddings=embeddings, pairs=pairs)

    def _pairs(self, batch: Batch) -> Pairs:
        """Which of a batch's texts answer its queries, side by side as vectors stand in `Signals.embeddings`."""
        queries, *others = batch["numbers"].reshape(-1, len(names_in(batch))).T
        answered = [queries, *[torch.full_like(queries, NOBODYS)] * (len(others) - 1)]
        belongs_to = torch.where(batch["known"], torch.stack(answered), UNSAID)
        assert self.section is not None  # who says it has columns
        scale = belongs_to.new_tensor(self.section.scale, dtype=torch.float32)
        answers = torch.where(batch["known"][:, None], batch["answers"], UNSAID)
        return Pairs(queries, torch.cat(others), belongs_to.flatten(), scale, alike=True, angle=not self._by_product,
                     answers=answers)

    def _alike(self, one: Float[Tensor, "batch width"], other: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        if self._by_product:
            return (one * other).sum(-1)
        return torch.nn.functional.cosine_similarity(one, other, dim=-1)

    @property
    def _by_product(self) -> bool:
        return self.shape is not None and self.shape.similarity == "dot"

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        if teacher.embeddings or not isinstance(teacher.logits, Dense):
            return student, teacher
        said = teacher.logits.logits
        if self.crossing is not None:  # a cache has pair by pair what it says, as it says it
            return student, Signals(logits=Dense(self.crossing.scores(self._in_rows(said, batch))))
        return student, replace(self._said(said, batch), stacks=teacher.stacks)  # of a cache

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        """A vector of every text, or a score of every pair, in the order of the batch."""
        if self.crossing is not None:
            assert isinstance(teacher.logits, Dense)
            return Signals(logits=Dense(teacher.logits.logits.reshape(-1, 1)))
        vectors = torch.stack([*teacher.embeddings.values()], 1).flatten(0, 1)
        return Signals(logits=Dense(vectors), stacks=teacher.stacks)

    def told(self, stored: Dims) -> Dims:
        return replace(stored, classes=self.row_classes(), embedding=0 if self.crossing is not None else stored.classes)

    def segments(self, batch: Batch) -> list[Segment]:
        return [Segment(content(batch.teacher, text), slice(text, text + 1), text)
                for text in range(len(next(iter(batch.teacher.values()))))]

    def embedding_width(self, model: nn.Module) -> int:
        return model.width if isinstance(model, Embedder | StaticModel | Table) else 0

    def row_classes(self) -> int:
        return self._learnt.classes

    def teacher_classes(self) -> int:
        """Numbers of a vector: what is stored of a text; of a pair its score."""
        return 1 if self.crossing is not None else self.width or self.row_classes()

    def numbers_of(self, length: int) -> int:
        return (self.width or self.row_classes()) * len(self._learnt.columns)

    def exam(self) -> EmbeddingExam:
        return EmbeddingExam(self.measured, dot=self._by_product, first=self._beginnings)
