"""What recipes may tell semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from stilla.recipe import Strings
from stilla.recipe.paths import PathName
from stilla.recipe.section import as_tuple
from stilla.tasks.shared.sections import Pictures
from stilla.tasks.vision.sections import Objects

_Id = Annotated[int, Field(ge=0, lt=2**16)]
_Side = Annotated[int, Field(ge=8, le=8192)]


def _several(value: object) -> object:
    return (value,) if isinstance(value, int) else as_tuple(value)


class WholePictures(Pictures):
    """Pictures that are read whole, at one size, so that a place of what models say is the same place of the picture."""

    size: Annotated[tuple[_Side, _Side] | None, BeforeValidator(as_tuple)] = None
    """Height and width at which models read pictures; by default what the processor of each says, so that a teacher may see
    more than its student."""


class SemanticSegmentationData(WholePictures):
    """Pictures with a mask each: a picture of the same size whose numbers are ids of classes."""

    mask: str | None = None
    """The mask's column."""
    labels: Strings | Mapping[_Id, str] | None = None
    """Names of the classes: by id (`{7: road, 8: sidewalk}`), or a list that begins with id 0. With `reduce_labels` ids count
    from 0 after it. By default `id2label`, else the ids are the names."""
    id2label: PathName | None = None
    """A JSON file with the names by id; by default `id2label.json` in the folder of `train`, if there is one."""
    ignore: Annotated[tuple[_Id, ...], BeforeValidator(_several)] = (255,)
    """Ids in masks that are no class: such pixels are neither learnt from labels nor measured. `[]`: every id is one."""
    reduce_labels: bool | None = None
    """Whether id 0 is no class, and every other id means the class of the id below it (ADE20K). Only where the recipe says
    so; it has to where the teacher's processor does it."""
    stride: int = Field(4, ge=1, le=32)
    """Labels and models are compared at every so many-th pixel of what the student reads, down and across. 4 is the grid of
    the logits of SegFormer and BEiT; 1 compares at every pixel, in sixteen times the memory."""
    augment: Literal["auto", "none", "light", "flips"] = "auto"
    """`light` changes training pictures at random, the same for teacher, student and mask: crops, brightness and contrast.
    `flips` also turns half of them left to right. `auto` is `none`."""

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        return ()  # a mask is no class to draw by


class ImageSegmentationData(Objects, WholePictures):
    """Pictures with a mask for each of their objects: COCO's JSON (polygons and runs, or panoptic), folders, or tables with
    lists of objects, or with masks alone."""

    masks: str | None = None
    """Where objects are of one class, the column of masks: a picture of the same size whose numbers are objects (0 is none of
    them), or a list of pictures, one for each object. The class is called `object`, or as `labels` says. With `objects`, a
    list of {id, category}: the column of pictures whose colours are these ids, R + 256 G + 256² B."""
    stuff: Strings | None = None
    """Classes that are no things, as sky and road: every pixel then belongs to one segment at most, and answers are measured
    by panoptic quality. `[]`: all are things. By default what COCO's panoptic data say; where nobody says it, instances are
    found. Where masks say nothing of classes, one name: of all that is no object."""
    threshold: float | None = Field(None, ge=0, lt=1)
    """How sure a guess has to be to be a segment of a panoptic answer; 0.8 by default, as the models' authors have it."""
    overlap: float | None = Field(None, ge=0, le=1)
    """Which share of its own pixels such a segment has to keep beside surer ones; 0.8 by default."""
    stride: int = Field(4, ge=1, le=32)
    """Masks are compared at every so many-th pixel of what the teacher reads (without one, the student), down and across: 4
    is the grid of Mask2Former, MaskFormer and EoMT."""

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        return ()  # objects are no class to draw by
