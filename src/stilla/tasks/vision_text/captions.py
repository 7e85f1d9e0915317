"""What is said of pictures: captions of a column, or texts made of a class; and the texts that classes are told apart by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List, Value
from numpy.typing import NDArray

from stilla.data import LABEL_NAMES
from stilla.errors import DataError, all_at_once, one_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_or_leave_out
from stilla.tasks.shared.columns import is_text
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.vision_text.sections import LABEL, ImageTextData

CAPTIONS = ("caption", "captions", "text", "texts", "sentences", "description", "title", "alt_text", "alt")
NO_CLASS = -1


@dataclass(frozen=True)
class Said:
    """Where it stands. `captions`: columns of a text or a list of texts; none where texts are made of the class. `label`: the
    class's column, `names`: of the classes, in order; empty where there are none. `templates`: of texts about a class."""

    captions: tuple[str, ...] = ()
    label: str | None = None
    names: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    """What teachers read in place of `captions`, the first for the first: as many texts of each example."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.captions, *(() if self.label is None else (self.label,)))

    def prompts(self, name: str) -> list[str]:
        """Texts about a class."""
        return [template.replace(LABEL, name.replace("_", " ")) for template in self.templates]

    def classes(self, split: Dataset) -> NDArray[np.int64]:
        """(examples,) the class of each, `NO_CLASS` where nobody says it."""
        if self.label is None or self.label not in split.column_names:
            return np.full(len(split), NO_CLASS)
        place = {name: number for number, name in enumerate(self.names)}
        return np.array([NO_CLASS if one is None else place.get(one, NO_CLASS) for one in named(split, self.label)], np.int64)

    def texts(self, split: Dataset) -> list[tuple[str, ...]]:
        """(examples,) what is said of each: no text twice, none that is empty."""
        if self.captions:
            there = [_columns.values(split, one) for one in self.captions if one in split.column_names]
            return [_texts(several) for several in zip(*there)] if there else [()] * len(split)
        made = [tuple(self.prompts(name)) for name in self.names]
        return [made[one] if one != NO_CLASS else () for one in self.classes(split)]

    def pairs(self, split: Dataset) -> list[tuple[tuple[str, str], ...]]:
        """(examples,) the same with what the teacher reads in place of each.

        Raises:
            DataError: an example has not a text for each in the same place.
        """
        if not self.told:
            return [tuple((one, one) for one in several) for several in self.texts(split)]
        both = [([*map(_listed, _columns.values(split, ours))], [*map(_listed, _columns.values(split, theirs))])
                for ours, theirs in zip(self.captions, self.told) if ours in split.column_names]
        odd = [row for row in range(len(split))
               if any([*map(bool, ours[row])] != [*map(bool, theirs[row])] for ours, theirs in both)]
        if odd:
            raise DataError(f"teacher.data: {_columns.named(self.told)} has not one text for each of "
                            f"{_columns.named(self.captions)} in {len(odd)} of {len(split)} examples "
                            f"({rows_in_words(split, odd)}); expected as many, in the same places")
        found: list[dict[str, str]] = [{} for _ in range(len(split))]
        for ours, theirs in both:
            for said, own, other in zip(found, ours, theirs):
                for text, told in zip(own, other):
                    said.setdefault(text, told)  # of a text that stands there twice, the first
        return [tuple((text, told) for text, told in said.items() if text) for said in found]


def _listed(said: Any) -> list[str]:
    """What a column says of an example, empty texts among it; none at all where all are empty."""
    found = [(text or "").strip() for text in ([said] if isinstance(said, str) else said or ())]
    return found if any(found) else []


def _texts(said: Sequence[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for one in said for text in _listed(one) if text))


def named(split: Dataset, column: str) -> list[str | None]:
    """A column of classes as their names."""
    feature, values = split.features[column], _columns.values(split, column)
    if isinstance(feature, ClassLabel):
        return [None if one is None or one < 0 else feature.int2str(one) for one in values]
    return [one.strip() if one and one.strip() else None for one in values]


def holds_texts(feature: Any) -> bool:
    """A text, or a list of texts."""
    return is_text(feature) or (isinstance(feature, List) and is_text(feature.feature))


def understand(section: ImageTextData, splits: Mapping[str, Dataset]) -> Said:
    """What is said in these data: columns of captions, and one of classes at most, each where its splits have it.

    Raises:
        DataError: no such columns, the names leave it open, or nothing is said at all.
    """
    problems: list[str] = []
    captions = _found(section.text, "text", splits, CAPTIONS, holds_texts, "a text, or a list of texts", problems)
    wanted = None if section.label is None else (section.label,)
    labels = _found(wanted, "label", splits, LABEL_NAMES, _holds_classes, "names of classes", problems, but=captions)
    label = next(iter(labels), None)
    if label is not None:
        problems += _nameless(label, splits)
    if problems:
        raise all_at_once(problems, DataError)
    if not captions and label is None:
        first = next(iter(splits.values()))
        raise DataError(f"data.text: which column says what is on the picture? None is called {one_of(CAPTIONS[:3])} or "
                        f"label. {_columns.columns_of(first)} Set data.text, or data.label for texts made of a class "
                        f"(data.template).")
    if label is None:
        return Said(captions, None)
    if not {*captions} <= {*splits.get("train", next(iter(splits.values()))).column_names}:
        captions = ()  # what is learnt are texts made of classes
    return Said(captions, label, _names(label, splits), section.template)


def _found(
    wanted: Sequence[str] | None, key: str, splits: Mapping[str, Dataset], usual: Sequence[str], fits: Any, what: str,
    problems: list[str], but: Sequence[str] = (),
) -> tuple[str, ...]:
    """The columns that the recipe names, or the one that its name says it of: of the first split that has them."""
    if wanted is not None:
        there = [split for split in splits.values() if {*wanted} <= {*split.column_names}]
        try:
            return _columns.existing(key, wanted, there[0] if there else next(iter(splits.values())), fits, what)
        except DataError as error:
            problems += error.problems
            return ()
    for split in splits.values():
        lower = {name.lower(): name for name in reversed(split.column_names)
                 if name not in but and fits(split.features[name])}
        known = [lower[name] for name in usual if name in lower]
        if len(known) > 1 and known[0].lower() not in ("caption", "captions", "text", "label", "labels"):
            problems.append(f"data.{key}: which column is it? {one_of(known)} could be it. {_columns.columns_of(split)}")
            return ()
        if known:
            return (str(known[0]),)
    return ()


def _holds_classes(feature: Any) -> bool:
    return isinstance(feature, ClassLabel) or is_text(feature) or (
        isinstance(feature, Value) and feature.dtype.startswith(("int", "uint")))


def _nameless(label: str, splits: Mapping[str, Dataset]) -> list[str]:
    """Numbers say nothing that a text could be made of."""
    return [f"data.{name}: the classes in {label!r} are numbers without names, of which no text can be made. Give names (a "
            "column of text, or a ClassLabel)" for name, split in splits.items()
            if label in split.column_names and not (isinstance(split.features[label], ClassLabel)
                                                    or is_text(split.features[label]))][:1]


def _names(label: str, splits: Mapping[str, Dataset]) -> tuple[str, ...]:
    """Of a ClassLabel in its order; of texts all that occur, sorted."""
    there = [split for split in splits.values() if label in split.column_names]
    declared = [tuple(split.features[label].names) for split in there if isinstance(split.features[label], ClassLabel)]
    if declared:
        return tuple(dict.fromkeys(name for names in declared for name in names))
    return tuple(sorted({one for split in there for one in named(split, label) if one is not None}))


def refuse_silent(section: ImageTextData, said: Said, name: str, split: Dataset) -> None:
    """Pictures of which nothing is said, where captions are read.

    Raises:
        DataError: there are some, and the recipe does not leave them out.
    """
    rows = [row for row, texts in enumerate(said.texts(split)) if not texts]
    read = said.captions or said.columns
    if rows and any(column in split.column_names for column in read):  # else it has classes, of which texts are made
        what = _columns.named(read)
        refuse_or_leave_out(section, f"data.{name}: {what} says nothing in {len(rows)} of {len(split)} examples",
                            rows_in_words(split, rows))
