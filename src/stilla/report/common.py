"""What several runs have in common and in what they differ, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stilla.errors import DataError, RecipeError, all_of
from stilla.recipe.yaml import load
from stilla.report import numbers
from stilla.report.folder import RunFolder, flat
from stilla.report.numbers import MISSING
from stilla.report.table import Cell, Column, Row, ScoreTable, score_table, without_empty
from stilla.scores import Interval, Scores, metric_title

_ERRORS = frozenset({"rmse", "mse", "mae", "loss", "perplexity"})
# Columns that each run's own table has; beside other runs there is no room for them.
_DETAILS = frozenset({"p95", "throughput", "ece"})
# What an environment calls the hardware; where these differ, times do not compare.
_HARDWARE = ("processor", "cpu", "gpu", "accelerator", "cores", "device")


def common_measure(runs: Sequence[RunFolder]) -> tuple[str, str]:
    """The metric and the split on which all students were measured: the first run's own, where all have them.

    Raises:
        DataError: different tasks, or no metric that all runs measured on the same split.
    """
    if len({run.scores.task for run in runs}) > 1:
        tasks = ", ".join(f"{run.name}: {run.scores.task}" for run in runs)
        raise DataError(f"the runs solve different tasks, so their numbers do not compare ({tasks}). "
                        "Compare runs of one task.")
    first = runs[0].scores
    shared = set.intersection(*(set(_measured(run.scores)) for run in runs))
    if not shared:
        found = [f"{run.name}: {', '.join(f'{metric} on {split}' for split, metric in _measured(run.scores))}"
                 for run in runs]
        raise DataError(f"the runs share no metric on the same split ({'; '.join(found)}). "
                        "Measure them on the same data: stilla evaluate RUN --data FILE")
    split, metric = min(shared, key=lambda one: (one[1] != first.metric, one[0] != first.split, one))
    return metric, split


def caveats(runs: Sequence[RunFolder], metric: str, split: str) -> tuple[str, ...]:
    """In words, what of the runs does not compare."""
    title = metric_title(metric)
    found = []
    if len({(run.scores.metric, run.scores.split) for run in runs}) > 1:
        own = [f"{run.name}: {metric_title(run.scores.metric)} on {run.scores.split} data"
               for run in runs]
        found.append(f"The runs have different headline measures ({', '.join(own)}). They are compared by "
                     f"{title} on {split} data, which all of them measured.")
    metrics: list[set[str]] = [{metric for _, metric in _measured(run.scores)} for run in runs]
    left_out = sorted(map(metric_title, set().union(*metrics) - metrics[0].intersection(*metrics)))
    if left_out:
        found.append(f"Not measured by all runs, and therefore not compared: {', '.join(left_out)}.")
    if len({run.scores.examples.get(split) for run in runs}) > 1:
        sizes = [f"{run.name}: {run.scores.examples.get(split, 0):,} {split} examples" for run in runs]
        found.append(f"The runs were measured on different data ({', '.join(sizes)}): a difference between "
                     "them may be one between the data.")
    if len({_quality(run.scores, "teacher", metric, split) for run in runs}) > 1:
        found.append("The runs have different teachers: retention is against each run’s own.")
    hardware = dict.fromkeys(key for run in runs for key in run.environment
                             if any(word in key.lower() for word in _HARDWARE))
    known = [run.environment for run in runs if run.environment]
    differing = [key for key in hardware if len({one[key] for one in known if key in one}) > 1]
    if differing:
        found.append(f"The runs were measured on different machines ({', '.join(differing)} differ): "
                     "latency and throughput do not compare.")
    timed = {one.cost.timed for run in runs for one in run.scores.subjects.values()}
    if len(timed) > 1:
        found.append(f"The runs timed different things ({'; '.join(sorted(timed))}): latency and throughput do not compare.")
    return tuple(found)


def ranking(runs: Sequence[RunFolder], metric: str, split: str) -> str:
    """Whose student is best, and who may be as good: the runs are not paired, so only intervals can say."""
    students = {run.name: run.scores.student.quality[split][metric] for run in runs}
    best = (max if _higher_is_better(runs, metric) else min)(students, key=lambda name: students[name].value)
    close = [name for name, one in students.items() if name != best and _overlap(one, students[best])]
    measured, title = students[best], metric_title(metric)
    equal = [name for name, one in students.items()
             if numbers.quality(metric, one.value) == numbers.quality(metric, measured.value)]
    who = f"By {title}, the students of {all_of(equal)} are equal" if len(equal) > 1 \
        else f"The best student by {title} is that of {best}"
    words = f"{who}: {numbers.quality(metric, measured.value)} {numbers.interval(metric, measured)}".rstrip() + "."
    close = [name for name in close if name not in equal]
    if len(equal) > 1 and close:
        whose = f"The intervals of {all_of(close)} overlap" if len(close) > 1 else f"The interval of {close[0]} overlaps"
        words += f" {whose} with theirs: the order may be chance."
    elif close:
        words += (f" Its interval overlaps with {'those' if len(close) > 1 else 'that'} of {all_of(close)}: "
                  "their order may be chance.")
    sizes = {run.name: run.scores.student.cost.bytes or 0 for run in runs}
    if len({*sizes.values()}) > 1:
        smallest = min(sizes, key=lambda name: sizes[name])
        words += f" The smallest is that of {smallest}, with {numbers.megabytes(sizes[smallest])}."
    return words


def students_table(runs: Sequence[RunFolder], metric: str, split: str) -> ScoreTable:
    """A row per run: its student's row of the score table, and what it stands against."""
    tables = [score_table(run.scores, metric, split) for run in runs]
    columns = list({column.key: column for table in tables for column in table.columns
                    if column.key not in _DETAILS}.values())
    rows = []
    for run, table in zip(runs, tables, strict=True):
        keys = [column.key for column in table.columns]
        by_subject = {row.subject: dict(zip(keys, row.cells, strict=True)) for row in table.rows}
        student = [by_subject["student"].get(column.key, Cell(MISSING)) for column in columns]
        teacher = by_subject.get("teacher", {}).get("quality", Cell(MISSING))
        cells = (student[0], teacher, *_against(run.scores, metric, split), *student[1:])
        rows.append(Row(run.name, run.name, cells))
    columns[1:1] = [Column("teacher", "teacher’s"),
                    Column("difference", "− labels alone", "student minus labels alone, paired by example"),
                    Column("ratio", "ratio", "(student − labels alone) / (teacher − labels alone)"),
                    Column("retention", "retention", "student / teacher")]
    return without_empty(columns, rows)


def recipe_differences(runs: Sequence[RunFolder]) -> tuple[list[tuple[str, list[str]]], tuple[str, ...]]:
    """Dotted keys whose values differ, with each run's value; and which recipes could not be read."""
    recipes, unread = [], []
    for run in runs:
        recipe, problem = _recipe(run)
        recipes.append(recipe)
        if problem:
            unread.append(problem)
    known = [recipe for recipe in recipes if recipe is not None]
    sections = list(dict.fromkeys(key.split(".")[0] for recipe in known for key in recipe))
    keys = sorted({key for recipe in known for key in recipe},
                  key=lambda key: (sections.index(key.split(".")[0]), key))
    differing = [key for key in keys if len({_value_text(recipe, key) for recipe in known}) > 1]
    return [(key, [_value_text(recipe or {}, key) for recipe in recipes]) for key in differing], tuple(unread)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Folder names, with as many parents as it takes to tell them apart."""
    full = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, full)) + 1):
        names = ["/".join(parts[-length:]) for parts in full]
        if len(set(names)) == len(names):
            return names
    raise DataError(f"the same run is named twice: {', '.join(map(str, paths))}. Name each run once.")


def _recipe(run: RunFolder) -> tuple[dict[str, object] | None, str]:
    if not run.recipe.strip():
        return None, f"{run.name}: no recipe.yaml, so it stays out of the differences."
    try:
        return flat(load(run.recipe, "recipe.yaml")), ""
    except (RecipeError, ValueError, RecursionError) as error:
        return None, f"{run.name}: recipe.yaml cannot be read ({type(error).__name__}), so it stays out."


def _against(scores: Scores, metric: str, split: str) -> tuple[Cell, Cell, Cell]:
    """Student minus labels alone, ratio and retention: known for the run's own headline measure only."""
    if (metric, split) != (scores.metric, scores.split):
        return Cell(MISSING), Cell(MISSING), Cell(MISSING)
    one = scores.difference
    difference = Cell(MISSING) if one is None else Cell(
        numbers.difference(metric, one.value), numbers.difference_interval(metric, one), one.value)
    return difference, _ratio(scores.ratio, numbers.part), _ratio(scores.retention, numbers.percent)


def _ratio(measured: Interval | None, text: Callable[[float], str]) -> Cell:
    if measured is None:
        return Cell(MISSING)
    return Cell(text(measured.value), numbers.interval_of(measured, text), measured.value)


def _measured(scores: Scores) -> list[tuple[str, str]]:
    """(split, metric) of everything that the student was measured by."""
    return [(split, metric) for split, metrics in scores.student.quality.items() for metric in metrics]


def _quality(scores: Scores, subject: str, metric: str, split: str) -> float | None:
    if subject not in scores.subjects:
        return None
    measured = scores.subjects[subject].quality.get(split, {}).get(metric)
    return None if measured is None else measured.value


def _higher_is_better(runs: Sequence[RunFolder], metric: str) -> bool:
    """As the run says whose headline it is; else errors are better small, everything else large."""
    said = [run.scores.higher_is_better for run in runs if run.scores.metric == metric]
    return said[0] if said else _ERRORS.isdisjoint(metric.split("_"))


def _overlap(one: Interval, other: Interval) -> bool:
    return one.low <= other.high and other.low <= one.high


def _value_text(recipe: Mapping[str, object], key: str) -> str:
    if key not in recipe:
        return MISSING
    value = recipe[key]
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
