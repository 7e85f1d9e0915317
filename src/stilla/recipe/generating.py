"""Of a recipe: unlabelled texts that a language model writes, like those of the data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stilla.recipe.paths import PathName
from stilla.recipe.section import BATCH, EXAMPLES, TEMPERATURE, TOKENS, Section

SHOTS = 4
"""Texts of the data that are shown for every one that is written."""


class Generate(Section):
    """Unlabelled texts that a causal language model writes like the task's own, of which it sees no label (He et al. 2022,
    "Generate, annotate, and learn")."""

    model: PathName
    """A folder or a Hugging Face name of a causal language model with its tokenizer."""
    count: int = Field(10_000, ge=1, le=EXAMPLES)
    """How many texts are written; what is empty, there twice, a copy, or measured on is then left out."""
    prompt: Literal["data", "none"] = "data"
    """`data`: the model is shown some of the training texts, others for every text, and goes on with a further one; `none`:
    it writes from its beginning of text on, for a model that was trained on such texts."""
    shots: int | None = Field(None, ge=1, le=1_000)
    """How many texts it is shown; by default 4."""
    instruction: str | None = Field(None, min_length=1)
    """What it is told of them, before the first: `Questions that customers ask their bank.`"""
    chat: bool = False
    """Ask for the text in the model's own chat template, as a model does well that was trained to answer."""
    temperature: float = Field(1.0, gt=0, le=TEMPERATURE)
    """Of the draw of every token: below 1 texts are likelier and more alike."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw from the likeliest tokens alone that have this much of the probability together."""
    max_new_tokens: int = Field(64, ge=1, le=TOKENS)
    """Where a text is cut that has no end by then."""
    batch_size: int = Field(64, ge=1, le=BATCH)
    """Texts written at a time."""
    revision: str | None = None
    """Revision of a Hugging Face model."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of its weights."""

    @model_validator(mode="after")
    def _shown_something(self) -> Generate:
        if self.prompt == "none" and (self.shots is not None or self.instruction is not None or self.chat):
            raise ValueError("prompt: none shows the model nothing; leave shots, instruction and chat out, or take prompt: "
                             "data")
        return self

    @property
    def shown(self) -> int:
        """How many texts a prompt shows."""
        return 0 if self.prompt == "none" else self.shots or SHOTS
