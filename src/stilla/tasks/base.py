"""What a task is: how its columns become model inputs, its outputs rows, and by which exams its models are judged.

One file per task holds one final class. A task object is bound to its data: `understand` looks at the columns and
returns a task that knows its inputs, its labels and their names. Nothing here trains or compares models.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self

import numpy as np
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from typing_extensions import TypeVar

from stilla.errors import CompatibilityError
from stilla.objectives.base import Term
from stilla.recipe import Data, Evaluate, ModelSource, ObjectiveSpec, StudentSpec
from stilla.signals import Batch, Dims, Signals
from stilla.signals import Side as Side
from stilla.students.vocabulary.refusal import refusal
from stilla.tasks.answers import Answers
from stilla.tasks.exam import Exam, ForwardExam
from stilla.tasks.prepared import Loaded as Loaded
from stilla.tasks.prepared import Prepared as Prepared
from stilla.tasks.prepared import Segment as Segment
from stilla.tasks.prepared import Texts as Texts
from stilla.tasks.prepared import content as content
from stilla.tasks.prepared import without_row

SectionT = TypeVar("SectionT", bound=Data, default=Any)
"""The section of a recipe's `data` that a task declares."""


@dataclass(frozen=True)
class Head:
    """One of several heads as a model of its own, with what it is exported by."""

    model: nn.Module
    processor: Any
    task: Task
    prepared: Prepared


class Task(ABC, Generic[SectionT]):
    """See the module docstring; `kind` is its name in a recipe, the class docstring's first line its description."""

    kind: ClassVar[str]
    data_section: ClassVar[type[Data]] = Data
    """What a recipe may say under `data`: the parameter of `Task[...]`, with the fields that only this task has."""
    evaluate_section: ClassVar[type[Evaluate]] = Evaluate
    """What it may say under `evaluate`."""
    vocabulary: ClassVar[bool] = False
    """Whether a row is a token of a vocabulary. Then `batch.labels` is (batch, positions), aligned once with the
    positions that predict them, -100 where there is no row; logits come as `Headed`, and nobody holds them whole."""
    distributions: ClassVar[bool] = True
    """Whether what is stored of an answer, and looked at by filters, is a distribution (or a number) for every row; not where
    it is a vector of every text."""
    places: ClassVar[bool] = False
    """Whether a row's classes are places in an example, which mean nothing beyond it, and of which some are none: their
    logits are a floor, the same on both sides."""
    counted: ClassVar[tuple[str, ...]] = ("rows", "labelled", "tokens", "examples")
    """The names that `counts` gives, what objectives may be divided by: `rows` and `examples`, and any others (`words`,
    `boxes`, `frames`)."""
    heads: ClassVar[tuple[str, ...]] = ()
    """How the names of the Hugging Face classes of its models end (`ForSequenceClassification`)."""
    answer: ClassVar[str] = "logits"
    """What `outputs` is called in an exported file."""
    unordered: ClassVar[bool] = False
    """Whether `outputs` is of sets (batch, things, numbers), which are the same in whatever order."""
    towers: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Parts of its models that answer by themselves, each in an exported file of its own: their names, with the inputs that
    each takes. Their answers stand one after the other in `outputs`."""
    preparing: ClassVar[str] = ""
    """Python for an exported file's README that makes `inputs`, where no tokenizer or processor of transformers does it."""
    pipeline: ClassVar[str] = ""
    """What transformers and the Hub call it, where that is another name than `kind`; `other` where it has none there."""
    given: ClassVar[str] = '"An example."'
    """What transformers' pipeline of that name is given in a model card, as Python."""
    usage: ClassVar[str] = ""
    """How a folder is loaded and asked, as Python for its model card, where no pipeline does it."""
    axes: ClassVar[Mapping[str, tuple[str, ...]]]
    """Names of the axes of each model input that may vary in an exported file, batch first; the others are fixed."""

    @classmethod
    def called(cls) -> str:
        return cls.pipeline or cls.kind

    @property
    def reading(self) -> str:
        """Likewise what prints an answer (of `inputs`, `logits`, `labels`), where it is not a row's likeliest class."""
        return ""

    @classmethod
    @abstractmethod
    def understand(cls, section: SectionT, splits: Mapping[str, Dataset]) -> Self:
        """Find the columns and labels.

        Raises:
            DataError: every problem of the data that can be known without a model, all at once.
        """

    @classmethod
    @abstractmethod
    def of_model(cls, model: nn.Module) -> Self:
        """The task of a model whose batches a person makes (`DistillationTrainer` without a recipe)."""

    @abstractmethod
    def resolved(self, section: SectionT) -> SectionT:
        """The section with the columns and the kind of label written out that were found."""

    def settled(self, teacher: ModelSource, student: StudentSpec) -> Task[SectionT]:
        """The same task with what the recipe leaves to it (`augment: auto`) decided for these models; the form that it has
        for models of the teacher's class, where there are several (recognisers with frames, and those that write)."""
        return self

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        """The same task with teachers that read other columns, by the field of the section that names the student's.

        Raises:
            CompatibilityError: its rows are pieces of what both read.
            DataError: no such field or column.
        """
        if not columns:
            return self
        raise CompatibilityError(f"teacher.data: rows of `{self.kind}` are pieces of what both models read, so that a "
                                 "teacher cannot read something else. Leave it out")

    def of_teacher(self) -> Self:
        """The task of a teacher by itself: what it reads where its students read something else."""
        return self

    @abstractmethod
    def adapted_to(self, teacher: Loaded) -> Self:
        """The same task with its labels in the teacher's order.

        Raises:
            CompatibilityError: the teacher cannot answer for these labels.
        """

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        """The same task, adapted to a teacher, for a student that may number otherwise what both read."""
        return self

    def sketched(self) -> Self:
        """The same task for whoever looks at what students would be and cost: no teacher is asked for long on their way."""
        return self

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        """A student before its training, with what it has and its teacher has not (fewer numbers in a vector).

        Raises:
            CompatibilityError: that does not go with how it is to be trained.
        """
        return model

    def learning(self, model: nn.Module) -> AbstractContextManager[None]:
        """While this model is trained, what is otherwise about it (the units of its head); afterwards it is as before."""
        return nullcontext()

    def seeing(self, student: Loaded, spec: StudentSpec) -> Loaded:
        """The student with the processor that it is trained and handed over with, where that is another than it came with.

        Raises:
            CompatibilityError: there is no such processor, or the student cannot see what it makes.
        """
        return student

    def pattern(self, teacher: Loaded) -> Loaded:
        """What a student is cut from, or made like; by default the teacher itself."""
        return teacher

    def unmeasured(self, teacher: Loaded) -> str | None:
        """Why a teacher cannot be asked in the exams what its students are asked, in words; None where it can."""
        return None

    @property
    def by_name(self) -> Mapping[str, Task]:
        """By name the tasks that it is made of; a single one has no name, and is this."""
        return {"": self}

    def part(self, model: Loaded, name: str) -> Loaded:
        """What of a model answers for the task of this name among `by_name`, as a model of its own."""
        return model

    def parts_of(self, batch: Batch) -> Mapping[str, Batch]:
        """By name what a batch holds of each of them."""
        return {"": batch}

    def batch_of(self, parts: Mapping[str, Batch]) -> Batch:
        """A batch of these alone, as a model of all of them reads it."""
        return parts[""]

    def signals_of(self, parts: Mapping[str, Signals]) -> Signals:
        """What was said of each as what was said of the batch."""
        return parts[""]

    def trained_whole(self, model: nn.Module) -> tuple[str, ...]:
        """Modules of a student that are trained themselves where all else of it learns through adapters."""
        return ()

    def idle(self, terms: Sequence[Term]) -> list[str]:
        """Why these terms leave something unlearnt that the task has, in words; empty if they do not."""
        return []

    def terms(self, terms: Sequence[Term]) -> tuple[Term, ...]:
        """The terms of a loss as they are for this task; of several tasks, those of each.

        Raises:
            CompatibilityError: a term is of a part that there is not.
        """
        if parted := [term for term in terms if term.part is not None]:
            raise CompatibilityError(f"`{parted[0].name}`: part: got {parted[0].part!r}, and `{self.kind}` is one task, "
                                     "which has no parts; leave it out")
        return tuple(terms)

    def handed_over(self, model: nn.Module, processor: Any, prepared: Prepared) -> Mapping[str, Head]:
        """By name the heads that a model is handed over as, one file or folder each; none where it is one itself."""
        return {}

    def unwritten(self, model: nn.Module, formats: Sequence[str]) -> list[str]:
        """Why a model like this cannot be exported in these formats, in words, as far as it is known without trying."""
        return []

    def learns_by(self) -> tuple[ObjectiveSpec, ...] | None:
        """By what a student learns whose recipe names no objectives; None: by labels and logits."""
        return None

    def labels_by(self) -> ObjectiveSpec:
        """By what its models learn from labels alone: a teacher that is trained first, the baseline."""
        return ObjectiveSpec(kind="labels")

    @property
    def pairs(self) -> bool:
        """Whether its examples are pictures with the texts that belong to them (`Signals.pairs`)."""
        return False

    @property
    def pictures(self) -> bool:
        """Whether its examples are pictures, so that hidden states have places in them (`Stack.grids`)."""
        return "pixel_values" in self.axes

    @property
    def text_column(self) -> str | None:
        """The column of the text that is all that models read of an example, so that any text is one; None where they read
        something else, or more."""
        return None

    @property
    def has_labels(self) -> bool:
        """Whether the labelled data say what is right for an example, so that it can be learnt without a teacher."""
        return True

    @abstractmethod
    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        """Load a model and its processor.

        `labelled`: the head must already be trained (a teacher that is not trained first), and the model comes in
        the precision that the recipe asks for; otherwise a head of the right size is made where it does not fit
        (seeded by the caller), in float32.

        Raises:
            CompatibilityError: no weights, a pickle, a head that does not fit, code that is not trusted.
        """

    @abstractmethod
    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        """Examples for a student's processor and, if not None, a teacher's.

        `training` switches augmentation on; it is drawn anew for every (seed, epoch, key) and from nothing else.

        Raises:
            DataError: values that cannot be used, named and counted.
            CompatibilityError: the two processors cannot see the same example.
        """

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Unlabelled examples with the columns that models read, as the labelled data call them, and none with a label.

        `called`: what the columns are called in these examples, where the recipe says it.

        Raises:
            DataError: there is no such column, or which one is meant is left open.
            CompatibilityError: the task does not know what its examples are without labels.
        """
        raise self._labelled_only()

    @property
    def labels_by_teacher(self) -> bool:
        """Whether what the teacher makes of an unlabelled example is its label as well, without `completions`."""
        return False

    def usable(self, pool: Dataset) -> Dataset:
        """Of unlabelled examples those that can be read.

        Raises:
            DataError: some cannot, and the recipe does not leave them out.
        """
        raise self._labelled_only()

    def beside(self, split: Dataset) -> Dataset:
        """Labelled examples in the form in which unlabelled ones can stand beside them: what is read of them, no more."""
        raise self._labelled_only()

    def traces(self, split: Dataset) -> Iterable[tuple[str | bytes, ...]]:
        """What every example is known by where it must not be met again: the texts that models read, or bytes of its own."""
        raise self._labelled_only()

    def _labelled_only(self) -> CompatibilityError:
        return CompatibilityError(f"data.unlabelled: `{self.kind}` does not say what its examples are without labels "
                                  "(`unlabelled`, `usable`, `beside` and `traces` of the task)")

    def texts(self, split: Dataset, processor: Any) -> Texts:
        """What models with this processor read and write of a split: what a smaller vocabulary is counted in.

        Raises:
            CompatibilityError: they read no texts.
        """
        raise refusal(f"`{self.kind}` does not say what texts its models read (`texts`), so that nobody knows which tokens "
                      "they use")

    def tokenizer_of(self, processor: Any) -> PreTrainedTokenizerBase:
        """Raises:
            CompatibilityError: it has none.
        """
        if not isinstance(processor, PreTrainedTokenizerBase):
            raise refusal(f"models of `{self.kind}` have a {type(processor).__name__} and no tokenizer, so that there are no "
                          "tokens to leave out")
        return processor

    def with_tokenizer(self, processor: Any, tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> Any:
        """The processor of `model`, with this tokenizer in place of its own."""
        return tokenizer

    def as_measured(self, processor: Any, teacher: Any) -> Any:
        """A student's, as it is saved: where a folder is read by libraries that cut at what its processor says, at what it
        was cut beside this teacher's."""
        return processor

    def placed(self, labels: Tensor) -> Tensor:
        """Labels as transformers' own collators make them, at the places where this task has its rows."""
        return labels

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, int]:
        """What losses are divided by, from the batch alone: a number for each name of `counted`."""

    @abstractmethod
    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        """Logits and labels as rows. Hidden states are recorded by `models/features.py` and given their mask by `mask`."""

    @abstractmethod
    def mask(self, batch: Batch, side: Side) -> Tensor | None:
        """(batch, positions) bool, True at valid tokens, for masking hidden states; None where all are valid."""

    def stack_mask(self, batch: Batch, side: Side, stack: str) -> Tensor | None:
        """The same for one stack of layers, where a model has several over different positions."""
        return self.mask(batch, side)

    @abstractmethod
    def exam(self) -> ForwardExam:
        """What its models are asked in one forward, and how their answers are judged: in training, and after it."""

    @property
    def settles(self) -> bool:
        """Whether something is chosen of a trained model's answers to validation data before it is written down."""
        return False

    def settle(self, model: nn.Module, validation: Answers) -> None:
        """Choose it, and put it where it is saved with the model (a threshold in its config)."""

    def forget(self, model: nn.Module) -> None:
        """Take out of a model what was chosen of another's answers, which it began as: it is not measured by that."""

    def has_settled(self, model: nn.Module) -> bool:
        """Whether a model says what was chosen of its answers, whatever the data here would have to be chosen."""
        return False

    def apart(self) -> ForwardExam | None:
        """How models are compared that read other tokens, each by its own and none beside another; None where `exam` does."""
        return None

    def exams(self, section: Evaluate) -> tuple[Exam, ...]:
        """All that models are asked after training; the first metric of the first is the headline."""
        return (self.exam(),)

    def outputs(self, outputs: Any) -> Tensor:
        """(batch, ...) what answers are made of, of a model's outputs; compared between formats."""
        return self.exam().outputs(outputs)

    def class_names(self) -> tuple[str, ...]:
        """Names of the labels in the models' order; empty where there are none."""
        return ()

    def attributed(self, logits: Tensor, batch: Batch) -> Tensor:
        """(rows,) of which class of every row it is asked what in its example it rests on, by a teacher's logits; below 0 of
        none. An example's rows are asked about together, as the sum of these logits. By default the likeliest class, of
        examples that are a row each.

        Raises:
            CompatibilityError: its answers are none of which that can be asked.
        """
        examples = len(next(iter(batch.student.values())))
        if len(logits) != examples:
            raise CompatibilityError(f"what an answer rests on is asked of a whole example, and {examples} of these make "
                                     f"{len(logits)} rows; leave it out")
        return logits.argmax(-1)

    def attributed_names(self, classes: Tensor, batch: Batch, split: Dataset) -> list[str]:
        """What that was, in words, for every example of the batch, which are of the split."""
        names = self.class_names()
        return [names[one] if 0 <= one < len(names) else str(one) for one in classes.tolist()]

    @abstractmethod
    def row_classes(self) -> int:
        """Width of a row of logits: the number of classes, 2 for several labels, 1 for a number."""

    def kl_from_equal(self) -> float:
        """What KL(teacher || equal probabilities) is at most, in nats, of whatever the exam's `divergence` is of; 0 where
        there are no distributions."""
        return math.log(max(1, self.row_classes()))

    def teacher_classes(self) -> int:
        """The same of what a teacher says, before `align` brings it to the student's."""
        return self.row_classes()

    def teacher_labels(self, labels: Tensor) -> Tensor:
        """Labels as the teacher numbers them."""
        return labels

    def embedding_width(self, model: nn.Module) -> int:
        """Numbers of the vectors in this model's `Signals.embeddings`; 0 where it gives none."""
        return 0

    def bins_of(self, model: nn.Module) -> tuple[float, ...]:
        """Where the bins lie over which this model's edges of boxes are distributed (`Dims.bins`); empty where none are."""
        return ()

    def remembering(self, terms: Sequence[Term]) -> Self:
        """The same task, between two models, which stores of a teacher's answers what these terms learn beside all others."""
        return self

    @property
    def kept_beside(self) -> Mapping[str, Any]:
        """What that is, by name; a cache is known by it too."""
        return {}

    def told(self, stored: Dims) -> Dims:
        """The sizes of a teacher's answers that were stored, once `align` has brought them to the student's."""
        smaller = self.row_classes() < self.teacher_classes() == stored.classes
        return replace(stored, classes=self.row_classes()) if smaller else stored

    def numbers_of(self, length: int) -> int:
        """How many numbers a whole forward gives for an example of this length."""
        return self.row_classes()

    def alike(self, student: Any, teacher: Any) -> bool:
        """Whether these processors' models are asked the same of an example, and answer in the same classes."""
        return True

    def comparable(self, student: Any, teacher: Any) -> bool:
        """Whether what they say can be compared piece by piece, once `align` has brought one to the other."""
        return self.alike(student, teacher)

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """Make the rows of both sides answer to each other; by default they already do."""
        return student, teacher

    def alone(self, student: Signals, batch: Batch) -> Signals:
        """What `align` makes of a student's rows where no teacher was asked."""
        return self.align(student, student, batch)[0]

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        """What of a teacher's answer is stored, so that it serves any student: without outputs that no class uses."""
        return self.alone(teacher, batch)

    def segments(self, batch: Batch) -> list[Segment]:
        """The pieces of the teacher's inputs, in the order of their rows; by default every example is one, with the rows
        that it has by itself.

        Raises:
            CompatibilityError: the examples by themselves have not the rows of the batch; the task has to say whose they are.
        """
        examples = len(next(iter(batch.teacher.values())))
        ends = np.cumsum([0] + [self.counts(batch.part(slice(one, one + 1)))["rows"] for one in range(examples)]).tolist()
        rows = self.counts(batch)["rows"]
        if ends[-1] != rows:
            raise CompatibilityError(
                f"{self.kind}: the {examples} examples of a batch have {ends[-1]} rows by themselves and {rows} together, so "
                "that nobody knows whose a teacher's answer is. `segments` of the task has to say it (or cache: none)")
        return [Segment(content(batch.teacher, one) + without_row(batch, one), slice(ends[one], ends[one + 1]), one)
                for one in range(examples)]
