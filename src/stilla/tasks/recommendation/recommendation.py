"""Recommendation: of what somebody has taken, in order, what comes next; models whose vocabulary is the catalogue."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from stilla.data import TEACHER, to_measure
from stilla.data.histories import ITEMS, NEXT, TIMES, USER
from stilla.errors import CompatibilityError, DataError, all_at_once, one_of
from stilla.recipe import ModelSource, StudentSpec
from stilla.students.vocabulary.refusal import refusal
from stilla.tasks.base import Loaded, Prepared, Texts
from stilla.tasks.language.vocabulary import Vocabulary
from stilla.tasks.recommendation import models, reading
from stilla.tasks.recommendation.catalogue import Catalogue
from stilla.tasks.recommendation.exam import RecommendationExam, Wanted
from stilla.tasks.recommendation.naming import titles
from stilla.tasks.recommendation.reading import UNKNOWN, Beside, Following, Foretelling, Hiding, Read
from stilla.tasks.recommendation.sections import RecommendationData
from stilla.tasks.recommendation.usage import RECOMMENDING
from stilla.tasks.shared.classification import Positions
from stilla.tasks.text.sequences import Blocks, cut, joined

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recommendation(Vocabulary[RecommendationData]):
    """What a user takes next, of all items: decoders (SASRec) and encoders (BERT4Rec) over a catalogue."""

    catalogue: Catalogue = field(default_factory=lambda: Catalogue(()))
    """Of the training data, and of the models once there are some."""
    taken: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """How often every item was, in the training data."""
    looks_ahead: bool = False
    """Whether what one user is measured on may lie before what was learnt of another: the last events of all are held out."""
    longest: int | None = None
    """How much of a history teachers read, where that is more than their students do."""

    kind: ClassVar[str] = "recommendation"
    pipeline = "other"
    usage = RECOMMENDING
    data_section = RecommendationData
    heads: ClassVar[tuple[str, ...]] = ()  # a class's name does not say that its vocabulary are items
    preparing: ClassVar[str] = """\
import json
from pathlib import Path

import numpy as np

known = json.loads(Path("items.json").read_text(encoding="utf-8"))
history = known["items"][:3]  # the ids of what somebody took, in order
ids = [known["items"].index(item) for item in history] + ([] if known["mask"] is None else [known["mask"]])
ids = np.array([ids[-known["max_length"]:]])
inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
"""

    @property
    def reading(self) -> str:
        return ('best = logits[0, -1, :len(known["items"])].argsort()[::-1][:10]\n'
                'print([known["items"][number] for number in best])\n')

    # --- data ---

    @classmethod
    def understand(cls, section: RecommendationData, splits: Mapping[str, Dataset]) -> Self:
        lacking = [f"data.{name}: there is no column {ITEMS!r} of lists; expected what `stilla.data.load` makes of events"
                   for name, split in splits.items() if ITEMS not in split.column_names]
        if lacking:
            raise all_at_once(lacking, DataError)
        learnt = [splits[name] for name in ("train", TEACHER) if name in splits]
        taken = _taken(learnt)
        items = tuple(sorted(taken, key=lambda item: (-taken[item], item)))
        comes_back = section.seen == "keep" or (section.seen == "auto" and any(map(_comes_back, learnt)))
        catalogue = Catalogue(items, masked=section.mask is not None, max_length=section.max_length, seen=comes_back)
        if section.names is not None:
            catalogue = replace(catalogue, titles=titles(section, catalogue))
        task = cls(section=section.model_copy(update={"seen": "keep" if comes_back else "leave_out"}), classes=len(items),
                   catalogue=catalogue, taken=taken, looks_ahead=_looks_ahead(section, splits))
        for name, split in to_measure(splits).items() if items else ():
            _tell_unknown(name, split, catalogue)
        return task

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        raise CompatibilityError("recommendation: a model by itself does not say what its items are; give `task`, made of "
                                 "data (`Recommendation.understand`)")

    def resolved(self, section: RecommendationData) -> RecommendationData:
        return section.model_copy(update={"seen": "keep" if self.catalogue.seen else "leave_out"})

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        if columns:
            raise DataError(f"teacher.data.{next(iter(columns))}: rows of `{self.kind}` are the items of the history itself, "
                            "which both models read. Let the teacher read more of it: teacher.data: {max_length: ...}")
        return self

    def taught_at_length(self, length: int) -> Self:
        """More of what a user took before the items that a student reads too."""
        assert self.section is not None  # of a recipe
        if length < self.section.max_length:
            raise DataError(f"teacher.data.max_length: got {length}, and students read up to {self.section.max_length} items "
                            "of a history (data.max_length), all of which the teacher is asked about. Expected more")
        return self if length == self.section.max_length else replace(self, longest=length)

    def of_teacher(self) -> Self:
        if self.longest is None or self.section is None:
            return self
        return replace(self, longest=None, section=self.section.model_copy(update={"max_length": self.longest}),
                       catalogue=replace(self.catalogue, max_length=self.longest))

    def seeing(self, student: Loaded, spec: StudentSpec) -> Loaded:
        """A student that is made of its teacher reads no more than the recipe says."""
        return student if self.longest is None else replace(student, processor=self._of_student(student.processor))

    def _of_student(self, catalogue: Catalogue) -> Catalogue:
        if self.longest is None or self.section is None:
            return catalogue
        return replace(catalogue, max_length=min(catalogue.max_length, self.section.max_length))

    def adapted_to(self, teacher: Loaded) -> Self:
        catalogue = self._of_student(teacher.processor)
        unknown = [item for item in self.taken if item not in catalogue.numbers]
        if unknown:
            events = sum(self.taken[item] for item in unknown)
            logger.warning("%s does not know %d of the %d items of the training data (%r for one): their %d events are left "
                           "out", teacher.source, len(unknown), len(self.taken), unknown[0], events)
        return replace(self, classes=len(catalogue), catalogue=catalogue, numbering=None)

    def between(self, student: Loaded, teacher: Loaded) -> Self:
        return self.adapted_to(student)

    def alike(self, student: Any, teacher: Any) -> bool:
        """Whether both have the same items by the same numbers, and foretell alike."""
        return bool(student.items == teacher.items and student.masked == teacher.masked)

    def comparable(self, student: Any, teacher: Any) -> bool:
        return self.alike(student, teacher)

    def texts(self, split: Dataset, processor: Any) -> Texts:
        raise _no_text()

    def tokenizer_of(self, processor: Any) -> Any:
        raise _no_text()

    # --- models ---

    def load(self, source: ModelSource, *, labelled: bool) -> Loaded:
        if source.config is not None:
            if labelled:
                raise CompatibilityError("teacher.config: a model of random weights knows nothing; train it first: teacher: "
                                         "{model: ..., config: ..., train: {}}")
            if not self.catalogue.items:
                raise CompatibilityError("teacher.config: there are no training data (data.train), which say what items "
                                         "there are")
            return Loaded(models.made(source, self.catalogue), self.catalogue, source.model)
        catalogue = self._told(Catalogue.of_folder(source.processor or source.model))
        return Loaded(models.read(source, catalogue, labelled=labelled), catalogue, source.model)

    def _told(self, catalogue: Catalogue) -> Catalogue:
        """A folder's catalogue with what the recipe says of names, of what was seen, and of how much is read."""
        section = self.section
        if section is None:
            return catalogue
        if catalogue.masked != (section.mask is not None):
            said = "hides items" if catalogue.masked else "hides no items: it foretells what comes next"
            raise CompatibilityError(f"data.mask: got {section.mask}, and the model {said}. "
                                     f"{'Say data.mask: 0.2' if catalogue.masked else 'Leave data.mask out'}")
        own = {catalogue.numbers[self.catalogue.items[number]]: title for number, title in self.catalogue.titles.items()
               if self.catalogue.items[number] in catalogue.numbers}
        return replace(catalogue, titles={**catalogue.titles, **own}, seen=section.seen == "keep",
                       max_length=min(section.max_length, catalogue.max_length))

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        if spec.config is not None and isinstance(model, PreTrainedModel):
            models.check(model, self.catalogue, "student.config")
        return model

    # --- examples ---

    def prepare(
        self, split: Dataset, student: Any, teacher: Any | None, *, training: bool, seed: int = 0
    ) -> Prepared:
        if self.section is None:
            raise CompatibilityError("a task made of a model has no columns to prepare; use `understand`.")
        if teacher is not None and not self.alike(student, teacher):
            raise CompatibilityError(f"teacher and student have other items, or other numbers for them ({len(teacher):,} and "
                                     f"{len(student):,}): they are compared item by item. Use a student that is made from "
                                     "the teacher (`student: {layers: ...}` or `{config: {...}}`)")
        # both read the same, as much as the shorter of them, but for what a teacher reads before it
        catalogue = student if teacher is None or student.max_length <= teacher.max_length else teacher
        found = reading.read(split, catalogue, asked=not training)
        if found.lost:
            logger.info("%d events of items that the models do not know are left out", found.lost)
        most = None if teacher is None or self.longest is None else min(self.longest, teacher.max_length)
        if not training:
            return self._measured(found, catalogue, len(split), most)
        silent = reading.marks(split)
        prepared = self._hidden(found, catalogue, silent, seed, most) if catalogue.masked else _following(
            found, catalogue, silent, most)
        if not len(prepared):
            raise DataError(f"nothing can be learnt of any of the {len(split)} users: none took two items")
        return prepared

    def _measured(self, found: Read, catalogue: Catalogue, users: int, most: int | None) -> Prepared:
        rows = np.flatnonzero(found.lengths > 0)
        if not len(rows):
            raise DataError(f"nothing can be foretold of any of the {users} users: none took anything before that the models "
                            "know")
        if len(rows) < users:
            logger.info("%d of %d users took nothing before that the models know: not measured", users - len(rows), users)
        collate = Foretelling(found, rows, catalogue, seen=not catalogue.seen)
        both = None if most is None else Beside(collate, replace(collate, catalogue=replace(catalogue, max_length=most)))
        wanted = [Wanted(int(found.next[row]), np.unique(found.row(row)) if not catalogue.seen else None) for row in rows]
        return Prepared(Positions(len(rows)), both or collate, rows, collate.lengths.tolist(), references=wanted,
                        aligned=both is None)

    def _hidden(
        self, found: Read, catalogue: Catalogue, silent: NDArray[np.bool_], seed: int, most: int | None
    ) -> Prepared:
        assert self.section is not None
        assert self.section.mask is not None
        pieces, keys, parts, before = [], [], [], []
        for row in np.flatnonzero(found.lengths > 1):
            # from the end, so that the latest piece is a whole one
            borders = [*range(int(found.lengths[row]), 0, -catalogue.max_length), 0][::-1]
            for part, (start, end) in enumerate(pairwise(borders)):
                if end - start > 1:
                    pieces.append(found.row(row)[start:end])
                    keys.append(row)
                    parts.append(part)
                    before.append(found.row(row)[max(0, end - (most or 0)) : start])
        rows = np.array(keys, np.int64)
        # shared, so that the loader's processes see it change
        epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        collate = Hiding(pieces, rows, np.array(parts, np.int64), catalogue, self.section.mask, seed, epoch, silent[rows])
        both = None if most is None else Beside(collate, replace(collate, before=before))
        return Prepared(Positions(len(pieces)), both or collate, rows, [len(one) for one in pieces],
                        on_epoch=collate.set_epoch, aligned=both is None)

    # --- histories of which only the teacher says what follows ---

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        """Histories of other users: what they took is read, and what comes next is the teacher's to say."""
        if called:
            raise DataError(f"data.unlabelled.columns: got {one_of(list(called))}; expected none: events are found by "
                            "data.user, data.item and data.time, as in the training data")
        return pool.select_columns([USER, ITEMS])

    def usable(self, pool: Dataset) -> Dataset:
        """Those of two items and more."""
        return pool.select(np.flatnonzero(_lengths(pool) > 1))

    def beside(self, split: Dataset) -> Dataset:
        return split.select_columns([USER, ITEMS])

    def traces(self, split: Dataset) -> Iterable[tuple[bytes, ...]]:
        """All that somebody took, in order."""
        coming = split[NEXT][:] if NEXT in split.column_names else [None] * len(split)
        for items, after in zip(split[ITEMS][:], coming):
            yield ("\0".join([*items, *([] if after is None else [after])]).encode(),)

    # --- what is measured ---

    def exam(self) -> RecommendationExam:  # type: ignore[override]
        return RecommendationExam(self)

    def apart(self) -> None:  # type: ignore[override]
        """Models of other items answer other questions."""

    def decoded(self, tokens: Any) -> str:
        return ", ".join(self.catalogue.called(int(one)) for one in tokens)

    def popularity(self) -> NDArray[np.int64]:
        """(items,) how often each was taken in the training data."""
        return np.array([self.taken.get(item, 0) for item in self.catalogue.items], np.int64)


def _no_text() -> CompatibilityError:
    return refusal("models of `recommendation` read items and no text: their vocabulary is the catalogue")


def _following(found: Read, catalogue: Catalogue, silent: NDArray[np.bool_], most: int | None) -> Prepared:
    def reading(most: int | None) -> Following:
        pieces = joined((piece, int(row)) for row in np.flatnonzero(found.lengths > 1)
                        for piece in cut(found.row(row), catalogue.max_length, most))
        blocks = Blocks.of(pieces, None, catalogue.pad_token_id)
        return Following(blocks, silent[blocks.documents])

    own = reading(None)
    return Prepared(Positions(len(own.blocks)), own if most is None else Beside(own, reading(most)), own.blocks.documents,
                    own.blocks.lengths.tolist(), aligned=most is None)


def _flat(split: Dataset) -> tuple[pa.Array, NDArray[np.int64]]:
    """All items end to end, and how many of them each row has."""
    lists = split.select_columns([ITEMS]).with_format("arrow")[:].column(ITEMS).combine_chunks()
    return lists.flatten().cast(pa.string()), pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)


def _lengths(split: Dataset) -> NDArray[np.int64]:
    return _flat(split)[1]


def _taken(splits: Iterable[Dataset]) -> dict[str, int]:
    found: dict[str, int] = {}
    for split in splits:
        for one in pc.value_counts(_flat(split)[0]).to_pylist():
            found[one["values"]] = found.get(one["values"], 0) + one["counts"]
    return found


def _comes_back(split: Dataset) -> bool:
    """Whether anybody took an item twice."""
    items, lengths = _flat(split)
    pairs = np.stack([np.repeat(np.arange(len(lengths)), lengths), items.dictionary_encode().indices.to_numpy()], 1)
    return len(np.unique(pairs, axis=0)) < len(pairs)


def _looks_ahead(section: RecommendationData, splits: Mapping[str, Dataset]) -> bool:
    """Whether users are measured who are learnt from too, and no moment parts the two; files that go on are another's cut."""
    measured = [split for name, split in to_measure(splits).items() if name in ("validation", "test")]
    if section.users is not None or "train" not in splits or not measured or USER not in splits["train"].column_names:
        return False
    learnt = set(splits["train"][USER][:])
    by_time = TIMES in splits["train"].column_names and section.hold_out != "last"
    return not by_time and any(not learnt.isdisjoint(split[USER][:]) for split in measured if USER in split.column_names)


def _tell_unknown(name: str, split: Dataset, catalogue: Catalogue) -> None:
    """What is to be foretold and in no training data: no model can, and it is no reason to leave it out."""
    found = reading.read(split, catalogue, asked=True)
    unknown = int((found.next == UNKNOWN).sum())
    if unknown:
        logger.warning("data.%s: %d of %d users take next what nobody in the training data has taken: no model can recommend "
                       "it, and each counts as a miss (at most %.1f %% can be right)", name, unknown, len(found),
                       100 * (1 - unknown / len(found)))
