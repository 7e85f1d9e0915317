"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from stilla.recipe import Data, Strings
from stilla.recipe.data import TextUnit
from stilla.recipe.paths import PathName
from stilla.recipe.rows import WordRows
from stilla.recipe.section import TEMPERATURE, TOKENS, Section
from stilla.tasks.shared.sections import Classified, Texts
from stilla.tasks.text.usage import AT_THE_LAST, ENTITIES


class Contextual(Section):
    """How words of training texts give way to those that a masked language model puts in their place."""

    kind: Literal["contextual"]
    """What is done; there is this one kind."""
    model: PathName
    """A folder or a Hugging Face name of a masked language model with its (fast) tokenizer; any, whatever teacher and student
    read."""
    share: float = Field(0.75, gt=0, le=1)
    """Of the texts that are changed in a pass."""
    rate: float = Field(0.4, gt=0, le=1)
    """Of a changed text's words that are replaced."""
    top: int = Field(15, ge=1, le=1_000)
    """So many words are proposed for the place of one, the likeliest beside itself."""
    temperature: float = Field(1.0, gt=0, le=TEMPERATURE)
    """Of the draw among them: below 1 the likeliest more often."""
    revision: str | None = None
    """Revision of a Hugging Face model."""


class TextClassificationData(Classified, Texts):
    """Texts, or pairs of texts, with a class, several labels, or a number."""

    text: Strings | None = None
    """The text's column, or two for sentence pairs; only where the names do not say it themselves."""
    augment: Literal["auto", "none", "light"] | Contextual = "auto"
    """`light` replaces some tokens by similar ones in three of four training texts, drawn at random; such a text then has
    no label, only the teacher's answer. `auto` is `light` for single texts and a student that is cut from its teacher, or
    made by `config` for classes, else `none`. Or `{kind: contextual, model: ...}`: words that a masked language model puts
    there."""
    clean_passes: int | None = Field(None, ge=0, le=100_000)
    """So many passes over the training texts come first in which none is replaced; by default 3 where `auto` has chosen
    `light`, else 0."""


WORDS = ("tokens", "words", "forms", "tokenized_text", "token", "word", "form")
TAGS = ("tags", "tag", "ner_tags", "pos_tags", "labels", "label", "ner", "pos", "upos", "xpos")
SPANS = ("entities", "spans", "labels", "label", "annotations", "ner")
"""What people call the columns of words, of tags, and of spans."""
LABEL_OF_SPAN = ("label", "type", "tag", "entity", "entity_group", "entity_type", "class", "labels")
_ENTITY = re.compile(r"[BIESLU]-(.+)")


class TokenClassificationData(Data):
    """Words with a tag each: parts of speech, or entities."""

    tokens: str | None = None
    """The column with a list of words; only where the names do not say it themselves."""
    tags: str | None = None
    """The column with a list of tags, one for every word; likewise."""
    sentence: str | None = None
    """The column with the number of a word's sentence, where a row is a word; likewise."""
    text: str | None = None
    """The column of texts, where entities are said as `spans` of characters; likewise."""
    spans: str | None = None
    """The column with lists of entities in `text`: `[start, end, label]` or `{start, end, label}`, in characters; beside
    `tokens`, of the first word and the last."""
    span_ends: Literal["last", "behind"] | None = None
    """What the end of a span of words is: its last word, or the one behind it. By default `last` where the training data have
    a span that ends where it begins."""
    words: Literal["words", "spaces", "characters"] = "words"
    """What a text is cut into, at whose borders spans have to begin and end: runs of letters and digits (every other
    character is a word of its own), what stands between spaces, or characters."""
    scheme: Literal["iob1", "iob2", "bioes", "io", "none"] | None = None
    """How tags say which words are an entity; `none` where every word has a tag for itself. By default as the tags are
    written."""
    labels: Strings | None = None
    """Names of the tags in the order of their numbers; of spans, which there are."""
    answers: Literal["first", "last"] = "first"
    """Which of its tokens answers for a word. Of a causal decoder only the last has seen all of it."""
    max_length: int | None = Field(None, ge=3, le=TOKENS)
    """Tokens that are read at once; longer examples are read in several windows. By default what both models can read, at
    most 512."""
    overlap: float = Field(0.25, ge=0, lt=1)
    """Which part of a window stands in the one before it too. A word is answered where more stands around it."""

    @property
    def use(self) -> str:
        if self.answers == "last":
            return AT_THE_LAST
        return "" if self.scheme == "none" else ENTITIES  # a pipeline would join words of one tag

    @property
    def label_columns(self) -> tuple[str, ...]:
        """None is of whole examples."""
        return ()

    @property
    def columns_within(self) -> tuple[str, ...]:
        named = self.tags or self.spans
        return (named,) if named is not None else SPANS + TAGS if self.text is not None else TAGS + SPANS

    def classes_within(self, value: Any, names: Sequence[str] | None) -> frozenset[str]:
        """Types of entities, however their tags are written; or tags, where each is its word's own."""
        names = self.labels or names
        said = {_said(one, names) for one in value or ()} - {"", "O"}
        return frozenset(said if self.scheme == "none" else
                         (found[1] if (found := _ENTITY.fullmatch(one)) else one for one in said))

    @property
    def text_unit(self) -> TextUnit:
        return "columns"

    @property
    def word_rows(self) -> WordRows | None:
        return None if self.text is not None else WordRows(self.sentence, self.tokens, WORDS)

    @property
    def cells(self) -> tuple[str, ...]:
        named = [one.lower() for one in (self.tokens, self.tags) if one is not None]
        return () if self.text is not None else (*named, *WORDS, *TAGS)


class QuestionAnsweringData(Data):
    """Questions and passages in which their answers stand."""

    context: str = "context"
    """The column of passages."""
    question: str = "question"
    """The column of questions."""
    answers: str = "answers"
    """The column of answers: `{text: [...], answer_start: [...]}`, or a list of `{text, answer_start}`, in characters; empty
    where the passage does not answer the question."""
    max_length: int = Field(384, ge=8, le=4096)
    """Tokens of question and passage that are read at once; of a longer passage several windows are."""
    overlap: float = Field(0.33, ge=0, lt=1)
    """Which part of a window stands in the one before it too. An answer that fits into it stands whole in a window."""
    longest_answer: int = Field(30, ge=1, le=1000)
    """Tokens of the longest answer that is given."""
    language: Literal["en", "ar", "de", "es", "hi", "vi", "zh"] = "en"
    """By whose rules answers are compared: which articles and marks do not count, and what a word is."""

    @property
    def label_columns(self) -> tuple[str, ...]:
        """None that draws could be stratified by."""
        return ()


def _said(one: Any, names: Sequence[str] | None) -> str:
    """The label of a word, or of a span."""
    if isinstance(one, Mapping):
        one = next((one[name] for name in LABEL_OF_SPAN if one.get(name) is not None), "")
        one = one[0] if isinstance(one, list) and len(one) == 1 else one
    elif isinstance(one, list | tuple):
        one = one[2] if len(one) > 2 else ""
    if isinstance(one, int) and names is not None and 0 <= one < len(names):
        return names[one]
    return "" if one is None else str(one)
