"""Batches of texts, some of which are changed: similar tokens, or words that a masked language model proposes.

A changed text has no label: only the teacher says what it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from stilla.signals import Batch
from stilla.tasks.text.numbering import Numbering, apart, for_teacher
from stilla.tasks.text.perturbation import Draws, Perturbation
from stilla.tasks.text.proposals import Proposals
from stilla.tasks.text.tokens import Tokens, tokenise


@dataclass(frozen=True, eq=False)
class Rewording:
    """Texts in other words, which both models then read as they read any text. `columns`: one, or two of pairs, of which one
    text is changed and the other stays. `teacher`: None where it reads as its student does."""

    columns: Sequence[Sequence[str]]
    proposals: Proposals
    rate: float
    draws: Draws
    student: PreTrainedTokenizerBase
    teacher: PreTrainedTokenizerBase | None
    length: int

    def __call__(
        self, examples: Sequence[int], keys: Int[NDArray[np.int64], " batch"]
    ) -> tuple[Tokens, Tokens, Bool[NDArray[np.bool_], " batch"]]:
        """The examples for student and teacher, and which were changed."""
        texts = [[column[one] for one in examples] for column in self.columns]
        changed = np.zeros(len(keys), bool)
        for row, key in enumerate(keys):
            draw = self.draws.of(int(key))
            if draw is None:
                continue
            column = texts[int(draw.integers(len(texts)))]
            before = column[row]
            column[row] = self.proposals.reworded(before, self.rate, draw)
            changed[row] = column[row] != before
        ours, _ = tokenise(self.student, texts, self.length)
        return ours, ours if self.teacher is None else tokenise(self.teacher, texts, self.length)[0], changed


@dataclass(frozen=True)
class Collate:
    """Batches of tokenised texts. `apart`: where both number the same pieces otherwise, let each read its own."""

    student: Tokens
    teacher: Tokens
    labels: NDArray[Any] | None
    keys: NDArray[np.int64]
    changing: Perturbation | Rewording | None = None
    numbering: Numbering | None = None
    apart: bool = False

    def __call__(self, examples: Sequence[int]) -> Batch:
        keys, rows, ours, theirs = self.keys[examples], examples, self.student, self.teacher
        perturbed = changed = None
        if isinstance(self.changing, Rewording):
            ours, theirs, changed = self.changing(examples, keys)
            rows = range(len(examples))
        student = ours.batch(rows)
        if isinstance(self.changing, Perturbation):
            perturbed = changed = self.changing(student, keys)
        teacher = for_teacher(student, rows, ours, theirs, self.numbering)
        if self.apart and self.numbering is not None:
            # of a text in other words a teacher has its own pieces; other tokens are the student's alone
            teacher = apart(student, rows, theirs, self.numbering, perturbed)
        batch = Batch(student=student, teacher=teacher, keys=torch.from_numpy(keys))
        if self.labels is not None:
            labels = self.labels[examples]
            if changed is not None:
                labels[changed] = np.nan if labels.dtype.kind == "f" else -100
            batch["labels"] = torch.from_numpy(labels)
        return batch
