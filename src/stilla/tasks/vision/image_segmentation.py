"""Image segmentation: the things in pictures, each with its mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.recipe import ModelSource
from stilla.signals import Batch, Dense, Segments, Side, Signals
from stilla.tasks.base import Loaded, Prepared, Segment
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.vision import (
    box_checks,
    object_columns,
    object_masks,
    panoptic_data,
    segment_models,
    segment_programs,
)
from stilla.tasks.vision.canvases import Size, sizes_of
from stilla.tasks.vision.masks import ReadOnce, look
from stilla.tasks.vision.object_columns import Found
from stilla.tasks.vision.object_masks import Objects
from stilla.tasks.vision.object_task import ObjectTask, together
from stilla.tasks.vision.overlays import overlaid
from stilla.tasks.vision.panoptic_data import Panoptic
from stilla.tasks.vision.panoptic_exam import PanopticExam
from stilla.tasks.vision.pictures import Pictures, holds_pictures, undecoded
from stilla.tasks.vision.pixels import Kept, Processor, Source, geometry_of, keep, settings
from stilla.tasks.vision.privileged import pictures_of_teacher
from stilla.tasks.vision.segment_exam import SegmentExam
from stilla.tasks.vision.segmentation_data import refuse_broken
from stilla.tasks.vision.segmentation_section import ImageSegmentationData
from stilla.views import Overlays


@dataclass(frozen=True)
class ImageSegmentation(ObjectTask[ImageSegmentationData]):
    """The things in pictures, each with a mask and a class (instances), or whole pictures in segments (panoptic).

    Masks are compared on a grid over the picture. It lies on what the teacher reads, so that its answers are stored once for
    all students; without a teacher, on what the model itself reads.
    """

    found: Found | None = None
    """How the data are read; None for a model whose batches a person makes."""
    panoptic: Panoptic | None = None
    """How pictures are parted into segments; None: instances are found."""
    grid: tuple[int, int] | None = None
    """Places down and across, where a teacher says it."""

    kind: ClassVar[str] = "image-segmentation"
    given = '"picture.png"'
    data_section = ImageSegmentationData
    things: ClassVar[str] = "segments"
    counted: ClassVar[tuple[str, ...]] = ("rows", "labelled", "tokens", "examples", "segments")
    objectives: ClassVar[tuple[str, str]] = ("segments", "masks")
    answer: ClassVar[str] = "segments"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {"pixel_values": ("batch",)}

    # --- data ---

    @classmethod
    def understand(cls, section: ImageSegmentationData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        found = attempt(problems, object_columns.find, section, train)
        taken = () if found is None else found.columns
        image = attempt(problems, _columns.image, section, train, taken, holds_pictures)
        problems += _columns.missing([*taken, *([image] if image else [])], splits)
        if problems or found is None or image is None:
            raise all_at_once(problems, DataError)
        problem = attempt(problems, object_columns.understand, section, found, splits)
        panoptic = None if problem is None else attempt(problems, panoptic_data.understand, section, found.column, problem,
                                                        splits)
        if found.coloured and found.column is not None and not problems:
            attempt(problems, panoptic_data.refuse_unsaid, panoptic, found.column)
        for name, split in splits.items():
            sizes = sizes_of(Pictures.of(split, image))
            if found.column is not None and found.single is None:
                attempt(problems, box_checks.refuse_turned, name, split, Pictures.of(split, image), sizes)
            seen = object_masks.looked(found, split, image, sizes)
            attempt(problems, refuse_broken, section, name, split, image, seen.broken)
            attempt(problems, object_masks.refuse_bad, section, name, seen)
            if panoptic is not None and problem is not None and found.single is None:  # of ids none can overlap
                objects = Objects(found, problem, split, sizes, panoptic)
                attempt(problems, object_masks.refuse_contested, section, name, split, image, objects, sizes)
        if problem is not None and not problem.names:
            problems.append(f"data.objects: {found.columns[0]!r} holds no object in any picture, so there is nothing to "
                            "find.")
        if problems or problem is None:
            raise all_at_once(problems, DataError)
        return cls(problem, section, image, found=found, panoptic=panoptic)

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        found = pictures_of_teacher(columns, self.section, self.image, splits, self.columns, placed=True)
        return replace(self, teachers=found)

    @classmethod
    def queries_of(cls, model: nn.Module) -> int:
        return segment_models.queries_of(model)

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.found is None else self.found.columns

    def numbers(self) -> int:
        return len(self.problem.names) + (0 if self.grid is None else self.grid[0] * self.grid[1])

    def resolved(self, section: ImageSegmentationData) -> ImageSegmentationData:
        found = self._found()
        column = None if found.column is None else found.column.name
        how = self.panoptic
        parted = {} if how is None else {
            "stuff": how.names(self.problem), "threshold": how.threshold, "overlap": how.overlap}
        return section.model_copy(update={"image": self.image, "objects": column, "masks": found.masks, **parted})

    def adapted_to(self, teacher: Loaded) -> Self:
        adapted = super().adapted_to(teacher)
        if self.section is None or teacher.processor is None:
            return adapted
        blank = PIL.Image.new("RGB", (64, 64))
        return replace(adapted, grid=self._grid(Processor(teacher.processor, blank).geometry(blank).shape[-2:]))

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        size = None if self.section is None else self.section.size
        return segment_models.load(source, self.problem, size, labelled=labelled)

    def learning(self, model: nn.Module) -> AbstractContextManager[None]:
        return segment_models.telling_earlier(model)

    def unwritten(self, model: nn.Module, formats: Sequence[str]) -> list[str]:
        return segment_models.unwritten(model, formats)

    def beside(self, split: Dataset) -> Dataset:
        some = object_columns.undecoded(split.select_columns([*self.seen, *self.columns]), self._found())
        return undecoded(some, self.seen)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        pictures, read, theirs = self.shown_to(split, taught=teacher is not None)
        sizes = sizes_of(pictures)
        skipped = self._broken(split) if self.section.broken == "skip" else []
        keys = np.setdiff1d(np.array([*sizes], np.int64), np.array(skipped, np.int64))
        if not len(keys):
            raise DataError(f"there is no picture left in {self.image!r}: all {len(split)} are broken.")
        own = Processor(student, read.rgb(keys[0]))
        same = teacher is None or (settings(student) == settings(teacher) and theirs is read)
        other = own if same else Processor(teacher, theirs.rgb(keys[0]))
        source = keep(Source(read, keys, own, other, None, others=None if theirs is read else theirs))
        grid = self.grid or self._grid(source.pixels([0])[0].shape[-2:])
        objects = Objects(self._found(), self.problem, split, sizes, self.panoptic)
        right = objects.of if self.panoptic is None else objects.parted
        spans = np.array([sizes[int(key)][::-1] for key in keys], np.int64)
        return Prepared(
            examples=Positions(len(keys)), collate=_Collate(source, objects, keys, spans, grid), keys=keys,
            references=ReadOnce[Any](len(keys), lambda place: right(int(keys[place]))),
            aligned=teacher is None or (geometry_of(student) == geometry_of(teacher) and theirs is read))

    def _broken(self, split: Dataset) -> list[int]:
        """The rows that are left out: said when the data were looked at."""
        found, broken = self._found(), {row for column in self.seen for row in Pictures.of(split, column).broken()}
        if found.single is not None and found.single in split.column_names:
            known = np.flatnonzero(~are_unlabelled(split))
            seen = look(split.select(known), self.image, found.single, found.read).broken if len(known) else {}
            broken |= {int(known[row]) for row in seen}
        return sorted(broken)

    def _grid(self, size: Sequence[int]) -> tuple[int, int]:
        assert self.section is not None
        height, width = (-(-side // self.section.stride) for side in size)
        return height, width

    def _found(self) -> Found:
        if self.found is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        return self.found

    # --- batches and signals ---

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        grid, classes = _grid_of(batch), len(self.problem.names)
        found = segment_models.segments(outputs, classes)
        if side is Side.STUDENT:
            found = replace(found, earlier=segment_models.earlier(outputs, classes))
        return Signals(segments=segment_models.on(found, grid), labels=batch.labels)

    def segments(self, batch: Batch) -> list[Segment]:
        """A picture, and on which grid the teacher's answer lies."""
        grid = " x ".join(str(side) for side in _grid_of(batch))
        return [replace(one, content=one.content + grid.encode()) for one in super().segments(batch)]

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        if teacher.segments is not None or not isinstance(teacher.logits, Dense):
            return student, teacher
        classes, grid = len(self.problem.names), _grid_of(batch)
        numbers = teacher.logits.logits.unflatten(1, (-1, classes + grid[0] * grid[1]))  # of a cache
        masks = numbers[..., classes:].unflatten(2, grid)
        return student, Signals(segments=Segments(numbers[..., :classes], masks, exclusive=False), stacks=teacher.stacks)

    def remembered(self, teacher: Signals, batch: Batch) -> Signals:
        found = teacher.segments
        assert found is not None
        logits = found.independent()
        numbers = torch.cat([logits, found.masks.flatten(2).to(logits.dtype)], -1)
        return Signals(logits=Dense(numbers.flatten(1)), stacks=teacher.stacks)

    def exam(self) -> SegmentExam | PanopticExam:
        if self.panoptic is None:
            return SegmentExam(self.problem.names, self._shown)
        return PanopticExam(self.problem.names, self._shown, self.panoptic.places(self.problem), self.panoptic.threshold,
                            self.panoptic.overlap)

    @property
    def reading(self) -> str:
        if self.panoptic is None:
            return segment_programs.INSTANCES
        return segment_programs.panoptic(self.panoptic.places(self.problem), self.panoptic.threshold, self.panoptic.overlap)

    def _shown(self, split: Dataset, key: int, whose: Mapping[str, NDArray[Any]], names: tuple[str, ...],
               point: tuple[int, int]) -> Overlays:
        picture = Pictures.of(split.select([int(key)]), self.image).rgb(0)
        return overlaid(picture, whose, names, point)


def _grid_of(batch: Batch) -> tuple[int, int]:
    grid = batch.get("grid")
    if grid is None:
        raise CompatibilityError("image-segmentation: the batch has no `grid`; expected how many places lie below and beside "
                                 "each other where masks are compared, (rows, columns)")
    return int(grid[0]), int(grid[1])


@dataclass(frozen=True)
class _Collate:
    source: Source | Kept
    objects: Objects
    keys: NDArray[np.int64]
    sizes: NDArray[np.int64]
    grid: Size

    def __call__(self, examples: Sequence[int]) -> Batch:
        ours, theirs = self.source.pixels(examples)
        student = {"pixel_values": torch.from_numpy(self.source.student.finish(ours))}
        shared = self.source.teacher is self.source.student
        teacher = student if shared else {"pixel_values": torch.from_numpy(self.source.teacher.finish(theirs))}
        keys = self.keys[list(examples)]
        targets = [self.objects.targets(int(key), self.grid) for key in keys]
        sizes = torch.from_numpy(self.sizes[list(examples)])
        return Batch(student=student, teacher=teacher, keys=torch.from_numpy(keys), grid=self.grid, sizes=sizes,
                     labels=together(targets, self.grid[0] * self.grid[1]))
