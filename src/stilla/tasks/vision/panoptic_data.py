"""Pictures whose every pixel belongs to one segment at most: ids that are written as colours, and which classes are stuff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import PIL.Image
from datasets import Dataset
from numpy.typing import NDArray

from stilla.data import are_unlabelled
from stilla.errors import DataError, all_of, counted, did_you_mean, one_of
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision.detection_data import Column, inside
from stilla.tasks.vision.segmentation_section import ImageSegmentationData

THRESHOLD: Final = 0.8
"""How sure a guess has to be to be a segment, and"""
OVERLAP: Final = 0.8
"""which share of its own pixels it has to keep beside surer ones: as the authors of the models have it."""
NOBODY: Final = 0
"""The id of pixels that nobody has labelled."""
_THINGS = ("isthing", "is_thing", "thing")
_LISTED = 5


@dataclass(frozen=True)
class Panoptic:
    """How pictures are parted. `stuff`: its classes, as the data spell them (`Problem.raw`). `rest`: of these the one of all
    pixels that are no object's, where masks say nothing of classes."""

    stuff: frozenset[str]
    threshold: float
    overlap: float
    rest: str | None = None

    def places(self, problem: Problem) -> frozenset[int]:
        """The classes of stuff in the models' order."""
        return frozenset(place for place, raw in enumerate(problem.raw) if raw in self.stuff)

    def names(self, problem: Problem) -> tuple[str, ...]:
        return tuple(problem.names[place] for place in sorted(self.places(problem)))


def understand(
    section: ImageSegmentationData, column: Column | None, problem: Problem, splits: Mapping[str, Dataset]
) -> Panoptic | None:
    """None where neither data nor recipe speak of stuff. column: of segments or objects; None where masks say nothing of
    classes.

    Raises:
        DataError: classes of stuff that there are not; segments of one class that are said to be things here and stuff there;
            nobody says which are stuff; options of panoptic masks where there are none.
    """
    said = {} if column is None or section.stuff is not None else _said(column, splits)
    if section.stuff is None and not said:
        if section.threshold is not None or section.overlap is not None:
            named = "threshold" if section.threshold is not None else "overlap"
            raise DataError(f"data.{named}: is about panoptic masks, and nobody says which classes are stuff, so that "
                            "instances are found, all of them with a score. Set data.stuff, or leave it out")
        return None
    both = [raw for raw, flags in said.items() if len(flags) > 1]
    if both:
        named = all_of([repr(_name(problem, raw)) for raw in both[:_LISTED]])
        raise DataError(f"data.stuff: segments of {named} are things in some places and stuff in others, as the data say. "
                        "Name all classes of stuff in data.stuff")
    unknown = [name for name in section.stuff or () if name not in problem.names]
    if unknown:
        raise DataError(f"data.stuff: got {unknown[0]!r}; expected {one_of([*problem.names][:12])}"
                        f"{' ...' * (len(problem.names) > 12)}.{did_you_mean(unknown[0], problem.names)}")
    spelled = dict(zip(problem.names, problem.raw))
    stuff = frozenset(spelled[name] for name in section.stuff or ()) or frozenset(
        raw for raw, flags in said.items() if False in flags)
    return Panoptic(stuff, THRESHOLD if section.threshold is None else section.threshold,
                    OVERLAP if section.overlap is None else section.overlap,
                    next(iter(stuff), None) if column is None else None)


def _name(problem: Problem, raw: str) -> str:
    return dict(zip(problem.raw, problem.names)).get(raw, raw)


def _said(column: Column, splits: Mapping[str, Dataset]) -> dict[str, set[bool]]:
    """Of every class, as it is spelled, what its segments are said to be; none where no segment says it.

    Raises:
        DataError: some say it and others do not.
    """
    first = next(iter(splits.values()))
    part = next((name for name in _THINGS if name in (inside(first.features[column.name]) or {})), None)
    if part is None:
        return {}
    found = dict[str, set[bool | None]]()
    flagged = replace(column, box=part)
    for split in splits.values():
        for row in _columns.values(split, column.name):
            for flag, kind, _ in flagged.of(row):
                found.setdefault(str(kind), set()).add(None if flag is None else bool(flag))
    if all(flags == {None} for flags in found.values()):
        return {}
    if any(None in flags for flags in found.values()):
        raise DataError(f"data.stuff: some segments say whether they are things ({part!r} in {column.name!r}), others do "
                        "not. Name the classes of stuff in data.stuff")
    return {raw: {bool(flag) for flag in flags} for raw, flags in found.items()}


def refuse_unsaid(panoptic: Panoptic | None, column: Column) -> None:
    """Raises:
        DataError: pictures are parted into segments, and nobody says which classes are stuff.
    """
    if panoptic is None:
        raise DataError(f"data.stuff: {column.name!r} holds the segments of whole pictures, and no {_THINGS[0]!r} says which "
                        "classes are stuff. Name them in data.stuff ([]: none is)")


# --- ids that are colours ---


def segment_ids(picture: PIL.Image.Image) -> NDArray[np.uint32]:
    """(height, width) R + 256 G + 256² B of a colour, as COCO's panoptic PNGs have ids; of one number that number.

    Raises:
        OSError: it was stored with loss, or in a form that has no ids.
    """
    if picture.format == "JPEG":
        raise OSError("a JPEG changes colours, so that ids appear that nobody wrote; store segments as PNG")
    values: NDArray[Any] = np.asarray(picture)
    if picture.mode in ("RGB", "RGBA"):
        red, green, blue = (values[..., place].astype(np.uint32) for place in range(3))
        found: NDArray[np.uint32] = red + 256 * green + 65536 * blue
        return found
    if picture.mode != "L" and not picture.mode.startswith("I"):
        raise OSError(f"it holds {picture.mode}; expected colours (RGB) whose id is R + 256 G + 256² B, or one whole number "
                      "per pixel")
    if values.size and int(values.min()) < 0:
        raise OSError(f"it holds numbers from {values.min()}; expected ids from 0")
    return values.astype(np.uint32)


def odd_segments(
    column: Column, split: Dataset, there: Mapping[int, Mapping[int, int]], named: Mapping[int, str]
) -> tuple[list[str], int]:
    """What does not answer to what, in words, and how many segments there are. there: by row, how many pixels of each id.
    named: what rows are called."""
    odd, total = list[str](), 0
    unlabelled = are_unlabelled(split)
    for row, value in enumerate(_columns.values(split, column.name)):
        if not there.get(row) or unlabelled[row]:  # of pictures that cannot be read others say so
            continue
        ids = [one for one, _, _ in column.of(value)]
        total += len(ids)
        odd += [f"{named[row]}: {why}" for why in _odd(ids, there[row])]
    return odd, total


def _odd(ids: Sequence[int | None], pixels: Mapping[int, int]) -> list[str]:
    found = []
    if twice := sorted({one for one in ids if one is not None and ids.count(one) > 1}):
        found.append(f"two segments have the id {twice[0]}")
    if NOBODY in ids or None in ids:
        found.append(f"a segment has the id {None if None in ids else NOBODY}, which is no segment's")
    if without := [one for one in dict.fromkeys(ids) if one not in pixels and one not in (None, NOBODY)]:
        found.append(f"no pixel has the {_ids(without)} of a segment")
    if unknown := [one for one in pixels if one not in ids and one != NOBODY]:
        number = sum(pixels[one] for one in unknown)
        found.append(f"{counted(number, 'pixel', 'has')} the {_ids(unknown)}, which no segment has")
    return found


def _ids(some: Sequence[Any]) -> str:
    listed = all_of([str(one) for one in some[:_LISTED]]) + " ..." * (len(some) > _LISTED)
    return f"id{'s' * (len(some) > 1)} {listed}"
