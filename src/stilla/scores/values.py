"""Measured values and what they are called: of one subject, one class, one decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, PlainValidator

from stilla import views
from stilla.views import Checked, View

_TITLES = {
    "kl": "KL", "macro_f1": "macro F1", "micro_f1": "micro F1", "f1": "F1", "rmse": "RMSE", "mae": "MAE", "mse": "MSE",
    "bleu": "BLEU", "chrf": "chrF", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L",
    "mcd": "mel-cepstral distance (dB)", "frame_error": "error of the next frame",
    "mean_retention": "quality over all tasks",
    "matthews": "Matthews correlation", "pearson": "Pearson correlation", "spearman": "Spearman correlation",
}


def metric_title(metric: str) -> str:
    """What a metric is called in a sentence or above a column: 'macro F1' of 'macro_f1'."""
    part, _, own = metric.rpartition("/")  # of one of several tasks
    title = _TITLES.get(own, own.replace("_", " "))
    return f"{part.replace('_', ' ')}: {title}" if part else title


_FRACTIONS = frozenset({"accuracy", "f1", "precision", "recall", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact"})


def is_fraction(metric: str) -> bool:
    """Whether the metric lies in 0..1 and is read as a percentage, in tables as in sentences: accuracy, macro_f1,
    micro_precision ..."""
    return not _FRACTIONS.isdisjoint(metric.rpartition("/")[2].split("_"))


def task_title(kind: str) -> str:
    """What a task is called above a page: 'Text classification', 'Causal LM'."""
    words = " ".join("LM" if word == "lm" else word for word in kind.split("-"))
    return words[:1].upper() + words[1:]


@dataclass(frozen=True)
class Interval(Checked):
    """A measured value with its 95 % bootstrap interval; `low == high == value` where none could be computed."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class PairedTest(Checked):
    """How often student and baseline, exchanged at random within each of so many pairs, differ at least as much as they do.

    `p`: two-sided. `least`: what it cannot fall below, however large the difference is. `pairs`: seeds, or examples.
    """

    p: float
    least: float
    pairs: int


@dataclass(frozen=True)
class Bin(Checked):
    """One bar of a reliability diagram: mean confidence, accuracy and number of the examples in it."""

    confidence: float
    accuracy: float
    count: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Calibration(Checked):
    """Expected calibration error over equally wide bins of confidence (Guo et al. 2017, arXiv:1706.04599)."""

    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Cost(Checked):
    """What a model costs on the machine of the run; `None` where it was not or could not be measured.

    `bytes`: weights as stored. `flops`: of one forward pass of one typical example. `latency_*_ms`: batch 1.
    `throughput`: examples per second in batches of `batch_size`. `real_time`: of sounds, how many seconds of them these are
    in a second (RTFx, the inverse of the real-time factor). `energy_joules`: per 1,000 examples, and how
    that number was obtained. `parameters`, `bytes`: None of a model that nobody has here. `timed`: what latency,
    throughput and measured energy are of: one `forward`, or, in
    words, the whole texts that were written token by token. `tokens`: how many it has in its vocabulary.
    """

    parameters: int | None = None
    bytes: int | None = None
    flops: float | None = None
    latency_median_ms: float | None = None
    latency_p95_ms: float | None = None
    throughput: float | None = None
    batch_size: int | None = None
    energy_joules: float | None = None
    energy_method: str | None = None
    timed: str = "forward"
    tokens: int | None = None
    real_time: float | None = None

    @property
    def unsteady(self) -> bool:
        """Whether single calls took so different times that no ratio of speeds means anything: other work beside it."""
        if self.latency_median_ms is None or self.latency_p95_ms is None:
            return False
        # on a machine with nothing else to do it is 1 to 3 times the median
        return self.latency_p95_ms > 10 * self.latency_median_ms


@dataclass(frozen=True)
class Measured(Checked):
    """One subject. Dictionaries by split (`validation`, `test`), then by metric.

    `agreement`: fraction of examples on which it predicts what the teacher predicts. `kl`: KL(teacher || subject)
    in nats, mean over examples. `seeds`: with several seeds, the headline metric of each; the quality is then
    their mean, its interval over examples and seeds together.
    """

    quality: Mapping[str, Mapping[str, Interval]]
    cost: Cost
    agreement: Mapping[str, Interval] = field(default_factory=dict)
    kl: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    seeds: tuple[float, ...] = ()

    def __getitem__(self, metric: str) -> float:
        """The metric's value on test data if there are any, else on validation data, else on those that were measured."""
        split = next((name for name in ("test", "validation") if name in self.quality), next(iter(self.quality)))
        return self.quality[split][metric].value


@dataclass(frozen=True)
class ClassScore(Checked):
    """One class: how often it occurs, and each subject's value of the metric of classes (F1, one against the rest)."""

    name: str
    support: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Sample(Checked):
    """An example with what was answered. `key`: its place in its split."""

    key: str
    shown: Annotated[View, PlainValidator(views.view_of)]


@dataclass(frozen=True)
class Flip(Checked):
    """A decision on which teacher and student differ.

    `key`: the example's place in its split, and the decision's in it. `predictions`, and `confidences` where a model says
    them, by subject.
    `kind`: `lost` (the teacher was right, the student is not), `won` (the other way round) or `moved` (both wrong).
    """

    key: str
    shown: Annotated[View, PlainValidator(views.view_of)]
    label: str
    predictions: Mapping[str, str]
    confidences: Mapping[str, float]
    kind: str
