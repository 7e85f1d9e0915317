"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from pydantic import field_validator

from stilla.recipe import Strings
from stilla.tasks.shared.sections import Pictures, Texts

LABEL = "{label}"


class ImageTextData(Pictures, Texts):
    """Pictures with captions, or with a class that captions are made of."""

    text: Strings | None = None
    """The captions' column, or several: a text each, or a list of texts of which each describes the picture. Only where the
    names do not say it themselves."""
    label: str | None = None
    """The column with a picture's class, by name: what zero-shot classification is measured on. Likewise."""
    template: Strings = ("a photo of a {label}",)
    """Texts made of a class, one or several; where pictures have no captions, they are learnt too. The vectors of several are
    averaged to classify."""

    @field_validator("template")
    @classmethod
    def _names_the_class(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for one in given:
            if one.count(LABEL) != 1 or one.replace(LABEL, "").count("{") or one.replace(LABEL, "").count("}"):
                raise ValueError(f"got {one!r}; expected a text with {LABEL} where the class stands, and no other braces")
        return given

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        return None if self.label is None else (self.label,)
