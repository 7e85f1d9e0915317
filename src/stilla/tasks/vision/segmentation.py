"""Semantic segmentation: every pixel of a picture with a class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource, ObjectiveSpec, StudentSpec
from stilla.signals import Batch, Dense, Side, Signals
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.base import Loaded, Prepared, Segment, Task
from stilla.tasks.shared.bound import bound
from stilla.tasks.shared.classification import Positions
from stilla.tasks.shared.label_order import adapted, names_of
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision import segmentation_data, segmentation_models
from stilla.tasks.vision.broken import usable_pictures
from stilla.tasks.vision.image_classification import usual_pictures
from stilla.tasks.vision.masks import Ids, Masks, look, references
from stilla.tasks.vision.narrowing import DRAWS, draws
from stilla.tasks.vision.overlays import overlaid
from stilla.tasks.vision.pictures import Pictures, holds_pictures, undecoded
from stilla.tasks.vision.pixels import Processor, geometry_of, settings
from stilla.tasks.vision.privileged import pictures_of_teacher, tell_other_shapes
from stilla.tasks.vision.scenes import Scenes
from stilla.tasks.vision.segmentation_data import Found
from stilla.tasks.vision.segmentation_exam import SegmentationExam
from stilla.tasks.vision.segmentation_section import SemanticSegmentationData
from stilla.views import Overlays

_BORDER = 255
"""What transformers' models take for no class where their config says nothing."""


_READING = """
# logits lie on a grid over the whole picture, which was resized and not cut: they are brought back to its size first
import numpy

with Image.open("picture.png") as picture:
    size = picture.size
maps = [Image.fromarray(one).resize(size, Image.Resampling.BILINEAR) for one in logits[0]]
mask = numpy.stack(maps).argmax(0)  # (height, width), the number of each pixel's class
print({labels[str(one)]: round(float((mask == one).mean()), 3) for one in numpy.unique(mask)})
"""


@dataclass(frozen=True)
class SemanticSegmentation(Task[SemanticSegmentationData]):
    """Every pixel of a picture with a class: streets, organs, cells, satellite pictures.

    A row is a place of a grid over the picture, every `data.stride`-th pixel of what the student reads: its labels are what
    the mask has there, both models' logits are brought to it. All places are rows, also those without a label: what a teacher
    says of them is learnt.
    """

    problem: Problem
    """The classes in the models' order."""
    found: Found | None = None
    """How the data are read; None, as the section, for a model whose batches a person makes."""
    section: SemanticSegmentationData | None = None
    border: int = NO_ANSWER
    """Which label is no class, in batches that a person makes."""
    teachers: str = ""
    """The column of pictures that teachers see instead; empty: the same."""
    as_teacher: bool = False
    """Whether a teacher is asked by itself, and sees those."""

    kind: ClassVar[str] = "semantic-segmentation"
    pipeline = "image-segmentation"
    given = '"picture.png"'
    data_section = SemanticSegmentationData
    heads: ClassVar[tuple[str, ...]] = ("ForSemanticSegmentation", "ForUniversalSegmentation",
                                        "MaskFormerForInstanceSegmentation")
    counted: ClassVar[tuple[str, ...]] = ("rows", "labelled", "tokens", "examples", "pictures")
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {"pixel_values": ("batch",)}

    @property
    def reading(self) -> str:
        return _READING

    @classmethod
    def understand(cls, section: SemanticSegmentationData, splits: Mapping[str, Dataset]) -> Self:
        found = segmentation_data.understand(section, splits)
        raw = tuple(str(one) for one in found.ids)
        return cls(Problem("class", (found.mask,), found.names, raw, found.named), found, section)

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        config: Any = model.config
        if config is None or not config.id2label:
            raise CompatibilityError(f"{type(model).__name__} does not say its labels: expected config.id2label.")
        names = names_of(config) or tuple(config.id2label[index] for index in sorted(config.id2label))
        border = config.to_dict().get("semantic_loss_ignore_index", _BORDER)
        return cls(Problem("class", (), names, names), border=border)

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        found = self._found()
        seen = pictures_of_teacher(columns, self.section, found.image, splits, (found.mask,), placed=True)
        return replace(self, teachers=seen)

    def of_teacher(self) -> Self:
        return replace(self, as_teacher=True) if self.teachers else self

    def resolved(self, section: SemanticSegmentationData) -> SemanticSegmentationData:
        found = self._found()
        update: dict[str, Any] = {"image": found.image, "mask": found.mask, "reduce_labels": found.reduced,
                                  "augment": self._augment()}
        if found.named:
            update |= {"labels": dict(zip(found.ids, found.names)), "id2label": None}
        return section.model_copy(update=update)

    def settled(self, teacher: ModelSource, student: StudentSpec) -> Self:
        if self.section is None:
            return self
        return replace(self, section=self.section.model_copy(update={"augment": self._augment()}))

    def _augment(self) -> str:
        said = "none" if self.section is None else self.section.augment
        return "none" if said == "auto" else said

    def adapted_to(self, teacher: Loaded) -> Self:
        if self.section is not None and self.section.reduce_labels is None and teacher.processor is not None \
                and teacher.processor.to_dict().get("do_reduce_labels"):
            raise CompatibilityError(f"{teacher.source}: its processor reduces labels (0 is no class, 1 is the first), and "
                                     "nothing says whether these masks are meant so. Set data.reduce_labels: true, or false "
                                     "where id 0 is the first class")
        return replace(self, problem=adapted(self.problem, teacher.model.config, teacher.source))

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        """At temperature 1: softened, the many pixels of which a teacher is sure ask for its margins, and what is rare
        waits (measured; docs/semantic-segmentation.md)."""
        return ObjectiveSpec(kind="labels", weight=0.3), ObjectiveSpec(kind="logits", weight=0.7, temperature=1.0)

    def unwritten(self, model: nn.Module, formats: Sequence[str]) -> list[str]:
        return [f"{one}: {DRAWS}" for one in formats] if draws(model) else []

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        size = None if self.section is None else self.section.size
        return segmentation_models.load(source, self.problem, size, labelled=labelled)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        section, found = self._section(), self._found()
        pictures = Pictures.of(split, found.image)
        others = Pictures.of(split, self.teachers) if self.teachers else pictures
        read = others if self.as_teacher else pictures
        theirs = read if teacher is None else others
        labelled = found.mask in split.column_names
        known = ~are_unlabelled(split) if labelled else np.zeros(len(split), np.bool_)
        skipped = self._broken(split, np.flatnonzero(known)) if section.broken == "skip" else []
        keys = np.setdiff1d(np.arange(len(split)), np.array(skipped, np.int64))
        if not len(keys):
            raise DataError(f"there is no picture left in {found.image!r}: all {len(split)} are broken.")
        masks = Masks.of(split, found.mask) if labelled else None
        own = Processor(student, read.rgb(keys[0]))
        same = teacher is None or (settings(student) == settings(teacher) and theirs is read)
        other = own if same else Processor(teacher, theirs.rgb(keys[0]))
        changing = training and self._augment() != "none"
        scenes = Scenes(pictures, masks, keys, known[keys], self._ids(), own, other, section.stride,
                        seed=seed if changing else None, flips=self._augment() == "flips", seen=(read, theirs))
        rows = [int(key) if known[key] else None for key in keys]
        return Prepared(
            examples=Positions(len(keys)), collate=_Collate(scenes), keys=keys,
            references=references(masks, rows, self._ids()), on_epoch=scenes.set_epoch if changing else None,
            aligned=teacher is None or (geometry_of(student) == geometry_of(teacher) and theirs is read))

    def _broken(self, split: Dataset, known: NDArray[np.int64]) -> list[int]:
        """The rows that are left out: said when the data were looked at."""
        found = self._found()
        some = split.select(known)
        seen = {int(known[row]) for row in look(some, found.image, found.mask).broken} if len(some) else set()
        return sorted(seen.union(*(Pictures.of(split, column).broken() for column in self._seen)))

    @property
    def _seen(self) -> tuple[str, ...]:
        """All columns of pictures that models see."""
        image = self._found().image
        return (image, self.teachers) if self.teachers else (image,)

    # --- examples without masks ---

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        found = bound(pool, self._seen, called, holds_pictures, "pictures", usual_pictures, (self._found().mask,))
        return undecoded(found, self._seen)

    def usable(self, pool: Dataset) -> Dataset:
        usable = usable_pictures(self._section(), pool, self._seen)
        if self.teachers:
            tell_other_shapes("unlabelled", usable, self._found().image, self.teachers)
        return usable

    def beside(self, split: Dataset) -> Dataset:
        columns = (*self._seen, self._found().mask)
        return undecoded(split.select_columns([*columns]), columns)

    def traces(self, split: Dataset) -> Iterable[tuple[bytes]]:
        return ((digest,) for digest in Pictures.of(split, self._found().image).digests())

    # --- rows ---

    def placed(self, labels: Tensor) -> Tensor:
        return torch.where(labels == self.border, NO_ANSWER, labels)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        labels = _grid_of(batch)
        pictures = len(labels)
        return {"rows": labels.numel(), "labelled": int((labels != NO_ANSWER).sum()), "tokens": pictures,
                "examples": pictures, "pictures": pictures}

    def mask(self, batch: Batch, side: Side) -> None:
        return None

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        labels = _grid_of(batch)
        grid = (labels.shape[1], labels.shape[2])
        logits = segmentation_models.on_grid(self.outputs(outputs), grid)
        return Signals(logits=Dense(logits.permute(0, 2, 3, 1).flatten(0, 2)), labels=labels.flatten(), grid=grid)

    def segments(self, batch: Batch) -> list[Segment]:
        """A picture, and on which grid the teacher's answer lies."""
        grid = " x ".join(str(side) for side in _grid_of(batch).shape[1:])
        return [replace(one, content=one.content + grid.encode()) for one in super().segments(batch)]

    def align(self, student: Signals, teacher: Signals, batch: Batch) -> tuple[Signals, Signals]:
        """Both lie on the student's grid; what comes from a cache does not know it."""
        return student, replace(teacher, grid=student.grid)

    def exam(self) -> SegmentationExam:
        return SegmentationExam(self.problem.names, self._shown)

    def class_names(self) -> tuple[str, ...]:
        return self.problem.names

    def row_classes(self) -> int:
        return len(self.problem.names)

    def _shown(self, split: Dataset, key: int, masks: Mapping[str, NDArray[Any]], point: tuple[int, int]) -> Overlays:
        picture = Pictures.of(split.select([key]), self._found().image).rgb(0)
        return overlaid(picture, masks, self.problem.names, point)

    def _ids(self) -> Ids:
        return self._found().meaning(self.problem.names, self.problem.raw, self._section().ignore)

    def _section(self) -> SemanticSegmentationData:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        return self.section

    def _found(self) -> Found:
        self._section()
        assert self.found is not None
        return self.found


def _grid_of(batch: Batch) -> Tensor:
    """(pictures, rows, columns) labels, NO_ANSWER where there is none."""
    labels = batch.labels
    if labels is None or labels.dim() != 3:
        got = "none" if labels is None else f"{tuple(labels.shape)}"
        raise CompatibilityError(f"semantic-segmentation: got labels of shape {got}; expected (pictures, height, width): the "
                                 "places where models are compared, -100 where there is no class")
    return labels


@dataclass(frozen=True)
class _Collate:
    scenes: Scenes

    def __call__(self, examples: Sequence[int]) -> Batch:
        ours, theirs, classes, sizes = self.scenes(examples)
        student = {"pixel_values": torch.from_numpy(self.scenes.student.finish(ours))}
        shared = self.scenes.shared
        teacher = student if shared else {"pixel_values": torch.from_numpy(self.scenes.teacher.finish(theirs))}
        return Batch(student=student, teacher=teacher, labels=torch.from_numpy(classes.astype(np.int64)),
                     sizes=torch.from_numpy(sizes), keys=torch.from_numpy(self.scenes.keys[list(examples)]))
