"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from pydantic import Field, field_validator

from stilla.recipe import Strings
from stilla.recipe.section import TOKENS
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


class ImageTextToTextData(Pictures):
    """Pictures with what is said of them: captions, answers to questions, or conversations about them."""

    completion: str | None = None
    """The column of what is learnt: a caption, or the answer to a question; a list of captions is learnt one by one. Only
    where the names do not say it themselves."""
    prompt: str | None = None
    """The column of what is asked about each picture, read and not learnt. Likewise."""
    instruction: str = ""
    """What is asked about every picture where no column asks (`Describe the picture.`): read with it, and not learnt."""
    messages: str | None = None
    """The column of conversations, lists of {role, content}, with the places of the pictures in them: the assistant's turns
    are learnt."""
    max_length: int | None = Field(None, ge=2, le=TOKENS)
    """Longest example in tokens, those that stand for pictures among them; longer ones are cut at the end, and left out where
    a picture or all that is learnt would be cut. By default what both models can read, at most 4096."""
