"""Several tasks at once: one encoder with a head for each, taught by a teacher for each (Clark et al. 2019,
arXiv:1907.04829)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from stilla.data import are_unlabelled, in_one_table, of_part, part_of
from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.objectives.base import Term
from stilla.recipe import Evaluate, ModelSource, ObjectiveSpec, StudentSpec
from stilla.recipe.kinds import KINDS
from stilla.recipe.schedule import schedule
from stilla.recipe.told import LENGTH, columns_of, longest_of
from stilla.runtime.imports import import_path
from stilla.signals import Batch, Dense, Form, Side, Signals
from stilla.tasks.answers import NO_ANSWER, Answers
from stilla.tasks.base import Head, Loaded, Prepared, Segment, Task, Texts
from stilla.tasks.exam import Exam
from stilla.tasks.several import making, refused
from stilla.tasks.several.batching import Union, joined, parts_of, places_in, references_of
from stilla.tasks.several.exam import SeveralExam
from stilla.tasks.several.making import head_of
from stilla.tasks.several.mixture import Mixture
from stilla.tasks.several.model import HEADS, SeveralModel, is_several
from stilla.tasks.several.processors import Processors
from stilla.tasks.several.sections import SeveralData
from stilla.tasks.several.terms import idle, of_parts
from stilla.tasks.shared.learning import objectives_for


@dataclass(frozen=True)
class Several(Task[SeveralData]):
    """Several tasks for one student: an encoder with a head for each, every one with its own data, teacher and metrics.

    A batch holds each task's own batch, and its rows are theirs, one task after the other: rows of the widest task, in which
    the others' fill the first places. What a teacher says to a task is stored as of a run of that task alone.
    """

    parts: Mapping[str, Task]
    section: SeveralData
    start: ModelSource | None = None
    """The recipe's teacher: of every task that names none, and what a student is cut from; None until it is known."""

    kind: ClassVar[str] = "several"
    data_section = SeveralData
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    heads: ClassVar[tuple[str, ...]] = ("SeveralModel",)

    # --- data ---

    @classmethod
    def understand(cls, section: SeveralData, splits: Mapping[str, Dataset]) -> Self:
        parts, problems = dict[str, Task](), list[str]()
        for name, part in section.parts.items():
            try:
                own = {split: some for split, examples in splits.items() if len(some := part_of(examples, name)[0])}
                task = _task(part.task).understand(part.data, own).taught_from(columns_of(part.teacher_data), own)
                most = longest_of(part.teacher_data)
                parts[name] = task if most is None else task.taught_at_length(most)
            except DataError as error:
                problems += [of_part(name, problem).replace("teacher.data", f"data.parts.{name}.teacher_data")
                             for problem in error.problems]
        if problems:
            raise all_at_once(problems, DataError)
        return cls(parts, section)

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        if columns:
            raise DataError("teacher.data: every task has data of its own. Say what a teacher reads of them where they are "
                            "named: data: {parts: {NAME: {teacher_data: ...}}}")
        return self

    def taught_at_length(self, length: int) -> Self:
        return self.taught_from({LENGTH: ()}, {})

    def of_teacher(self) -> Self:
        return self._each(lambda name, task: task.of_teacher())

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        raise CompatibilityError("several tasks at once are learnt by a recipe, which says the data of each (task: several)")

    def resolved(self, section: SeveralData) -> SeveralData:
        parts = {name: part.model_copy(update={"data": self.parts[name].resolved(part.data)})
                 for name, part in section.parts.items()}
        return section.model_copy(update={"parts": parts})

    # --- models ---

    def settled(self, teacher: ModelSource, student: StudentSpec) -> Self:
        """Raises:
            CompatibilityError: teachers are named twice, or are code; a part asks for what is of a task by itself.
        """
        if wrong := refused.problems(self.section, self.parts, teacher):
            raise all_at_once(wrong, CompatibilityError)
        parts = {name: task.settled(self.section.parts[name].teacher or teacher, student)
                 for name, task in self.parts.items()}
        return replace(self, parts=parts, start=teacher)

    def adapted_to(self, teacher: Loaded) -> Self:
        return self._each(lambda name, task: task.adapted_to(head_of(teacher, name)))

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        return self._each(lambda name, task: task.between(head_of(student, name), head_of(teacher, name)))

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        if is_several(source.model):
            return making.saved(self.parts, source)

        def source_of(name: str) -> ModelSource:
            return (self.section.parts[name].teacher or source) if labelled else source

        return making.side_by_side(self.parts, source_of, source, labelled=labelled)

    def pattern(self, teacher: Loaded) -> Loaded:
        """The encoder of the recipe's teacher with a head for every task: its own teacher's, where it fits."""
        return making.cut_from(self.parts, self.section, self.start, teacher)

    @property
    def by_name(self) -> Mapping[str, Task]:
        return self.parts

    def part(self, model: Loaded, name: str) -> Loaded:
        return making.alone(model, name)

    def parts_of(self, batch: Batch) -> Mapping[str, Batch]:
        return parts_of(batch)

    def batch_of(self, parts: Mapping[str, Batch]) -> Batch:
        return joined(parts)

    def signals_of(self, parts: Mapping[str, Signals]) -> Signals:
        wide = [F.pad(logits, (0, self.row_classes() - logits.shape[1])) for one in parts.values()
                if (logits := _dense(one.logits)) is not None]
        labels = [_classes(one.labels, len(_dense(one.logits))) for one in parts.values()]
        return Signals(logits=Dense(torch.cat(wide)), labels=torch.cat(labels).to(wide[0].device), parts=parts)

    def trained_whole(self, model: nn.Module) -> tuple[str, ...]:
        """Its heads: some of them are new."""
        return (HEADS,)

    # --- tokens ---

    def texts(self, split: Dataset, processor: Any) -> Texts:
        """Those of every task, read as far as the one reads that reads farthest."""
        each = {name: own for name in self.parts if len(own := part_of(split, name)[0])}
        read = [self.parts[name].texts(own, processor[name]) for name, own in each.items()]
        lengths = [one.length for one in read if one.length is not None]
        return Texts(chain.from_iterable(one.lines for one in read), max(lengths) if len(lengths) == len(read) else None)

    def tokenizer_of(self, processor: Any) -> PreTrainedTokenizerBase:
        """A student's, which is one for all; of teachers, that of the one that students are cut from."""
        own = next((name for name, part in self.section.parts.items() if part.teacher is None), next(iter(self.parts)))
        return self.parts[own].tokenizer_of(processor[own])

    def as_measured(self, processor: Any, teacher: Any) -> Processors:
        return Processors({name: task.as_measured(processor[name], teacher[name]) for name, task in self.parts.items()})

    def with_tokenizer(self, processor: Any, tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> Processors:
        return Processors(dict.fromkeys(self.parts, tokenizer))

    # --- what is learnt ---

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        """Every task by what it would learn by alone; what nobody has labelled, by its teacher."""
        found = list[ObjectiveSpec]()
        for name, task in self.parts.items():
            own = [one.model_copy(update={"part": name}) for one in task.learns_by() or objectives_for(task.row_classes())]
            if not self.section.parts[name].data.is_labelled:
                own = [one.model_copy(update={"weight": schedule(1.0)}) for one in own if one.kind != task.labels_by().kind]
            found += own
        return tuple(found)

    def idle(self, terms: Sequence[Term]) -> list[str]:
        return idle(terms, self.parts)

    def terms(self, terms: Sequence[Term]) -> tuple[Term, ...]:
        return of_parts(terms, self.parts)

    @property
    def has_labels(self) -> bool:
        return all(task.has_labels for task in self.parts.values())

    @property
    def counted(self) -> tuple[str, ...]:  # type: ignore[override]  # of every task, whose names are known here alone
        return ("rows", "labelled", "tokens", "examples",
                *(f"{name}/{count}" for name, task in self.parts.items() for count in task.counted))

    # --- examples ---

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        prepared, rows, marks = {}, {}, []
        for name, task in self.parts.items():
            own, rows[name] = part_of(split, name)
            if len(own):
                theirs = None if teacher is None else teacher[name]
                prepared[name] = task.prepare(own, student[name], theirs, training=training, seed=seed)
                marks.append(are_unlabelled(own)[prepared[name].keys])
        mixture = None
        if training:
            mixture = Mixture([len(one) for one in prepared.values()], self.section.temperature, seed, np.concatenate(marks))
        whole = Union(prepared, rows, mixture)
        references = None if training else [one for part in prepared.values() for one in references_of(part)]
        return whole.prepared(aligned=all(one.aligned for one in prepared.values()), references=references)

    def beside(self, split: Dataset) -> Dataset:
        each = {name: part_of(split, name)[0] for name in self.parts}
        return in_one_table({name: self.parts[name].beside(own) for name, own in each.items() if len(own)})

    def handed_over(self, model: nn.Module, processor: Any, prepared: Prepared) -> Mapping[str, Head]:
        assert isinstance(model, SeveralModel)
        assert isinstance(prepared.examples, Union)
        return {name: Head(model.alone(name), processor[name], self.parts[name], own)
                for name, own in prepared.examples.parts.items()}

    def counts(self, batch: Batch) -> Mapping[str, int]:
        each = {name: self.parts[name].counts(own) for name, own in parts_of(batch).items()}
        own = {f"{name}/{count}": each[name][count] if name in each else 0
               for name, task in self.parts.items() for count in task.counted}
        whole = {count: sum(one[count] for one in each.values()) for count in ("rows", "labelled", "tokens", "examples")}
        return {**whole, **own}

    # --- rows ---

    def row_classes(self) -> int:
        """Of the widest task; two at least, as rows of numbers stand among those of classes."""
        return max(2, *(task.row_classes() for task in self.parts.values()))

    def kl_from_equal(self) -> float:
        """The mean over the tasks that have distributions."""
        each = [most for task in self.parts.values() if (most := task.kl_from_equal())]
        return sum(each) / max(1, len(each))

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        return self.signals_of({name: self.parts[name].signals(outputs["parts"][name], own, side)
                                for name, own in parts_of(batch).items()})

    def mask(self, batch: Batch, side: Side) -> Tensor | None:
        return None

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        ours, theirs = {}, {}
        for name, own in parts_of(batch).items():
            ours[name], theirs[name] = self.parts[name].align(student.parts[name], teacher.parts[name], own)
        return replace(student, parts=ours), replace(teacher, parts=theirs)

    def alone(self, student: Signals, batch: Batch) -> Signals:
        return replace(student, parts={name: self.parts[name].alone(student.parts[name], own)
                                       for name, own in parts_of(batch).items()})

    def segments(self, batch: Batch) -> list[Segment]:
        """Those of every task, named by it: the same text is answered otherwise by another's teacher."""
        found, start, places = [], 0, places_in(batch)
        for name, own in parts_of(batch).items():
            for one in self.parts[name].segments(own):
                rows = slice(start + one.rows.start, start + one.rows.stop)
                found.append(replace(one, content=f"{name}\0".encode() + one.content, rows=rows,
                                     example=places[name][one.example]))
            start += self.parts[name].counts(own)["rows"]
        return found

    # --- answers ---

    def exam(self) -> SeveralExam:
        return SeveralExam({name: task.exam() for name, task in self.parts.items()})

    def exams(self, section: Evaluate) -> tuple[Exam, ...]:
        return (replace(self.exam(), beside_teacher=True),)

    @property
    def settles(self) -> bool:
        return any(task.settles for task in self.parts.values())

    @contextmanager
    def learning(self, model: nn.Module) -> Iterator[None]:
        assert isinstance(model, SeveralModel)
        with ExitStack() as stack:
            for name, task in self.parts.items():
                stack.enter_context(task.learning(model.head(name)))
            yield

    def inscribe(self, model: nn.Module, processor: Any, teacher: Any | None) -> None:
        assert isinstance(model, SeveralModel)
        for name, task in self.parts.items():
            task.inscribe(model.head(name), processor[name], None if teacher is None else teacher[name])
        model.remember_heads()

    def forget(self, model: nn.Module) -> None:
        assert isinstance(model, SeveralModel)
        for name, task in self.parts.items():
            task.forget(model.head(name))
        model.remember_heads()

    def has_settled(self, model: nn.Module) -> bool:
        assert isinstance(model, SeveralModel)
        return any(task.has_settled(model.head(name)) for name, task in self.parts.items())

    def settle(self, model: nn.Module, validation: Answers) -> None:
        assert isinstance(model, SeveralModel)
        for name, task in self.parts.items():
            if task.settles:
                task.settle(model.head(name), self.exam().of_part(name, validation))
        model.remember_heads()

    def alike(self, student: Any, teacher: Any) -> bool:
        return all(task.alike(student[name], teacher[name]) for name, task in self.parts.items())

    def comparable(self, student: Any, teacher: Any) -> bool:
        return all(task.comparable(student[name], teacher[name]) for name, task in self.parts.items())

    def numbers_of(self, length: int) -> int:
        return max(task.numbers_of(length) for task in self.parts.values())

    def _each(self, change: Any) -> Self:
        problems, parts = list[str](), dict[str, Task]()
        for name, task in self.parts.items():
            try:
                parts[name] = change(name, task)
            except CompatibilityError as error:
                problems += [f"{name}: {problem}" for problem in error.problems]
        if problems:
            raise all_at_once(problems, CompatibilityError)
        return replace(self, parts=parts)


def _task(kind: str) -> type[Task]:
    found: type[Task] = import_path(KINDS[kind].task)
    return found


def _dense(logits: Form | None) -> Tensor:
    assert isinstance(logits, Dense)  # a head's
    return logits.logits


def _classes(labels: Tensor | None, rows: int) -> Tensor:
    """Row labels where they are classes; none of a number's rows."""
    if labels is None or labels.is_floating_point():
        return torch.full((rows,), NO_ANSWER)
    return labels
