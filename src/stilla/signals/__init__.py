"""What models say, in one form: the struct between tasks and objectives.

A **row** is one prediction that the student has to make: an example (classification), a label of an example
(several labels), a predicted token, a decoder step. A task flattens its *valid* positions into rows, so no
objective ever sees padding, a shift or a mask of logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stilla.errors import CompatibilityError
from stilla.signals.guesses import Detections as Detections
from stilla.signals.guesses import Segments as Segments
from stilla.signals.utterances import Speech as Speech
from stilla.signals.utterances import Spoken as Spoken


class Side(StrEnum):
    STUDENT = "student"
    TEACHER = "teacher"


class Batch(dict[str, Any]):
    """What a collator makes and the trainer moves: a mapping with the fixed keys below.

    - `student`: keyword arguments of the student's forward.
    - `teacher`: keyword arguments of the teacher's forward; the same object where they are the same.
    - `labels`: row labels before flattening, as the task understands them; absent without labels.
    - `unlabelled`: (batch,) bool, over a vocabulary the examples whose labels say where rows are, and not what is learnt
      there; absent where there are none.
    - `words`: by side (batch, words), where rows are words, or tokens that stand elsewhere for either side, the position that
      answers for each; negative where there is none.
    - `looks`: (batch, bytes) where examples have pictures beside texts, a hash of what is stored of them.
    - `places`: by side (batch, classes), where a row's classes are places in an example, the position of each; negative
      where none is. `characters`: by side (batch, classes, 2), what of its text stands there, from and to; both 0 where
      nothing does. `across`: where the two models' places differ, (batch, rows of an example, classes) `to`, the student's
      class that each of the teacher's stands for, and `cells`, that with whose probability each of the student's goes;
      negative where none is.
    - `queries`: (rows,) where rows are a query's candidates, which query of the batch each belongs to, in rising order.
    - `pictures`: (batch,) which of the pictures each example has, negative where it has none. `texts`: (texts,) which of the
      texts that are read; `numbers`: (texts,) its number among all, equal for equal texts; `of`: (texts,) whose it is, an
      example of the batch.
    - `start`: where its vectors stand among those of the optimiser step.
    - `sizes`: (batch, 2) where places of a picture are answered, its size in pixels: height and width of masks, width and
      height of what boxes lie in.
    - `grid`: where masks of objects are answered, how many places lie below and beside each other in a picture.
    - `frames`: by side (batch, frames) bool, where examples are sounds, which frames of hidden states are the sound's own.
    - `scribe`: where frames are of speech, what their classes stand for.
    - `seen`: (batch, most), where rows are items, which of them an example has already; negative behind the last.
    - `counted`: (batch,) over a vocabulary what a token of each example counts; absent where all count 1.
    - `given`: labels as a person's collator made them, where the task has its rows at other places.
    - `keys`: (batch,) int64, the example's index in its split; what predictions are joined by.
    """

    @property
    def student(self) -> Mapping[str, Tensor]:
        inputs: Mapping[str, Tensor] = self["student"]
        return inputs

    @property
    def teacher(self) -> Mapping[str, Tensor]:
        inputs: Mapping[str, Tensor] = self["teacher"]
        return inputs

    @property
    def labels(self) -> Tensor | None:
        return self.get("labels")

    @property
    def keys_(self) -> Int[Tensor, "batch"] | None:
        """The examples' keys (`keys` is a mapping's own method)."""
        return self.get("keys")

    def to(self, device: torch.device | str) -> Batch:
        moved: dict[int, Any] = {}  # by identity, so that shared inputs stay shared and move once

        def move(value: Any) -> Any:
            if id(value) not in moved:
                if isinstance(value, Tensor):
                    moved[id(value)] = value.to(device)
                elif isinstance(value, Mapping):
                    moved[id(value)] = {name: move(one) for name, one in value.items()}
                else:
                    moved[id(value)] = value
            return moved[id(value)]

        return Batch({name: move(value) for name, value in self.items()})

    def part(self, examples: slice) -> Batch:
        """Some of its examples, padded as they are."""

        def cut(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value[examples]
            return {name: cut(one) for name, one in value.items()} if isinstance(value, Mapping) else value

        return Batch({name: cut(value) for name, value in self.items()})


@dataclass(frozen=True)
class Dense:
    """All logits of every row: the form for classifiers."""

    logits: Float[Tensor, "rows classes"]

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def rows(self, start: int, end: int) -> Dense:
        return Dense(self.logits[start:end])


@dataclass(frozen=True)
class Head:
    """How a family makes logits of a hidden state: z = cap(scale · h Wᵀ + bias), cap(y) = softcap · tanh(y / softcap).

    The product is made in the hidden state's precision. `bias` already holds all that the family adds. `used`: only
    the first so many classes exist (a padded vocabulary); None: all.
    """

    weight: Float[Tensor, "vocab width"]
    bias: Float[Tensor, " vocab"] | None = None
    scale: float = 1.0
    softcap: float | None = None
    used: int | None = None

    @property
    def classes(self) -> int:
        return len(self.weight) if self.used is None else self.used

    def first(self, classes: int) -> Head:
        """The same head for its first classes only.

        Raises:
            CompatibilityError: it does not have so many.
        """
        if not 0 < classes <= self.classes:
            raise CompatibilityError(f"the head has {self.classes} classes, its first {classes} cannot be taken")
        return replace(self, used=classes)

    def logits(self, hidden: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows classes"]:
        """All of them, differentiable, in at least float32. For few rows: the engine never builds so many at once."""
        product = hidden @ self.weight[: self.classes].to(hidden.dtype).T
        product = product.to(torch.promote_types(product.dtype, torch.float32))
        if self.scale != 1:
            product = product * self.scale
        if self.bias is not None:
            product = product + self.bias[: self.classes]
        return product if self.softcap is None else self.softcap * torch.tanh(product / self.softcap)


@dataclass(frozen=True)
class Headed:
    """Hidden states and the head that makes logits of them: the form for vocabularies, whose logits fit no memory.

    hidden: as the head got it, in the precision of its product. A task gets it over (batch, positions) and gives it
    back over rows.
    """

    hidden: Float[Tensor, "*rows width"]
    head: Head

    def __len__(self) -> int:
        return len(self.hidden)

    @property
    def device(self) -> torch.device:
        return self.hidden.device

    def rows(self, start: int, end: int) -> Headed:
        return Headed(self.hidden[start:end], self.head)

    def held(self) -> Headed:
        """With a copy of the head's weights, which last where the head's own do not."""
        bias = self.head.bias
        return Headed(self.hidden, replace(self.head, weight=self.head.weight.clone(),
                                           bias=None if bias is None else bias.clone()))

    def first(self, classes: int) -> Headed:
        """Over the first classes of the vocabulary only."""
        return Headed(self.hidden, self.head.first(classes))

    def dense(self) -> Dense:
        return Dense(self.head.logits(self.hidden))


@dataclass(frozen=True)
class TopK:
    """A distribution's k likeliest classes and the mass of all others, both at one temperature.

    ids: sorted, without repetition. log_tail: log of the mass outside, stored and never derived (1 - P has no digits
    where P is near 1); -inf where k is all classes. there: None, or which places hold anything: the others repeat the first
    class that is there, with log_probs of -inf (a student has fewer classes, `rows/among.py`).
    """

    ids: Int[Tensor, "rows k"]
    log_probs: Float[Tensor, "rows k"]
    log_tail: Float[Tensor, " rows"]
    temperature: float = 1.0
    there: Bool[Tensor, "rows k"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        return self.ids.device

    def rows(self, start: int, end: int) -> TopK:
        there = None if self.there is None else self.there[start:end]
        return TopK(self.ids[start:end], self.log_probs[start:end], self.log_tail[start:end], self.temperature, there)


@dataclass(frozen=True)
class Samples:
    """Classes drawn from a distribution at temperature 1, how often (0: padding), and the distribution's entropy in nats.

    counts / sum of counts is an unbiased estimate of the distribution: of forward KL's gradient, of nothing else's.
    """

    ids: Int[Tensor, "rows u"]
    counts: Float[Tensor, "rows u"]
    entropy: Float[Tensor, " rows"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        return self.ids.device

    def rows(self, start: int, end: int) -> Samples:
        return Samples(self.ids[start:end], self.counts[start:end], self.entropy[start:end])


Form = Dense | Headed | TopK | Samples
"""The forms that a distribution over classes comes in. Each has `len()`, its rows, and `rows(start, end)`, some of them."""


Pooling = Literal["mean", "first", "last", "max"]
"""How an example's positions become one vector, its embedding."""


@dataclass(frozen=True)
class Grid:
    """Where in a picture positions lie: row by row, after the first `prefix` of them, which show no place (a class token)."""

    height: int
    width: int
    prefix: int = 0


@dataclass(frozen=True)
class Stack:
    """The hidden states of one layer stack: [0] enters the first layer, [i] leaves layer i - 1.

    `mask` is True at valid tokens; `None` where every position is valid (images). `grids`: of each state of a picture, where
    its positions lie; None where that is not known, empty where nothing is.
    """

    hidden_states: Sequence[Float[Tensor, "batch _ _"]]  # positions and width: stages change both
    mask: Bool[Tensor, "batch _"] | None = None
    grids: Sequence[Grid | None] = ()

    def pooled(self, index: int, how: Pooling) -> Float[Tensor, "batch width"]:
        """One vector per example of `hidden_states[index]`: the mean of its valid positions, the first or the last of them,
        or the largest of each number.

        In at least float32; zero where an example has no valid position.
        """
        states = self.hidden_states[index]
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        valid = states.new_ones(states.shape[:2], dtype=torch.bool) if self.mask is None else self.mask
        if how == "mean":
            some = valid.sum(1, keepdim=True).clamp_min(1)
            # chosen and not multiplied: padding may hold what is no number
            return torch.where(valid.unsqueeze(-1), states, 0).sum(1) / some
        if how == "max":
            largest = torch.where(valid.unsqueeze(-1), states, torch.finfo(states.dtype).min).amax(1)
            return torch.where(valid.any(1, keepdim=True), largest, 0)
        places = torch.arange(valid.shape[1], device=valid.device)
        worth = -places if how == "first" else places
        place = torch.where(valid, worth, -valid.shape[1]).argmax(1)
        chosen = states[torch.arange(len(states), device=states.device), place]
        return torch.where(valid.any(1, keepdim=True), chosen, 0)


@dataclass(frozen=True)
class Pairs:
    """Which of a batch's pictures and texts belong together, and how a model compares them: scale · cos + bias.

    pictures: the number of each picture (an example's key). texts: the number of each text, equal for equal texts.
    written_for: the number of the picture that each text belongs to, -1 where nobody says it. bias: None where the model has
    none.
    """

    pictures: Int[Tensor, " pictures"]
    texts: Int[Tensor, " texts"]
    written_for: Int[Tensor, " texts"]
    scale: Float[Tensor, ""]
    bias: Float[Tensor, ""] | None = None


@dataclass(frozen=True)
class Heads:
    """Two answers of a student with a head to learn labels and one to learn from the teacher; it says their mean."""

    labels: Dense
    teacher: Dense


@dataclass(frozen=True)
class Signals:
    """What one model said about one batch."""

    logits: Form | None = None
    labels: Tensor | None = None
    """(rows,): int64 classes, -100 where the row has no label; or floats to regress on."""
    weights: Float[Tensor, " rows"] | None = None
    """What the label of every row counts; None: all the same."""
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    embeddings: Mapping[str, Float[Tensor, "batch width"]] = field(default_factory=dict)
    """By name, one vector of every example: of a text, of a query and of what stands beside it."""
    saliency: Float[Tensor, "batch positions"] | None = None  # how much an answer rests on each (`models/inputs.py`)
    heads: Heads | None = None
    """Of a student with two of them; `logits` is their mean."""
    queries: Int[Tensor, " rows"] | None = None
    """Where rows are a query's candidates, which query each belongs to: 0, 1, ... in rising order."""
    pairs: Pairs | None = None
    """Where `embeddings` are of pictures (`image`) and texts (`text`), which of them belong together."""
    grid: tuple[int, int] | None = None
    """Where rows are places in pictures, how many lie below and beside each other in each: pictures x down x across."""
    spoken: Spoken | None = None
    """Where rows are frames of utterances, all of them with what is said."""
    speech: Speech | None = None
    """Where rows are frames of spectrograms that a model makes; labels are then (rows, bins + 1), the data's own frame and
    whether it is its utterance's last."""
    parts: Mapping[str, Signals] = field(default_factory=dict)
    """Of several tasks at once, by name what was said of each one's examples."""
    detections: Detections | None = None
    """Of pictures with objects in them; labels are then (batch, most, 5): class, centre x, y, width, height of each object,
    the class -100 behind the last of them, and NaN where nobody has said what is there."""
    segments: Segments | None = None
    """Of pictures whose objects have masks; labels are then (batch, most, 1 + places): class, and which share of each place
    of the grid the object covers, row by row."""


@dataclass(frozen=True)
class Dims:
    """The sizes that an objective may need before training: what a model's signals will look like.

    `classes`: width of a row of logits; 0 where there are none. `widths`: per stack the width of each hidden state ([0]
    enters layer 0). `embedding`: of the vectors in `Signals.embeddings`; 0 where there are none.
    """

    classes: int
    widths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    embedding: int = 0
