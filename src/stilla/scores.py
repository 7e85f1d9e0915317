"""What was measured, as plain data: made by `evaluate/` and `export/`, read by people, `report/` and the model card.

Nothing here computes; nothing here needs torch. Qualities are fractions (accuracy 0.931), not percents.
A *subject* is one measured model: `teacher` (but where it is behind an address), `baseline` (the same student trained on
labels alone), `student`, and one per exported file (`onnx`, `int8`; of the baseline `baseline-onnx`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainValidator, TypeAdapter, ValidationError

from stilla import views
from stilla.errors import StillaError
from stilla.runtime.files import sealed, unsealed, write_whole
from stilla.views import Checked, View

_TITLES = {
    "macro_f1": "macro F1", "micro_f1": "micro F1", "f1": "F1", "rmse": "RMSE", "mae": "MAE", "mse": "MSE",
    "bleu": "BLEU", "chrf": "chrF", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L",
    "mean_retention": "quality over all tasks",
    "matthews": "Matthews correlation", "pearson": "Pearson correlation", "spearman": "Spearman correlation",
}


def metric_title(metric: str) -> str:
    """What a metric is called in a sentence or above a column: 'macro F1' of 'macro_f1'."""
    part, _, own = metric.rpartition("/")  # of one of several tasks
    title = _TITLES.get(own, own.replace("_", " "))
    return f"{part.replace('_', ' ')}: {title}" if part else title


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
    `throughput`: examples per second in batches of `batch_size`. `energy_joules`: per 1,000 examples, and how
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
        """The metric's value on test data if there are any, else on validation data."""
        split = "test" if "test" in self.quality else "validation"
        return self.quality[split][metric].value


@dataclass(frozen=True)
class ClassScore(Checked):
    """One class: how often it occurs, and each subject's value of the metric of classes (F1, one against the rest)."""

    name: str
    support: int
    values: Mapping[str, float]


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


@dataclass(frozen=True)
class Part(Checked):
    """Some of what was measured, by itself, on the headline metric: a slice of the headline split, or data from elsewhere.

    `column`, `name`: a slice's column and value; of data from elsewhere the column is empty. `quality`: by subject, without
    those for which it is not defined there. `gap`: student minus teacher, `difference`: student minus baseline, paired.
    `beyond`: the gap here minus that on the whole headline split; its interval is wide enough for all parts that were looked
    at to hold at once in 95 of 100 cases. All three are `None` where there are too few examples to compare.
    """

    column: str
    name: str
    examples: int
    quality: Mapping[str, Interval]
    gap: Interval | None = None
    difference: Interval | None = None
    beyond: Interval | None = None


@dataclass(frozen=True)
class Kept(Checked):
    """What is left of the task that a student was made for before it learnt this one, on that task's own data and metric:
    of that student, and `after`, as it is where the labels are the same (`whole`), else its body under the head of then."""

    run: str
    task: str
    metric: str
    split: str
    examples: int
    before: Interval
    after: Mapping[str, Interval]
    lost: Mapping[str, Interval]
    whole: bool


@dataclass(frozen=True)
class Reason(Checked):
    """An example (`key`: its row in its file) with what each answer to it rests on, and how far that agrees with the
    teacher's."""

    key: str
    shown: Annotated[View, PlainValidator(views.view_of)]
    label: str
    agreement: Mapping[str, float]


@dataclass(frozen=True)
class Reasons(Checked):
    """Whether answers rest on what the teacher's do: by subject, over examples, Spearman's correlation of integrated
    gradients of the teacher's class. `ceiling`: that of the teacher trained once more with another seed."""

    examples: int
    steps: int
    agreement: Mapping[str, Interval]
    ceiling: Interval | None = None
    shown: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Group(Checked):
    """A group of examples that has a part of the student to itself, on the headline metric.

    `learnt`: from so many training examples. `difference`: its part minus the shared student, paired; its interval is wide
    enough for all groups to hold at once in 95 of 100 cases. `outcome`: `win`, `tie` or `loss`; neither, and no difference,
    where there are too few examples.
    """

    name: str
    learnt: int
    examples: int
    student: Interval
    personal: Interval
    difference: Interval | None
    outcome: str


@dataclass(frozen=True)
class Grouped(Checked):
    """Parts of the student for groups (values of the column `by`) against the shared student, on the headline split.

    `cold`: examples of nobody who has a part. `won`, `tied`, `lost`: of the others (`units`), by the metric of each alone;
    `None` where that says nothing of one. `difference`: of all examples. `parts`: how many there are, each of so many
    `numbers` and bytes (`size`).
    """

    by: str
    groups: tuple[Group, ...]
    cold: int
    units: str
    won: int | None
    tied: int | None
    lost: int | None
    difference: Interval
    parts: int
    numbers: int
    size: int


@dataclass(frozen=True)
class Scores(Checked):
    """Everything that a run measured.

    `metric`: the headline metric; `split`: the split that headline numbers come from.
    `difference`: student minus baseline on the headline metric, paired over the examples.
    `gap`: student minus teacher, paired. `retention` = student / teacher. `ratio` = (student - baseline) /
    (teacher - baseline). Either is `None` where it is not defined or cannot be measured, and `notes` says why.
    `tests`: whether the difference is chance, by what is exchanged: `seeds` (where there are several), `examples`.
    `flipped`: numbers by kind on the headline split; `flips`: the examples shown in the report, most confident first.
    `units`: what is decided and flips (examples, tokens, words); `decided`: how many of them the headline split has.
    `class_metric`: what `classes` hold of every class.
    `learnt`: where the student learnt from unlabelled examples too, from how many `labelled` and `unlabelled` ones, how many
    of those that there are a language model wrote (`generated`), and how many were left out, by the reason.
    `spent`: by training, its `seconds` by the clock and its `processor_seconds`, as far as they are known.
    `slices`: of the headline split; `shifted`: splits of other data, measured beside it.
    `deploy`: the student, or the baseline where that is better beyond noise on validation data.
    `kept`: where the student was another run's, what it still knows of that run's task.
    `parts`: of several tasks that are learnt at once, the scores of each by itself.
    `grouped`: what parts of the student for groups of examples are worth, where there are some.
    """

    task: str
    metric: str
    higher_is_better: bool
    split: str
    examples: Mapping[str, int]
    subjects: Mapping[str, Measured]
    gap: Interval | None = None
    difference: Interval | None = None
    retention: Interval | None = None
    ratio: Interval | None = None
    tests: Mapping[str, PairedTest] = field(default_factory=dict)
    verdict: str = ""
    notes: tuple[str, ...] = ()
    flipped: Mapping[str, int] = field(default_factory=dict)
    flips: tuple[Flip, ...] = ()
    classes: tuple[ClassScore, ...] = ()
    units: str = "examples"
    decided: int = 0
    class_metric: str = "f1"
    learnt: Mapping[str, int] = field(default_factory=dict)
    spent: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    slices: tuple[Part, ...] = ()
    shifted: tuple[Part, ...] = ()
    deploy: str = "student"
    kept: Kept | None = None
    reasons: Reasons | None = None
    parts: Mapping[str, Scores] = field(default_factory=dict)
    grouped: Grouped | None = None

    @property
    def teacher(self) -> Measured:
        """Raises:
            StillaError: it is behind an address, and could not be measured.
        """
        if "teacher" not in self.subjects:
            raise StillaError("scores: the teacher was not measured: it is known by its answers alone (teacher.api)")
        return self.subjects["teacher"]

    @property
    def student(self) -> Measured:
        return self.subjects["student"]

    @property
    def baseline(self) -> Measured | None:
        return self.subjects.get("baseline")

    def dump(self, path: Path) -> None:
        """Write as JSON with a checksum, whole or not at all; `load` reads the same back."""
        write_whole(path, sealed(self._stored(), allow_nan=False))

    def _stored(self) -> dict[str, Any]:
        stored = asdict(replace(self, parts={}))
        stored["flips"] = [{**asdict(flip), "shown": views.plain(flip.shown)} for flip in self.flips]
        if self.reasons is not None:
            stored["reasons"]["shown"] = [{**asdict(one), "shown": views.plain(one.shown)} for one in self.reasons.shown]
        parts = {name: one._stored() for name, one in self.parts.items()}
        return {**{name: value for name, value in stored.items() if name != "parts"}, **({"parts": parts} if parts else {})}

    @classmethod
    def load(cls, path: Path) -> Scores:
        """Raises:
            ValueError: damaged, changed by hand, or of another version; where, and what is wrong there.
        """
        return cls.from_plain(unsealed(path.read_text(encoding="utf-8")))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Scores:
        """Raises:
            ValueError: these are no scores; where, and what is wrong there.
        """
        try:
            scores = _checked().validate_json(json.dumps(json.loads(json.dumps(_as_today(plain)), parse_int=_count)))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from None
        if lacking := _lacking(scores):
            raise ValueError(lacking)
        return scores


def _as_today(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of before ratios had intervals: a number, whose interval nobody knows."""
    found = dict(plain)
    if "distillation_ratio" in found:
        found["ratio"] = found.pop("distillation_ratio")
    return found | {name: {"value": one, "low": one, "high": one} for name in ("retention", "ratio")
                    if isinstance(one := found.get(name), float)}


def _count(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


@cache
def _checked() -> TypeAdapter[Scores]:
    return TypeAdapter(Scores)


OF_BASELINE = "baseline-"
"""How the names of exported files begin that hold the baseline, not the student."""

PERSONAL = "personal"
"""The student with its parts: each example is answered by its group's, or else by the shared student."""

MODELS = ("teacher", "student", "baseline")
"""Subjects that are measured by everything; an exported file may not be: not every one writes."""


def _lacking(scores: Scores) -> str | None:
    """What the pages could not do without."""
    for name, one in scores.subjects.items():
        if name in MODELS and scores.metric not in one.quality.get(scores.split, {}):
            return f"subjects.{name}.quality: there is no {scores.metric} on {scores.split} data, which the headline is"
    if not {"teacher", "student"} & set(scores.subjects):
        return "subjects: there is neither a teacher nor a student"
    return next((f"parts.{name}.{wrong}" for name, one in scores.parts.items() if (wrong := _lacking(one))), None)
