"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from stilla.errors import all_of
from stilla.recipe import Strings
from stilla.recipe.listed import Listed
from stilla.recipe.paths import PathName
from stilla.recipe.section import Section, as_tuple
from stilla.tasks.shared.sections import Documents, Texts

Number = Annotated[float, Field(ge=-1_000_000, le=1_000_000)]


class Negatives(Section):
    """What does not answer a query, found by the teacher, or by another model, among the documents of the training data."""

    mined: int = Field(7, ge=1, le=1000)
    """How many documents for every query: those whose vectors are nearest to its own, and that do not answer it."""
    after: int = Field(0, ge=0, le=1_000_000)
    """So many of the nearest are passed over first: among them are most of those that answer, and nobody has marked."""
    below: float = Field(0.95, ge=0, le=10)
    """Documents nearer to the query than this share of how near its answer is are passed over: they may answer it too."""
    by: PathName | None = None
    """A model of vectors that finds them: a folder or a Hugging Face name; by default the teacher, where it has vectors."""


class EmbeddingData(Documents):
    """Texts, pairs of texts, queries with what answers them, or folders for search."""

    text: Strings | None = None
    """The text's column; two for pairs; three or more for a query, what answers it, and what does not. Only where the names
    do not say it themselves."""
    score: str | None = None
    """The column with how alike the two texts of a pair are."""
    score_range: Annotated[tuple[Number, Number] | None, BeforeValidator(as_tuple)] = None
    """The scores of nothing alike and of the same; by default 0 and 1, if all lie between."""
    document: Literal["paragraph", "line", "file"] = "line"
    """What is one text in files of plain text (txt); paragraphs are separated by empty lines."""
    pooling: Literal["mean", "first", "last", "max"] | None = None
    """How tokens become a vector, where the teacher's folder does not say it; `first` is the CLS token."""
    normalise: bool | None = None
    """Whether vectors have length 1, likewise; by default they have."""
    prompts: Mapping[str, str] = Field(default_factory=dict)
    """What stands before a text, in place of what the folders say: `{query: "query: ", document: "passage: "}`, `default` of
    texts of no kind."""
    dimensions: int | None = Field(None, ge=1, le=1_000_000)
    """Numbers of the student's vectors, fewer than the teacher's; by default as many."""
    matryoshka: Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], BeforeValidator(as_tuple)] = ()
    """So many numbers at the beginning of the student's vectors serve by themselves: `[64, 128]`. They are learnt, if a
    recipe names no objectives, and measured."""
    documents: Literal["student", "teacher"] = "student"
    """Whose vectors documents have where queries are searched: with `teacher`, an index of the teacher's vectors stays,
    and the student reads queries alone; its vectors have as many numbers."""
    negatives: Negatives | None = None
    """What does not answer a query, found by the teacher: `{mined: 7, after: 0, below: 0.95}`, or `by` another model; they
    stand beside those that the data have. By default none is looked for."""
    scale: float = Field(20.0, gt=0, le=1_000_000)
    """What similarities are multiplied by where candidates are told apart (a softmax over them)."""

    @field_validator("matryoshka")
    @classmethod
    def _rising(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if list(sizes) != sorted(set(sizes)):
            raise ValueError(f"got {list(sizes)}; expected each once, the smallest first")
        return sizes

    @property
    def use(self) -> str:
        if self.documents == "student":
            return ""
        return ("It reads queries. Documents are found by the vectors of its teacher, among which its own were "
                "measured: keep the "
                "teacher's index, and let this model read what is asked (`encode_query`).\n\n")

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        return ()  # a score is an amount

    @property
    def listed(self) -> Listed:
        return Listed("columns")


class Asking(Section):
    """How a language model is asked whether a text answers a query."""

    template: str = Field(max_length=100_000)
    """The prompt, with `{query}` and `{document}` in it, once each, as its model card has it; it ends where the answer
    begins."""
    yes: str = "yes"
    """The answer that a text is relevant: one token."""
    no: str = "no"
    """The answer that it is not."""

    @field_validator("template")
    @classmethod
    def _has_both(cls, template: str) -> str:
        counts = {name: template.count(name) for name in ("{query}", "{document}")}
        if wrong := [f"{name} {count} times" for name, count in counts.items() if count != 1]:
            raise ValueError(f"has {all_of(wrong)}; expected {{query}} and {{document}}, once each")
        return template


class RerankingData(Texts):
    """Queries with candidates: pairs, triples, lists, or a folder for search with what a first search has found."""

    text: Strings | None = None
    """The query's column and the candidate's (a text, or a list of texts); three or more for a query, what answers it, and
    what does not. Only where the names do not say it themselves."""
    score: str | None = None
    """The column with how well a candidate answers (of lists, a list): whole numbers are grades, of which those above 0
    answer; other numbers are scores, learnt as they are. Likewise."""
    grades: Mapping[str, Number] = Field(default_factory=dict)
    """What words in that column stand for: `{relevant: 2, partly: 1, irrelevant: 0}`."""
    candidates: int = Field(8, ge=1, le=10_000)
    """How many of a query's candidates stand together in training, and are compared; a query with more is read in several
    parts, each with candidates from all over its list. All are measured together."""
    asking: Asking | None = None
    """Of a teacher that is a language model: `{template: "... {query} ... {document} ...", yes: yes, no: no}`; its score
    is by how much the logit of yes is above that of no."""

    @property
    def label_columns(self) -> tuple[str, ...] | None:
        return ()  # a grade is an amount

    @property
    def listed(self) -> Listed:
        return Listed("lists", self.text or ())
