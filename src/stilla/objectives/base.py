"""What an objective is: plain typed keywords, the signals it needs, and what its sum is divided by.

The signature of `__init__` is the objective's schema in a recipe (`options_model`). An objective never sees padding,
a batch of tokens or a division: rows are valid by construction, and `training/reduction.py` divides.
"""

from __future__ import annotations

import inspect
import typing
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, create_model
from torch import Tensor, nn

from stilla.errors import CompatibilityError, one_of
from stilla.objectives._analytic import Gradient as Gradient
from stilla.objectives._analytic import Softened as Softened
from stilla.recipe.schedule import Schedule, schedule
from stilla.signals import Dense, Dims, Form, Pooling, Signals

LayerMap = Mapping[str, tuple[int, ...]]
"""Per stack, for every student layer the teacher layer it answers to (both from 0)."""


OF_LABELS = frozenset({"labelled", "symbols"})
"""What objectives are divided by that learn from labels: rows with one, symbols of transcripts."""


class Objective(nn.Module):
    """Base of the kinds below; final classes derive from one of those.

    - `needs_teacher`: whether it compares with a teacher at all.
    - `needs_stacks`: whether it reads hidden states. `needs_grids`: and where in a picture their positions lie.
      `needs_inputs`: what of its inputs a model's answer rests on. `needs_edges`: distributions of the edges of boxes.
    - `count`: what its sum over the optimiser step is divided by: a name that the task counts (`rows`, `examples`, `words`).
    - `pooling`: of hidden states, how an example's positions become one vector; None: they are compared one by one.
    """

    needs_teacher: ClassVar[bool] = True
    needs_stacks: ClassVar[bool] = False
    needs_grids: ClassVar[bool] = False
    needs_inputs: ClassVar[bool] = False
    needs_edges: ClassVar[bool] = False
    count: str = "rows"
    pooling: Pooling | None = None

    @property
    def asks(self) -> bool:
        """Whether it needs what the teacher says of a batch; not where it compares weights."""
        return self.needs_teacher

    def problems(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> list[str]:
        """Why it cannot work on these models, in words that say what to do; empty if it can."""
        return []

    def uncounted(self, counted: Sequence[str]) -> list[str]:
        """Why it cannot work on a task that counts these, in words; empty if it can."""
        if self.count in counted:
            return []
        return [f"is divided by the number of {self.count}, which this task does not count; it counts {one_of(counted)}. "
                "Leave it out"]

    def unseen(self, *, vocabulary: bool) -> list[str]:
        """Why it cannot see what it needs where logits are those of a vocabulary, of which only parts are ever there."""
        return []

    def unplaced(self, *, places: bool) -> list[str]:
        """Why it makes no sense where a row's classes are places in an example, of which some are none: their logits are a
        floor, and what a class means ends with the row."""
        return []

    def unpaired(self, *, pairs: bool) -> list[str]:
        """Why it cannot work where models do not read pictures and the texts that belong to them."""
        return []

    def unpictured(self, *, pictures: bool) -> list[str]:
        """Why it cannot work where examples are no pictures, so that nothing has a place in one."""
        if pictures or not self.needs_grids:
            return []
        return ["compares what is seen at each place of a picture, and these examples are no pictures. Use `hidden`, which "
                "needs no places"]

    def unmade(self, student: Dims) -> list[str]:
        """Why there is nothing that it could be made of, in words; empty if there is."""
        return []

    def misfits(self, *, aligned: bool, packed: bool, framed: bool = True) -> list[str]:
        """Why it cannot work on examples that both models cut alike or not, that hold one document or several, and of which
        both see the same part or not."""
        if not self.needs_stacks:
            return []
        if self.pooling is None and not aligned:
            return ["compares position by position, but teacher and student cut the examples differently (two tokenizers, or "
                    "two image sizes). Compare one vector per example (`pooling: mean`), or leave it out"]
        if self.pooling is not None and packed:
            return ["makes one vector of an example's positions, but these examples hold several documents each. Use "
                    "data.pack: false, or leave `pooling` out"]
        return []

    def reads(self, layer_map: LayerMap) -> LayerMap:
        """The teacher's layers, by stack, whose states it compares; by default all that the student's answer to."""
        return layer_map if self.needs_stacks else {}

    def setup(self, student: Dims, teacher: Dims | None, layer_map: LayerMap) -> None:
        """Make what depends on the models' sizes (projections). Called once, before the optimiser is made."""


class LogitObjective(Objective):
    """Base of those that are made of logits, and of a teacher's distribution if they need one."""

    def unmade(self, student: Dims) -> list[str]:
        if student.classes:
            return []
        return ["is made of logits, and these examples have none: a text by itself has a vector (use `embedding`, or give "
                "pairs or candidates), a picture has objects in it (use `objects` and `queries`), "
                "and what is spoken has frames (use `spectrogram` and `frames`)"]

    @property
    def accepts(self) -> tuple[type, ...]:
        """The forms of the teacher's distribution that it takes. A `Headed` teacher reaches it as `Dense` chunks."""
        return (Dense,)

    @property
    def described(self) -> str:
        """What it is called in an error."""
        return f"`{type(self).__name__.lower()}`"

    @property
    def instead(self) -> str:
        """What else a person may write where a teacher tells a part of its distribution only; empty if nothing."""
        return ""

    @property
    def likeliest(self) -> int:
        """How many of a teacher's likeliest classes it needs at least, where only those are told."""
        return 1

    @property
    def temperatures(self) -> tuple[float, ...]:
        """All temperatures that it softens the teacher by in the course of training; empty if it does not."""
        return ()

    def unlike(self, student: Dims, teacher: Dims | None, least: int, why: str) -> list[str]:
        """Why it cannot compare these models class by class, in words; `why`: it takes at least so many classes."""
        name = f"`{type(self).__name__.lower()}`"
        if teacher is None:
            return [f"{name} needs a teacher"]
        if student.classes != teacher.classes:
            return [f"the student has {student.classes} outputs, the teacher {teacher.classes}: {name} compares class by "
                    "class. Give both the same labels in the same order"]
        return [why] if student.classes < least else []

    def given(self, teacher: Form | None, like: Tensor) -> Float[Tensor, "rows classes"]:
        """All of the teacher's logits, in the precision of the student's.

        Raises:
            CompatibilityError: it said nothing, or told a part.
        """
        if not isinstance(teacher, Dense):
            got = "none" if teacher is None else f"only {type(teacher).__name__}, a part of its distribution"
            raise CompatibilityError(f"{self.described} needs a teacher's logits, and this batch has {got}")
        return teacher.logits.to(like.dtype)


class RowObjective(LogitObjective):
    """Gives the loss of every row by itself; `rows/` runs it, a chunk of rows at a time."""

    @abstractmethod
    def losses(
        self, logits: Float[Tensor, "rows classes"], teacher: Form | None, labels: Tensor | None, progress: float
    ) -> Float[Tensor, " rows"]:
        """Loss per row in at least float32; zero where a row does not count (an unlabelled one)."""

    def losses_and_gradients(
        self, student: Softened, teacher: Form | None, labels: Tensor | None, progress: float
    ) -> tuple[Float[Tensor, " rows"], Gradient]:
        """The losses, and each loss's gradient with respect to its row of logits; by default by autograd.

        Overridden where a formula is faster.
        """
        losses, back, *_ = torch.func.vjp(
            lambda logits: self.losses(logits, teacher, labels, progress), student.logits.detach())
        return losses, Gradient(((back(torch.ones_like(losses))[0], 1.0),))


class StepObjective(LogitObjective):
    """Compares the rows of an optimiser step with each other: a function of sums over all of its rows.

    How a step is cut changes nothing, as its micro-batches and processes only share the sums. That costs a forward of the
    student more where there are several micro-batches: all of them are looked at before the first gradient.
    """

    def unseen(self, *, vocabulary: bool) -> list[str]:
        if not vocabulary:
            return []
        return ["compares the rows of a step with each other, and over a vocabulary their logits are never there at once. "
                "Use `logits`"]

    @abstractmethod
    def sums(
        self, logits: Float[Tensor, "rows classes"], teacher: Form | None, labels: Tensor | None, progress: float
    ) -> Float[Tensor, " sums"]:
        """Sums over these rows, differentiable; as many whatever the rows. Those of several parts of a step are added."""

    @abstractmethod
    def loss(self, sums: Float[Tensor, " sums"], progress: float) -> Float[Tensor, ""]:
        """The loss of a step, of the sums over all of its rows; nothing divides it any more."""


class StepFeatureObjective(Objective):
    """The same of whole signals: compares what a step's examples have with each other, by sums over all of them."""

    @abstractmethod
    def sums(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, " sums"]:
        """Sums over these examples, differentiable; as many whatever the examples. Those of several parts of a step are
        added."""

    @abstractmethod
    def loss(self, sums: Float[Tensor, " sums"], progress: float) -> Float[Tensor, ""]:
        """The loss of a step, of the sums over all of its examples; nothing divides it any more."""


class StepTableObjective(Objective):
    """Compares all of a step's vectors with each other, by more than sums over them can say (a softmax over all of them).

    Each example brings entries, as many as it has vectors; a step's loss is made of the table of all entries. Its
    micro-batches and processes each put theirs at their places, so that how a step is cut changes nothing. The table of a
    whole step has to fit into memory, as do the products of its entries.
    """

    @abstractmethod
    def entries(
        self, student: Signals, teacher: Signals | None, progress: float
    ) -> Float[Tensor, "entries numbers"]:
        """One for each vector of these examples (`counts` of the task calls them examples), differentiable. Numbers that are
        the same in all entries (a scale) are read as their mean."""

    @abstractmethod
    def loss(self, sums: Float[Tensor, "entries numbers"], progress: float) -> Float[Tensor, ""]:
        """The loss of a step, of all its entries; nothing divides it any more."""


class TargetObjective(Objective):
    """Gets a student's whole signals, with what the data say of the examples, and returns the sum of its losses over what
    `count` counts. For labels that are no class or number of a row (objects in a picture)."""

    needs_teacher: ClassVar[bool] = False

    @abstractmethod
    def total(self, student: Signals, progress: float) -> Float[Tensor, ""]:
        """Sum over the batch, in at least float32; nothing of examples that nobody has labelled."""


class FeatureObjective(Objective):
    """Gets whole signals and returns the sum of its losses over what `count` counts."""

    @abstractmethod
    def total(self, student: Signals, teacher: Signals, progress: float) -> Float[Tensor, ""]:
        """Sum over the batch, in at least float32. `teacher`: empty where none was asked and none is needed."""


class WeightObjective(Objective):
    """Compares the weights of both models, whatever the examples say: its loss is that of a step, divided by nothing."""

    parts: Sequence[str] | None = None
    """Which of the student's (`models/parts.py`); None: all."""

    @property
    def asks(self) -> bool:
        return False

    def uncounted(self, counted: Sequence[str]) -> list[str]:
        return []

    @abstractmethod
    def total(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Float[Tensor, ""]:
        """The loss of all weights of the student and those of the teacher that they answer to, which get no gradient."""


@dataclass(frozen=True)
class Term:
    """An objective with its weight in the loss (a number or a schedule) and its name in the log. `part`: of several tasks,
    the one that it is of."""

    objective: Objective
    weight: Schedule | Mapping[str, Any] | float = 1.0
    name: str = ""
    part: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", schedule(self.weight))
        object.__setattr__(self, "name", self.name or type(self.objective).__name__.lower())

    def weight_at(self, progress: float) -> float:
        return schedule(self.weight)(progress)


def options_model(objective: type[Objective]) -> type[BaseModel]:
    """A strict pydantic model of an objective's keywords: `temperature: true` is an error, not 1.0."""
    hints = typing.get_type_hints(objective.__init__, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(objective.__init__).parameters.items():
        if name != "self":
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints[name], default)
    config = ConfigDict(strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True)
    return create_model(objective.__name__, __config__=config, **fields)
