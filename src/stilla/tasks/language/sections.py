"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from pydantic import Field

from stilla.recipe import Data, Evaluate, Generation
from stilla.recipe.section import TOKENS
from stilla.tasks.shared.sections import Documents, Texts


class Prompted(Texts):
    """Of texts, or of what is asked and its answers."""

    prompt: str | None = None
    """What the model is given: the column before `completion`, read and not learnt."""
    completion: str | None = None
    """What the model is to answer to the prompt: the column; an end of text is put after it."""
    context: str | None = None
    """What belongs to a prompt (`input` of Alpaca's data, `context` of Dolly's): both are written in Alpaca's words."""
    messages: str | None = None
    """The column of conversations, lists of {role, content}: the assistant's turns are learnt."""
    tools: str | None = None
    """The column of tools that a conversation offers, lists of JSON schemas: the chat template writes them. One called
    `tools` is found by itself."""


class CausalLMData(Documents, Prompted):
    """Plain texts, prompts with their completions, or conversations."""

    pack: bool | None = None
    """Several documents, kept apart, in one row of `max_length` tokens; by default for plain text."""


class MaskedLMData(Documents):
    """Plain texts, whose words are hidden."""

    mask: float = Field(0.15, gt=0, lt=1)
    """Fraction of the words (or tokens) that have to be predicted."""
    whole_words: bool = True
    """Whether all tokens of a word are masked together."""
    fresh_masks: bool = True
    """Whether every epoch masks other words. `false` masks the same ones each time, which lets a cache serve them."""


class Seq2SeqData(Data):
    """Texts with their translations or summaries."""

    source: str | None = None
    """What is translated or summarised: its column (`translation.en` within a column of pairs)."""
    target: str | None = None
    """Its translation or summary: the column."""
    max_length: int | None = Field(None, ge=2, le=TOKENS)
    """Longest source in tokens; longer ones are cut. By default what both models can read, at most 512."""
    max_target_length: int | None = Field(None, ge=2, le=TOKENS)
    """Longest target in tokens; longer ones are cut, without an end. By default as `max_length`."""
    prefix: str | None = None
    """Written before every source: T5's `translate English to German: `."""
    source_language: str | None = None
    """Its code, for tokenizers that know several (`en_XX` of mBART)."""
    target_language: str | None = None
    """Its code, likewise."""


class WritingEvaluate(Evaluate):
    """What is measured of models that write."""

    generation: Generation | None = None
    """Let the models write, and measure their texts; by default where that is the task (`seq2seq`)."""

    @property
    def writing(self) -> Generation | None:
        return self.generation

    def with_writing(self, writing: Generation) -> WritingEvaluate:
        return self.model_copy(update={"generation": writing})
