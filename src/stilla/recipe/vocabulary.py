"""Of a recipe: how much of its teacher's vocabulary a student keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from stilla.recipe.section import Section, Strings

TOKENS = 100_000_000
"""Bound of what is counted in tokens of a vocabulary."""


class VocabularySpec(Section):
    """Which of the tokens a student keeps. Special and added tokens, and the characters (or bytes) that keep every text
    readable, stay in any case."""

    data: bool = True
    """Those that the texts use which the student learns from."""
    languages: Annotated[Strings, Field(min_length=1)] | None = None
    """Those that the frequent words of these languages use, `[en, de]`; needs wordfreq."""
    extra: int = Field(0, ge=0, le=TOKENS)
    """So many more, the first by their numbers: tokenizers number the frequent ones first."""
    tokens: int | None = Field(None, ge=1, le=TOKENS)
    """So many in all: the most used first, then the first by their numbers. Where not all have room that the texts use, these
    are read in smaller pieces, by the teacher too."""

    @model_validator(mode="after")
    def _something(self) -> VocabularySpec:
        if self.tokens is not None and self.extra:
            raise ValueError(f"got tokens: {self.tokens} and extra: {self.extra}; expected one of both: tokens is how many "
                             "there are in all, filled up with the first by their numbers")
        if not self.data and self.languages is None and not self.extra and self.tokens is None:
            raise ValueError("got data: false and nothing else; expected languages, extra or tokens beside it, or only "
                             "characters would be left")
        return self


def _long_form(value: object) -> object:
    if isinstance(value, str):
        if value != "data":
            raise ValueError(f"got {value!r}; expected data, or which tokens and how many: {{extra: 4000}}, {{tokens: 8000}} "
                             "or {languages: [en]}")
        return VocabularySpec()
    return value


SmallerVocabulary = Annotated[
    VocabularySpec, BeforeValidator(_long_form, json_schema_input_type=Literal["data"] | VocabularySpec)]
"""`data` is the short form of it all by default."""
