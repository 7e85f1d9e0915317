"""The recipe: what a person asks for, as frozen sections with every default in one place.

Reading a recipe needs neither torch nor the network; what only code can know (an objective's options, a
model's layers) is checked by `check.py`. The fields' docstrings are what resolved recipes and the JSON schema
show. `recipe_file.py` reads and writes recipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from stilla.errors import RecipeError, did_you_mean, one_of
from stilla.schedule import Schedule, schedule


class Section(BaseModel):
    """A frozen part of a recipe: unknown keys and wrong types are errors, nothing is guessed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False,
                              use_attribute_docstrings=True)


def _as_schedule(value: object) -> Schedule:
    try:
        return schedule(value)  # type: ignore[arg-type]
    except RecipeError as error:
        raise ValueError(str(error)) from error


_PAIR = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_SCHEDULE_SCHEMA = {"anyOf": [{"type": "number"}] + [
    {"type": "object", "properties": {shape: numbers}, "required": [shape], "additionalProperties": False}
    for shape, numbers in (("linear", _PAIR), ("cosine", _PAIR), ("steps", {"type": "array", "items": _PAIR}))
]}
Scheduled = Annotated[
    Any,
    BeforeValidator(_as_schedule),
    PlainSerializer(lambda value: value.plain()),
    WithJsonSchema(_SCHEDULE_SCHEMA),
]
"""A number or a schedule over training; always a `Schedule` once read."""


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Strings = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else
                                                     _as_tuple(value))]
"""One name or a list of names; always a tuple once read."""


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
    for the classes of texts where teacher and student share a tokenizer, else `none`."""
    broken: Literal["refuse", "skip"] = "refuse"
    """Examples that cannot be read (broken images, empty texts): stop and name them, or leave them out."""
    limit: int | None = Field(None, ge=1)
    """Use only so many training examples, drawn at random."""


class ModelSource(Section):
    """Where a model comes from."""

    model: str
    """A folder, a Hugging Face name, or `package.module:callable` that returns an `nn.Module`."""
    weights: str | None = None
    """Checkpoint file for `package.module:callable`: safetensors, or `.pth` read with `weights_only=True`."""
    processor: str | None = None
    """Folder or name of the tokenizer or image processor, where the model's own place has none."""
    revision: str | None = None
    """Revision of a Hugging Face model."""
    precision: Literal["float32", "bfloat16", "int8", "4bit"] = "float32"
    """Precision of the weights while it only answers (a teacher that is not trained); `4bit` needs bitsandbytes."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""


Dropout = Annotated[float, Field(ge=0, lt=1)] | Literal["model"]


class Training(Section):
    """How something is trained; the same for teacher, baseline and student."""

    epochs: float = Field(3.0, gt=0)
    """Passes over the training data."""
    max_steps: int | None = Field(None, ge=1)
    """Optimiser steps, instead of epochs."""
    batch_size: int = Field(32, ge=1)
    """Examples per optimiser step and process; with `accumulate`, of each micro-batch."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per optimiser step."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    warmup: float = Field(0.06, ge=0, lt=1)
    """Fraction of the steps over which the learning rate rises from zero."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay."""
    dropout: Dropout = "model"
    """Probability of every dropout in the model while it is trained; `model` leaves it its own."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; `auto` takes bfloat16 where the machine computes it natively."""
    group_by_length: bool = True
    """Batches of similar length: little is spent on padding. No effect where examples have no length."""
    compile: bool = False
    """Compile the losses over a vocabulary: the first step takes seconds longer, all others less. Needs a C++ compiler."""
    profile: int | None = Field(None, ge=1)
    """Write a trace of so many steps with PyTorch's profiler into the run folder."""
    trainer: Mapping[str, Any] = Field(default_factory=dict)
    """Any field of `transformers.TrainingArguments`, by its own name (`report_to: tensorboard`)."""


class Teacher(ModelSource):
    """The model that knows."""

    train: Training | None = None
    """Train it first, on the labels; skipped when it has been."""


Layers = int | Mapping[str, int | list[int]]


class Lora(Section):
    """Adapters of low rank, which are trained in place of the student's weights and merged into them at the end."""

    r: int = Field(8, ge=1)
    """Rank."""
    alpha: float | None = Field(None, gt=0)
    """Scale of what they add: alpha / r; by default twice the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of what goes into them, while training."""
    targets: Strings | None = None
    """How the names of the layers end that get one (`q_proj`); by default all linear layers but the head."""


class StudentSpec(Section):
    """The small model: cut from the teacher (`layers`), made anew (`config`) or given (`model`)."""

    layers: Layers | None = None
    """Layers to copy from the teacher: 3, `{keep: [0, 5, 11]}`, `{encoder: 6, decoder: 2}` or
    `{depths: [1, 1, 3, 1]}`."""
    config: Mapping[str, Any] | None = None
    """The teacher's architecture with these fields of its configuration changed, from random weights."""
    model: str | None = None
    """A folder, a Hugging Face name, or `package.module:callable`."""
    weights: str | None = None
    """As for the teacher."""
    lora: Lora | None = None
    """With `layers` or `model`: train adapters only, `{r: 8}`; needs peft."""
    processor: str | None = None
    """As for the teacher; a student cut or made from the teacher takes the teacher's."""
    revision: str | None = None
    """As for the teacher."""
    trust_remote_code: bool = False
    """As for the teacher."""

    @model_validator(mode="after")
    def _one(self) -> StudentSpec:
        given = [name for name in ("layers", "config", "model") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ValueError(f"got {got}; expected exactly one of layers, config and model")
        if self.lora is not None and self.config is not None:
            raise ValueError("lora: a student with random weights (config) has nothing that adapters could build on; "
                             "expected layers or model")
        return self


class ObjectiveSpec(Section):
    """One term of the loss; further keys are the objective's own options (`stilla list objectives`)."""

    model_config = ConfigDict(extra="allow")

    kind: str
    """Name of the objective, or `package.module:Class`."""
    weight: Scheduled = Field(default_factory=lambda: schedule(1.0))
    """A number or a schedule; used as written, never normalised."""
    name: str | None = None
    """Its name in the log; by default its kind."""

    @field_validator("weight")
    @classmethod
    def _no_repulsion(cls, weight: Schedule) -> Schedule:
        if min(weight.values()) < 0:
            raise ValueError(f"got {weight.plain()}; expected 0 or more: a negative weight drives the student away")
        return weight

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Stage(Training):
    """Distillation, or one stage of it."""

    dropout: Dropout = 0.0
    """Probability of every dropout in student and baseline; `model` leaves them their own."""
    objectives: Annotated[
        tuple[ObjectiveSpec, ...] | None, Field(min_length=1), BeforeValidator(_as_tuple)
    ] = None
    """The terms of the loss; by default what measured best for the task (the run's recipe says what)."""

    @field_validator("objectives")
    @classmethod
    def _something_to_learn(cls, objectives: tuple[ObjectiveSpec, ...] | None) -> tuple[ObjectiveSpec, ...] | None:
        if objectives and not any(max(one.weight.values()) for one in objectives):
            raise ValueError("every weight is 0, so nothing would be learnt; give one objective a weight above 0")
        return objectives


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


class Completions(Section):
    """Who writes the texts that the student learns from, instead of the data: sequence-level distillation (Kim and Rush
    2016, arXiv:1606.07947). The baseline keeps the data's own."""

    by: Literal["teacher"]
    """The teacher writes a target for every training example."""
    max_new_tokens: int = Field(128, ge=1)
    """A text that has no end by then is cut there, and is not taught as if it ended."""
    num_beams: int = Field(1, ge=1)
    """Width of the beam search; 1 is greedy. The paper took 5."""
    batch_size: int = Field(64, ge=1)
    """Texts written at a time."""
    min_log_probability: float | None = Field(None, le=0)
    """Leave out texts whose mean log-probability per token, by the teacher, is below."""
    min_tokens: int = Field(1, ge=1)
    """Leave out texts shorter than so many tokens."""
    max_tokens: int | None = Field(None, ge=1)
    """Leave out texts longer than so many tokens."""
    cut: Literal["keep", "drop"] = "keep"
    """What to do with texts that were cut at `max_new_tokens`."""
    keep: str | None = None
    """`package.module:function` of (source, text) that says whether to keep it."""

    @field_validator("by", mode="before")
    @classmethod
    def _only_the_teacher(cls, value: object) -> object:
        if value in ("student", "mix"):
            raise ValueError(f"got {value!r}: texts written by the student do not exist yet; expected 'teacher'. Without "
                             "`completions` the student learns from the data's own texts")
        return value


class Cache(Section):
    """The teacher's answers on disk: asked once, read ever after, by any number of runs and students."""

    form: Literal["none", "dense", "hidden", "top_k", "samples"] | None = None
    """`dense`: all logits, exact; `hidden`: what enters the head of a language model, exact to bfloat16; `top_k`: the k
    likeliest tokens and the mass of the others; `samples`: tokens drawn at random, for forward KL alone; `none`: ask the
    teacher anew in every epoch. By default `dense` for up to 1000 classes where every epoch asks the same, else `none`."""
    k: int = Field(50, ge=1)
    """How many tokens `top_k` keeps."""
    samples: int = Field(50, ge=1)
    """How many tokens `samples` draws."""
    temperatures: Annotated[tuple[float, ...] | None, BeforeValidator(_as_tuple)] = None
    """For `top_k`: the temperatures at which it can be read; by default those of the objectives."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Of `dense` and `hidden`; by default float32 and bfloat16."""
    path: str | None = None
    """A folder, or a URL that fsspec reaches (s3://bucket/reviews); by default `cache` in the run folder."""

    @field_validator("temperatures")
    @classmethod
    def _above_zero(cls, temperatures: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if temperatures is not None and (not temperatures or min(temperatures) <= 0):
            raise ValueError(f"got {list(temperatures)}; expected numbers above 0")
        return None if temperatures is None else tuple(sorted(set(temperatures)))


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
    distill: Annotated[tuple[Stage, ...], Field(min_length=1), BeforeValidator(_as_tuple)] = Field(
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
