"""What models say, in one form: the struct between tasks and objectives.

A **row** is one prediction that the student has to make: an example (classification), a label of an example
(several labels), a predicted token, a decoder step. A task flattens its *valid* positions into rows, so no
objective ever sees padding, a shift or a mask of logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from stilla.signals.batch import Batch as Batch
from stilla.signals.batch import Side as Side
from stilla.signals.dims import Dims as Dims
from stilla.signals.guesses import Detections as Detections
from stilla.signals.guesses import Edges as Edges
from stilla.signals.guesses import Segments as Segments
from stilla.signals.rows import Dense as Dense
from stilla.signals.rows import Form as Form
from stilla.signals.rows import Head as Head
from stilla.signals.rows import Headed as Headed
from stilla.signals.rows import Heads as Heads
from stilla.signals.rows import Samples as Samples
from stilla.signals.rows import TopK as TopK
from stilla.signals.stacks import Grid as Grid
from stilla.signals.stacks import Pooling as Pooling
from stilla.signals.stacks import Stack as Stack
from stilla.signals.utterances import Prosody as Prosody
from stilla.signals.utterances import Speech as Speech
from stilla.signals.utterances import Spoken as Spoken

UNSAID, NOBODYS = -1, -2
"""What a text belongs to (`Pairs.belongs_to`)."""


@dataclass(frozen=True)
class Pairs:
    """Which of a batch's pictures and texts belong together, or of its queries and what may answer them, and how a model
    compares them: scale · cos + bias.

    first: the number of each picture (an example's key), or of each query. second: the number of each text, equal for equal
    texts. belongs_to: the number of the first that each text belongs to; UNSAID where nobody says it, NOBODYS where it is
    known to belong to none of them. bias: None where the model has none. alike: both are texts, under the same numbers:
    equal numbers are one text. angle: compared by the cosine; else by the product of the vectors as they are. answers: of
    each query the numbers of all that the data have as its answers, whatever stands in the batch, UNSAID behind the last.
    """

    first: Int[Tensor, " first"]
    second: Int[Tensor, " second"]
    belongs_to: Int[Tensor, " second"]
    scale: Float[Tensor, ""]
    bias: Float[Tensor, ""] | None = None
    alike: bool = False
    angle: bool = True
    answers: Int[Tensor, "first most"] | None = None


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
