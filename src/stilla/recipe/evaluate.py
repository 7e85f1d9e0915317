"""Of a recipe: what is measured, as every task has it; and how texts are written, for the tasks that write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from stilla.errors import RecipeError, did_you_mean, one_of
from stilla.recipe.section import BATCH, BEAMS, EXAMPLES, TOKENS, Section, Strings

TEXT_METRICS: Mapping[str, str | None] = {
    "bleu": "sacrebleu", "chrf": "sacrebleu", "rouge1": "rouge_score", "rouge2": "rouge_score", "rougeL": "rouge_score",
    "exact_match": None, "wer": None, "cer": None,
}
"""Measures of written text, and the package that each needs."""


class Generation(Section):
    """How texts are written when models are measured on them, and by what they are judged."""

    max_new_tokens: int = Field(128, ge=1, le=TOKENS)
    """A text that has no end by then is cut there."""
    num_beams: int = Field(1, ge=1, le=BEAMS)
    """1 is greedy; more search wider and take as many times as long."""
    batch_size: int | None = Field(None, ge=1, le=BATCH)
    """Texts written at a time; by default `evaluate.batch_size`."""
    metrics: Strings | None = None
    """bleu, chrf, rouge1, rouge2, rougeL, exact_match, wer, cer, or `package.module:function` of (texts, references) that
    gives one number per text, higher being better. `[]` writes nothing. By default what fits the task."""
    limit: int | None = Field(None, ge=1, le=EXAMPLES)
    """Write texts for so many examples of each split only, evenly spread over it."""

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in TEXT_METRICS and ":" not in name:
                raise ValueError(f"got {name!r}; expected {one_of(list(TEXT_METRICS))}, or package.module:function."
                                 f"{did_you_mean(name, TEXT_METRICS)}")
        if names is not None and len(set(names)) != len(names):
            raise ValueError(f"the same metric twice: {one_of(names)}")
        return names


class Reasons(Section):
    """Whether a student's answers rest on what its teacher's do, by integrated gradients."""

    examples: int = Field(100, ge=1, le=EXAMPLES)
    """Of the headline split, evenly spread over it."""
    steps: int = Field(32, ge=2, le=1_000)
    """Points between nothing and an example at which gradients are taken; each costs a forward and a backward."""
    ceiling: bool = True
    """Train the teacher once more with another seed, where the recipe trains it, to see how far two teachers agree."""


def _number(value: object) -> object:
    return {"examples": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Evaluate(Section):
    """What is measured, and what is trained for the comparison."""

    baseline: bool = False
    """Also train the same student from the same start, for the same steps, on labels alone, and keep the pass that is best on
    validation data."""
    seeds: int = Field(1, ge=1, le=1000)
    """Train student and baseline so many times, each time in another order of the data (and from other random weights,
    where some are), and report the spread."""
    metric: str | None = None
    """The headline metric; by default the task's first."""
    batch_size: int = Field(32, ge=1, le=BATCH)
    """Examples per batch when measuring quality and throughput."""
    slices: Strings = ()
    """Columns of the data by whose values the headline metric is measured apart (`language`, `[source, length]`)."""
    resamples: int = Field(1000, ge=100, le=1_000_000)
    """Bootstrap resamples behind every interval."""
    speed: bool = True
    """Measure latency and throughput."""
    watts: float | None = Field(None, gt=0, le=1_000_000)
    """What this machine draws at work, for energies where it has no counter that can be read (RAPL, NVML)."""
    saliency: Annotated[Reasons, BeforeValidator(_number, json_schema_input_type=int | Reasons)] | None = None
    """Measure on so many examples whether answers rest on what the teacher's do, `100`, or
    `{examples: 100, steps: 32, ceiling: false}`; for classes, labels and numbers of texts, pictures and sounds, tags of words
    and pieces of passages."""

    @property
    def writing(self) -> Generation | None:
        """How texts are written to measure them; None where none are."""
        return None

    def with_writing(self, writing: Generation) -> Evaluate:
        """The same with this said about writing.

        Raises:
            RecipeError: the task declares no section that can say it.
        """
        raise RecipeError("task: its models write, but its `evaluate_section` cannot say how; expected a subclass of "
                          "stilla.tasks.language.sections.WritingEvaluate.")
