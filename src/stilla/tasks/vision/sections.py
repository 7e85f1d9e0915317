"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from typing import Literal

from stilla.tasks.shared.sections import Classified, Pictures


class ImageClassificationData(Classified, Pictures):
    """Pictures with a class, several labels, or a number."""

    augment: Literal["auto", "none", "light"] = "auto"
    """`light` changes training pictures at random, the same for teacher and student: crops, brightness and contrast (no
    flips, as not every picture may be mirrored). `auto` is `none`."""
