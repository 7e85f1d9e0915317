"""Text classification: sentences or pairs of sentences with a class, several labels, or a number."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from datasets import Dataset, Value
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.models.entry import table_of
from stilla.recipe import ModelSource, StudentSpec
from stilla.runtime.imports import is_import_path
from stilla.signals import Batch
from stilla.tasks.base import Loaded, Prepared, Side, Texts
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import loading
from stilla.tasks.shared.bound import bound, usual_texts
from stilla.tasks.shared.broken import empty, refuse_empty, without_empty
from stilla.tasks.shared.classification import Classification, Positions, attempt
from stilla.tasks.shared.imported import ImportedModel, check_answers
from stilla.tasks.shared.in_words import InWords, named_in, wilson
from stilla.tasks.shared.label_weights import problem_of
from stilla.tasks.shared.privileged import columns_of_teacher, side_by_side
from stilla.tasks.shared.probable import Token, probabilities
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.changing import Collate, Rewording
from stilla.tasks.text.numbering import Numbering, numbering, same_pieces
from stilla.tasks.text.perturbation import CLEAN, SHARE, Draws, Perturbation
from stilla.tasks.text.proposals import Proposals, Rewords
from stilla.tasks.text.sections import Contextual, TextClassificationData
from stilla.views import Text, View

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextClassification(Classification[TextClassificationData], InWords, Rewords):
    """Texts, or pairs of texts, by class; several labels per text; or a number per text."""

    text: tuple[str, ...] = ()
    """The column, or two for pairs."""
    teachers: tuple[str, ...] = ()
    """The columns that teachers read instead; empty: the same."""
    longest: int | None = None
    """How many tokens they read, where those are not as many."""
    embedding: Tensor | None = field(default=None, compare=False, repr=False)
    """The teacher's, (vocabulary, width): which words are similar to it; None where no teacher is known."""
    proposals: Proposals | None = field(default=None, compare=False, repr=False)
    """What a masked language model proposes for its texts, if it was asked."""
    without_words: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What the section says where the teacher has no table of words that says which are similar; empty where a recipe asks
    for similar words itself."""

    kind: ClassVar[str] = "text-classification"
    data_section = TextClassificationData
    given: ClassVar[str] = '"An example.", truncation=True'
    heads: ClassVar[tuple[str, ...]] = ("ForSequenceClassification",)
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(_tokens.INPUTS, ("batch", "tokens"))
    question: ClassVar[str] = ("To which of these classes does the text belong?\nClasses: {labels}\n\nText: {source}\n\n"
                               "Answer with the name of the class alone.")
    once: ClassVar[bool] = False

    @classmethod
    def understand(cls, section: TextClassificationData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        label = attempt(problems, _columns.labels, section, train) or ()
        text = attempt(problems, _columns.texts, section, train, label) or ()
        absent = _columns.missing([*text, *label], splits)
        problem = None
        if not absent:
            for name, split in splits.items():
                texts = [_columns.values(split, column) for column in text]
                attempt(problems, refuse_empty, section, name, split, texts, _columns.named(text))
            problem = attempt(problems, problem_of, section, label, splits) if label else None
        problems += absent
        if problems or problem is None:
            raise all_at_once(problems, DataError)
        return cls(problem, section, text)

    def resolved(self, section: TextClassificationData) -> TextClassificationData:
        clean = None if self.section is None else self.section.clean_passes
        return section.model_copy(update={**self.labels_resolved(), "text": self.text, "clean_passes": clean})

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        found = columns_of_teacher(columns, "text", splits, self.problem.columns)
        return replace(self, teachers=() if found == self.text else found)._with_same_words()

    def taught_at_length(self, length: int) -> Self:
        """More of a text than its students do."""
        same = self.section is not None and length == self.section.max_length
        return self if same else replace(self, longest=length)._with_same_words()

    def _with_same_words(self) -> Self:
        if self._told and self.section is not None and self.section.augment not in ("auto", "none"):
            said = "contextual" if self.contextual else "light"
            raise DataError(f"data.augment: {said} replaces words in what both models read, and here the teacher reads "
                            "something else (teacher.data). Use augment: none.")
        return self

    @property
    def _told(self) -> bool:
        return bool(self.teachers) or self.longest is not None

    def of_teacher(self) -> Self:
        if not self._told:
            return self
        section = self.section
        if section is not None and self.longest is not None:
            section = section.model_copy(update={"max_length": self.longest})
        return replace(self, text=self.teachers or self.text, teachers=(), longest=None, section=section)

    def augmentation(self, teacher: ModelSource, student: StudentSpec) -> Literal["none", "light"]:
        """Measured to help students cut from a teacher of single texts, and those of random weights that read its tokens and
        tell classes apart; of given ones, and of random weights that learn numbers, nobody knows. Two texts that no longer
        speak of the same say something else (elsewhere measured to cost 16 points)."""
        fresh = student.config is not None and student.processor is None and self.problem.kind != "regression"
        knows = not is_import_path(teacher.model) and not self._told
        return "light" if (student.is_cut or fresh) and knows and len(self.text) == 1 else "none"

    def with_augmentation(self, chosen: Literal["none", "light"]) -> dict[str, Any]:
        given = None if self.section is None else self.section.clean_passes
        return {"clean_passes": CLEAN} if chosen == "light" and given is None else {}

    def settled(self, teacher: ModelSource, student: StudentSpec) -> Self:
        settled = super().settled(teacher, student)
        if self.section is None or self.section.augment != "auto" or self.section.views is not None:
            return settled
        return replace(settled, without_words={"augment": "none", "clean_passes": self.section.clean_passes})

    def adapted_to(self, teacher: Loaded) -> Self:
        adapted, words = super().adapted_to(teacher), table_of(teacher.model)
        if words is not None:
            return replace(adapted, embedding=words.weight)
        if self.section is None or not self.without_words:
            return replace(adapted, embedding=None)
        return replace(adapted, embedding=None, section=self.section.model_copy(update=self.without_words))

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        auto = AutoModelForSequenceClassification
        model = loading.classifier(source, self.problem, auto, labelled=labelled)
        tokenizer = _tokens.tokenizer_for(source, model)
        if isinstance(model, ImportedModel):
            tokens, _ = _tokens.tokenise(tokenizer, [["a b", "a"]] * max(1, len(self.text)), max_length=8)
            check_answers(model, tokens.batch([0, 1]), source.model)
        return Loaded(model, tokenizer, source.model)

    def as_measured(self, processor: Any, teacher: Any) -> Any:
        beside = [] if self._told else [teacher]  # who reads other texts cuts them alone
        return processor if self.section is None else _tokens.no_longer(processor, beside, self.section.max_length)

    def texts(self, split: Dataset, processor: Any) -> Texts:
        wanted = None if self.section is None else self.section.max_length
        lines = (text for column in self.text for text in _columns.values(split, column) if text)
        return _tokens.beginnings(processor, lines, _tokens.longest([processor], wanted))

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        if teacher is not None and self._told:
            return side_by_side(self.prepare(split, student, None, training=training, seed=seed),
                                self.of_teacher().prepare(split, teacher, None, training=training, seed=seed))
        texts = [_columns.values(split, column) for column in self.text]
        keys = np.setdiff1d(np.arange(len(split)), empty(texts))
        texts = [[column[key] for key in keys] for column in texts]
        if not len(keys):
            raise DataError(f"there is no text left in {_columns.named(self.text)}: all {len(split)} are empty.")
        both = [student] if teacher is None else [student, teacher]
        length = _tokens.longest(both, self.section.max_length)
        tokens = self._tokens(student, texts, length, "the student's" if teacher is not None else "the")
        # in training, a teacher of the same rules is asked about the very pieces that the student reads
        known = numbering(student, teacher) if training and teacher is not None else None
        shared = teacher is None or known is not None or _tokens.same(student, teacher)
        others = tokens if shared and known is None else self._tokens(teacher, texts, length, "the teacher's")
        labels = self.encoded(split, keys)
        # only where a teacher answers: the label of a text with other words in it is anybody's guess
        changing = None
        if training and teacher is not None:
            share = SHARE if self.contextual is None else self.contextual.share
            draws = Draws(seed, share, self.section.clean_passes or 0, self.section.views)
            changing = (self._perturbation(tokens, student, known, draws, shared=shared) if self.contextual is None else
                        self._rewording(texts, student, None if others is tokens else teacher, draws, length))
        collate = Collate(tokens, others, labels, keys, changing, known)
        # other words may be of tokens that the student lacks even where the data use none of them
        alike = known is None or (same_pieces(tokens, others, known) and not isinstance(changing, Rewording))
        return Prepared(
            examples=Positions(len(keys)),
            collate=collate,
            apart=None if alike else replace(collate, apart=True),
            keys=keys,
            lengths=tokens.lengths.tolist(),
            references=labels,
            on_epoch=None if changing is None else changing.draws.turns.set_epoch,
            views=None if changing is None else changing.draws.turns.cycle,
            untouched=0 if changing is None else changing.draws.turns.untouched,
            turns=() if changing is None else (changing.draws.turns,),
            aligned=shared,
        )

    def _perturbation(
        self, tokens: _tokens.Tokens, student: Any, known: Numbering | None, draws: Draws, *, shared: bool
    ) -> Perturbation | None:
        if self.section is None or self.section.augment != "light":
            return None
        if not shared:
            raise CompatibilityError("data.augment: light replaces tokens, and teacher and student have different "
                                     "tokenizers. Use augment: none, or a student with the teacher's tokenizer.")
        if self.embedding is None:
            raise CompatibilityError("data.augment: light replaces words by similar ones, and the teacher "
                                     "has no embedding of tokens that says which are. Use augment: none.")
        embedding = self.embedding if known is None else self.embedding[known.theirs.to(self.embedding.device)]
        return Perturbation(tokens, student.all_special_ids, embedding, draws)

    def _rewording(
        self, texts: list[list[str]], student: Any, teacher: Any | None, draws: Draws, length: int
    ) -> Rewording:
        assert self.contextual is not None  # the caller knows
        if self.proposals is None or any(self.proposals.lacks(column) for column in texts):
            raise CompatibilityError("data.augment: contextual: the masked language model was not asked about these texts. "
                                     "Use augment: light or none")
        return Rewording(texts, self.proposals, self.contextual.rate, draws, student, teacher, length)

    @property
    def contextual(self) -> Contextual | None:
        asked = None if self.section is None else self.section.augment
        return asked if isinstance(asked, Contextual) else None

    def knowing(self, proposals: Proposals) -> Self:
        return replace(self, proposals=proposals)

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        read = self._read
        usual = partial(usual_texts, count=len(read))
        return bound(pool, read, called, _columns.is_text, "text", usual, self.problem.columns)

    def usable(self, pool: Dataset) -> Dataset:
        texts = [_columns.values(pool, column) for column in self._read]
        return without_empty(self.section, "unlabelled", pool, texts, _columns.named(self._read))

    def beside(self, split: Dataset) -> Dataset:
        return split.select_columns([*self._read, *self.problem.columns])

    @property
    def text_column(self) -> str | None:
        return self._read[0] if len(self._read) == 1 else None

    def traces(self, split: Dataset) -> Iterable[tuple[str, ...]]:
        return zip(*([text or "" for text in _columns.values(split, column)] for column in self.text))

    @property
    def _read(self) -> tuple[str, ...]:
        """All columns that models read."""
        return tuple(dict.fromkeys((*self.text, *self.teachers)))

    # --- asking in words ---

    def unasked(self) -> str | None:
        if self.problem.form != "class":
            return "answers are read as one class of a text, and these labels are several, or a number"
        if not self.problem.named:
            return "the classes are numbers, which say nothing to whoever is asked; name them (data.labels)"
        return None

    def source_of(self, split: Dataset, key: int) -> str:
        row = split[int(key)]
        return "\n\n".join(str(row[column]) for column in self.text)

    def askable(self, split: Dataset) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(len(split)), empty([_columns.values(split, column) for column in self.text]))

    def values_of(self) -> Mapping[str, str]:
        return {"labels": ", ".join(self.problem.names)}

    def meant(self, text: str, *, cut: bool) -> str | None:
        return named_in(text, self.problem.names, cut=cut)

    def answered(self, split: Dataset, texts: Sequence[str], cut: Sequence[bool]) -> Dataset:
        """`texts`: names of classes."""
        raw = dict(zip(self.problem.names, self.problem.raw))
        return self._spelled(split, [raw[name] for name in texts])

    def chances(self, tokens: Sequence[Token], said: str) -> NDArray[np.float64] | None:
        return probabilities(tokens, said, self.problem.names)

    def chances_of_labels(self, split: Dataset) -> NDArray[np.float64] | None:
        certain: NDArray[np.float64] = np.eye(len(self.problem.names))[self.problem.encode(split)]
        return certain

    def judged(self, split: Dataset, said: Mapping[int, str | None], processor: Any, metrics: Sequence[str]) -> str:
        keys = sorted(said)
        labels = [self.problem.names[index] for index in self.problem.encode(split.select(keys))]
        right = np.array([said[key] == label for key, label in zip(keys, labels)], np.float64)
        low, high = wilson(right)
        unclear = sum(one is None for one in said.values())
        return (f"its answers have an accuracy of {right.mean():.3f} (95 % interval {low:.3f} to {high:.3f}) on "
                f"{len(keys):,} labelled examples, of which {unclear:,} were not understood")

    def beside_answers(self, split: Dataset) -> Dataset:
        split = self.beside(split)
        return self._spelled(split, [self.problem.raw[index] for index in self.problem.encode(split)])

    def _spelled(self, split: Dataset, labels: list[str]) -> Dataset:
        """With these labels, as the data spell them, in the place of its own."""
        column, split = self.problem.columns[0], split.with_format(None)
        rest = split.remove_columns([column]) if column in split.column_names else split
        return rest.add_column(column, labels, feature=Value("string"))

    def _tokens(self, tokenizer: Any, texts: list[list[str]], length: int, whose: str) -> _tokens.Tokens:
        tokens, cut = _tokens.tokenise(tokenizer, texts, length)
        if cut:
            count = len(texts[0])
            logger.warning("%d of %d texts are longer than %d of %s tokens: cut", cut, count, length, whose)
        return tokens

    def counts(self, batch: Batch) -> Mapping[str, int]:
        mask = self.mask(batch, Side.STUDENT)
        return {**self.label_counts(batch), "tokens": int(mask.sum())}

    def mask(self, batch: Batch, side: Side) -> Tensor:
        inputs = batch.student if side is Side.STUDENT else batch.teacher
        mask = inputs.get("attention_mask")
        return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()

    def show(self, split: Dataset, key: int) -> View:
        row = split.select_columns(list(self.text)).with_format(None)[int(key)]
        return Text(" | ".join(str(row[column]) for column in self.text))
