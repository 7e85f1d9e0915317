"""How a recipe's `student.vocabulary` becomes a student with fewer tokens: counted in the texts that it will learn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stilla.data import from_all_over
from stilla.models.fingerprint import of_processor
from stilla.models.modes import in_eval_mode
from stilla.recipe import VocabularySpec
from stilla.runtime.narrate import say
from stilla.signals import Batch, Dense, Headed, Side
from stilla.students.vocabulary import (
    Kept,
    Pieces,
    changed_words,
    chosen,
    counted,
    named_in_configs,
    of_language,
    pieces_of,
    refusal,
    refuse_other_pieces,
    refuse_unknown,
    with_rows,
    with_tokens,
)
from stilla.tasks.base import Loaded, Task
from stilla.tasks.forward import listen
from stilla.tasks.text.numbering import numbering

COMPARED = 4
"""Examples that the smaller model has to answer as the whole one does."""
ROWS = 64
"""Rows of logits that are compared: over a vocabulary, all of them would fit no memory."""
EXACT = 1e-4
"""Relative to the largest number: the same products of fewer rows may be summed in another order."""


@dataclass(frozen=True, eq=False)
class Used:
    """Of a tokenizer whose tokens are counted: which there are, which have to stay, how much each is used."""

    tokenizer: PreTrainedTokenizerBase
    pieces: Pieces
    there: frozenset[int]
    stay: frozenset[int]
    weights: NDArray[np.float64]
    texts: tuple[tuple[str, int | None], ...]

    def kept(self, spec: VocabularySpec) -> Kept:
        return chosen(spec, self.pieces, self.weights, self.stay, self.there)

    def cut_to(self, kept: Kept) -> PreTrainedTokenizerBase:
        """The tokenizer with these tokens, which makes the same of the texts that were counted."""
        made = with_tokens(self.tokenizer, kept.order)
        for length in {length for _, length in self.texts} if not kept.lost else ():
            refuse_other_pieces(self.tokenizer, made, [text for text, own in self.texts if own == length], length)
        return made


@dataclass(frozen=True, eq=False)
class Counting:
    """`learnt`: the examples that students will learn from, and their baselines. Each tokenizer's tokens are counted once."""

    task: Task
    learnt: tuple[Dataset, ...]
    data: bool = True
    languages: tuple[str, ...] = ()
    _known: dict[str, Used] = field(default_factory=dict)

    def of(self, student: Loaded) -> Used:
        """`student`: with all the tokens."""
        before = self.task.tokenizer_of(student.processor)
        mark = of_processor(before)
        if mark not in self._known:
            pieces, there = pieces_of(before), frozenset(before.get_vocab().values())
            refuse_unknown(student.model)
            named = {*before.added_tokens_decoder, *before.all_special_ids, *named_in_configs(student.model)}
            weights, beside, texts = np.zeros(1 + max(there)), set[int](), list[tuple[str, int | None]]()
            for examples in self.learnt if self.data else ():
                read = self.task.texts(examples, student.processor)
                found = counted(before, pieces, read.lines, read.length)
                weights += found.tokens
                beside |= found.beside
                texts += [(text, read.length) for text in found.some]
            weights /= max(1.0, weights.sum())
            for language in self.languages:
                weights += of_language(before, language)
            self._known[mark] = Used(before, pieces, there, frozenset(named | beside), weights, tuple(texts))
        return self._known[mark]


@dataclass(frozen=True, eq=False)
class Smaller:
    """The smaller vocabulary of a run's students, chosen once: every one of them gets the same."""

    spec: VocabularySpec
    counting: Counting
    _known: dict[str, tuple[Kept, PreTrainedTokenizerBase]] = field(default_factory=dict)
    _told: list[bool] = field(default_factory=list)

    @classmethod
    def counted_in(cls, spec: VocabularySpec, task: Task, learnt: tuple[Dataset, ...]) -> Self:
        return cls(spec, Counting(task, learnt, spec.data, spec.languages or ()))

    def of(self, student: Loaded) -> Loaded:
        """The student with fewer tokens; it says of every text what it said before, as far as it has the tokens for it.

        Raises:
            CompatibilityError: a tokenizer or a model that this cannot be done to, in words.
        """
        if not isinstance(student.model, PreTrainedModel):
            raise refusal(f"{type(student.model).__name__} is not a Hugging Face model, so that nobody knows where it has "
                          "rows for tokens")
        kept, tokenizer = self.chosen(student)
        model = with_rows(student.model, kept.numbers.tolist())
        task = self.counting.task
        smaller = Loaded(model, task.with_tokenizer(student.processor, tokenizer, model), student.source)
        self._refuse_other_answers(student, smaller, kept)
        return smaller

    def chosen(self, student: Loaded) -> tuple[Kept, PreTrainedTokenizerBase]:
        """Which tokens are kept of a student that has them all, and its tokenizer with these."""
        used = self.counting.of(student)
        mark = of_processor(used.tokenizer)
        if mark not in self._known:
            kept = used.kept(self.spec)
            self._known[mark] = kept, used.cut_to(kept)
        return self._known[mark]

    def tell(self) -> None:
        """Say once what was chosen."""
        if not self._told:
            for kept, _ in self._known.values():
                lost = f"; {kept.lost:,} that the texts use are not kept" if kept.lost else ""
                say(f"vocabulary: {len(kept):,} of {kept.of:,} tokens are kept, {kept.always:,} of them for any text{lost}")
            self._told.append(True)

    def _refuse_other_answers(self, student: Loaded, smaller: Loaded, kept: Kept) -> None:
        """Raise unless a few examples are answered alike: something may go by the numbers of tokens that has no row for each.
        """
        task = self.counting.task
        some = from_all_over(self.counting.learnt[0], COMPARED)
        prepared = task.prepare(some, smaller.processor, None, training=False)
        batch = prepared.collate([prepared.examples[place] for place in range(min(COMPARED, len(prepared)))])
        numbers = torch.from_numpy(kept.numbers)
        told = {name: numbers[value] if name.endswith("input_ids") else value for name, value in batch.student.items()}
        ours = _answers(smaller.model, task, batch)
        theirs = _answers(student.model, task, Batch({**batch, "student": told}))
        theirs = theirs[:, numbers] if task.vocabulary else theirs
        gap, size = float((ours[:, : theirs.shape[1]] - theirs).abs().max()), float(theirs.abs().max())
        if not gap <= EXACT * max(1.0, size):
            raise refusal(f"with fewer tokens, {type(student.model).__name__} answers texts of those that it kept otherwise, "
                          f"by {gap:.2g}: it has more for every token than rows that follow vocab_size")


def cost_of(task: Task, whole: Any, smaller: Any, split: Dataset) -> str | None:
    """What a smaller vocabulary costs a split's texts, in words; None where both processors have the same tokens, or others.

    `whole`, `smaller`: the teacher's processor, and a student's.
    """
    before, after = task.tokenizer_of(whole), task.tokenizer_of(smaller)
    if numbering(after, before) is None:
        return None
    read = task.texts(split, whole)
    changed = changed_words(before, after, read.lines, read.length)
    return f"{len(before):,} tokens cut to {len(after):,}; {changed}"


@torch.no_grad()
def _answers(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    """(rows, classes): of some rows, in float32."""
    placed = batch.to(next(model.parameters()).device)
    with in_eval_mode(model):
        answer = listen(model, task, placed, Side.STUDENT)
    said = (task.remembered(answer, placed) if answer.embeddings else answer).logits
    dense = said.rows(0, ROWS).dense() if isinstance(said, Headed) else said
    assert isinstance(dense, Dense)
    return dense.logits[:ROWS].float().cpu()
