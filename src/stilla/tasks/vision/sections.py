"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stilla.recipe import Strings
from stilla.recipe.section import Section
from stilla.tasks.shared.sections import Classified, Pictures


class Augment(Section):
    """How training pictures are changed at random, the same for teacher and student."""

    crop: float = Field(1.0, gt=0, le=1)
    """Crops of at least this share of the picture, in shapes of 3:4 to 4:3 against its own; 1: the whole picture."""
    flip: bool = False
    """Mirror half of them; not where that makes something else of them (digits, letters, signs)."""
    colour: float = Field(0.0, ge=0, lt=1)
    """Change brightness, contrast and saturation by up to this share."""
    mixup: float = Field(0.0, ge=0, le=1)
    """Blend this share of them with another picture each. A mixed picture has no label, only the teacher's answer; where no
    teacher answers, none is mixed."""
    cutmix: float = Field(0.0, ge=0, le=1)
    """Put a box of another picture into this share of them; likewise. At most 1 with `mixup`."""

    @model_validator(mode="after")
    def _something_changes(self) -> Augment:
        if self.mixup + self.cutmix > 1:
            raise ValueError(f"got mixup {self.mixup:g} and cutmix {self.cutmix:g}, shares of the pictures; expected at most "
                             "1 together")
        if self == Augment.model_construct():
            raise ValueError("nothing would change; expected one of crop, flip, colour, mixup and cutmix, or `augment: none`")
        return self

    @property
    def alone(self) -> Augment:
        """The same without mixing."""
        return self.model_copy(update={"mixup": 0.0, "cutmix": 0.0})


STRONG = Augment(crop=0.35, colour=0.4, mixup=0.4, cutmix=0.4)
"""What `strong` stands for."""


class ImageClassificationData(Classified, Pictures):
    """Pictures with a class, several labels, or a number."""

    resolution: int | None = Field(None, ge=4, le=4096)
    """Pixels a side of what the student sees; the teacher sees what its own image processor makes, of the same crop. By
    default what the student's processor says, or `image_size` of `student: {config: ...}`."""
    augment: Literal["auto", "none", "light", "strong"] | Augment = "auto"
    """Changes training pictures at random, the same for teacher and student. `light`: crops of 85 % and more of each side,
    brightness and contrast. `strong`: `{crop: 0.35, colour: 0.4, mixup: 0.4, cutmix: 0.4}`; or such fields. Nothing is
    mirrored unless `flip: true` says so, as not every picture may be. `auto` is `none`."""


class Objects(Pictures):
    """Pictures with objects in them."""

    objects: str | None = None
    """The column with each picture's objects: `{bbox, category}` (where masks are found, `{segmentation, category}`), lists
    of both or a list of such; by default one called `objects`, or the only one of that form."""
    labels: Strings | None = None
    """Names of the classes in the order of their numbers, where neither data nor teacher say it."""


class DetectionData(Objects):
    """Pictures with boxes around the objects in them: COCO's JSON, VOC's XML, YOLO's folders, or tables with lists of
    objects."""

    boxes: Literal["xywh", "xyxy"] = "xywh"
    """How that column writes a box in pixels: left, top, width, height (as COCO does), or left, top, right, bottom."""
