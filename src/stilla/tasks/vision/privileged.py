"""Pictures that teachers alone see: sharper, cleaner or larger ones of the same things (see `shared.privileged`)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import partial

from datasets import Dataset

from stilla.recipe import Data
from stilla.tasks.shared.privileged import file_column_of_teacher
from stilla.tasks.vision.broken import broken_pictures
from stilla.tasks.vision.pictures import Pictures, holds_pictures

logger = logging.getLogger(__name__)

_SHAPES = 0.03
"""Shares by which sides may differ in proportion, beside a pixel of the smaller picture: what rounding leaves of a resize."""


def pictures_of_teacher(
    columns: Mapping[str, tuple[str, ...]], section: Data | None, image: str, splits: Mapping[str, Dataset],
    labels: Collection[str] = (), *, beside: Collection[str] = (), placed: bool = False,
) -> str:
    """The column that the recipe says a teacher sees in place of the student's `image`; empty: the same. beside: other fields
    that `columns` may name. placed: a place of one picture answers to the same place of the other.

    Raises:
        DataError: see `file_column_of_teacher`.
    """
    found = file_column_of_teacher(columns, "image", image, splits, labels, fits=holds_pictures, what="pictures",
                                   check=partial(broken_pictures, section), beside=beside)
    for name, split in splits.items() if placed and found else ():
        tell_other_shapes(name, split, image, found)
    return found


def tell_other_shapes(name: str, split: Dataset, image: str, teachers: str) -> None:
    """Which pictures are of another shape than those that the teacher sees in their place: stretched, which changes nothing,
    or a part of the scene, of which every box and mask would lie elsewhere. Headers alone are read."""
    own, others = Pictures.of(split, image), Pictures.of(split, teachers)
    found = []
    for row in range(len(own)):
        try:
            (wide, high), (width, height) = own.size(row), others.size(row)
        except (OSError, SyntaxError, ValueError):  # broken: told elsewhere
            continue
        if abs(wide * height / (high * width) - 1) > _SHAPES + 1 / min(wide, high, width, height):
            found.append((row, f"{wide} x {high} and {width} x {height}"))
    if found:
        row, sizes = found[0]
        logger.warning(
            "data.%s: %d of %d pictures are of another shape than those that the teacher sees in their place (teacher.data: "
            "%s), first %s: %s pixels (width x height). Both have to show all of one scene, as places are shares of it: "
            "where one is a part of the other, what the teacher finds lies elsewhere in the student's",
            name, len(found), len(own), teachers, own.name(row), sizes)
