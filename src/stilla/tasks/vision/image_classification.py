"""Image classification: pictures with a class, several labels, or a number."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModelForImageClassification

from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.recipe import Data, ModelSource, StudentSpec
from stilla.signals import Batch
from stilla.tasks.answers import NO_ANSWER, Metric
from stilla.tasks.base import Loaded, Prepared, Side
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared import loading
from stilla.tasks.shared.bound import bound
from stilla.tasks.shared.class_exam import ClassExam
from stilla.tasks.shared.classification import Classification, Positions, attempt
from stilla.tasks.shared.imported import check_answers
from stilla.tasks.shared.label_weights import problem_of
from stilla.tasks.shared.metrics import among
from stilla.tasks.shared.privileged import side_by_side
from stilla.tasks.vision import pictures as _pictures
from stilla.tasks.vision.broken import broken_pictures, usable_pictures
from stilla.tasks.vision.pictures import Pictures
from stilla.tasks.vision.pixels import (
    TRANSFORMING,
    Kept,
    Processor,
    Source,
    at_resolution,
    geometry_of,
    keep,
    one_step,
    same_part,
    settings,
)
from stilla.tasks.vision.privileged import pictures_of_teacher
from stilla.tasks.vision.sections import STRONG, Augment, ImageClassificationData
from stilla.views import Picture, View

logger = logging.getLogger(__name__)

_SHOWN = 96  # pixels
_FEW = 5  # classes


@dataclass(frozen=True)
class ImageClassification(Classification[ImageClassificationData]):
    """Pictures by class; several labels per picture; or a number per picture."""

    image: str = ""
    """The column."""
    teachers: str = ""
    """The column that teachers see instead; empty: the same."""
    also: str = ""
    """A column that others see, of the examples that can be read."""

    kind: ClassVar[str] = "image-classification"
    given = '"picture.png"'
    data_section = ImageClassificationData
    heads: ClassVar[tuple[str, ...]] = ("ForImageClassification", "ForImageClassificationWithTeacher")
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {"pixel_values": ("batch",)}

    def preparing_by(self, processor: Any) -> str:
        return TRANSFORMING if processor is not None and one_step(processor) else ""

    @classmethod
    def understand(cls, section: ImageClassificationData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        label = attempt(problems, _columns.labels, section, train) or ()
        image = attempt(problems, _columns.image, section, train, label, _pictures.holds_pictures)
        columns = [*label, *([image] if image else [])]
        absent = _columns.missing(columns, splits)
        problem = None
        if not absent:
            for name, split in splits.items():
                attempt(problems, _refuse_broken, section, name, split, image)
            problem = attempt(problems, problem_of, section, label, splits) if label else None
        problems += absent
        if problems or problem is None or image is None:
            raise all_at_once(problems, DataError)
        return cls(problem, section, image)

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        return replace(self, teachers=pictures_of_teacher(columns, self.section, self.image, splits, self.problem.columns))

    def of_teacher(self) -> Self:
        return replace(self, image=self.teachers, teachers="", also=self.image) if self.teachers else self

    def resolved(self, section: ImageClassificationData) -> ImageClassificationData:
        return section.model_copy(update={**self.labels_resolved(), "image": self.image})

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        auto = AutoModelForImageClassification
        model = loading.classifier(source, self.problem, auto, labelled=labelled)
        return _answering(Loaded(model, processor_for(source), source.model))

    def seeing(self, student: Loaded, spec: StudentSpec) -> Loaded:
        asked: Any = None if self.section is None else self.section.resolution
        if asked is None and spec.config is not None:
            asked = spec.config.get("image_size")
        if not isinstance(asked, int):  # [height, width]: which processor makes them, a person has to say
            return student
        return _answering(replace(student, processor=at_resolution(student.processor, asked)))

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        if teacher is None or not self.teachers:
            return self._prepared(split, student, teacher, self._changes(training, answered=teacher is not None), seed)
        how = self._changes(training, answered=True)  # the same is drawn for both: it follows from the key
        return side_by_side(self._prepared(split, student, None, how, seed),
                            self.of_teacher()._prepared(split, teacher, None, how, seed))

    def _prepared(
        self, split: Dataset, student: Any, teacher: Any | None, how: Augment | Literal["light"] | None, seed: int
    ) -> Prepared:
        """`how`: pictures are changed."""
        assert self.section is not None
        pictures = Pictures.of(split, self.image)
        seen = dict.fromkeys((*self._seen, self.also)) if self.section.broken == "skip" else {}
        skipped = {row for column in seen if column for row in Pictures.of(split, column).broken()}
        keys = np.setdiff1d(np.arange(len(split)), np.array(list(skipped), np.int64))
        if not len(keys):
            raise DataError(f"there is no picture left in {self.image!r}: all {len(split)} are broken.")
        sample = pictures.rgb(keys[0])
        own = Processor(student, sample)
        shared = teacher is None or settings(student) == settings(teacher)
        other = own if teacher is None or shared else Processor(teacher, sample)
        views = None if how is None else self.section.views
        source = Source(pictures, keys, own, other, None if how is None else seed if views is None else 0, views=views,
                        how=how if isinstance(how, Augment) else None)
        labels = self.encoded(split, keys)
        all_mixed = isinstance(how, Augment) and how.mixup + how.cutmix >= 1
        return Prepared(
            examples=Positions(len(keys)),
            collate=_Collate(keep(source) if how is None else source, None if all_mixed else labels, keys),
            keys=keys,
            references=labels,
            on_epoch=None if how is None else source.turns.set_epoch,
            turns=() if how is None else (source.turns,),
            views=views,
            aligned=teacher is None or geometry_of(student) == geometry_of(teacher),
            framed=shared or same_part(own, other),
        )

    def _changes(self, training: bool, *, answered: bool) -> Augment | Literal["light"] | None:
        """How pictures are changed in training. `answered`: by a teacher, without whom none is mixed: what the label of a
        mixture should be is nobody's word."""
        given = None if self.section is None else self.section.augment
        if not training or given in (None, "auto", "none"):
            return None
        if given == "light":
            return "light"
        how = given if isinstance(given, Augment) else STRONG
        return how if answered else how.alone

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        found = bound(pool, self._seen, called, _pictures.holds_pictures, "pictures", usual_pictures, self.problem.columns)
        return _pictures.undecoded(found, self._seen)

    def usable(self, pool: Dataset) -> Dataset:
        return usable_pictures(self.section, pool, self._seen)

    def beside(self, split: Dataset) -> Dataset:
        return _pictures.undecoded(split.select_columns([*self._seen, *self.problem.columns]), self._seen)

    @property
    def _seen(self) -> tuple[str, ...]:
        """All columns that models see."""
        return (self.image, self.teachers) if self.teachers else (self.image,)

    def traces(self, split: Dataset) -> Iterable[tuple[bytes]]:
        return ((digest,) for digest in Pictures.of(split, self.image).digests())

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """How many positions a model makes of a picture is its own affair: a picture counts as one token.

        Objectives over hidden states without a mask take the mean over the positions of each picture.
        """
        counts = self.label_counts(batch)
        return {**counts, "tokens": counts["examples"]}

    def mask(self, batch: Batch, side: Side) -> None:
        return None

    def exam(self) -> ClassExam:
        return _Exam(self.problem, self.show, tuned=self.settles)

    def show(self, split: Dataset, key: int) -> View:
        return Picture(_pictures.data_uri(Pictures.of(split.select([int(key)]), self.image).rgb(0), _SHOWN))


class _Exam(ClassExam):
    """The same as of texts; of many classes, also whether the right one is among the likeliest five."""

    def metrics(self) -> tuple[Metric, ...]:
        many = self.problem.kind == "single_label" and len(self.problem.names) > _FEW
        return (*super().metrics(), among(_FEW)) if many else super().metrics()


def _answering(loaded: Loaded) -> Loaded:
    """The same.

    Raises:
        CompatibilityError: the model cannot see what its processor makes of a picture.
    """
    blank = PIL.Image.new("RGB", (48, 64))
    pixels = Processor(loaded.processor, blank)
    batch = {"pixel_values": torch.from_numpy(pixels.finish(np.stack([pixels.geometry(blank)] * 2)))}
    check_answers(loaded.model, batch, loaded.source)
    return loaded


def processor_for(source: ModelSource) -> Any:
    """The image processor of a model, by PIL: without torchvision, and giving the same values everywhere."""
    place, options = loading.where_processor(source)
    folder = Path(place).expanduser()
    files = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")
    if folder.is_dir() and not (any((folder / name).is_file() for name in files) or _tells_transforms(folder)):
        raise CompatibilityError(
            f"{place!r} holds no image processor; copy its preprocessor_config.json there, or name its "
            "place: processor."
        )
    with loading.explained(place, "processor"):
        return AutoImageProcessor.from_pretrained(place, backend="pil", **options)


def _tells_transforms(folder: Path) -> bool:
    """Whether it holds a model of timm, whose config says how pictures are prepared."""
    config = folder / "config.json"
    return config.is_file() and '"pretrained_cfg"' in config.read_text(encoding="utf-8")


def usual_pictures(pool: Dataset, fitting: Sequence[str]) -> Sequence[str] | None:
    usual = [name for name in fitting if name.lower() in _columns.IMAGES]
    return next((found for found in (fitting, usual) if len(found) == 1), None)


def _refuse_broken(section: Data, name: str, split: Dataset, column: str | None) -> None:
    if column is not None:
        broken_pictures(section, name, split, column)


@dataclass(frozen=True)
class _Collate:
    source: Source | Kept
    labels: NDArray[Any] | None
    keys: NDArray[np.int64]

    def __call__(self, examples: Sequence[int]) -> Batch:
        ours, theirs = self.source.pixels(examples)
        student = {"pixel_values": torch.from_numpy(self.source.student.finish(ours))}
        shared = self.source.teacher is self.source.student
        teacher = student
        if not shared:
            teacher = {"pixel_values": torch.from_numpy(self.source.teacher.finish(theirs))}
        batch = Batch(student=student, teacher=teacher, keys=torch.from_numpy(self.keys[list(examples)]))
        if self.labels is not None:
            labels = self.labels[list(examples)]
            mixed = [row for row, position in enumerate(examples) if self.source.mix(position) is not None]
            labels[mixed] = np.nan if labels.dtype.kind == "f" else NO_ANSWER
            batch["labels"] = torch.from_numpy(labels)
        return batch

