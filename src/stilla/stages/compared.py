"""Everything that a run made, beside each other: who answers what, on whose tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from stilla.data import from_all_over
from stilla.errors import all_of
from stilla.evaluate import (
    Asked,
    Examined,
    Subject,
    Workload,
    batch_for,
    count_flops,
    count_parameters,
    count_tokens,
    examine,
    remarks,
    workload,
)
from stilla.evaluate.assemble import AllAnswers
from stilla.evaluate.generate import room
from stilla.evaluate.texts import Author
from stilla.export.writers import OnnxWriter
from stilla.recipe import Recipe
from stilla.scores import PERSONAL, Cost
from stilla.signals import Side
from stilla.stages.groups import Ask, Parts
from stilla.stages.vocabulary import cost_of
from stilla.tasks.answers import Answers, in_common
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.exam import Exam, ForwardExam
from stilla.tasks.language.writing import Writes

LOOKED_AT = 10_000
"""Texts in which it is counted how many words a smaller vocabulary has changed."""

_IN_PARTS = f"{PERSONAL}:"

VALIDATION = "validation"
"""The split on which models choose, of a run's own."""

CHOSEN_ON = "the run's validation data"
"""What the same is called beside other data, which may be called anything but that."""


@dataclass(frozen=True)
class Compared:
    """All that is measured together: the teacher if there is one, the models of every role by seed, files by format."""

    recipe: Recipe
    task: Task
    teacher: Loaded | None
    made: Mapping[str, Sequence[Loaded]]
    files: Mapping[str, Any]
    device: torch.device
    parts: Sequence[Parts] = ()
    chosen_on: str | None = VALIDATION
    """The split on which models choose; None where they choose nothing."""
    simple: dict[str, Cost] = field(default_factory=dict)
    """What was answered without a model, and what it costs."""

    @property
    def student(self) -> Loaded:
        return self.made["student"][0]

    @property
    def exams(self) -> tuple[Exam, ...]:
        return self.between.exams(self.recipe.evaluate)

    @cached_property
    def between(self) -> Task:
        """The task for the rows of both."""
        return self.task.between(self.student, self.teacher or self.student)

    @cached_property
    def alike(self) -> bool:
        """Whether teacher and student are asked the same, and answer in the same classes."""
        return self.teacher is None or self.task.alike(self.student.processor, self.teacher.processor)

    @cached_property
    def beside(self) -> bool:
        """Whether they can be compared row by row."""
        return self.teacher is None or self.task.comparable(self.student.processor, self.teacher.processor)

    def prepared(self, examples: Dataset) -> Prepared:
        theirs = self.teacher.processor if self.beside and self.teacher is not None else None
        return self.between.prepare(examples, self.student.processor, theirs, training=False)

    def examined(
        self, exam: ForwardExam, splits: Mapping[str, Dataset], prepared: Mapping[str, Prepared]
    ) -> Iterator[Examined]:
        """What all answer. Where the student reads other tokens than the teacher, first how likely each finds the texts in
        its own: numbers of tokens say nothing of each other."""
        apart = self.task.apart()
        if apart is not None and not self.alike:
            yield Examined(apart, self._answers(
                apart, splits, lambda split: self._apart(split, splits[split], _apart_exam)))
        if self.beside:
            answers = self._answers(exam, splits, lambda split: self._beside(exam, split, splits[split], prepared[split]))
            yield Examined(exam, answers, tuple(self.simple))
        else:
            said = self._answers(exam, splits, lambda split: self._apart(
                split, splits[split], lambda task: self._same_exam(exam, task)))
            if apart is None or _of_the_same(said):
                yield Examined(exam, said, tuple(self.simple))

    def _same_exam(self, exam: ForwardExam, task: Task) -> ForwardExam:
        """As another model's task has it."""
        found = task.exams(self.recipe.evaluate)[self.exams.index(exam)]
        assert isinstance(found, ForwardExam)  # as this one is
        return found

    def _answers(
        self, exam: Exam, splits: Iterable[str], said: Callable[[str], Mapping[str, Answers]]
    ) -> AllAnswers:
        """By subject, then by split, one per seed."""
        found: dict[str, dict[str, list[Answers]]] = {}
        for split in splits:
            answers = said(split)
            for name, seeds in [*self._by_subject(answers).items(), *self._without_a_model(exam, answers)]:
                found.setdefault(name, {})[split] = seeds
        return found if self.chosen_on not in found["student"] else self._settled(exam, found, self.chosen_on)

    def _without_a_model(self, exam: Exam, said: Mapping[str, Answers]) -> Iterator[tuple[str, list[Answers]]]:
        """What needs none, as a subject of its own; what it is made of is all that it costs."""
        any_ = next(iter(said.values()))
        for name, one in exam.without_a_model(any_).items():
            self.simple[name] = Cost(parameters=one.numbers, bytes=4 * one.numbers)
            yield name, [any_.but(one.given)]

    def _settled(self, exam: Exam, said: AllAnswers, chosen_on: str) -> dict[str, dict[str, list[Answers]]]:
        """With what each model chooses on validation data; exported files, what the student that they hold has chosen."""
        by = {name: said["student" if name in self.files else name][chosen_on] for name in said}
        return {name: {split: [exam.settled(one, by[name][seed]) for seed, one in enumerate(seeds)]
                       for split, seeds in splits.items()} for name, splits in said.items()}

    def vocabulary(self, name: str, split: Dataset) -> list[str]:
        """A note on a student that has only some of its teacher's tokens: what that costs other texts."""
        if self.recipe.student.vocabulary is None or self.teacher is None:
            return []
        some = from_all_over(split, LOOKED_AT)
        cost = cost_of(self.task, self.teacher.processor, self.student.processor, some)
        notes = [] if cost is None else [f"vocabulary: {cost} (of the {name} data)"]
        if cost is not None and self.task.vocabulary:
            notes.append("vocabulary: bits per byte are of each model by its own tokens; what is measured by tokens is of "
                         "those that the student makes of the texts, which the teacher reads too")
        return notes

    def subjects(self, examples: Dataset, prepared: Prepared) -> dict[str, Subject]:
        """Whose speed and size is measured, and on what: each on the tokens that it makes of the examples itself."""
        student, most = self.student.model, batch_for(self.between, prepared, self.recipe.evaluate.batch_size)
        taught = {}
        if self.teacher is not None and not self.recipe.teacher.is_stored:
            own = prepared if self.alike else self._of_their_own(self.teacher, examples)
            taught["teacher"] = Subject(self.teacher.model,
                                        workload(own, Side.TEACHER, batch_size=most, device=self.device))
        ours = workload(prepared, Side.STUDENT, batch_size=most, device=self.device)
        here = workload(prepared, Side.STUDENT, batch_size=most)  # onnxruntime's, on the processor
        flops = _flops(student, ours)
        return {**taught, "student": Subject(student, ours),
                **{kind: Subject(file, here, parameters=count_parameters(student), bytes=file.bytes, flops=flops,
                                 tokens=count_tokens(student)) for kind, file in self.files.items()}}

    def authors(self) -> dict[str, list[Author]]:
        """Who is asked to write."""
        authors = {role: [Author(one.model, one.processor) for one in seeds] for role, seeds in self.made.items()}
        if self.teacher is not None:
            told = self.between.of_teacher()
            assert isinstance(told, Writes)  # as those that are asked to write
            authors = {"teacher": [Author(self.teacher.model, self.teacher.processor, told)], **authors}
        if self.silent():
            return authors
        settings: Any = self.student.model.generation_config if self._writers else None
        most = room(self.student.model) if self._writers else None
        return authors | {kind: [Author(file.writer(settings, most), self.student.processor)]
                          for kind, file in self._writers.items()}

    def silent(self) -> list[str]:
        """A note on exported files that could write and are not asked to."""
        generation = self.recipe.evaluate.writing
        if not self._writers or (generation is not None and generation.num_beams == 1):
            return []
        return [f"{all_of(list(self._writers))}: texts are not measured through exported files with num_beams above 1"]

    @property
    def _writers(self) -> dict[str, OnnxWriter]:
        return {kind: file for kind, file in self.files.items() if isinstance(file, OnnxWriter)}

    def elsewhere(self) -> list[str]:
        """A note on what is timed on another device than the models."""
        if self.files and self.device.type != "cpu" and self.recipe.evaluate.speed:
            return [f"speed: {all_of(list(self.files))} on the processor, the models on {self.device}"]
        return []

    def remarks(self, prepared: Prepared) -> tuple[str, ...]:
        """What a reader of the numbers has to know of teacher and student."""
        if not self.beside or self.teacher is None:
            return ()
        return remarks(self.between.exam(), {"teacher": Asked(self.teacher.model, Side.TEACHER),
                                          "student": Asked(self.student.model)}, prepared)

    def _students(self) -> dict[str, Asked]:
        """All that read as the student does: the models of every role and seed, and the files."""
        return {**{f"{role}:{seed}": Asked(one.model) for role, seeds in self.made.items() for seed, one in enumerate(seeds)},
                **{kind: Asked(file) for kind, file in self.files.items()}}

    def _beside(self, exam: ForwardExam, split: str, examples: Dataset, prepared: Prepared) -> dict[str, Answers]:
        """All at once, each compared with the teacher's rows."""
        taught = {} if self.teacher is None else {"teacher": Asked(self.teacher.model, Side.TEACHER)}
        found = self._examine(exam, {**taught, **self._students()}, prepared, split)
        return found | self._in_parts(found, examples, lambda model, some: self._examine(
            exam, {**taught, "part": Asked(model)}, self.prepared(some), split)["part"])

    def _examine(
        self, exam: ForwardExam, subjects: Mapping[str, Asked], prepared: Prepared, title: str
    ) -> dict[str, Answers]:
        return examine(exam, subjects, prepared, batch_size=self.recipe.evaluate.batch_size, device=self.device, title=title)

    def _in_parts(self, found: Mapping[str, Answers], examples: Dataset, ask: Ask) -> dict[str, Answers]:
        """What the students say whose groups have parts."""
        return {f"{PERSONAL}:{seed}": one.answered(self.made["student"][seed].model, found[f"student:{seed}"], examples, ask)
                for seed, one in enumerate(self.parts) if one.by in examples.column_names}

    def _apart(
        self, split: str, examples: Dataset, exam: Callable[[Task], ForwardExam]
    ) -> dict[str, Answers]:
        """The same where the student reads other tokens than the teacher: each by its own, and nothing row by row."""
        assert self.teacher is not None  # nothing is apart from nobody
        groups = ((self.teacher, {"teacher": Asked(self.teacher.model)}), (self.student, self._students()))
        found: dict[str, Answers] = {}
        for whose, subjects in groups:
            asked = exam(self.task.adapted_to(whose))
            found |= self._examine(asked, subjects, self._of_their_own(whose, examples), split)
        own = exam(self.task.adapted_to(self.student))
        return in_common(found | self._in_parts(found, examples, lambda model, some: self._examine(
            own, {"part": Asked(model)}, self._of_their_own(self.student, some), split)["part"]))

    def _of_their_own(self, whose: Loaded, examples: Dataset) -> Prepared:
        task = self.task.of_teacher() if whose is self.teacher else self.task
        return task.adapted_to(whose).prepare(examples, whose.processor, None, training=False)

    def _by_subject(self, said: Mapping[str, Answers]) -> dict[str, list[Answers]]:
        return {**({} if self.teacher is None else {"teacher": [said["teacher"]]}),
                **{role: [said[f"{role}:{seed}"] for seed in range(len(seeds))] for role, seeds in self.made.items()},
                **({PERSONAL: personal} if (personal := [one for name, one in said.items() if name.startswith(_IN_PARTS)])
                   else {}),
                **{kind: [said[kind]] for kind in self.files}}


def _of_the_same(answers: AllAnswers) -> bool:
    """Whether all answered the same examples, piece by piece: other tokens may cut long texts into other pieces."""
    keys = [seeds[0].keys for by_split in answers.values() for seeds in by_split.values()]
    per_split = len(next(iter(answers.values())))
    return all(np.array_equal(one, keys[number % per_split]) for number, one in enumerate(keys))


def _apart_exam(task: Task) -> ForwardExam:
    exam = task.apart()
    assert exam is not None  # as its own has been asked
    return exam


def _flops(student: nn.Module, work: Workload) -> float | None:
    try:
        return count_flops(student, work.one)
    except Exception:  # a model that the counter cannot follow; the note is made where the student itself is counted
        return None
