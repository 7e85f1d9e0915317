"""What a task's examples are without their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from datasets import Dataset

from stilla.errors import CompatibilityError
from stilla.tasks.contract.rows import Rows


class Unlabelled(Rows):
    """By default nobody knows, and `data.unlabelled` is refused."""

    @property
    def text_column(self) -> str | None:
        """The column of the text that is all that models read of an example, so that any text is one; None where they read
        something else, or more."""
        return None

    @property
    def has_labels(self) -> bool:
        """Whether the labelled data say what is right for an example, so that it can be learnt without a teacher."""
        return True

    @property
    def incomparable(self) -> str | None:
        """Why what labels alone make cannot be measured beside a student, in words; None where it can."""
        return None

    @property
    def labels_by_teacher(self) -> bool:
        """Whether what the teacher makes of an unlabelled example is its label as well, without `completions`."""
        return False

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Unlabelled examples with the columns that models read, as the labelled data call them, and none with a label.

        `called`: what the columns are called in these examples, where the recipe says it.

        Raises:
            DataError: there is no such column, or which one is meant is left open.
            CompatibilityError: the task does not know what its examples are without labels.
        """
        raise self._labelled_only()

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
