"""Pictures that teachers alone see: sharper, cleaner or larger ones of the same things (see `shared.privileged`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from datasets import Dataset

from stilla.errors import DataError, all_at_once
from stilla.recipe import Data
from stilla.tasks.shared.classification import attempt
from stilla.tasks.shared.privileged import columns_of_teacher
from stilla.tasks.vision.broken import broken_pictures
from stilla.tasks.vision.pictures import holds_pictures


def pictures_of_teacher(
    columns: Mapping[str, tuple[str, ...]], section: Data | None, image: str, splits: Mapping[str, Dataset],
    labels: Collection[str] = (), *, beside: Collection[str] = (),
) -> str:
    """The column that the recipe says a teacher sees in place of the student's `image`; empty: the same. beside: other fields
    that `columns` may name.

    Raises:
        DataError: see `columns_of_teacher`; several columns, or pictures that cannot be read.
    """
    found = columns_of_teacher(columns, "image", splits, labels, fits=holds_pictures, what="pictures", beside=beside)
    if not found or found == (image,):
        return ""
    if len(found) > 1:
        raise DataError(f"teacher.data: got {len(found)} columns of pictures; expected one.")
    problems: list[str] = []
    for name, split in splits.items():
        attempt(problems, broken_pictures, section, name, split, found[0])
    if problems:
        raise all_at_once(problems, DataError)
    return found[0]
