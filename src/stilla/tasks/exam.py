"""An exam: one way of questioning models about a split, and all that can be said of their answers.

A task has one that asks for a single forward (`ForwardExam`), used in training too, and may have others (written texts).
Everything a report says is made of exams; nothing that evaluates knows what a task is about.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.signals import Batch, Side
from stilla.tasks.answers import NO_ANSWER, Answers, Decisions, Given, Metric
from stilla.views import View


@dataclass(frozen=True)
class ClassValues:
    """A metric of each class of one model's answers. `support`: (classes,) how often it occurs. `values`: (classes,)."""

    names: tuple[str, ...]
    support: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Simple:
    """Answers that need no model. `numbers`: how many they are made of."""

    given: Given
    numbers: int


class Exam(ABC):
    """How answers are judged. The first metric is the headline."""

    units: ClassVar[str] = "examples"
    """What is decided, in words: examples, tokens, words, boxes."""
    class_metric: ClassVar[str] = "f1"
    """What `by_class` measures."""
    samples: ClassVar[int] = 0
    """How many examples a person is shown with what was answered, whether or not anything is decided of them."""

    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """By what answers are measured."""

    def concerns(self, metric: Metric, answers: Answers) -> bool:
        """Whether a metric says anything of such answers, where splits are of several kinds (pairs, a search); else it is
        left out without a word."""
        return True

    def comparable(self, answers: Sequence[Answers]) -> bool:
        """Whether answers of several models are to the same questions, so that numbers made of them say something of each
        other: not where models read other tokens."""
        return True

    def parts(self) -> Mapping[str, Exam]:
        """Where several tasks are answered at once, each one's own exam, by name."""
        return {}

    def of_part(self, name: str, answers: Answers) -> Answers:
        """The answers to one task's examples, as its own exam has them."""
        raise NotImplementedError

    def split_of(self, name: str, split: Dataset, answers: Answers) -> tuple[Dataset, Answers]:
        """One task's examples of a split, and the answers to them by their place among these."""
        raise NotImplementedError

    def settled(self, answers: Answers, validation: Answers) -> Answers:
        """A model's answers with what is chosen on its answers to validation data (a threshold); by default nothing is."""
        return answers

    def decisions(self, answers: Answers) -> Decisions | None:
        """What is compared to say agreement, flips and calibration; None where nothing is decided (an amount)."""
        return None

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        """KL(teacher || model) in nats, of every example or unit; None where there are no distributions."""
        return None

    def by_class(self, answers: Answers) -> ClassValues | None:
        """A metric of every class; None where there are no classes a person wants to see one by one."""
        return None

    def constant(self, answers: Answers) -> Given | None:
        """Answers that are the same whatever the example, as good as such answers can be; None where there are none."""
        return None

    def without_a_model(self, answers: Answers) -> Mapping[str, Simple]:
        """By name what can be answered from the training data alone, and is measured beside the models (the most popular
        items of a catalogue); by default nothing is."""
        return {}

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> Given | None:
        """Each example with the answer to another one; None where that means nothing."""
        order = generator.permutation(len(answers))
        given = answers.given
        return given[order] if isinstance(given, np.ndarray) else [given[place] for place in order]

    @abstractmethod
    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> View:
        """What a person is shown of a unit: `example` a position in the answers, `place` a unit of it.

        answers: of teacher and student by these names, to the same examples.
        """

    def named(self, decision: Any) -> str:
        """A unit's decision in words."""
        return str(decision)


class ForwardExam(Exam):
    """An exam that asks a model for one forward of every batch. Answers are reduced as they come: what is kept of a batch is
    what `given` makes of it, and no more."""

    beside: ClassVar[bool] = False
    """Whether the divergence from a teacher is only known of answers that were given beside the teacher's (`given`)."""

    @abstractmethod
    def outputs(self, outputs: Any) -> Tensor:
        """(batch, ...) what answers are made of, of a model's outputs; an exported file gives it as it is."""

    def ask(self, forward: Any, batch: Batch, side: Side) -> Any:
        """What a model (or an exported file: a function of inputs) says of a batch, in eval mode and without gradients."""
        inputs = batch[side.value]
        return self.outputs(forward(**inputs)) if isinstance(forward, nn.Module) else forward(inputs)

    def given(self, said: Any, batch: Batch, teacher: Any | None) -> Given:
        """One answer per example of the batch. `teacher`: what it said of the same batch, if it was asked beside."""
        return array(said)

    def joined(self, parts: Sequence[Given], *, references: bool = False) -> Given:
        """The answers (or references) of several batches in one: an array where all have one shape, else a list."""
        arrays = [part for part in parts if isinstance(part, np.ndarray)]
        if len(arrays) == len(parts) and len({part.shape[1:] for part in arrays}) == 1:
            return np.concatenate(arrays)
        return [one for part in parts for one in part]

    def finished(self, answers: Answers) -> Answers:
        """The answers, when all are there; some are made of all outputs of a split (a ranking)."""
        return answers

    def remarks(self, said: Mapping[str, Any], batch: Batch) -> list[str]:
        """What a reader has to know of what these models said of a few examples, by subject."""
        return []


def by_task(exam: Exam, answers: Answers) -> dict[str, tuple[Exam, Answers]]:
    """The exam and the answers of each of several tasks, by name; of a single one these themselves, without a name."""
    return {name: (one, exam.of_part(name, answers)) for name, one in exam.parts().items()} or {"": (exam, answers)}


def any_of(answers: Mapping[str, Answers]) -> Answers:
    """One subject's: all have the same keys and references."""
    return next(iter(answers.values()))


def array(tensor: Tensor) -> NDArray[Any]:
    """On the processor; NumPy knows no bfloat16."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()


def side_by_side(parts: Sequence[NDArray[Any]], fill: int = NO_ANSWER) -> NDArray[Any]:
    """Examples of batches of different widths in one array, filled up behind."""
    width = max((part.shape[1] for part in parts if part.ndim > 1), default=0)

    def widened(part: NDArray[Any]) -> NDArray[Any]:
        if part.ndim < 2 or part.shape[1] == width:
            return part
        return np.pad(part, [(0, 0), (0, width - part.shape[1]), *[(0, 0)] * (part.ndim - 2)], constant_values=fill)

    return np.concatenate([widened(part) for part in parts])
