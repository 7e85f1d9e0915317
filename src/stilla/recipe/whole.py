"""The recipe: what a person asks for, as frozen sections with every default in one place.

Reading a recipe needs neither torch nor the network; what only code can know (an objective's options, a
model's layers) is checked by `check/`. The fields' docstrings are what resolved recipes and the JSON schema
show. `recipe/file.py` reads and writes recipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from stilla.errors import did_you_mean, one_of
from stilla.recipe.learning import Cache, Completions, ObjectiveSpec, Stage
from stilla.recipe.models import Dropout, Layers, Lora, ModelSource, StudentSpec, Teacher, Training
from stilla.recipe.section import Scheduled, Section, Strings, as_tuple

__all__ = [
    "TEXT_METRICS",
    "Cache",
    "Completions",
    "Data",
    "Dropout",
    "Evaluate",
    "Generation",
    "Layers",
    "Lora",
    "ModelSource",
    "ObjectiveSpec",
    "Recipe",
    "Scheduled",
    "Section",
    "Split",
    "Stage",
    "Strings",
    "StudentSpec",
    "Teacher",
    "Training",
    "long_form",
]


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
    """The examples: files, folders or a Hugging Face dataset; which columns; what to do with bad ones."""

    train: str
    """A file (csv, tsv, jsonl, json, parquet, txt), a folder (of such files, or of images by class) or a Hugging
    Face dataset."""
    validation: str | Split | None = None
    """A file, a folder or `{split: 0.1}`; by default the dataset's own, else a tenth of the training data."""
    test: str | Split | None = None
    """A file, a folder or `{split: 0.1}`; by default the dataset's own, else none."""
    config: str | None = None
    """Configuration of a Hugging Face dataset (`sst2` of `glue`)."""
    revision: str | None = None
    """Revision of a Hugging Face dataset."""
    text: Strings | None = None
    """The text's column, or two for sentence pairs; only where the names do not say it themselves."""
    prompt: str | None = None
    """What a causal language model is given: the column before `completion`, read and not learnt."""
    completion: str | None = None
    """What a causal language model is to answer to the prompt; an end of text is put after it."""
    messages: str | None = None
    """The column of conversations, lists of {role, content}: the assistant's turns are learnt."""
    document: Literal["paragraph", "line", "file"] = "paragraph"
    """What is one document in files of plain text (txt); paragraphs are separated by empty lines."""
    pack: bool | None = None
    """Several documents, kept apart, in one row of `max_length` tokens; by default for plain text and a causal model."""
    mask: float = Field(0.15, gt=0, lt=1)
    """Fraction of the words (or tokens) that a masked language model has to predict."""
    whole_words: bool = True
    """Whether all tokens of a word are masked together."""
    fresh_masks: bool = True
    """Whether every epoch masks other words. `false` masks the same ones each time, which lets a cache serve them."""
    image: str | None = None
    """The image's column."""
    label: Strings | None = None
    """The label's column; several columns of 0 and 1 mean several labels per example."""
    labels: Strings | None = None
    """Names of the labels in the models' order, where neither data nor teacher say it."""
    kind: Literal["single_label", "multi_label", "regression"] | None = None
    """What the label is, where the values leave it open (whole numbers may be classes or amounts)."""
    max_length: int | None = Field(None, ge=2)
    """Longest text in tokens; longer ones are cut. By default what both models can read, at most 512."""
    source: str | None = None
    """What is translated or summarised: its column (`translation.en` within a column of pairs)."""
    target: str | None = None
    """Its translation or summary: the column."""
    max_target_length: int | None = Field(None, ge=2)
    """Longest target in tokens; longer ones are cut, without an end. By default as `max_length`."""
    prefix: str | None = None
    """Written before every source: T5's `translate English to German: `."""
    source_language: str | None = None
    """Its code, for tokenizers that know several (`en_XX` of mBART)."""
    target_language: str | None = None
    """Its code, likewise."""
    augment: Literal["auto", "none", "light"] = "auto"
    """`light` changes training examples at random, the same for teacher and student: crops,
    brightness and contrast of images (no flips, as not every picture may be mirrored); in three of four texts some
    tokens give way to similar ones, and such a text then has no label, only the teacher's answer. `auto` is `light`
    for the classes of texts and a student cut from the teacher's layers, else `none`."""
    broken: Literal["refuse", "skip"] = "refuse"
    """Examples that cannot be read (broken images, empty texts): stop and name them, or leave them out."""
    limit: int | None = Field(None, ge=1)
    """Use only so many training examples, drawn at random."""


TEXT_METRICS: Mapping[str, str | None] = {
    "bleu": "sacrebleu", "chrf": "sacrebleu", "rouge1": "rouge_score", "rouge2": "rouge_score", "rougeL": "rouge_score",
    "exact_match": None,
}
"""Measures of written text, and the package that each needs."""


class Generation(Section):
    """How texts are written when models are measured on them, and by what they are judged."""

    max_new_tokens: int = Field(128, ge=1)
    """A text that has no end by then is cut there."""
    num_beams: int = Field(1, ge=1)
    """1 is greedy; more search wider and take as many times as long."""
    batch_size: int | None = Field(None, ge=1)
    """Texts written at a time; by default `evaluate.batch_size`."""
    metrics: Strings | None = None
    """bleu, chrf, rouge1, rouge2, rougeL, exact_match, or `package.module:function` of (texts, references) that gives
    one number per text, higher being better. `[]` writes nothing. By default what fits the task."""
    limit: int | None = Field(None, ge=1)
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


class Evaluate(Section):
    """What is measured, and what is trained for the comparison."""

    baseline: bool = False
    """Also train the same student from the same start, for the same steps, on labels alone."""
    seeds: int = Field(1, ge=1)
    """Train student and baseline so many times and report the spread."""
    metric: str | None = None
    """The headline metric; by default the task's first."""
    batch_size: int = Field(32, ge=1)
    """Examples per batch when measuring quality and throughput."""
    resamples: int = Field(1000, ge=100)
    """Bootstrap resamples behind every interval."""
    speed: bool = True
    """Measure latency and throughput."""
    generation: Generation | None = None
    """Let the models write, and measure their texts; by default where that is the task (`seq2seq`)."""


class Recipe(Section):
    """The whole recipe."""

    task: str
    """What the model does (`stilla list tasks`)."""
    data: Data
    teacher: Teacher
    student: StudentSpec
    distill: Annotated[tuple[Stage, ...], Field(min_length=1), BeforeValidator(as_tuple)] = Field(
        default_factory=lambda: (Stage(),))
    """One stage, or a list of stages that follow each other."""
    completions: Completions | None = None
    """Let the teacher write the student's training texts; by default the data's own are learnt."""
    cache: Cache = Field(default_factory=Cache)
    """Store the teacher's answers while the student passes over the data for the first time, and read them from then
    on; `cache: none` switches it off."""
    evaluate: Evaluate = Field(default_factory=Evaluate)
    export: Strings = ()
    """Formats to write beside the Hugging Face folder: onnx, int8."""
    output: str
    """The run folder; by default `runs/<recipe name>`."""
    seed: int = 42
    """Of everything random."""
    allow_weak_teacher: bool = False
    """Go on with a teacher that is no better than chance on the validation data."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, plain: Any) -> Any:
        return long_form(plain) if isinstance(plain, Mapping) else plain


def long_form(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with its short forms written out, empty keys left out (they mean the default).

    Short are `data: reviews.csv`, `teacher: ./bert`, `student: ./small`, `student: 3`, `completions: teacher`,
    `cache: top_k` and, for one stage, `distill: {...}`.
    """
    long = {name: value for name, value in plain.items() if value is not None}
    for section, key in (("data", "train"), ("teacher", "model"), ("student", "model"), ("completions", "by"),
                         ("cache", "form")):
        if isinstance(long.get(section), str):
            long[section] = {key: long[section]}
    if isinstance(long.get("student"), int) and not isinstance(long["student"], bool):
        long["student"] = {"layers": long["student"]}
    if isinstance(long.get("distill"), Mapping):
        long["distill"] = [long["distill"]]
    return long
