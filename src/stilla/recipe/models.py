"""Of a recipe: where models come from, how they are trained, how a student is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from stilla.errors import all_of
from stilla.recipe.api import Api
from stilla.recipe.fitting import Limits
from stilla.recipe.paths import PathName, TrainerFields
from stilla.recipe.reptile import Reptile
from stilla.recipe.section import BATCH, EPOCHS, LAYERS, RATE, STEPS, WEIGHT, Section, Strings
from stilla.recipe.told import Told, columns_of, longest_of
from stilla.recipe.vocabulary import SmallerVocabulary
from stilla.recipe.weights import Interpolated
from stilla.recipe.width import EXAMPLES_OF_IMPORTANCE as EXAMPLES
from stilla.recipe.width import Narrower

STORED = (".jsonl", ".npz", ".parquet")
"""How files end that hold what a model has said."""


class ModelSource(Section):
    """Where a model comes from."""

    model: PathName
    """A folder (a run's stands for its student), a Hugging Face name, or `package.module:callable` that returns an
    `nn.Module`; for task: embedding also a file of a teacher's vectors (.parquet, .npz, .jsonl)."""
    config: Mapping[str, Any] | None = None
    """Fields of its configuration, where `model` names an architecture (`llama`, `bert`) to be trained from random weights;
    for task: recommendation, whose models need no tokenizer."""
    weights: PathName | None = None
    """Checkpoint file for `package.module:callable`: safetensors, or `.pth` read with `weights_only=True`."""
    processor: PathName | None = None
    """Folder or name of the tokenizer or image processor, where the model's own place has none."""
    revision: str | None = None
    """Revision of a Hugging Face model."""
    precision: Literal["float32", "bfloat16", "int8", "4bit"] = "float32"
    """Precision of the weights while it only answers (a teacher that is not trained); `4bit` needs bitsandbytes."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""

    @property
    def is_stored(self) -> bool:
        """Whether it is a file of what a model has said, and no model."""
        return self.config is None and Path(self.model).suffix in STORED and not Path(self.model).expanduser().is_dir()

    @model_validator(mode="after")
    def _a_file_of_answers_stands_alone(self) -> Self:
        usual = {"weights": None, "processor": None, "revision": None, "precision": "float32", "trust_remote_code": False}
        given = [name for name, value in usual.items() if getattr(self, name) != value]
        if self.is_stored and given:
            raise ValueError(f"model: got {self.model!r}, a file of what a model has said, and {all_of(given)}, which only a "
                             "model has; leave out one or the other")
        return self

    @model_validator(mode="after")
    def _a_config_is_of_an_architecture(self) -> Self:
        if self.config is None:
            return self
        beside = [name for name in ("weights", "processor", "revision") if getattr(self, name) is not None]
        if ":" in self.model or beside:
            got = f"{self.model!r}" if ":" in self.model else all_of(beside)
            raise ValueError(f"config: got {got} beside it; expected the name of an architecture alone (`model: llama`), "
                             "whose weights are random")
        return self


Dropout = Annotated[float, Field(ge=0, lt=1)] | Literal["model"]


class Average(Section):
    """A mean of the weights over the steps of a training, which is kept instead of the last."""

    ema: float | None = Field(None, gt=0, lt=1)
    """Exponential: how much of the mean stays at every step (0.999); less at first, (1 + step) / (10 + step) at most."""
    last: float | None = Field(None, gt=0, le=1)
    """Plain: of the weights after each of the last steps, this fraction of all (0.25)."""

    @model_validator(mode="after")
    def _one(self) -> Average:
        given = [name for name in ("ema", "last") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"got {' and '.join(given) or 'none'}; expected exactly one of ema and last")
        return self


class Training(Section):
    """How something is trained; the same for teacher, baseline and student."""

    epochs: float | None = Field(3.0, gt=0, le=EPOCHS)
    """Passes over the training data."""
    max_steps: int | None = Field(None, ge=1, le=STEPS)
    """Optimiser steps, instead of epochs."""
    batch_size: int = Field(32, ge=1, le=BATCH)
    """Examples per optimiser step and process; with `accumulate`, of each micro-batch."""
    accumulate: int = Field(1, ge=1, le=BATCH)
    """Micro-batches per optimiser step."""
    learning_rate: float | None = Field(5e-5, gt=0, le=RATE)
    """Peak learning rate."""
    warmup: float = Field(0.06, ge=0, lt=1)
    """Fraction of the steps over which the learning rate rises from zero."""
    weight_decay: float = Field(0.01, ge=0, le=RATE)
    """AdamW's weight decay."""
    dropout: Dropout = "model"
    """Probability of every dropout in the model while it is trained, with LayerDrop and SpecAugment off; `model` leaves it
    its own."""
    batch_norm: Literal["model", "frozen"] = "model"
    """Of layers that normalise by the batch (BatchNorm, as ResNet has it): `frozen` keeps their running statistics and
    normalises by them in training too, so that a step is the same however it is cut; for models that start trained."""
    patience: int | None = Field(None, ge=1, le=10_000)
    """Stop when so many evaluations in a row brought nothing better on the validation data, and keep the best weights: those
    nearest to the teacher's answers; without a teacher, the best by the task's headline metric."""
    extend: int | None = Field(None, ge=2, le=100)
    """Where it has not converged at its end, go on, part by part, up to so many times as long: while a part, each as long as
    the first, makes more than 5 % of all progress in what `patience` goes by. Keeps the best weights."""
    average: Average | None = None
    """Keep a mean of the weights instead of the last: `{ema: 0.999}`, or `{last: 0.25}` for the last quarter of the steps."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; `auto` takes bfloat16 where the machine computes it natively."""
    group_by_length: bool = True
    """Batches of similar length: little is spent on padding. No effect where examples have no length."""
    compile: bool = False
    """Compile the losses over a vocabulary: the first step takes seconds longer, all others less. Needs a C++ compiler."""
    profile: int | None = Field(None, ge=1, le=10_000)
    """Write a trace of so many steps with PyTorch's profiler into the run folder."""
    trainer: TrainerFields = Field(default_factory=dict)
    """Any field of `transformers.TrainingArguments`, by its own name (`report_to: tensorboard`)."""

    @property
    def at_most(self) -> int:
        """How many times as long as said it may become."""
        return self.extend or 1

    @property
    def passes(self) -> float:
        """Epochs, once it is settled how many."""
        return 3.0 if self.epochs is None else self.epochs

    @property
    def rate(self) -> float:
        """The peak learning rate, once it is settled."""
        return 5e-5 if self.learning_rate is None else self.learning_rate

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.extend is not None and self.patience is not None:
            raise ValueError("extend: goes on with a training at its end, and patience ends it before; leave one of the two "
                             "out")
        if self.extend is not None and self.average is not None and self.average.last is not None:
            raise ValueError("extend: nobody knows beforehand which part is the last, which average.last is a fraction of; "
                             "use average: {ema: 0.999}, or leave one of the two out")
        return self

    @model_validator(mode="after")
    def _an_end_that_is_known(self) -> Self:
        if self.patience is not None and self.average is not None and self.average.last is not None:
            raise ValueError("patience: the training may end at any step, and average.last is of its last steps, which "
                             "nobody knows beforehand; use average: {ema: 0.999}, or leave one of the two out")
        return self


class TeacherTraining(Training):
    """How a teacher is trained."""

    data: PathName | None = None
    """A file or folder of labelled examples, with the columns of `data.train`, that it alone learns from instead: a teacher
    that had more labels than its student has."""


class Teacher(ModelSource):
    """The model that knows."""

    data: Told = Field(default_factory=dict)
    """What it alone reads, by the field of `data` that says what a student reads instead: columns, `{text: english}`, and how
    much of them, `{max_length: 1024}`."""
    train: TeacherTraining | None = None
    """Train it first, on the labels; skipped when it has been."""
    api: Api | None = None
    """Ask it over an address that speaks OpenAI's protocol; `model` is then its name there. The student learns its answers,
    and is a `model` of its own."""

    @model_validator(mode="after")
    def _nothing_of_it_is_here(self) -> Self:
        if self.api is None:
            return self
        beside = [name for name in ("config", "weights", "processor", "revision", "data", "train") if getattr(self, name)]
        beside += [name for name, usual in (("precision", "float32"), ("trust_remote_code", False))
                   if getattr(self, name) != usual]
        if beside:
            raise ValueError(f"api: got {all_of(beside)} beside it; expected model (its name there) and api alone: nothing "
                             "of this teacher is on this machine")
        return self

    @model_validator(mode="after")
    def _what_was_said_is_not_trained(self) -> Self:
        if self.is_stored and self.train is not None:
            raise ValueError(f"train: got it beside {self.model!r}, a file of what a model has said; leave it out")
        return self

    @model_validator(mode="after")
    def _random_weights_are_trained(self) -> Self:
        if self.config is not None and self.train is None:
            raise ValueError("config: a model of random weights knows nothing; train it first (`train: {epochs: 20}`)")
        return self

    @property
    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """What it reads of the data in place of what its students read, by the field that says theirs."""
        return columns_of(self.data)

    @property
    def longest(self) -> int | None:
        """How much it reads, where that is not as much as its students."""
        return longest_of(self.data)

    @property
    def told(self) -> dict[str, Any]:
        """What stages depend on of this, by a name; nothing where it reads what its students read."""
        return {"teacher.data": self.model_dump(mode="json")["data"]} if self.data else {}

    @property
    def own_data(self) -> str | None:
        """What it alone learns from."""
        return None if self.train is None else self.train.data


Depth = Annotated[int, Field(ge=0, le=LAYERS)]
Layers = Annotated[int, Field(ge=1, le=LAYERS)] | Mapping[str, Depth | list[Depth]]


class Lora(Section):
    """Adapters of low rank, which are trained in place of the student's weights and merged into them at the end."""

    r: int = Field(8, ge=1, le=100_000)
    """Rank."""
    alpha: float | None = Field(None, gt=0, le=WEIGHT)
    """Scale of what they add: alpha / r; by default twice the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of what goes into them, while training."""
    targets: Strings | None = None
    """How the names of the layers end that get one (`q_proj`); by default all linear layers but the head."""


_INSTEAD = {"config": "Say how wide it is there (`intermediate_size`)",
            "model": "Name that model as the teacher of a run that cuts it"}


class StudentSpec(Limits):
    """The small model: cut from the teacher (`layers`, `width`), made anew (`config`), given (`model`), or cut as it fits
    (`size`)."""

    layers: Layers | None = None
    """Layers to copy from the teacher: 3, `{keep: [0, 5, 11]}`, `{encoder: 6, decoder: 2}` or
    `{depths: [1, 1, 3, 1]}`."""
    layers_by: Literal["spaced", "lowest", "influence", "auto"] = "spaced"
    """Which, where `layers` (or a limit) says how many: as far apart as possible, the lowest, those that change most of what
    passes them, or the best of these three after a short training."""
    width: Narrower | None = None
    """Make the layers narrower: `0.5`, or by kind, `{ffn: 0.5, heads: 0.5, hidden: 0.5}`; alone, or with `layers` or
    `vocabulary`."""
    config: Mapping[str, Any] | None = None
    """The teacher's architecture with these fields of its configuration changed, from random weights."""
    model: PathName | None = None
    """A folder (a run's stands for its student), a Hugging Face name, or `package.module:callable`."""
    weights: PathName | None = None
    """As for the teacher."""
    static: bool = False
    """For task: embedding, a table with a vector for each of the teacher's tokens, of which a text's is the mean: the
    smallest and fastest student there is."""
    vocabulary: SmallerVocabulary | None = None
    """`data`: keep only those tokens that its texts use, with what keeps every other text readable; `{extra: 4000}` more,
    `{tokens: 8000}` in all, or those of `{languages: [en]}`. With `layers`, `width`, `config` or `model`, or alone: all
    layers."""
    lora: Lora | None = None
    """With `layers`, `width` or `model`: train adapters only, `{r: 8}`; needs peft."""
    interpolate: Interpolated | None = None
    """With `config` or `model`: start so far on the way to the teacher's weights, `0.5`, or
    `{share: 1.0, parts: [embeddings]}`, where names and shapes agree; `{share: 1.0, units: importance}` also to slices of a
    wider teacher's."""
    reptile: Reptile | None = None
    """Start with a body that other tasks have made quick to adapt: `{tasks: [banking.csv, travel.csv]}`."""
    freeze: Strings | None = None
    """Parts of it that are not trained: `embeddings`, `layers`, `layers.0-2`, `head`, `encoder` with all around its layers,
    or names of the model's own, with `*` for anything."""
    processor: PathName | None = None
    """As for the teacher; a student cut or made from the teacher takes the teacher's."""
    revision: str | None = None
    """As for the teacher."""
    trust_remote_code: bool = False
    """As for the teacher."""

    @model_validator(mode="after")
    def _one(self) -> StudentSpec:
        given = [name for name in ("layers", "config", "model") if getattr(self, name) is not None]
        if self.static and (given or self.limited or any((self.width, self.vocabulary, self.lora))):
            raise ValueError("static: a table of vectors has no layers; expected it alone, without layers, width, "
                             "config, model, "
                             "vocabulary, lora or a limit")
        given += ["static"] if self.static else []
        cut = [*given, *(name for name in ("width", "vocabulary") if getattr(self, name) is not None)]
        if self.limited and cut:
            raise ValueError(f"got {all_of(cut)} beside a limit (size, max_parameters, ...), which chooses both; "
                             "expected one or the other")
        if len(given) > 1 or not (cut or self.limited):
            got = " and ".join(given) or "none"
            raise ValueError(f"got {got}; expected exactly one of layers, config and model, or width or vocabulary alone, or "
                             "static: true, or a limit (size: 0.33)")
        if self.width is not None and given not in ([], ["layers"]):
            raise ValueError(f"got width and {given[0]}; expected width alone, or with layers or vocabulary: it is cut from "
                             f"the teacher. {_INSTEAD[given[0]]}")
        named = isinstance(self.layers, Mapping) and not self.layers.keys().isdisjoint(("keep", "depths"))
        if self.layers_by != "spaced" and (named or not self.is_cut):
            raise ValueError("layers_by: chooses which layers stay, and nothing says how many; expected layers: 3, or a "
                             "limit, beside it")
        if self.lora is not None and self.config is not None:
            raise ValueError("lora: a student with random weights (config) has nothing that adapters could build on; "
                             "expected layers, width or model")
        if self.interpolate is not None and self.config is None and self.model is None:
            raise ValueError("interpolate: a student that is cut from its teacher starts with the teacher's weights already; "
                             "expected config or model beside it, or leave it out")
        if self.reptile is not None and (self.static or self.lora is not None):
            why = "static: true has none" if self.static else "with lora adapters alone are trained"
            raise ValueError(f"reptile: other tasks train the whole body, and {why}; leave one of the two out")
        if self.lora is not None and self.freeze is not None:
            raise ValueError("freeze: with lora adapters alone are trained, and all else is frozen; leave one of the two out")
        return self

    @property
    def by_importance(self) -> bool:
        """Whether it is measured which of its teacher's units matter."""
        return self.width is not None or (self.interpolate is not None and self.interpolate.units == "importance")

    @property
    def examples_of_importance(self) -> int:
        """By how many that is."""
        return EXAMPLES if self.width is None else self.width.examples

    @property
    def is_cut(self) -> bool:
        """Whether it has layers of its teacher's."""
        return self.layers is not None or self.limited
