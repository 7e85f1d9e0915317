"""COCO's panoptic form: for every picture a PNG whose colours are ids of segments, and beside it what each of these is
(Kirillov et al. 2019, arXiv:1801.00868).

A row is a picture: `image`, `panoptic`, that PNG, and `segments_info`, a list of {id, category, isthing, iscrowd}: the class
by its name, whether it is of things (null where the file does not say it), and whether many things are one segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from datasets import Features, Image, List, Value

from stilla.data.box_forms import refuse_lost, refuse_twice
from stilla.errors import DataError, quoted

FEATURES = Features({"image": Image(), "panoptic": Image(), "segments_info": List(
    {"id": Value("int64"), "category": Value("string"), "isthing": Value("bool"), "iscrowd": Value("bool")})})
_AT_ONCE = 5_000

Row = tuple[str, str | None, list[dict[str, Any]]]
"""The picture's name and its PNG's, as the file has them, and the segments."""


def is_one(whole: Mapping[str, Any]) -> bool:
    """Whether what COCO's JSON holds is of this form."""
    return any(isinstance(one, dict) and "segments_info" in one for one in whole["annotations"])


def rows(whole: Mapping[str, Any], where: str) -> list[Row]:
    """Every picture of such a file. A picture without an annotation has no PNG.

    Raises:
        DataError: parts that are missing; annotations of pictures or segments of categories that are not there; an id twice,
            or two annotations of a picture.
    """
    try:
        kinds = {one["id"]: (str(one["name"]), _flag(one.get("isthing"))) for one in whole["categories"]}
        refuse_twice(where, "category", [one["id"] for one in whole["categories"]])
        refuse_twice(where, "image", [one["id"] for one in whole["images"]])
        names = {one["id"]: str(one["file_name"]) for one in whole["images"]}
        lost: dict[str, list[Any]] = {"image": [], "category": []}
        said = dict[Any, tuple[str, list[dict[str, Any]]]]()
        for one in whole["annotations"]:
            if one["image_id"] not in names:
                lost["image"].append(one["image_id"])
                continue
            if one["image_id"] in said:
                raise DataError(f"{where}: two annotations are of the picture {quoted(names[one['image_id']])}; expected one "
                                "of each, with all of its segments.")
            lost["category"] += [part["category_id"] for part in one["segments_info"] if part["category_id"] not in kinds]
            said[one["image_id"]] = str(one["file_name"]), [
                {"id": int(part["id"]), "category": kinds[part["category_id"]][0], "isthing": kinds[part["category_id"]][1],
                 "iscrowd": bool(part.get("iscrowd", 0))}
                for part in one["segments_info"] if part["category_id"] in kinds]
    except (KeyError, TypeError, ValueError) as error:
        told = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{where}: is no file in COCO's panoptic form: {told}; expected images with id and file_name, "
                        "annotations with image_id, file_name and segments_info (id, category_id), and categories with id, "
                        "name and isthing.") from None
    refuse_lost(where, lost, sum(len(one["segments_info"]) for one in whole["annotations"]), "segments or annotations")
    if not names:
        raise DataError(f"{where}: there are no examples in it.")
    return [(name, *said.get(one, (None, []))) for one, name in names.items()]


def _flag(said: Any) -> bool | None:
    return None if said is None else bool(said)


def tables(found: list[Row], picture: Callable[[str], str], mask: Callable[[str], str]) -> Iterator[pa.Table]:
    """picture, mask: of a name the whole path."""
    schema = FEATURES.arrow_schema
    for start in range(0, len(found), _AT_ONCE):
        some = found[start : start + _AT_ONCE]
        columns = [[{"bytes": None, "path": picture(name)} for name, _, _ in some],
                   [None if png is None else {"bytes": None, "path": mask(png)} for _, png, _ in some],
                   [segments for _, _, segments in some]]
        yield pa.table([pa.array(column, one.type) for column, one in zip(columns, schema)], schema=schema)
