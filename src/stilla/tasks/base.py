"""What a task is: how its columns become model inputs, its outputs rows, and by which exams its models are judged.

One file per task holds one final class. A task object is bound to its data: `understand` looks at the columns and
returns a task that knows its inputs, its labels and their names. Nothing here trains or compares models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self

from datasets import Dataset
from torch import Tensor, nn
from typing_extensions import TypeVar

from stilla.errors import CompatibilityError
from stilla.objectives.base import Term
from stilla.recipe import Data, Evaluate, ModelSource, ObjectiveSpec, StudentSpec
from stilla.signals import Batch, Signals
from stilla.signals import Side as Side
from stilla.tasks.contract.between import Between
from stilla.tasks.contract.files import Arrays as Arrays
from stilla.tasks.contract.files import File as File
from stilla.tasks.contract.files import Graph as Graph
from stilla.tasks.contract.files import HandedOver
from stilla.tasks.contract.files import Joined as Joined
from stilla.tasks.contract.students import OfStudents
from stilla.tasks.contract.unlabelled import Unlabelled
from stilla.tasks.exam import Exam, ForwardExam
from stilla.tasks.prepared import Loaded as Loaded
from stilla.tasks.prepared import Prepared as Prepared
from stilla.tasks.prepared import Segment as Segment
from stilla.tasks.prepared import Texts as Texts
from stilla.tasks.prepared import content as content

SectionT = TypeVar("SectionT", bound=Data, default=Any)
"""The section of a recipe's `data` that a task declares."""


@dataclass(frozen=True)
class Head:
    """One of several heads as a model of its own, with what it is exported by."""

    model: nn.Module
    processor: Any
    task: Task
    prepared: Prepared


class Task(Between, Unlabelled, OfStudents, HandedOver, Generic[SectionT]):
    """See the module docstring; `kind` is its name in a recipe, the class docstring's first line its description."""

    data_section: ClassVar[type[Data]] = Data
    """What a recipe may say under `data`: the parameter of `Task[...]`, with the fields that only this task has."""
    evaluate_section: ClassVar[type[Evaluate]] = Evaluate
    """What it may say under `evaluate`."""

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

    def sketched(self) -> Self:
        """The same task for whoever looks at what students would be and cost: no teacher is asked for long on their way."""
        return self

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

    def learns_by(self) -> tuple[ObjectiveSpec, ...] | None:
        """By what a student learns whose recipe names no objectives; None: by labels and logits."""
        return None

    def labels_by(self) -> ObjectiveSpec:
        """By what its models learn from labels alone: a teacher that is trained first, the baseline."""
        return ObjectiveSpec(kind="labels")

    def labels_of_each(self) -> ObjectiveSpec:
        """By what labels say of one example by itself, without others: it tells which of a model's units matter."""
        return self.labels_by()

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

    @abstractmethod
    def exam(self) -> ForwardExam:
        """What its models are asked in one forward, and how their answers are judged: in training, and after it."""

    def apart(self) -> ForwardExam | None:
        """How models are compared that read other tokens, each by its own and none beside another; None where `exam` does."""
        return None

    def exams(self, section: Evaluate) -> tuple[Exam, ...]:
        """All that models are asked after training; the first metric of the first is the headline."""
        return (self.exam(),)

    def outputs(self, outputs: Any) -> Tensor:
        """(batch, ...) what answers are made of, of a model's outputs; compared between formats."""
        return self.exam().outputs(outputs)
