"""Of a recipe: what a student learns from: objectives by stage, texts that the teacher writes, its answers on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from stilla.recipe.adapt import Adapt
from stilla.recipe.models import Dropout, Training
from stilla.recipe.paths import PathName
from stilla.recipe.schedule import Schedule, schedule
from stilla.recipe.section import (
    BATCH,
    BEAMS,
    EPOCHS,
    RATE,
    TEMPERATURE,
    TOKENS,
    WEIGHT,
    Scheduled,
    ScheduledOrNone,
    Section,
    as_tuple,
)
from stilla.recipe.weights import Pulled


class ObjectiveSpec(Section):
    """One term of the loss; further keys are the objective's own options (`stilla list objectives`)."""

    model_config = ConfigDict(extra="allow")

    kind: str
    """Name of the objective, or `package.module:Class`."""
    weight: Scheduled = Field(default_factory=lambda: schedule(1.0))
    """A number or a schedule; used as written, never normalised."""
    name: str | None = None
    """Its name in the log; by default its kind."""
    part: str | None = None
    """Of several tasks, the one that it is of; by default all, each by itself."""

    @field_validator("weight")
    @classmethod
    def _no_repulsion(cls, weight: Schedule) -> Schedule:
        if min(weight.values()) < 0:
            raise ValueError(f"got {weight.plain()}; expected 0 or more: a negative weight drives the student away")
        if max(weight.values()) > WEIGHT:
            raise ValueError(f"got {weight.plain()}; expected at most {WEIGHT:,.0f}")
        return weight

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a part where none is said: what was written before there were parts stays what it was."""
        plain: dict[str, Any] = dump(self)
        return {name: value for name, value in plain.items() if name != "part" or value is not None}

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


Effort = Literal["quick", "standard", "thorough"]


class Stage(Training):
    """Distillation, or one stage of it."""

    effort: Annotated[Effort | None, BeforeValidator(lambda said: said, json_schema_input_type=Effort | float | None)] = None
    """How long a student learns where neither `epochs` nor `max_steps` says it, by default `standard`: about 500, 4,000 or
    16,000 steps, up to three times as many for narrow students, within 3 to 10, 3 to 30 or 10 to 100 passes over the data
    (docs/defaults.md). A number of passes is what `epochs` says."""
    epochs: float | None = Field(None, gt=0, le=EPOCHS)
    """Passes over the training data; by default what `effort` takes."""
    learning_rate: float | None = Field(None, gt=0, le=RATE)
    """Peak learning rate; by default by the student's width and the number of examples, and more for random weights
    (docs/defaults.md)."""
    dropout: Dropout = 0.0
    """Probability of every dropout in student and baseline, with LayerDrop and SpecAugment off; `model` leaves them their
    own."""
    objectives: Annotated[
        tuple[ObjectiveSpec, ...] | None, Field(min_length=1), BeforeValidator(as_tuple)
    ] = None
    """The terms of the loss; by default what measured best for the task (the run's recipe says what)."""
    pull: Pulled | None = None
    """Steps towards the teacher's weights beside the optimiser's: `0.1`, or `{share: 0.1, every: 100, parts: [embeddings]}`,
    where names and shapes agree."""
    adapt: Adapt | None = None
    """Adapt the teacher to its student before every step, of the last stage: `{learning_rate: 1e-5}`."""
    unlabelled: ScheduledOrNone = None
    """Share of `data.unlabelled` in every step, a number from 0 to 1 or a schedule; by default all examples of both are
    passed over equally often."""

    hardest: int | None = Field(None, ge=2, le=1000)
    """Of so many forms of each example that changes at random (`data.augment`), each pass takes the one in which the student
    is furthest from its teacher: the largest KL(teacher || student) as the pass begins."""

    @model_validator(mode="before")
    @classmethod
    def _passes(cls, said: object) -> object:
        """An effort in numbers is passes over the data."""
        effort = said.get("effort") if isinstance(said, Mapping) else None
        if not isinstance(said, Mapping) or not isinstance(effort, int | float) or isinstance(effort, bool):
            return said
        if not 0 < effort <= EPOCHS:
            raise ValueError(f"effort: got {effort:g}; expected quick, standard or thorough, or a number of passes above 0")
        if beside := [name for name in ("epochs", "max_steps") if said.get(name) is not None]:
            raise ValueError(f"effort: got {effort:g} passes, and {beside[0]} beside them; leave one of the two out")
        return {**{name: value for name, value in said.items() if name != "effort"}, "epochs": effort}

    @model_validator(mode="after")
    def _one_that_stays(self) -> Self:
        if self.adapt is not None and self.pull is not None:
            raise ValueError("adapt: changes the weights that `pull` goes towards; leave one of the two out")
        if self.adapt is not None and self.hardest is not None:
            raise ValueError("adapt: changes the answers that `hardest` goes by; leave one of the two out")
        return self

    @field_validator("unlabelled")
    @classmethod
    def _a_share(cls, share: Schedule | None) -> Schedule | None:
        if share is not None and not 0 <= min(share.values()) <= max(share.values()) <= 1:
            raise ValueError(f"got {share.plain()}; expected a share from 0 to 1")
        return share

    @field_validator("objectives")
    @classmethod
    def _something_to_learn(cls, objectives: tuple[ObjectiveSpec, ...] | None) -> tuple[ObjectiveSpec, ...] | None:
        if objectives and not any(max(one.weight.values()) for one in objectives):
            raise ValueError("every weight is 0, so nothing would be learnt; give one objective a weight above 0")
        return objectives


class Completions(Section):
    """Who writes the texts that the student learns from, instead of the data: sequence-level distillation (Kim and Rush
    2016, arXiv:1606.07947). The baseline keeps the data's own."""

    by: Literal["teacher"]
    """`teacher`: it writes a target for every training example."""
    of: Literal["all", "unlabelled"] = "all"
    """`unlabelled`: only for the examples of `data.unlabelled`, beside which the others keep the data's own. So it is where
    those need texts and the recipe says nothing."""
    max_new_tokens: int = Field(128, ge=1, le=TOKENS)
    """A text that has no end by then is cut there, and is not taught as if it ended."""
    num_beams: int = Field(1, ge=1, le=BEAMS)
    """Width of the beam search; 1 is greedy. The paper took 5."""
    batch_size: int = Field(64, ge=1, le=BATCH)
    """Texts written at a time."""
    min_log_probability: float | None = Field(None, ge=-1000, le=0)
    """Leave out texts whose mean log-probability per token, by the teacher, is below."""
    min_tokens: int = Field(1, ge=1, le=TOKENS)
    """Leave out texts shorter than so many tokens."""
    max_tokens: int | None = Field(None, ge=1, le=TOKENS)
    """Leave out texts longer than so many tokens."""
    cut: Literal["keep", "drop"] = "keep"
    """What to do with texts that were cut at `max_new_tokens`."""
    max_wer: float | None = Field(None, ge=0, le=1000)
    """Leave out what was heard otherwise than the data say it: a word error rate above, of each text against its own
    transcript (0.1 is one word in ten). Of `speech-recognition`; examples without a transcript stay."""
    keep: str | None = None
    """`package.module:function` of (source, text) that says whether to keep it."""

    @field_validator("by", mode="before")
    @classmethod
    def _only_the_teacher(cls, value: object) -> object:
        if value in ("student", "mix"):
            raise ValueError(f"got {value!r}: texts written by the student do not exist yet; expected 'teacher'. Without "
                             "`completions` the student learns from the data's own texts")
        return value

    @model_validator(mode="after")
    def _some_can_be_kept(self) -> Completions:
        most = self.max_new_tokens if self.max_tokens is None else min(self.max_tokens, self.max_new_tokens)
        if self.min_tokens > most:
            raise ValueError(f"min_tokens is {self.min_tokens}, and no text is longer than {most}: all would be left out")
        return self


class Cache(Section):
    """The teacher's answers on disk: asked once, read ever after, by any number of runs and students."""

    form: Literal["none", "dense", "hidden", "top_k", "samples"] | None = None
    """`dense`: all logits, exact; `hidden`: what enters the head of a language model, exact; `top_k`: the k likeliest
    tokens and the mass of the others; `samples`: tokens drawn at random, for forward KL alone; `none`: ask the teacher anew
    in every epoch. By default, where every epoch asks the same, `dense` for up to 1000 classes and `hidden` for
    vocabularies where that takes at most 2 GB, else `none`."""
    k: int = Field(50, ge=1, le=1_000_000)
    """How many tokens `top_k` keeps."""
    samples: int = Field(50, ge=1, le=1_000_000)
    """How many tokens `samples` draws."""
    temperatures: Annotated[tuple[float, ...] | None, BeforeValidator(as_tuple)] = None
    """For `top_k`: the temperatures at which it can be read; by default those of the objectives."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Of `dense` and `hidden`; by default what keeps them exact."""
    path: PathName | None = None
    """A folder, or a URL that fsspec reaches (s3://bucket/reviews); by default `cache` in the run folder."""

    @field_validator("temperatures")
    @classmethod
    def _above_zero(cls, temperatures: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if temperatures is not None and (not temperatures or min(temperatures) <= 0 or max(temperatures) > TEMPERATURE):
            raise ValueError(f"got {list(temperatures[:5])}; expected numbers above 0, up to {TEMPERATURE:g}")
        return None if temperatures is None else tuple(sorted(set(temperatures)))
