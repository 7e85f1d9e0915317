"""Everything that a run measured, as it is written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from stilla import views
from stilla.errors import StillaError
from stilla.runtime.files import sealed, unsealed, write_whole
from stilla.scores.beside import Adapted, Best, Grouped, Kept, Part, Reasons
from stilla.scores.values import ClassScore, Flip, Interval, Measured, PairedTest, Sample
from stilla.views import Checked


@dataclass(frozen=True)
class Scores(Checked):
    """Everything that a run measured.

    `metric`: the headline metric; `split`: the split that headline numbers come from.
    `difference`: student minus baseline on the headline metric, paired over the examples.
    `gap`: student minus teacher, paired. `retention` = student / teacher. `ratio` = (student - baseline) /
    (teacher - baseline). Either is `None` where it is not defined or cannot be measured, and `notes` says why.
    `tests`: whether the difference is chance, by what is exchanged: `seeds` (where there are several), `examples`.
    `flipped`: numbers by kind on the headline split; `flips`: the examples shown in the report, most confident first.
    `samples`: examples of the headline split with what was answered, whatever that is.
    `units`: what is decided and flips (examples, tokens, words); `decided`: how many of them the headline split has.
    `class_metric`: what `classes` hold of every class.
    `learnt`: where the student learnt from unlabelled examples too, from how many `labelled` and `unlabelled` ones, how many
    of those that there are a language model wrote (`generated`), and how many were left out, by the reason.
    `spent`: by training, its `seconds` by the clock, its `processor_seconds`, `flops` and `joules`, as far as they are known.
    `repaid`: by what is saved (`seconds` one request at a time, `flops`, `joules` in batches), after how many requests in its
    teacher's place the student has saved what its training took.
    `slices`: of the headline split; `shifted`: splits of other data, measured beside it.
    `deploy`: the student, or the baseline where that is better beyond noise on validation data.
    `kept`: where the student was another run's, what it still knows of that run's task.
    `best`: by training (`baseline`, `baseline-1` of the next seed), which of its weights were kept, where the best were.
    `adapted`: where the teacher was adapted along with the student, how good it was before and after.
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
    samples: tuple[Sample, ...] = ()
    classes: tuple[ClassScore, ...] = ()
    units: str = "examples"
    decided: int = 0
    class_metric: str = "f1"
    learnt: Mapping[str, int] = field(default_factory=dict)
    spent: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    repaid: Mapping[str, float] = field(default_factory=dict)
    slices: tuple[Part, ...] = ()
    shifted: tuple[Part, ...] = ()
    deploy: str = "student"
    kept: Kept | None = None
    best: Mapping[str, Best] = field(default_factory=dict)
    adapted: Adapted | None = None
    reasons: Reasons | None = None
    parts: Mapping[str, Scores] = field(default_factory=dict)
    grouped: Grouped | None = None

    @property
    def teacher(self) -> Measured:
        """Raises:
            StillaError: it could not be measured beside its student; `notes` say why.
        """
        if "teacher" not in self.subjects:
            raise StillaError("scores: the teacher was not measured: it is known by its answers alone (teacher.api), or "
                              "reads something else than its student")
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
        stored["samples"] = [{**asdict(one), "shown": views.plain(one.shown)} for one in self.samples]
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
