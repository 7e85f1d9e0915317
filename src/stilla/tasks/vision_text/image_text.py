"""Image-text: a vector for every picture and every text, near where they belong together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError, all_at_once
from stilla.recipe import ObjectiveSpec
from stilla.tasks.base import Prepared
from stilla.tasks.base import Texts as Read
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.bound import bound, usual_texts
from stilla.tasks.shared.classification import Positions, attempt
from stilla.tasks.shared.privileged import columns_of_teacher
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.numbering import numbering
from stilla.tasks.vision.broken import broken_pictures, usable_pictures
from stilla.tasks.vision.image_classification import usual_pictures
from stilla.tasks.vision.pictures import Pictures, holds_pictures, undecoded
from stilla.tasks.vision.pixels import Kept, Processor, Source, geometry_of, keep, settings
from stilla.tasks.vision.privileged import pictures_of_teacher
from stilla.tasks.vision_text import captions as _captions
from stilla.tasks.vision_text.batches import NONE, Collate, Texts
from stilla.tasks.vision_text.captions import Said
from stilla.tasks.vision_text.exam import ImageTextExam, Known
from stilla.tasks.vision_text.sections import ImageTextData
from stilla.tasks.vision_text.tower_task import TowerTask
from stilla.tasks.vision_text.usage import ZERO_SHOT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageText(TowerTask):
    """Vectors of pictures and of texts, compared with each other: CLIP, SigLIP and others with two towers.

    An example is a picture with what is said of it: captions, or texts made of its class. All of an example's texts are read;
    equal ones of a batch once.
    """

    image: str = ""
    """The pictures' column; empty where there are texts alone."""
    said: Said | None = None
    teachers: str = ""
    """The column of pictures that teachers see instead; empty: the same."""
    as_teacher: bool = False
    """Whether a teacher is asked by itself, and reads what it alone does."""

    kind: ClassVar[str] = "image-text"
    pipeline = "zero-shot-image-classification"
    usage = ZERO_SHOT
    data_section = ImageTextData

    # --- data ---

    @classmethod
    def understand(cls, section: ImageTextData, splits: Mapping[str, Dataset]) -> Self:
        problems: list[str] = []
        train = splits.get("train", next(iter(splits.values())))
        said = attempt(problems, _captions.understand, section, splits)
        image = attempt(problems, _columns.image, section, train, () if said is None else said.columns, holds_pictures)
        problems += _columns.missing([image] if image else [], splits)
        if not problems and said is not None and image is not None:
            for name, split in splits.items():
                attempt(problems, broken_pictures, section, name, split, image)
                attempt(problems, _captions.refuse_silent, section, said, name, split)
        if problems or said is None or image is None:
            raise all_at_once(problems, DataError)
        if said.label is not None and len(said.names) < 2:
            raise DataError(f"data.label: {said.label!r} holds {len(said.names)} classes; expected two or more.")
        return cls(section, image=image, said=said)

    def resolved(self, section: ImageTextData) -> ImageTextData:
        if self.said is None:
            return section
        return section.model_copy(update={
            "image": self.image, "text": self.said.captions or None, "label": self.said.label})

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        if self.said is None or not columns:
            return self
        labels = () if self.said.label is None else (self.said.label,)
        image = pictures_of_teacher(columns, self.section, self.image, splits, labels, beside=("text",))
        read = {name: split for name, split in splits.items() if {*self.said.captions} & {*split.column_names}}
        told = columns_of_teacher(columns, "text", read, labels, fits=_captions.holds_texts, what="texts", beside=("image",))
        if told and len(told) != len(self.said.captions):
            raise DataError(f"teacher.data: got {len(told)} columns of captions in place of {len(self.said.captions)} "
                            f"({_columns.named(self.said.captions) or 'texts made of classes'}); expected as many.")
        said = replace(self.said, told=() if told == self.said.captions else told)
        problems: list[str] = []
        for split in read.values():
            attempt(problems, said.pairs, split)
        if problems:
            raise all_at_once(problems, DataError)
        return replace(self, teachers=image, said=said)

    def of_teacher(self) -> Self:
        return replace(self, as_teacher=True) if self.teachers or (self.said is not None and self.said.told) else self

    def learns_by(self) -> tuple[ObjectiveSpec, ...]:
        near = ObjectiveSpec(kind="embedding")
        return (near, ObjectiveSpec(kind="affinities")) if self.pairs else (near,)

    def labels_by(self) -> ObjectiveSpec:
        return ObjectiveSpec(kind="contrastive")

    @property
    def pairs(self) -> bool:
        return self.said is not None or self.section is None

    def class_names(self) -> tuple[str, ...]:
        return () if self.said is None else self.said.names

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Pictures by themselves, or texts by themselves where there is no picture."""
        assert self.said is not None  # of a recipe
        labels = self.said.columns
        pictured = any(holds_pictures(feature) for feature in pool.features.values()) or self.image in called
        if pictured:
            found = bound(pool, self._seen, called, holds_pictures, "pictures", usual_pictures, labels)
            return undecoded(found, self._seen)
        if not self.said.captions:
            raise DataError("data.unlabelled: texts by themselves are read as captions, and these data have none, only "
                            f"classes ({self.said.label!r}). {_columns.columns_of(pool)} Give pictures.")
        if self.said.told:
            return bound(pool, (*self.said.captions, *self.said.told), called, _captions.holds_texts, "texts",
                         lambda *_: None)
        # of several columns one is enough: each text stands for itself
        columns = [one for one in self.said.captions if one in pool.column_names] or self.said.captions[:1]
        return bound(pool, columns, called, _captions.holds_texts, "texts", lambda pool, texts: usual_texts(pool, texts, 1))

    def usable(self, pool: Dataset) -> Dataset:
        if self.image not in pool.column_names:
            assert self.said is not None
            rows = [row for row, texts in enumerate(self.said.texts(pool)) if texts]
            return pool if len(rows) == len(pool) else pool.select(rows)
        return usable_pictures(self.section, pool, self._seen)

    def beside(self, split: Dataset) -> Dataset:
        assert self.said is not None
        columns = [one for one in (*self._seen, *self.said.columns, *self.said.told) if one in split.column_names]
        return undecoded(split.select_columns(columns), self._seen)

    def traces(self, split: Dataset) -> Iterable[tuple[str | bytes, ...]]:
        if self.image in split.column_names:
            return ((digest,) for digest in Pictures.of(split, self.image).digests())
        assert self.said is not None
        return iter(self.said.texts(split))

    def texts(self, split: Dataset, processor: Any) -> Read:
        assert self.said is not None
        wanted = None if self.section is None else self.section.max_length
        prompts = [one for name in self.said.names for one in self.said.prompts(name)]
        lines = [*prompts, *(text for texts in self.said.texts(split) for text in texts)]
        return _tokens.beginnings(processor.tokenizer, lines, _tokens.longest([processor.tokenizer], wanted))

    def tokenizer_of(self, processor: Any) -> PreTrainedTokenizerBase:
        tokenizer: PreTrainedTokenizerBase = processor.tokenizer
        return tokenizer

    def with_tokenizer(self, processor: Any, tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> Any:
        return replace(processor, tokenizer=tokenizer)

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None or self.said is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        there, source, aligned = self._pictures(split, student, teacher)
        pairs = self.said.pairs(split)
        keys = np.array([row for row, one in enumerate(pairs) if one or there[row] != NONE], np.int64)
        keys = keys[there[keys] != NONE] if not training else keys
        if not len(keys):
            raise DataError(f"there is nothing left to read in {self.image!r}: no picture, and no text.")
        said = [pairs[row] for row in keys]
        pictures, classes = there[keys], self.said.classes(split)[keys]
        prompts = [] if training else [tuple((one, one) for one in self.said.prompts(name)) for name in self.said.names]
        numbers = {pair: number for number, pair in enumerate(dict.fromkeys(
            one for several in (*pairs, *prompts) for one in several))}
        # what is read alike is one text: by who learns, and in an exam by the student, so that all answer the same questions
        names = [pair[int(training and self.as_teacher)] for pair in numbers]
        first = {name: number for number, name in reversed([*enumerate(names)])}
        same = np.array([first[name] for name in names], np.int64)
        numbered = [[numbers[one] for one in several] for several in (*said, *prompts)]
        labelled = np.concatenate([~are_unlabelled(split)[keys], np.zeros(len(prompts), np.bool_)])
        every = np.concatenate([keys, len(split) + np.arange(len(prompts))])
        ours, theirs, known = self._texts(list(numbers), student, teacher, training=training)
        collate = Collate(source, ours, theirs, np.concatenate([pictures, np.full(len(prompts), NONE)]), numbered, every,
                          labelled, known, same)
        references = None if training else self._references(
            keys, [same[several].tolist() for several in numbered], [tuple(one for one, _ in several) for several in said],
            classes)
        return Prepared(examples=Positions(len(every)), collate=collate, keys=every, references=references,
                        aligned=aligned and (theirs is ours or known is not None))

    def _pictures(
        self, split: Dataset, student: Any, teacher: Any | None
    ) -> tuple[NDArray[np.int64], Source | Kept | None, bool]:
        """(examples,) the place of each one's picture among those that can be read; these; and whether both models see the
        same of them."""
        there = np.full(len(split), NONE)
        if self.image not in split.column_names:
            return there, None, True
        assert self.section is not None
        seen = [Pictures.of(split, column) for column in self._seen]
        skipped = {row for one in seen for row in (one.broken() if self.section.broken == "skip" else _empty(one))}
        keys = np.setdiff1d(np.arange(len(split)), np.array(list(skipped), np.int64))
        if not len(keys):
            return there, None, True
        there[keys] = np.arange(len(keys))
        pictures, others = seen[-1 if self.as_teacher else 0], None if teacher is None or len(seen) == 1 else seen[1]
        own = Processor(student.images, pictures.rgb(keys[0]))
        shared = teacher is None or (others is None and settings(student.images) == settings(teacher.images))
        other = own if teacher is None or shared else Processor(teacher.images, (others or pictures).rgb(keys[0]))
        aligned = teacher is None or (others is None and geometry_of(student.images) == geometry_of(teacher.images))
        return there, keep(Source(pictures, keys, own, other, None, others=others)), aligned

    @property
    def _seen(self) -> tuple[str, ...]:
        """All columns of pictures that models see."""
        return (self.image, self.teachers) if self.teachers else (self.image,)

    def _texts(
        self, pairs: Sequence[tuple[str, str]], student: Any, teacher: Any | None, *, training: bool
    ) -> tuple[Texts, Texts, Any]:
        """All texts by the student's tokens and by the teacher's, and how these are numbered where they are the same."""
        assert self.section is not None
        both = [student.tokenizer] if teacher is None else [student.tokenizer, teacher.tokenizer]
        length = _tokens.longest(both, self.section.max_length)

        def made(reader: Any, side: int, whose: str) -> Texts:
            tokens, cut = _tokens.tokenise(reader.tokenizer, [[one[side] for one in pairs] or [""]], length)
            if cut:
                logger.warning("%d of %d texts are longer than %d of %s tokens: cut", cut, len(pairs), length, whose)
            return Texts(reader, tokens)

        ours = made(student, int(self.as_teacher), "the student's" if teacher is not None else "the")
        alike = all(one == other for one, other in pairs)
        if teacher is None or (alike and student.reads_alike(teacher)):
            return ours, ours, None
        known = numbering(student.tokenizer, teacher.tokenizer) \
            if training and alike and student.fixed == teacher.fixed else None
        return ours, ours if known is not None else made(teacher, 1, "the teacher's"), known

    def _references(
        self, keys: NDArray[np.int64], numbered: Sequence[Sequence[int]], said: Sequence[tuple[str, ...]],
        classes: NDArray[np.int64],
    ) -> list[Known]:
        """Of pictures what is right; of the texts about a class, which class."""
        assert self.said is not None
        captioned = bool(self.said.captions)
        owners: dict[int, list[int]] = {}
        for key, several in zip(keys.tolist(), numbered):
            for one in several:
                owners.setdefault(one, []).append(key)
        pictures = [Known(int(key), tuple(several), words, int(label), tuple(frozenset(owners[one]) for one in several))
                    if captioned else Known(int(key), (), label=int(label))
                    for key, several, words, label in zip(keys, numbered, said, classes)]
        return [*pictures, *(Known(None, (), prompts=number) for number in range(len(numbered) - len(keys)))]

    def exam(self) -> ImageTextExam:
        return ImageTextExam(self.said, self.image)


def _empty(pictures: Pictures) -> list[int]:
    """The rows without one."""
    return [row for row, one in enumerate(pictures.rows[pictures.column])
            if one is None or one["bytes"] is one["path"] is None]
