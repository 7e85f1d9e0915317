"""Of a recipe: the examples, as every task has them. What else `data` may say is a section that the task declares."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stilla.recipe.paths import PathName
from stilla.recipe.section import EXAMPLES, Section


class Split(Section):
    """Where validation or test data come from when they have no file of their own."""

    split: float | None = Field(None, gt=0, lt=1)
    """Fraction of the training data that is taken away for it (seeded, and by class where there are some)."""
    name: str | None = None
    """Name of a split of the Hugging Face dataset, for example `validation_matched`."""

    @model_validator(mode="after")
    def _one(self) -> Split:
        if (self.split is None) == (self.name is None):
            raise ValueError("expected one of {split: fraction} or {name: split of the dataset}")
        return self


class Data(Section):
    """The examples: files, folders or a Hugging Face dataset; which columns; what to do with bad ones.

    Tasks subclass it with the fields that only they have. What is asked of the data of any task goes through the
    properties, which the sections with such fields answer.
    """

    train: PathName
    """A file (csv, tsv, jsonl, json, parquet, arrow, txt), a folder (of such files, or of images by class) or a Hugging
    Face dataset."""
    validation: PathName | Split | None = None
    """A file, a folder or `{split: 0.1}`; by default the dataset's own, else a tenth of the training data."""
    test: PathName | Split | None = None
    """A file, a folder or `{split: 0.1}`; by default the dataset's own, else none."""
    config: str | None = None
    """Configuration of a Hugging Face dataset (`sst2` of `glue`)."""
    revision: str | None = None
    """Revision of a Hugging Face dataset."""
    limit: int | None = Field(None, ge=1, le=EXAMPLES)
    """Use only so many training examples, drawn at random."""
    broken: Literal["refuse", "skip"] = "refuse"
    """Examples that cannot be read (broken images, empty texts): stop and name them, or leave them out."""

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        """Where the labels stand by which draws are stratified; None leaves it to the columns' names."""
        return None

    @property
    def label_is_amount(self) -> bool:
        """Whether the label is said to be an amount: nothing to stratify draws by."""
        return False

    @property
    def text_unit(self) -> Literal["paragraph", "line", "file"]:
        """What one example is in a file of plain text."""
        return "paragraph"
