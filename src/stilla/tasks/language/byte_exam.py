"""Models that read other tokens, compared by how likely they find the texts themselves.

Perplexities per token say nothing of each other where tokens are others: who cuts a word into three has two guesses more,
and easier ones. The probability of a text does, per byte of it: a model's log-probabilities of the tokens that it makes of
the text itself, added up. It is a little less than what the model knows of the text, which could be cut in other ways too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch, Side
from stilla.tasks.answers import Answers, Given, Metric
from stilla.tasks.exam import ForwardExam, any_of, array, side_by_side
from stilla.tasks.language.token_exam import NLL, Heard, TokenExam, measured
from stilla.tasks.shared.metrics import by_sums
from stilla.tasks.text.sequences import NO_ROW
from stilla.views import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stilla.tasks.language.vocabulary import Vocabulary


@dataclass(frozen=True)
class ByteExam(ForwardExam):
    """`task`: adapted to the model that is asked, with its own tokens. Its answer to an example is (2,): how many bits its
    tokens take, and how many bytes of text they are."""

    task: Vocabulary

    units: ClassVar[str] = "bytes"

    def outputs(self, outputs: Any) -> Tensor:
        return TokenExam(self.task).outputs(outputs)

    def metrics(self) -> tuple[Metric, ...]:
        return (BITS_PER_BYTE,)

    def ask(self, forward: Any, batch: Batch, side: Side) -> Heard:
        return TokenExam(self.task).ask(forward, batch, side)

    def given(self, said: Heard, batch: Batch, teacher: Heard | None) -> NDArray[np.float64]:
        assert batch.labels is not None
        nats = array(measured(self.task, said.signals, batch))[..., NLL].sum(1, dtype=np.float64)
        labels = array(batch.labels)
        size = [len(self.task.decoded(row[row != NO_ROW].tolist()).encode()) for row in labels]
        return np.stack([nats / math.log(2), np.array(size, np.float64)], axis=1)

    def joined(self, parts: Sequence[Given], *, references: bool = False) -> NDArray[Any]:
        return side_by_side([np.asarray(part) for part in parts], NO_ROW)

    def finished(self, answers: Answers) -> Answers:
        """A text each: who makes more tokens of a long one reads it in more pieces."""
        keys, where = np.unique(answers.keys, return_inverse=True)
        sums = np.zeros((len(keys), 2))
        np.add.at(sums, where, np.asarray(answers.given))
        first = np.unique(answers.keys, return_index=True)[1]
        return Answers(keys, sums, np.asarray(answers.references)[first])

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Text:
        labels = np.asarray(any_of(answers).references)[example]
        return Text(self.task.decoded(labels[labels != NO_ROW].tolist()))

    def remarks(self, said: Mapping[str, Any], batch: Batch) -> list[str]:
        return []


BITS_PER_BYTE = by_sums("bits_per_byte", lambda outputs, labels: outputs, lambda sums: float(sums[0] / sums[1]), higher=False,
                        bounded=False)
"""Bits that a model's tokens take per byte of the text, over all examples: 8 is no knowledge of it at all."""
