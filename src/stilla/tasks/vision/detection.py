"""Object detection: pictures, and boxes around the things in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn

from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.objectives.base import Term
from stilla.recipe import ModelSource, StudentSpec
from stilla.signals import Batch, Dense, Dims, Edges, Side, Signals
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.vision import box_checks, detection_data, detectors
from stilla.tasks.vision import pictures as _pictures
from stilla.tasks.vision.broken import broken_pictures
from stilla.tasks.vision.canvases import Canvas, Size, Source, sizes_of
from stilla.tasks.vision.detection_data import Column, Objects
from stilla.tasks.vision.detection_exam import DetectionExam, packed, unpacked
from stilla.tasks.vision.object_task import ObjectTask, together
from stilla.tasks.vision.pictures import Pictures
from stilla.tasks.vision.pixels import geometry_of, settings
from stilla.tasks.vision.privileged import pictures_of_teacher
from stilla.tasks.vision.sections import DetectionData

_SHOWN = 320  # pixels


@dataclass(frozen=True)
class Detection(ObjectTask[DetectionData]):
    """Boxes around the things in pictures, by class: any of transformers' detectors."""

    column: Column | None = None
    sizes: frozenset[Size] = frozenset()
    """Width and height of all pictures of the splits: each model has one canvas for all of a run."""
    others: frozenset[Size] = frozenset()
    """The same of those that only teachers see."""
    bins: tuple[float, ...] = ()
    """Where the teacher's bins lie, where both models have distributions of edges and they are learnt; else none."""

    kind: ClassVar[str] = "object-detection"
    given = '"picture.png"'
    data_section = DetectionData
    things: ClassVar[str] = "objects"
    counted: ClassVar[tuple[str, ...]] = ("rows", "labelled", "tokens", "examples", "objects")
    objectives: ClassVar[tuple[str, str]] = ("objects", "queries")
    heads: ClassVar[tuple[str, ...]] = ("ForObjectDetection",)
    answer: ClassVar[str] = "detections"
    unordered: ClassVar[bool] = True
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
        if problem is None:  # objects of another form in one of the splits
            raise all_at_once(problems, DataError)
        if "train" in splits:
            attempt(problems, box_checks.refuse_none, "train", column, train)
        seen: set[Size] = set()
        for name, split in splits.items():
            attempt(problems, broken_pictures, section, name, split, image)
            pictures = Pictures.of(split, image)
            sizes = sizes_of(pictures)
            seen |= {*sizes.values()}
            attempt(problems, box_checks.refuse_turned, name, split, pictures, sizes)
            attempt(problems, box_checks.refuse_bad, section, name, column, split, pictures, sizes)
        if not problem.names and "train" not in splits:
            problems.append(f"data.objects: {column.name!r} holds no object in any picture, so there is nothing to find.")
        if problems:
            raise all_at_once(problems, DataError)
        return cls(problem, section, image, column=column, sizes=frozenset(seen))

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        found = pictures_of_teacher(columns, self.section, self.image, splits, self.columns, placed=True)
        several = [Pictures.of(split, found) for split in splits.values()] if found else []
        return replace(self, teachers=found, others=frozenset(size for one in several for size in sizes_of(one).values()))

    @classmethod
    def queries_of(cls, model: nn.Module) -> int:
        return detectors.queries_of(model)

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column.name,)

    def numbers(self) -> int:
        return self._found + (4 + 4 * len(self.bins) if self.bins else 0)

    @property
    def _found(self) -> int:
        """Numbers of a guess without its distributions."""
        return len(self.problem.names) + 4

    def bins_of(self, model: nn.Module) -> tuple[float, ...]:
        return detectors.bins_of(model)

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        return replace(self, bins=self.bins_of(teacher.model) if self.bins_of(student.model) else ())

    def remembering(self, terms: Sequence[Term]) -> Self:
        return self if any(one.objective.needs_edges for one in terms) else replace(self, bins=())

    @property
    def kept_beside(self) -> Mapping[str, Any]:
        return {"edges": len(self.bins)} if self.bins else {}

    def told(self, stored: Dims) -> Dims:
        return replace(super().told(stored), bins=self.bins)

    def resolved(self, section: DetectionData) -> DetectionData:
        objects = None if self.column is None else self.column.name
        return section.model_copy(update={"image": self.image, "objects": objects})

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        return detectors.load(source, self.problem, labelled=labelled)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        return detectors.of_one_group(super().started(model, spec))

    def unwritten(self, model: nn.Module, formats: Sequence[str]) -> list[str]:
        return detectors.unwritten(model, formats)

    def beside(self, split: Dataset) -> Dataset:
        return _pictures.undecoded(split.select_columns([*self.seen, *self.columns]), self.seen)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None or self.column is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        pictures, read, theirs = self.shown_to(split, taught=teacher is not None)
        sizes = sizes_of(pictures)
        unread = self.seen if self.section.broken == "skip" else ()
        skipped = {row for column in unread for row in Pictures.of(split, column).broken()}
        keys = np.setdiff1d(np.array([*sizes], np.int64), np.array([*skipped], np.int64))
        if not len(keys):
            raise DataError(f"there is no picture left in {self.image!r}: all {len(split)} are broken.")
        every = self.sizes | {*sizes.values()}
        larger = every if theirs is pictures else self.others | {*sizes_of(theirs).values()}
        own = Canvas.of(student, larger if read is theirs else every)
        shared = teacher is None or (
            settings(student) == settings(teacher) and student.sees == teacher.sees and theirs is read)
        other = own if shared or teacher is None else Canvas.of(teacher, larger)
        objects = detection_data.read(self.section, self.problem, self.column, split, sizes)
        spans = np.array([sizes[int(key)] for key in keys], np.int64)
        there = [np.zeros((0, 6)) if (found := objects.rows[key]) is None else found for key in keys]
        return Prepared(
            examples=Positions(len(keys)), collate=_Collate(Source(read, theirs, keys, own, other), objects, keys, spans),
            keys=keys, references=there,
            aligned=teacher is None or (
                geometry_of(student.processor) == geometry_of(teacher.processor) and theirs is read))

    # --- batches and signals ---

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        found = detectors.detections(outputs, len(self.problem.names))
        if side is Side.STUDENT:
            found = replace(found, earlier=detectors.earlier(outputs))
        return Signals(detections=found, labels=batch.labels)

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        if teacher.detections is not None or not isinstance(teacher.logits, Dense):
            return student, teacher
        numbers = teacher.logits.logits.unflatten(1, (-1, self.numbers()))  # of a cache
        found = unpacked(numbers[..., : self._found])
        if self.bins:
            reference, logits = numbers[..., self._found :].split([4, 4 * len(self.bins)], -1)
            found = replace(found, edges=Edges(logits.unflatten(-1, (4, -1)), reference))
        return student, Signals(detections=found, stacks=teacher.stacks)

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        found = teacher.detections
        assert found is not None
        numbers = packed(found)
        if self.bins and found.edges is not None:
            beside = (found.edges.reference, found.edges.logits.flatten(2))
            numbers = torch.cat([numbers, *(one.to(numbers.dtype) for one in beside)], -1)
        return Signals(logits=Dense(numbers.flatten(1)), stacks=teacher.stacks)

    def exam(self) -> DetectionExam:
        return DetectionExam(self.problem.names, self.show)

    def show(self, split: Dataset, key: int) -> tuple[str, int, int]:
        picture = Pictures.of(split.select([int(key)]), self.image).rgb(0)
        return _pictures.data_uri(picture, _SHOWN), picture.width, picture.height


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
        return Batch(student=student, teacher=teacher, keys=torch.from_numpy(keys), labels=together(targets, 4),
                     sizes=torch.from_numpy(self.sizes[list(examples)]))
