"""Several tasks at once: one encoder with a head for each, taught by a teacher for each (Clark et al. 2019,
arXiv:1907.04829)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from stilla.data import of_part, part_of
from stilla.errors import CompatibilityError, DataError, all_at_once, all_of
from stilla.objectives.base import Term
from stilla.recipe import Evaluate, ModelSource, ObjectiveSpec, StudentSpec, Teacher
from stilla.recipe.kinds import KINDS
from stilla.runtime.imports import import_path
from stilla.signals import Batch, Dense, Form, Side, Signals
from stilla.tasks.answers import NO_ANSWER, Answers
from stilla.tasks.base import Head, Loaded, Prepared, Segment, Task
from stilla.tasks.exam import Exam
from stilla.tasks.several.batching import Union, parts_of, places_in, references_of
from stilla.tasks.several.exam import SeveralExam
from stilla.tasks.several.mixture import Mixture
from stilla.tasks.several.model import SeveralModel, Teachers, body_of, is_several, labels_of
from stilla.tasks.several.processors import Processors
from stilla.tasks.several.sections import SeveralData
from stilla.tasks.several.terms import idle, of_parts
from stilla.tasks.shared.learning import objectives_for
from stilla.tasks.text.proposals import Rewords
from stilla.tasks.text.tokens import tokenizer_for

_HEADS: Mapping[str, Any] = {"text-classification": AutoModelForSequenceClassification,
                             "token-classification": AutoModelForTokenClassification}


@dataclass(frozen=True)
class Several(Task[SeveralData]):
    """Several tasks for one student: an encoder with a head for each, every one with its own data, teacher and metrics.

    A batch holds each task's own batch, and its rows are theirs, one task after the other. What is stored of a teacher are
    rows of the widest task, in which the others' fill the first places.
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
                own = {split: part_of(examples, name)[0] for split, examples in splits.items()}
                parts[name] = _task(part.task).understand(part.data, own)
            except DataError as error:
                problems += [of_part(name, problem) for problem in error.problems]
        if problems:
            raise all_at_once(problems, DataError)
        return cls(parts, section)

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
            CompatibilityError: teachers are named twice; the student is to be made in a way that heads have no part in.
        """
        own = {name: part.teacher for name, part in self.section.parts.items() if part.teacher is not None}
        problems = []
        trained = isinstance(teacher, Teacher) and teacher.train is not None
        if own and (trained or is_several(teacher.model)):
            what = "is trained on all tasks" if trained else "has a head for every task"
            problems.append(f"teacher: {teacher.model!r} {what}, and data.parts names teachers of {all_of(list(own))}: which "
                            "is meant? Leave one of the two out")
        if ":" in teacher.model:
            problems.append(f"teacher: got {teacher.model!r}, which is code; expected a folder or a Hugging Face name: a "
                            "head is made of the class that transformers has for it")
        problems += [f"student.{field}: {why}" for field, given, why in (
            ("lora", student.lora, "adapters of an encoder that several heads share are not merged into each; leave it out"),
            ("width", student.width, "what of an encoder matters to several heads is not measured; cut layers, or give a "
             "narrower model (`student: {model: ...}`)"),
            ("vocabulary", student.vocabulary, "heads that share a tokenizer keep all of it; leave it out"),
        ) if given is not None]
        if student.layers_by != "spaced":
            problems.append(f"student.layers_by: got {student.layers_by!r}; which layers matter to several heads is not "
                            "measured; expected 'spaced', or say which (`layers: {keep: [0, 2, 5]}`)")
        if student.limited:
            problems.append("student: sizes are not searched for several heads; say how many layers (`student: 3`)")
        problems += [f"data.parts.{name}.data.augment: contextual is for a task by itself; expected light or none"
                     for name, task in self.parts.items() if isinstance(task, Rewords) and task.contextual is not None]
        if problems:
            raise all_at_once(problems, CompatibilityError)
        parts = {name: task.settled(own.get(name) or teacher, student) for name, task in self.parts.items()}
        return replace(self, parts=parts, start=teacher)

    def adapted_to(self, teacher: Loaded) -> Self:
        return self._each(lambda name, task: task.adapted_to(_head(teacher, name)))

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        return self._each(lambda name, task: task.between(_head(student, name), _head(teacher, name)))

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        if is_several(source.model):
            return self._saved(source)
        models: dict[str, Loaded] = {}
        problems: list[str] = []
        for name, task in self.parts.items():
            own = (self.section.parts[name].teacher or source) if labelled else source
            try:
                models[name] = task.load(own, labelled=labelled)
            except CompatibilityError as error:
                problems += [f"{name}: {problem}" for problem in error.problems]
        if problems:
            raise all_at_once(problems, CompatibilityError)
        whole = {name: _transformer(one) for name, one in models.items()}
        processors = Processors({name: one.processor for name, one in models.items()})
        first = next(iter(whole.values()))
        if labelled:
            return Loaded(Teachers(whole, first.config), processors, source.model)
        shared = Processors(dict.fromkeys(whole, next(iter(processors.values()))))
        return Loaded(SeveralModel.sharing(whole, body_of(first)), shared, source.model)

    def _saved(self, source: ModelSource) -> Loaded:
        """A model of several heads from its folder.

        Raises:
            CompatibilityError: it has other heads, or other labels.
        """
        model = SeveralModel.from_pretrained(source.model, local_files_only=True, use_safetensors=True)
        if lacking := [name for name in self.parts if name not in model.config.heads]:
            raise CompatibilityError(f"{source.model!r} has heads for {all_of(list(model.config.heads))}, and none for "
                                     f"{all_of(lacking)}; a head is called as its task is in data.parts")
        if source.precision not in ("float32", "bfloat16"):
            raise CompatibilityError(f"precision: got {source.precision!r}; a model of several heads answers in float32 or "
                                     "bfloat16")
        if source.precision == "bfloat16":
            model.to(torch.bfloat16)
        places = {name: source.model_copy(update={"model": f"{source.model}/{name}", "processor": None})
                  for name in self.parts}
        processors = {name: tokenizer_for(place, model.alone(name)) for name, place in places.items()}
        return Loaded(model.eval(), Processors(processors), source.model)

    def pattern(self, teacher: Loaded) -> Loaded:
        """The encoder of the recipe's teacher with a head for every task: its own teacher's, where it fits."""
        if isinstance(teacher.model, SeveralModel):
            return teacher
        assert isinstance(teacher.model, Teachers)
        own = next((name for name, part in self.section.parts.items() if part.teacher is None), None)
        if own is not None:
            main = _head(teacher, own)
        else:  # nobody's teacher, and what the student is cut from
            first = next(iter(self.parts))
            assert self.start is not None
            main = self.parts[first].load(self.start.model_copy(update={"precision": "float32"}), labelled=False)
        encoder = body_of(_transformer(main))
        models = {name: self._on(encoder, name, _transformer(_head(teacher, name))) for name in self.parts}
        processors = Processors(dict.fromkeys(self.parts, main.processor))
        return Loaded(SeveralModel.sharing(models, encoder), processors, main.source)

    def _on(self, encoder: PreTrainedModel, name: str, teacher: PreTrainedModel) -> PreTrainedModel:
        """A teacher itself where its class is the encoder's; else the encoder's class for its task, with the same labels.

        Raises:
            CompatibilityError: there is no such class.
        """
        kind = self.section.parts[name].task
        known = _HEADS[kind]._model_mapping
        if type(encoder.config) not in known:
            raise CompatibilityError(f"{name}: transformers has no head for {kind} on a {encoder.config.model_type} model")
        if type(teacher.config) is type(encoder.config):
            return teacher
        config = type(encoder.config).from_dict({**encoder.config.to_dict(), **labels_of(teacher.config)})
        made: PreTrainedModel = known[type(encoder.config)]._from_config(config)
        return made

    # --- what is learnt ---

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        """Every task by what it would learn by alone."""
        return tuple(one.model_copy(update={"part": name}) for name, task in self.parts.items()
                     for one in task.learns_by() or objectives_for(task.row_classes()))

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
        prepared, rows = {}, {}
        for name, task in self.parts.items():
            own, rows[name] = part_of(split, name)
            if len(own):
                theirs = None if teacher is None else teacher[name]
                prepared[name] = task.prepare(own, student[name], theirs, training=training, seed=seed)
        mixture = Mixture([len(one) for one in prepared.values()], self.section.temperature, seed) if training else None
        whole = Union(prepared, rows, mixture if mixture is not None and mixture.redraws else None)
        references = None if training else [one for part in prepared.values() for one in references_of(part)]
        return whole.prepared(aligned=all(one.aligned for one in prepared.values()), references=references)

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

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        parts = {name: self.parts[name].signals(outputs["parts"][name], own, side) for name, own in parts_of(batch).items()}
        wide = [F.pad(logits, (0, self.row_classes() - logits.shape[1])) for one in parts.values()
                if (logits := _dense(one.logits)) is not None]
        labels = [_classes(one.labels, len(_dense(one.logits))) for one in parts.values()]
        return Signals(logits=Dense(torch.cat(wide)), labels=torch.cat(labels).to(wide[0].device), parts=parts)

    def mask(self, batch: Batch, side: Side) -> Tensor | None:
        return None

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        ours, theirs = {}, {}
        told = teacher.parts or self._told_apart(teacher, batch)
        for name, own in parts_of(batch).items():
            ours[name], theirs[name] = self.parts[name].align(student.parts[name], told[name], own)
        return replace(student, parts=ours), replace(teacher, parts=theirs)

    def alone(self, student: Signals, batch: Batch) -> Signals:
        return replace(student, parts={name: self.parts[name].alone(student.parts[name], own)
                                       for name, own in parts_of(batch).items()})

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        return teacher

    def _told_apart(self, teacher: Signals, batch: Batch) -> dict[str, Signals]:
        """Rows of a teacher that were stored, by task."""
        logits, found, start = _dense(teacher.logits), {}, 0
        for name, own in parts_of(batch).items():
            end = start + self.parts[name].counts(own)["rows"]
            found[name] = Signals(logits=Dense(logits[start:end, : self.parts[name].teacher_classes()]))
            start = end
        return found

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


def _head(model: Loaded, name: str) -> Loaded:
    """One task's model, with what makes its inputs."""
    assert isinstance(model.model, SeveralModel | Teachers)
    return Loaded(model.model.head(name), model.processor[name], model.source)


def _transformer(model: Loaded) -> PreTrainedModel:
    assert isinstance(model.model, PreTrainedModel)  # code was refused
    return model.model


def _dense(logits: Form | None) -> Tensor:
    assert isinstance(logits, Dense)  # a head's
    return logits.logits


def _classes(labels: Tensor | None, rows: int) -> Tensor:
    """Row labels where they are classes; none of a number's rows."""
    if labels is None or labels.is_floating_point():
        return torch.full((rows,), NO_ANSWER)
    return labels
