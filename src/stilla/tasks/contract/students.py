"""What a task makes of a student and of its processor: before its training, after it, and with fewer tokens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from stilla.recipe import StudentSpec
from stilla.students.vocabulary.refusal import refusal
from stilla.tasks.answers import Answers
from stilla.tasks.contract.rows import Rows
from stilla.tasks.prepared import Loaded, Texts


class OfStudents(Rows):
    """By default a student is what the recipe says, and its processor its teacher's."""

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

    def trained_whole(self, model: nn.Module) -> tuple[str, ...]:
        """Modules of a student that are trained themselves where all else of it learns through adapters."""
        return ()

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

    def inscribe(self, model: nn.Module, processor: Any, teacher: Any | None) -> None:
        """Write into a model's config how it is asked, where the recipe says that and nothing in its folder would. `teacher`:
        the processor of who was asked beside it, if anybody was."""

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
