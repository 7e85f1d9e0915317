"""What the sections of several tasks share: texts, pictures, labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from stilla.recipe import Data, Strings
from stilla.recipe.section import TOKENS, Section, as_tuple

Scaled = Annotated[tuple[float, Annotated[float, Field(gt=0)]], BeforeValidator(as_tuple)]
"""A mean and a standard deviation; a list, as YAML has it."""


class Labelled(Data):
    """Of examples with a class, several labels, or a number."""

    label: Strings | None = None
    """The label's column; several columns of 0 and 1 mean several labels per example, of other numbers several numbers."""
    labels: Strings | None = None
    """Names of the labels in the models' order, where neither data nor teacher say it."""
    kind: Literal["single_label", "multi_label", "regression"] | None = None
    """What the label is, where the values leave it open (whole numbers may be classes or amounts)."""

    label_separator: str | None = Field(None, min_length=1, max_length=8)
    """What stands between the names of several labels in one text (`a;b`); it alone (`;`) where none of them applies."""
    label_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0, le=1e6)]] | None = None
    """What the labels count in training, by their names; those that are not named count 1. `balanced`: the rarer a class is,
    the more. Of several labels, what it counts that an example has the label."""

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        return self.label

    @property
    def label_is_amount(self) -> bool:
        return self.kind == "regression"

    @property
    def between_labels(self) -> str | None:
        return self.label_separator


class Classified(Labelled):
    """Of whole examples with a class, several labels, or a number, that may be changed at random."""

    augment: Literal["auto", "none", "light", "strong"] | Section = "auto"
    """`light` changes training examples at random, the same for teacher and student; `auto` leaves it to the task."""
    thresholds: Literal["half", "tuned"] = "half"
    """Of several labels, from which probability on one applies: a half, or for each label where its F1 on validation data is
    highest, which is saved in the model's config (`thresholds`)."""
    label_scale: dict[str, Scaled] | None = None
    """Of numbers to predict, by the name of their column, the mean and the standard deviation in whose units they are learnt
    (`{price: [10000, 1000]}`); by default those of the training data. Answers and scores are in the data's own units."""
    views: int | None = Field(None, ge=1, le=1000)
    """Draw so many changed forms of every training example once, whatever the seed; passes take them in turn, so that the
    teacher's answers can be stored. By default every pass draws new ones."""

    @model_validator(mode="after")
    def _views_of_what_changes(self) -> Classified:
        if self.views is not None and self.augment == "none":
            raise ValueError("views: they are of examples that change, and augment is none; leave one of both out")
        return self


class Texts(Data):
    """Of texts."""

    text: Strings | None = None
    """The text's column; only where the names do not say it themselves."""
    max_length: int | None = Field(None, ge=2, le=TOKENS)
    """Longest text in tokens; longer ones are cut. By default what both models can read, at most 512."""


class Documents(Texts):
    """Of texts that may come as files of plain text."""

    document: Literal["paragraph", "line", "file"] = "paragraph"
    """What is one document in files of plain text (txt); paragraphs are separated by empty lines."""

    @property
    def text_unit(self) -> Literal["paragraph", "line", "file"]:
        return self.document

    @property
    def unlabelled_unit(self) -> Literal["paragraph", "line", "file"]:
        said = None if self.unlabelled is None else self.unlabelled.document
        return said or self.document


class Pictures(Data):
    """Of pictures."""

    image: str | None = None
    """The image's column: pictures, or names of files beside the table."""

    @property
    def text_unit(self) -> Literal["picture"]:
        return "picture"

    @property
    def unlabelled_unit(self) -> Literal["paragraph", "line", "file", "picture"]:
        said = None if self.unlabelled is None else self.unlabelled.document
        return said or "picture"
