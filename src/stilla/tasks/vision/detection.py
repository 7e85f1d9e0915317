"""Object detection: pictures, and boxes around the things in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset, Image
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.recipe import ModelSource, ObjectiveSpec, StudentSpec
from stilla.signals import Batch, Dense, Dims, Side, Signals
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.bound import bound
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.shared.label_order import adapted, names_of
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision import detection_data, detectors
from stilla.tasks.vision import pictures as _pictures
from stilla.tasks.vision.canvases import Canvas, Size, Source, sizes_of
from stilla.tasks.vision.detection_data import Column, Objects
from stilla.tasks.vision.detection_exam import DetectionExam, packed, unpacked
from stilla.tasks.vision.image_classification import broken_pictures, usual_pictures
from stilla.tasks.vision.pictures import Pictures
from stilla.tasks.vision.pixels import geometry_of, settings
from stilla.tasks.vision.sections import DetectionData

_SHOWN = 320  # pixels
_ONE_CLASS = "single_label_classification"


@dataclass(frozen=True)
class Detection(Task[DetectionData]):
    """Boxes around the things in pictures, by class: any of transformers' detectors.

    A model finds as many things as it has queries, most of them nothing; which of a student's answers to which of the
    teacher's, or of the data, is for the objectives to find out. What is stored of a picture is one row: all of its guesses.
    """

    problem: Problem
    """The classes, in the models' order."""
    section: DetectionData | None = None
    """None for a model whose batches a person makes."""
    image: str = ""
    column: Column | None = None
    sizes: frozenset[Size] = frozenset()
    """Width and height of all pictures of the splits: each model has one canvas for all of a run."""
    queries: int = 0
    """How many guesses the teacher makes; 0 where no teacher is known."""

    kind: ClassVar[str] = "object-detection"
    given = '"picture.png"'
    data_section = DetectionData
    distributions: ClassVar[bool] = False
    counted: ClassVar[tuple[str, ...]] = ("rows", "labelled", "tokens", "examples", "objects")
    heads: ClassVar[tuple[str, ...]] = ("ForObjectDetection",)
    answer: ClassVar[str] = "detections"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {"pixel_values": ("batch",), "pixel_mask": ("batch",)}

    # --- data ---

    @classmethod
    def understand(cls, section: DetectionData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        column = attempt(problems, detection_data.column_of, section, train)
        image = attempt(problems, _columns.image, section, train, (), _pictures.holds_pictures)
        problems += _columns.missing([*([column.name] if column else []), *([image] if image else [])], splits)
        if problems or column is None or image is None:
            raise all_at_once(problems, DataError)
        problem = attempt(problems, detection_data.understand, section, column, splits)
        if "train" in splits:
            attempt(problems, detection_data.refuse_none, "train", column, train)
        seen: set[Size] = set()
        for name, split in splits.items():
            attempt(problems, broken_pictures, section, name, split, image)
            pictures = Pictures.of(split, image)
            sizes = sizes_of(pictures)
            seen |= {*sizes.values()}
            attempt(problems, detection_data.refuse_bad, section, name, column, split, pictures, sizes)
        if problem is not None and not problem.names and "train" not in splits:
            problems.append(f"data.objects: {column.name!r} holds no object in any picture, so there is nothing to find.")
        if problems or problem is None:
            raise all_at_once(problems, DataError)
        return cls(problem, section, image, column, frozenset(seen))

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        config: Any = model.config
        names = names_of(config) or tuple(f"LABEL_{index}" for index in range(len(config.id2label)))
        return cls(Problem("class", (), names, names), queries=detectors.queries_of(model))

    def resolved(self, section: DetectionData) -> DetectionData:
        objects = None if self.column is None else self.column.name
        return section.model_copy(update={"image": self.image, "objects": objects})

    def adapted_to(self, teacher: Loaded) -> Self:
        config: Any = teacher.model.config
        told = _Named(config.id2label)
        return replace(self, problem=adapted(self.problem, told, teacher.source), queries=detectors.queries_of(teacher.model))

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        return detectors.load(source, self.problem, labelled=labelled)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        return detectors.of_one_group(model)

    def unwritten(self, model: nn.Module, formats: Sequence[str]) -> list[str]:
        return detectors.unwritten(model, formats)

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        return self.labels_by(), ObjectiveSpec(kind="queries")

    def labels_by(self) -> ObjectiveSpec:
        return ObjectiveSpec(kind="objects")

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        columns = () if self.column is None else (self.column.name,)
        found = bound(pool, (self.image,), called, _pictures.holds_pictures, "pictures", usual_pictures, columns)
        return found.cast_column(self.image, Image(decode=False))

    def usable(self, pool: Dataset) -> Dataset:
        broken = broken_pictures(self.section, "unlabelled", pool, self.image)
        return pool.select(np.setdiff1d(np.arange(len(pool)), np.array(list(broken), np.int64))) if broken else pool

    def beside(self, split: Dataset) -> Dataset:
        columns = [] if self.column is None else [self.column.name]
        return split.select_columns([self.image, *columns]).cast_column(self.image, Image(decode=False))

    def traces(self, split: Dataset) -> Iterable[tuple[bytes]]:
        return ((digest,) for digest in Pictures.of(split, self.image).digests())

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None or self.column is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        pictures = Pictures.of(split, self.image)
        sizes = sizes_of(pictures)
        skipped = pictures.broken() if self.section.broken == "skip" else {}
        keys = np.setdiff1d(np.array([*sizes], np.int64), np.array([*skipped], np.int64))
        if not len(keys):
            raise DataError(f"there is no picture left in {self.image!r}: all {len(split)} are broken.")
        every = self.sizes | {*sizes.values()}
        own = Canvas.of(student, every)
        shared = teacher is None or (settings(student) == settings(teacher) and student.masked == teacher.masked)
        other = own if shared or teacher is None else Canvas.of(teacher, every)
        objects = detection_data.read(self.section, self.problem, self.column, split, sizes)
        spans = np.array([sizes[int(key)] for key in keys], np.int64)
        there = [np.zeros((0, 6)) if (found := objects.rows[key]) is None else found for key in keys]
        return Prepared(
            examples=Positions(len(keys)), collate=_Collate(Source(pictures, keys, own, other), objects, keys, spans),
            keys=keys, references=there,
            aligned=teacher is None or geometry_of(student.processor) == geometry_of(teacher.processor))

    # --- batches and signals ---

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """A labelled picture is one more object: so that one without any counts."""
        examples = len(next(iter(batch.student.values())))
        labels, labelled, objects = batch.labels, 0, 0
        if labels is not None:
            labelled = int((~labels[:, 0, 0].isnan()).sum())
            objects = int((labels[..., 0] >= 0).sum())
        return {"rows": examples, "labelled": labelled, "tokens": examples, "examples": examples,
                "objects": objects + labelled}

    def mask(self, batch: Batch, side: Side) -> None:
        return None

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        found = detectors.detections(outputs, len(self.problem.names))
        if side is Side.STUDENT:
            found = replace(found, earlier=detectors.earlier(outputs))
        return Signals(detections=found, labels=batch.labels)

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        if teacher.detections is not None or not isinstance(teacher.logits, Dense):
            return student, teacher
        numbers = teacher.logits.logits.unflatten(1, (-1, len(self.problem.names) + 4))  # of a cache
        return student, Signals(detections=unpacked(numbers), stacks=teacher.stacks)

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        assert teacher.detections is not None
        return Signals(logits=Dense(packed(teacher.detections).flatten(1)), stacks=teacher.stacks)

    def told(self, stored: Dims) -> Dims:
        return replace(stored, classes=self.row_classes())

    def exam(self) -> DetectionExam:
        return DetectionExam(self.problem.names, self.show)

    def show(self, split: Dataset, key: int) -> tuple[str, int, int]:
        picture = Pictures.of(split.select([int(key)]), self.image).rgb(0)
        return _pictures.data_uri(picture, _SHOWN), picture.width, picture.height

    def class_names(self) -> tuple[str, ...]:
        return self.problem.names

    def row_classes(self) -> int:
        """No row of logits: what is found in a picture has no order."""
        return 0

    def teacher_classes(self) -> int:
        """Numbers of all guesses of a picture: what is stored of it."""
        return self.queries * (len(self.problem.names) + 4)

    def numbers_of(self, length: int) -> int:
        return self.teacher_classes()


@dataclass(frozen=True)
class _Named:
    """What `adapted` asks of a config: a detector of one class is no regression, whatever it says of its problem."""

    id2label: Mapping[int, str]
    problem_type: str = _ONE_CLASS


@dataclass(frozen=True)
class _Collate:
    source: Source
    objects: Objects
    keys: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __call__(self, examples: Sequence[int]) -> Batch:
        student, teacher = self.source.batch(examples)
        keys = self.keys[list(examples)]
        targets = [self.objects.targets(int(key), (int(width), int(height)))
                   for key, (width, height) in zip(keys, self.sizes[list(examples)])]
        return Batch(student=student, teacher=teacher, keys=torch.from_numpy(keys), labels=_together(targets),
                     sizes=torch.from_numpy(self.sizes[list(examples)]))


def _together(targets: Sequence[NDArray[np.float32] | None]) -> Tensor:
    """(batch, most, 5), most at least 1: -100 as the class of what is no object, NaN where nobody has said it."""
    most = max(1, *(0 if one is None else len(one) for one in targets))
    labels = np.zeros((len(targets), most, 5), np.float32)
    labels[:, :, 0] = NO_ANSWER
    for row, one in zip(labels, targets):
        if one is None:
            row[:, 0] = np.nan
        else:
            row[: len(one)] = one
    return torch.from_numpy(labels)
