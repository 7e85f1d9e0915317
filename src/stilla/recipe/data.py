"""Of a recipe: the examples, as every task has them. What else `data` may say is a section that the task declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from stilla.recipe.events import Events
from stilla.recipe.generating import Generate
from stilla.recipe.listed import Listed
from stilla.recipe.paths import PathName
from stilla.recipe.rows import WordRows
from stilla.recipe.section import EXAMPLES, Section, as_tuple

TextUnit = Literal["paragraph", "line", "file", "columns", "sound", "picture"]
"""What one example is in a `.txt` file; `columns`: a sentence, whose words stand in columns with their tags; `sound` and
`picture`: none, as rows are (or have) sounds or pictures, which files and folders name."""


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"got {twice[0]!r} twice; expected a name for each column")
    return names


Header = Annotated[tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ...], Field(min_length=1),
                   BeforeValidator(lambda value: (value,) if isinstance(value, str) else as_tuple(value)),
                   AfterValidator(_distinct)]


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


class PerClass(Section):
    """How many labels a student gets, class by class: what stays of the training data."""

    per_class: int = Field(ge=1, le=EXAMPLES)
    """So many examples of each class, drawn with the recipe's seed, the same on every machine; of a class with fewer, all.
    Those of a smaller number are among those of a larger one. Where examples have several labels, or tags, so few that each
    class has as many."""
    draw: int = Field(0, ge=0, le=1_000_000)
    """Which draw: `1`, `2` ... are others, of the same training, validation and test data."""


class Unlabelled(Section):
    """Examples that nobody has labelled: only the teacher says what they are. What stands in them as a label is not read.

    In short a name, or several: `unlabelled: more.txt`, `unlabelled: [a.csv, b/]`.
    """

    examples: Annotated[tuple[PathName, ...], BeforeValidator(
        lambda value: (value,) if isinstance(value, str) else as_tuple(value))] = ()
    """Files, folders and Hugging Face datasets, as for `train`; they may be missing only with `rest` or `generate`."""
    rest: bool = False
    """Also, or alone, what `data.limit` leaves of the training data, without its labels."""
    generate: Generate | None = None
    """Also, or alone, texts that a language model writes like those of the data."""
    config: str | None = None
    """Configuration of the Hugging Face datasets among them; by default `data.config` for that of `train`."""
    revision: str | None = None
    """Revision of them, likewise."""
    split: str | None = None
    """Which of a dataset's splits; by default one called `unlabelled` or `unsupervised`, else `train`."""
    document: Literal["paragraph", "line", "file"] | None = None
    """What is one example in files of plain text; by default a line, where there is `data.document`, as it says."""
    header: Header | None = None
    """Names of the columns of CSV and TSV files among them whose first line is an example, as in `data.header`."""
    columns: Mapping[str, str] = Field(default_factory=dict)
    """How columns are called there, by their names in the labelled data: `{text: body}`. By default alike, or where only one
    can be meant."""
    limit: int | None = Field(None, ge=1, le=EXAMPLES)
    """Use only so many of the examples that are named, drawn at random."""
    overlap: Literal["skip", "refuse"] = "skip"
    """What stands in validation or test data too (the same text, eight words in a row, or the same picture): leave it out,
    or stop."""
    min_confidence: float | None = Field(None, ge=0, le=1)
    """Leave out what the teacher is less sure of: the probability of its likeliest class, the mean of several labels."""
    max_entropy: float | None = Field(None, ge=0, le=100)
    """Leave out where the teacher's distribution has a higher entropy, in nats."""
    near: float | None = Field(None, gt=0, le=1)
    """Leave out what is farther from the centre of the labelled examples than this share of them is, by the teacher's last
    hidden states: `0.95` keeps what lies as near as 95 % of them."""
    keep: str | None = None
    """`package.module:function` of (example, what the teacher says of it) that says whether to keep it."""

    @model_validator(mode="after")
    def _some(self) -> Unlabelled:
        if not self.examples and not self.rest and self.generate is None:
            raise ValueError("examples are missing; expected files, folders or Hugging Face datasets, `rest: true` for what "
                             "data.limit leaves of the training data, or `generate: {model: ...}` for what one writes")
        return self


def _unlabelled_in_short(value: object) -> object:
    return {"examples": value} if isinstance(value, str | list | tuple) else value


class Named(Section):
    """A split of the Hugging Face dataset (or folder) that `train` names."""

    name: str
    """Its name, for example `validation_mismatched`."""


def _by_name(value: object) -> object:
    """A single path under its own name."""
    return {Path(value).stem: value} if isinstance(value, str) else value


class Data(Section):
    """The examples: files, folders or a Hugging Face dataset; which columns; what to do with bad ones.

    Tasks subclass it with the fields that only they have. What is asked of the data of any task goes through the
    properties, which the sections with such fields answer.
    """

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["train"]}, {"required": ["unlabelled"]}]})

    train: PathName | None = None
    """A file (csv, tsv, jsonl, json, parquet, arrow, txt; conll, conllu, iob2; inter), a folder (of such files, or of images
    by class) or a Hugging Face dataset. Only with `unlabelled` it may be missing."""
    validation: PathName | Split | None = None
    """A file, a folder or `{split: 0.1}`; by default the dataset's own, else a tenth of the training data."""
    test: PathName | Split | None = None
    """A file, a folder or `{split: 0.1}`; by default the dataset's own, else none."""
    unlabelled: Annotated[Unlabelled | None, BeforeValidator(
        _unlabelled_in_short, json_schema_input_type=Unlabelled | str | list[str] | None)] = None
    """Examples without labels, for which the teacher alone answers: files, folders or datasets, and which of them to use."""
    shifted: Annotated[Mapping[Annotated[str, Field(pattern=r"^\w[\w .-]{0,59}$")], PathName | Named],
                       BeforeValidator(_by_name)] = Field(default_factory=dict)
    """Data from elsewhere by name, measured beside the test data and never trained on: `{typos: typos.csv, other: {name:
    validation_mismatched}}`, or one file."""
    config: str | None = None
    """Configuration of a Hugging Face dataset (`sst2` of `glue`)."""
    revision: str | None = None
    """Revision of a Hugging Face dataset."""
    header: Header | None = None
    """Names of the columns of CSV and TSV files whose first line is an example, and of `.dat` and `.data`: `[query, positive,
    negative]`. A file whose first line says just these, in whatever order, has a header. Those of `unlabelled` have their
    own."""
    limit: Annotated[int, Field(ge=1, le=EXAMPLES)] | PerClass | None = None
    """Use only so many training examples, drawn at random in the proportions of the classes; or `{per_class: 8}`, so many of
    each class (`draw: 1` for others)."""
    broken: Literal["refuse", "skip"] = "refuse"
    """Examples that cannot be read (broken images, empty texts): stop and name them, or leave them out."""

    @field_validator("limit", mode="before")
    @classmethod
    def _some_examples(cls, limit: object) -> object:
        if isinstance(limit, int) and limit < 1:  # of two forms, the words would be of both
            raise ValueError(f"got {limit}; expected at least 1")
        return limit

    @model_validator(mode="after")
    def _something_to_learn(self) -> Data:
        if self.unlabelled is not None and self.unlabelled.rest and (self.train is None or self.limit is None):
            raise ValueError("unlabelled.rest is what `limit` leaves of the labelled training data; expected `train`, and "
                             "`limit: 100` or `limit: {per_class: 8}`")
        if self.train is not None:
            return self
        if self.unlabelled is None:
            raise ValueError("train is missing; expected a file, a folder or a Hugging Face dataset, or `unlabelled` "
                             "examples for which the teacher alone answers")
        if not isinstance(self.validation, str):
            raise ValueError("there are no labelled training data that validation could be taken from; expected a file or "
                             "folder with labels, by which the student is measured, in `validation`")
        if isinstance(self.test, Split):
            raise ValueError("there are no labelled training data that test could be taken from; expected a file or folder")
        if self.unlabelled.generate is not None and self.unlabelled.generate.shown and not self.unlabelled.examples:
            raise ValueError("unlabelled.generate shows texts of the data, and there are none; expected `train`, "
                             "`unlabelled: {examples: ...}`, or `generate: {prompt: none}` with a model of such texts")
        if self.limit is not None:
            raise ValueError("limit is of the labelled training data, and there are none; expected `unlabelled: {limit: "
                             "...}`")
        return self

    @classmethod
    def example(cls) -> Mapping[str, Any]:
        """The least that it takes, for lists of what it may say."""
        return {"train": "reviews.csv"}

    @property
    def each(self) -> Mapping[str, Data]:
        """By name the data of every task that is learnt, where there are several."""
        return {}

    @property
    def told(self) -> Mapping[str, Mapping[str, Any]]:
        """By name what teachers of these read in place of their students, as `teacher.data` of a run of one."""
        return {}

    @property
    def tasks(self) -> Mapping[str, str]:
        """By name what every task is, where there are several."""
        return {}

    @property
    def by_name(self) -> Mapping[str, Data]:
        """By name the data of every task that is learnt; of a single one, which has no name, these."""
        return self.each or {"": self}

    @property
    def stores(self) -> Mapping[str, str]:
        """By name where what the teacher of a task says is stored, where a recipe says it apart from the others."""
        return {}

    @property
    def placed(self) -> Mapping[str, Data]:
        """The same by the place where a recipe has them."""
        return {f"data.parts.{name}.data" if name else "data": section for name, section in self.by_name.items()}

    @property
    def redrawn(self) -> bool:
        """Whether an epoch may have other examples than the one before."""
        return False

    @property
    def is_labelled(self) -> bool:
        """Whether there are labelled examples to learn from."""
        return self.train is not None or any(one.is_labelled for one in self.each.values())

    @property
    def named(self) -> str:
        """What is learnt from, in words; without labelled examples what is measured on."""
        if self.each:
            return ", ".join(one.named for one in self.each.values())
        return self.train or str(self.validation)

    @property
    def use(self) -> str:
        """What whoever uses a student has to know of how it was measured, as a paragraph of its model card; mostly
        nothing."""
        return ""

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        """Where the labels stand by which draws are stratified; None leaves it to the columns' names."""
        return None

    @property
    def label_is_amount(self) -> bool:
        """Whether the label is said to be an amount: nothing to stratify draws by."""
        return False

    @property
    def between_labels(self) -> str | None:
        """What stands between the names of several labels in one text; None where a text is one label."""
        return None

    @property
    def columns_within(self) -> tuple[str, ...]:
        """The columns that may say a class of each piece of an example (of a word, of a span), the likeliest first."""
        return ()

    def classes_within(self, value: Any, names: Sequence[str] | None) -> frozenset[str]:
        """The classes of an example's pieces, of which such a column holds `value`. `names`: of numbers in it."""
        return frozenset()

    @property
    def text_unit(self) -> TextUnit:
        """What one example is in a file of plain text."""
        return "paragraph"

    @property
    def events(self) -> Events | None:
        """How rows that are events become examples; None where a row is one."""
        return None

    @property
    def listed(self) -> Listed | None:
        """How rows that list what answers a query and what does not become examples; None where nobody reads such lists."""
        return None

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of columns, in lower case, whose cells hold lists, also where these are written as text."""
        return ()

    @property
    def word_rows(self) -> WordRows | None:
        """How rows that are words become sentences; None where nobody reads such rows."""
        return None

    @property
    def unlabelled_unit(self) -> Literal["paragraph", "line", "file", "sound", "picture"]:
        """The same of unlabelled examples."""
        said = None if self.unlabelled is None else self.unlabelled.document
        return said or "line"
