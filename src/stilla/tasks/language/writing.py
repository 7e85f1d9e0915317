"""What a task adds whose models write texts: what they are asked, what their answers are compared with, and by what."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.errors import counted
from stilla.recipe import Evaluate, Generation
from stilla.signals import Batch
from stilla.tasks.answers import Answers, Metric
from stilla.tasks.exam import Exam, ForwardExam, any_of
from stilla.tasks.shared.in_words import InWords
from stilla.tasks.shared.strings import find
from stilla.views import Text, View


class Questions(Protocol):
    """What models are given, one after the other: `Tokens` of texts, or sounds."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Of each, in whatever makes a longer one take longer."""
        ...

    def select(self, examples: NDArray[np.int64]) -> Questions:
        """Some of them."""
        ...

    def batch(self, examples: Sequence[int]) -> dict[str, Tensor]:
        """Inputs of some; `decoder_input_ids` among them where a decoder begins with more than one token."""
        ...


@dataclass(frozen=True, eq=False)
class Asked:
    """What models are asked to write, one per example.

    `tokens`: what they are given. `keys`: the examples in their split. `references`: the data's own texts, one each.
    `options`: of `generate`, which the model could not know (what its decoder begins with; `logits_processor`: what may
    follow what). `seconds`: of each, where they are given sounds.
    """

    tokens: Questions
    keys: NDArray[np.int64]
    references: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: Sequence[float] | None = None

    def __len__(self) -> int:
        return len(self.keys)


class Writes(InWords):
    """A task over a vocabulary whose models continue a prompt, translate a source or write down what is said. Mixed into a
    `Task`."""

    dictated: ClassVar[bool] = False
    """Whether there is one right text, word by word, so that a teacher's can be held against the data's own
    (`completions.max_wer`)."""

    def teaching(self) -> Self:
        """The same task as its teacher is asked for the texts that a student learns, which may hold more than is measured."""
        return self

    def words(self, text: str) -> str:
        """What is said in a text that was written so."""
        return text

    @abstractmethod
    def text_metrics(self) -> tuple[str, ...]:
        """What texts are measured by where the recipe does not say, the headline first; () where it has to ask for it."""

    def judged(self, split: Dataset, said: Mapping[int, str | None], processor: Any, metrics: Sequence[str]) -> str:
        asked = self.asked(split, processor)
        there = [(said[int(key)] or "", text) for key, text in zip(asked.keys, asked.references) if int(key) in said]
        given, references = ([pair[side] for pair in there] for side in (0, 1))
        values = ", ".join(f"{one.name} {one.compute(given, references):.3g}" for one in find(metrics))
        return f"its answers to {counted(len(there), 'example')} of the data reach {values}"

    @abstractmethod
    def asked(self, split: Dataset, processor: Any) -> Asked:
        """What the models are given of a split.

        Raises:
            CompatibilityError: these data ask for nothing (plain text).
        """

    def own_text(self, split: Dataset, key: int) -> str | None:
        """What the data say that an example's text is, where it is `dictated`; None where they do not."""
        return None

    def written_exam(self, section: Generation) -> WrittenExam:
        """How its texts are judged."""
        return WrittenExam(self, section)

    @abstractmethod
    def continued(self, processor: Any, inputs: Mapping[str, Tensor], written: Sequence[Sequence[int]]) -> Batch:
        """The batch whose rows are the written tokens, given what they were written for."""

    @abstractmethod
    def text_of(self, processor: Any, ids: Sequence[int]) -> str:
        """What written tokens say, without special ones."""

    def asking(self, processor: Any) -> str:
        """Python for an exported file's README that makes `inputs` of arrays, what a model is asked, and `text`, the tokens
        before the first that it writes, and has the `tokenizer`. Empty where optimum does all of it."""
        return ""

    @abstractmethod
    def identity(self, processor: Any) -> str:
        """A hash of how texts become tokens and tokens texts."""


@dataclass(frozen=True)
class WrittenExam(Exam):
    """Models write, and their texts are measured. An answer is a text, so is its reference."""

    task: Writes
    section: Generation

    def metrics(self) -> tuple[Metric, ...]:
        return find(self.section.metrics or ())

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> View:
        """What was asked."""
        return Text(self.task.source_of(split, int(any_of(answers).keys[example])))


def exams_of(task: Writes, rows: ForwardExam, section: Evaluate) -> tuple[Exam, ...]:
    """The exam of texts beside the one of `rows`, where the recipe has texts written; first where writing is the task."""
    generation = section.writing
    if generation is None or not generation.metrics:
        return (rows,)
    written = task.written_exam(generation)
    return (written, rows) if task.text_metrics() else (rows, written)
