"""What is common to tasks whose models find things in pictures, as boxes or as masks: sets without order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import TypeVar

from stilla.recipe import ObjectiveSpec, StudentSpec
from stilla.signals import Batch, Dims, Side
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.base import Loaded, Task
from stilla.tasks.shared.bound import bound
from stilla.tasks.shared.label_order import adapted, names_of
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision.beginnings import begin_apart
from stilla.tasks.vision.broken import usable_pictures
from stilla.tasks.vision.image_classification import usual_pictures
from stilla.tasks.vision.pictures import Pictures, holds_pictures, undecoded
from stilla.tasks.vision.privileged import tell_other_shapes
from stilla.tasks.vision.sections import Objects

_ONE_CLASS = "single_label_classification"
ObjectsT = TypeVar("ObjectsT", bound=Objects, default=Any)


@dataclass(frozen=True)
class ObjectTask(Task[ObjectsT]):
    """Base of `object-detection` and `image-segmentation`.

    A model finds as many things as it has queries, most of them nothing; which of a student's answers to which of the
    teacher's, or of the data, is for the objectives to find out. What is stored of a picture is one row: all of its guesses.
    """

    problem: Problem
    """The classes, in the models' order."""
    section: ObjectsT | None = None
    """None for a model whose batches a person makes."""
    image: str = ""
    teachers: str = ""
    """The column of pictures that teachers see instead; empty: the same. Both are seen whole, so that shares of one are
    shares of the other; what is found is told in pixels of the student's."""
    as_teacher: bool = False
    """Whether a teacher is asked by itself, and sees those."""
    queries: int = 0
    """How many guesses the teacher makes; 0 where no teacher is known."""

    distributions: ClassVar[bool] = False
    things: ClassVar[str]
    """What `counts` calls what is found."""
    objectives: ClassVar[tuple[str, str]]
    """By which a student learns from the data, and from its teacher."""

    @classmethod
    @abstractmethod
    def queries_of(cls, model: nn.Module) -> int:
        """How many guesses a model makes of a picture, says its config.

        Raises:
            CompatibilityError: it does not say it.
        """

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """That say what is in the pictures."""

    @abstractmethod
    def numbers(self) -> int:
        """Of a guess: of its classes and of its shape."""

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        config: Any = model.config
        names = names_of(config) or tuple(f"LABEL_{index}" for index in range(len(config.id2label)))
        return cls(Problem("class", (), names, names), queries=cls.queries_of(model))

    def of_teacher(self) -> Self:
        return replace(self, as_teacher=True) if self.teachers else self

    def adapted_to(self, teacher: Loaded) -> Self:
        config: Any = teacher.model.config
        told = _Named(config.id2label)
        return replace(self, problem=adapted(self.problem, told, teacher.source), queries=self.queries_of(teacher.model))

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        if spec.config is not None:
            begin_apart(model)
        return model

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        return self.labels_by(), ObjectiveSpec(kind=self.objectives[1])

    def labels_by(self) -> ObjectiveSpec:
        return ObjectiveSpec(kind=self.objectives[0])

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        found = bound(pool, self.seen, called, holds_pictures, "pictures", usual_pictures, self.columns)
        return undecoded(found, self.seen)

    def usable(self, pool: Dataset) -> Dataset:
        found = usable_pictures(self.section, pool, self.seen)
        if self.teachers:
            tell_other_shapes("unlabelled", found, self.image, self.teachers)
        return found

    @property
    def seen(self) -> tuple[str, ...]:
        """All columns of pictures that models see."""
        return (self.image, self.teachers) if self.teachers else (self.image,)

    def shown_to(self, split: Dataset, *, taught: bool) -> tuple[Pictures, Pictures, Pictures]:
        """Those in whose pixels things lie; what the model that is asked sees, and what a teacher beside it sees: the same
        object where it is the same. taught: whether there is one."""
        own = Pictures.of(split, self.image)
        others = Pictures.of(split, self.teachers) if self.teachers else own
        read = others if self.as_teacher else own
        return own, read, others if taught else read

    def traces(self, split: Dataset) -> Iterable[tuple[bytes]]:
        return ((digest,) for digest in Pictures.of(split, self.image).digests())

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """A labelled picture is one more object: so that one without any counts."""
        examples = len(next(iter(batch.student.values())))
        labels, labelled, objects = batch.labels, 0, 0
        if labels is not None:
            labelled = int((~labels[:, 0, 0].isnan()).sum())
            objects = int((labels[..., 0] >= 0).sum())
        return {"rows": examples, "labelled": labelled, "tokens": examples, "examples": examples,
                self.things: objects + labelled}

    def mask(self, batch: Batch, side: Side) -> None:
        return None

    def told(self, stored: Dims) -> Dims:
        return replace(stored, classes=self.row_classes())

    def class_names(self) -> tuple[str, ...]:
        return self.problem.names

    def row_classes(self) -> int:
        """No row of logits: what is found in a picture has no order."""
        return 0

    def teacher_classes(self) -> int:
        """Numbers of all guesses of a picture: what is stored of it."""
        return self.queries * self.numbers()

    def numbers_of(self, length: int) -> int:
        return self.teacher_classes()


@dataclass(frozen=True)
class _Named:
    """What `adapted` asks of a config: a model that finds things of one class is no regression, whatever it says of its
    problem."""

    id2label: Mapping[int, str]
    problem_type: str = _ONE_CLASS


def together(targets: Sequence[NDArray[np.float32] | None], numbers: int) -> Tensor:
    """(batch, most, 1 + numbers), most at least 1: class and shape of what is there; -100 as the class of what is no object,
    NaN where nobody has said it."""
    most = max(1, *(0 if one is None else len(one) for one in targets))
    labels = np.zeros((len(targets), most, 1 + numbers), np.float32)
    labels[:, :, 0] = NO_ANSWER
    for row, one in zip(labels, targets):
        if one is None:
            row[:, 0] = np.nan
        else:
            row[: len(one)] = one
    return torch.from_numpy(labels)
