"""The scores as rows and columns of text: the terminal, the page and the model card show this same table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from stilla.report import numbers
from stilla.report.numbers import MISSING
from stilla.scores import Cost, Interval, Measured, Scores, metric_title

_SUBJECTS = {
    "teacher": "teacher", "baseline": "labels alone", "student": "student", "personal": "student with parts",
    "onnx": "ONNX", "int8": "int8", "baseline-onnx": "labels alone, ONNX", "baseline-int8": "labels alone, int8",
}


SURE = 0.05
"""What a p is below where people speak of a difference."""


@dataclass(frozen=True)
class Cell:
    """A number as text, with its interval or its ratio to the teacher; `value` is `None` if missing.

    `tone`: `worse` or `better`, where it is so beyond chance.
    """

    text: str
    detail: str = ""
    value: float | None = None
    tone: str = ""

    def __str__(self) -> str:
        if not self.detail:
            return self.text
        return f"{self.text} {self.detail}" if self.detail.startswith("[") else f"{self.text} ({self.detail})"


@dataclass(frozen=True)
class Column:
    """`key` is stable, `title` is for people, `hint` says how the number was obtained."""

    key: str
    title: str
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """One subject: `subject` as in the scores, `title` for people, a cell per column."""

    subject: str
    title: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Fact:
    """A number about the whole run: retention, student minus baseline ..."""

    title: str
    text: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.title}: {Cell(self.text, self.detail)}"


@dataclass(frozen=True)
class ScoreTable:
    """Columns without a number are left out; rows come in the order teacher, baseline, student, exports."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    facts: tuple[Fact, ...] = ()


def score_table(scores: Scores, metric: str | None = None, split: str | None = None) -> ScoreTable:
    """The run's numbers on the headline metric and split, or on the ones given."""
    metric, split = metric or scores.metric, split or scores.split
    measures = _measures(scores, metric, split)
    rows = [Row(name, subject_title(name), tuple(read(scores.subjects[name]) for _, read in measures))
            for name in ordered_subjects(scores)]
    table = without_empty([column for column, _ in measures], rows)
    return replace(table, facts=facts(scores)) if (metric, split) == (scores.metric, scores.split) else table


def without_empty(columns: Sequence[Column], rows: Sequence[Row]) -> ScoreTable:
    """The table without the columns in which nobody has a number."""
    kept = [index for index in range(len(columns)) if any(row.cells[index].value is not None for row in rows)]
    return ScoreTable(tuple(columns[index] for index in kept),
                      tuple(replace(row, cells=tuple(row.cells[index] for index in kept)) for row in rows))


def markdown_table(scores: Scores) -> str:
    """The same table in Markdown, for the model card."""
    return in_markdown(score_table(scores))


def in_markdown(table: ScoreTable) -> str:
    lines = [["", *(column.title for column in table.columns)],
             ["---", *("---:" for _ in table.columns)],
             *([row.title, *map(str, row.cells)] for row in table.rows)]
    # A bar would end the cell.
    escaped = [[text.replace("|", "\\|") for text in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def facts(scores: Scores) -> tuple[Fact, ...]:
    """Retention, ratio, differences and flips on the headline metric; the reason where one is not defined. Of a teacher that
    was not measured nothing."""
    taught = "teacher" in scores.subjects
    found = [
        _ratio_fact("retention", scores, scores.retention, numbers.percent, "student / teacher") if taught else None,
        _ratio_fact("distillation ratio", scores, scores.ratio, numbers.part,
                    "(student − labels alone) / (teacher − labels alone)") if scores.baseline and taught else None,
        _difference_fact("student − teacher", scores, scores.gap) if taught else None,
        _difference_fact("student − labels alone", scores, scores.difference) if scores.baseline else None,
        _test_fact(scores) if scores.tests else None,
        _best_fact(scores) if scores.baseline else None,
    ]
    if scores.flipped:
        total = scores.decided
        parts = ", ".join(f"{number:,} {kind}" for kind, number in scores.flipped.items())
        share = f"{sum(scores.flipped.values()):,}" + (f" of {total:,}" if total else "")
        found.append(Fact("decisions changed", share, parts))
    return tuple(fact for fact in found if fact is not None)


def unsaid(scores: Scores) -> tuple[str, ...]:
    """The notes that no fact has said already."""
    said = [fact.detail for fact in facts(scores) if fact.text == MISSING and fact.detail]
    return tuple(note for note in scores.notes if not any(note.endswith(detail) for detail in said))


def markdown_facts(scores: Scores) -> str:
    """The facts as a list in Markdown."""
    return "".join(f"- {fact}\n" for fact in facts(scores))


def full_table(scores: Scores) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Every number that was measured: (title, one text per subject in `ordered_subjects`), by split."""
    subjects = [scores.subjects[name] for name in ordered_subjects(scores)]
    lines: list[tuple[str, tuple[str, ...]]] = []
    for split in _keys(one.quality for one in subjects):
        for metric in _keys(one.quality.get(split, {}) for one in subjects):
            lines.append((f"{metric_title(metric)}, {split}",
                          tuple(str(_quality_cell(one, metric, split)) for one in subjects)))
        lines += [
            (f"agreement with the teacher, {split}",
             tuple(str(_agreement_cell(one, split)) for one in subjects)),
            (f"KL from the teacher (nats), {split}",
             tuple(str(_cell(one.kl.get(split), numbers.significant)) for one in subjects)),
            (f"calibration error (ECE), {split}", tuple(str(_ece_cell(one, split)) for one in subjects))]
    costs: tuple[tuple[str, Callable[[Measured], Cell]], ...] = (
        ("parameters", lambda one: _cell(one.cost.parameters, lambda value: f"{value:,.0f}")),
        ("tokens of the vocabulary", lambda one: _cell(one.cost.tokens, lambda value: f"{value:,.0f}")),
        ("bytes", lambda one: _cell(one.cost.bytes, lambda value: f"{value:,.0f}")),
        ("FLOPs per example", lambda one: _cell(one.cost.flops, numbers.count)),
        ("latency, median", lambda one: _cell(one.cost.latency_median_ms, numbers.milliseconds)),
        ("latency, 95th percentile", lambda one: _cell(one.cost.latency_p95_ms, numbers.milliseconds)),
        ("examples per second", lambda one: _cell(one.cost.throughput, numbers.significant)),
        ("seconds of sound per second (RTFx)", lambda one: _cell(one.cost.real_time, numbers.significant)),
        ("in batches of", lambda one: _cell(one.cost.batch_size, lambda value: f"{value:.0f}")),
        (_energy_title(subjects), lambda one: _cell(one.cost.energy_joules, _joules)),
    )
    lines += [(title, tuple(str(read(one)) for one in subjects)) for title, read in costs]
    return tuple((title, texts) for title, texts in lines if any(text != MISSING for text in texts))


def ordered_subjects(scores: Scores) -> list[str]:
    known = [name for name in _SUBJECTS if name in scores.subjects]
    return known + [name for name in scores.subjects if name not in _SUBJECTS]


def subject_title(name: str) -> str:
    """What people call it: the baseline is the same student trained on 'labels alone'."""
    return _SUBJECTS.get(name, name)


def verdict_on(measured: Interval) -> str:
    """'no difference measured' where the interval does not allow a verdict."""
    return "" if measured.excludes_zero() else "no difference measured"


def reason(scores: Scores, words: str) -> str:
    """The note that says why something is not defined, without the name it opens with."""
    note = next((note for note in scores.notes if words in note.lower().replace("_", " ")), "")
    return note[len(words):].removeprefix(":").removeprefix(" is").strip() if note.startswith(words) else note


def _measures(scores: Scores, metric: str, split: str) -> Sequence[tuple[Column, Callable[[Measured], Cell]]]:
    """A table's columns and how each is read from a subject."""
    teacher = scores.subjects.get("teacher")
    batches = {one.cost.batch_size for one in scores.subjects.values()} - {None}
    batch = "examples per second" + (f" in batches of {batches.pop()}" if len(batches) == 1 else "")

    differing = len({one.cost.tokens for one in scores.subjects.values()}) > 1

    def cost(field: Callable[[Cost], float | None], text: Callable[[float], str],
             less: str, more: str, same: str) -> Callable[[Measured], Cell]:
        def read(one: Measured) -> Cell:
            value, reference = field(one.cost), field(teacher.cost) if teacher else None
            if one is teacher or value is None or reference is None:
                return _cell(value, text)
            return _cell(value, text, numbers.compared(value, reference, less, more, same))
        return read

    return (
        (Column("quality", metric_title(metric), f"on {split} data, with its 95 % interval"),
         lambda one: _quality_cell(one, metric, split)),
        (Column("parameters", "parameters"),
         cost(lambda one: one.parameters, numbers.count, "fewer", "more", "as many")),
        (Column("vocabulary", "vocabulary", "tokens"),
         cost(lambda one: one.tokens if differing else None, numbers.count, "fewer", "more", "as many")),
        (Column("size", "size", "weights as stored"),
         cost(lambda one: one.bytes, numbers.megabytes, "smaller", "larger", "same size")),
        (Column("latency", "latency", "median, one example at a time"),
         cost(lambda one: one.latency_median_ms, numbers.milliseconds, "faster", "slower", "same speed")),
        (Column("p95", "p95 latency", "95th percentile"),
         lambda one: _cell(one.cost.latency_p95_ms, numbers.milliseconds)),
        (Column("throughput", "throughput", batch),
         cost(lambda one: one.throughput, numbers.per_second, "less", "more", "as much")),
        (Column("agreement", "agreement", "predicts what the teacher predicts"),
         lambda one: Cell(MISSING) if one is teacher else _agreement_cell(one, split)),
        (Column("ece", "ECE", "expected calibration error: confidence against accuracy"),
         lambda one: _ece_cell(one, split)),
    )


def _cell(value: float | None, text: Callable[[float], str], detail: str = "") -> Cell:
    return Cell(MISSING) if value is None else Cell(text(value), detail, float(value))


def _quality_cell(one: Measured, metric: str, split: str) -> Cell:
    measured = one.quality.get(split, {}).get(metric)
    if measured is None:
        return Cell(MISSING)
    return Cell(numbers.quality(metric, measured.value), numbers.interval(metric, measured), measured.value)


def _agreement_cell(one: Measured, split: str) -> Cell:
    agreement = one.agreement.get(split)
    if agreement is None:
        return Cell(MISSING)
    return Cell(numbers.percent(agreement.value), numbers.interval("accuracy", agreement), agreement.value)


def _ece_cell(one: Measured, split: str) -> Cell:
    calibration = one.calibration.get(split)
    return _cell(calibration.ece if calibration else None, numbers.percent)


def _energy_title(subjects: Sequence[Measured]) -> str:
    methods = dict.fromkeys(one.cost.energy_method for one in subjects if one.cost.energy_method)
    return f"energy per 1,000 examples ({'; '.join(methods)})" if methods else "energy per 1,000 examples"


def _joules(energy: float) -> str:
    return f"{numbers.significant(energy)} J"


def _difference_fact(title: str, scores: Scores, measured: Interval | None) -> Fact:
    if measured is None:
        return Fact(title, MISSING, reason(scores, title))
    text = f"{numbers.difference(scores.metric, measured.value)} " \
           f"{numbers.difference_interval(scores.metric, measured)}".rstrip()
    return Fact(title, text, verdict_on(measured))


def _ratio_fact(
    title: str, scores: Scores, measured: Interval | None, text: Callable[[float], str], formula: str,
) -> Fact:
    if measured is None:
        return Fact(title, MISSING, reason(scores, title) or "not defined")
    return Fact(title, f"{text(measured.value)} {numbers.interval_of(measured, text)}".rstrip(), formula)


def _test_fact(scores: Scores) -> Fact:
    """How often exchanging student and labels alone gives as large a difference, and what it could not fall below."""
    found = [f"{numbers.chance(one.p)} over {name}" for name, one in scores.tests.items()]
    seeds = scores.tests.get("seeds")
    if seeds is None:
        why = "one seed says nothing of others"
    elif seeds.least > SURE:
        least = numbers.chance(seeds.least)
        why = f"with {seeds.pairs} seeds not below {least}, whatever the difference; from 6 on below {SURE}"
    else:
        why = f"{seeds.pairs} seeds"
    return Fact("p of student − labels alone", ", ".join(found), f"both exchanged in pairs; {why}")


def _best_fact(scores: Scores) -> Fact | None:
    """Which weights of labels alone everything is compared with, where its best ones were kept."""
    found = [one for name, one in scores.best.items() if name.partition("-")[0] == "baseline"]
    if not found:
        return None
    passes = ", ".join(f"{one.passes:.3g}" for one in found)
    of = ", ".join(dict.fromkeys(f"{one.of:.3g}" for one in found))
    metric, values = found[0].metric, ", ".join(numbers.quality(one.metric, one.value) for one in found)
    return Fact("labels alone, kept", f"after {passes} of {of} passes",
                f"where its {metric_title(metric)} on validation data was best ({values})")


def _keys(dictionaries: Iterable[Mapping[str, object]]) -> list[str]:
    """All keys, each once, in the order of their first appearance."""
    return list(dict.fromkeys(key for dictionary in dictionaries for key in dictionary))
