"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stilla.recipe import Strings
from stilla.tasks.shared.sections import Classified, Texts


class TextClassificationData(Classified, Texts):
    """Texts, or pairs of texts, with a class, several labels, or a number."""

    text: Strings | None = None
    """The text's column, or two for sentence pairs; only where the names do not say it themselves."""
    augment: Literal["auto", "none", "light"] = "auto"
    """`light` replaces some tokens by similar ones in three of four training texts, drawn at random; such a text then has
    no label, only the teacher's answer. `auto` is `light` for classes of single texts and a student cut from the teacher's
    layers, else `none`."""
    clean_passes: int | None = Field(None, ge=0, le=100_000)
    """So many passes over the training texts come first in which none is replaced; by default 3 where `auto` has chosen
    `light`, else 0."""
