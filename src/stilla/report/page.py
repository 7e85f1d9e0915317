"""The report of one run: report.html, a single file that opens offline."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from stilla.report import figures, sections
from stilla.report.charts.marks import mark_key, subject_style
from stilla.report.folder import RunFolder, read_run
from stilla.report.grouped import grouped_table
from stilla.report.grouped import summary as summary_of_parts
from stilla.report.parts import parts_table, summary
from stilla.report.spent import spent_heads, spent_lines
from stilla.report.table import full_table, ordered_subjects, score_table, subject_title, unsaid
from stilla.runtime.files import write_whole
from stilla.scores import PERSONAL, Scores, metric_title, task_title

KINDS = {
    "lost": "the teacher was right, the student is not",
    "won": "the student is right, the teacher was not",
    "moved": "both are wrong, differently",
}


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from what lies in the run folder; only scores.json must.

    Raises:
        DataError: the folder holds no readable scores.json.
    """
    run = read_run(Path(folder))
    for name, scores in run.scores.parts.items():
        own = replace(run, scores=scores, name=f"{run.name}: {name}")
        write_page(run.path / _of_task(name), "page.html.j2", page_values(own))
    return write_page(run.path / "report.html", "page.html.j2", page_values(run))


def _of_task(name: str) -> str:
    """The page of one of several tasks."""
    return f"report/{name}.html"


def page_values(run: RunFolder) -> dict[str, object]:
    """Everything that the page shows, by the names its template uses."""
    scores = run.scores
    classes, training = sections.class_rows(scores), run.training.without(PERSONAL)  # a curve for each part would be too many
    values: dict[str, object] = {
        "title": run.name,
        "subtitle": _subtitle(scores),
        "closing": "Written by Stilla. Intervals are 95 % bootstrap intervals over the examples.",
        "scores": scores,
        "tiles": sections.tiles(scores),
        "table": score_table(scores),
        "marks": subject_marks(scores),
        "titles": {name: subject_title(name) for name in (*scores.subjects, *sections.class_subjects(scores))},
        "measured_on": measured_on(scores),
        "full_heads": [subject_title(name) for name in ordered_subjects(scores)],
        "full_lines": full_table(scores),
        "notes": (*unsaid(scores), *run.problems),
        "tasks": [(name, one, score_table(one), _of_task(name)) for name, one in scores.parts.items()],
        "slices": parts_table(scores, scores.slices) if scores.slices else None,
        "slices_said": summary(scores, scores.slices, "slices"),
        "shifted": parts_table(scores, scores.shifted) if scores.shifted else None,
        "shifted_said": summary(scores, scores.shifted, "other data sets"),
        "parts_hint": f"In every row the {metric_title(scores.metric)} of each model. What is held against all "
                      f"{scores.split} data is student − teacher; those intervals hold for all rows at once.",
        "grouped": grouped_table(scores, scores.grouped) if scores.grouped else None,
        "grouped_by": scores.grouped.by if scores.grouped else "",
        "grouped_said": summary_of_parts(scores, scores.grouped) if scores.grouped else "",
        "trade_off": figures.trade_off(scores),
        "seeds": figures.seed_figure(scores),
        "losses": figures.loss_figures(training),
        "spent_heads": spent_heads(scores),
        "spent_lines": spent_lines(scores),
        "evaluation": figures.evaluation_figure(training, scores.metric),
        "calibration": figures.calibration_figures(scores),
        "classes": classes,
        "class_subjects": sections.class_subjects(scores),
        "class_summary": sections.class_summary(scores, classes),
        "class_metric": metric_title(scores.class_metric),
        "class_low": sections.class_axis_low(scores),
        "decisions": sections.decisions(scores),
        "samples": sections.samples(scores),
        "reasons": sections.reasons(scores),
        "decision_summary": _decision_summary(scores),
        "kinds": [(kind, KINDS[kind]) for kind in KINDS if any(flip.kind == kind for flip in scores.flips)],
        "known_kinds": tuple(KINDS),
        "recipe": highlighted(run.recipe),
        "environment": run.environment,
    }
    return values | {"contents": _contents(values)}


def write_page(target: Path, template: str, values: Mapping[str, object]) -> Path:
    """Set the template and write it whole or not at all."""
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = _templates().get_template(template).render(
        **values,
        style=Markup(_asset("page.css") + _asset("charts.css")),
        script=Markup(script),
        # Nothing is ever fetched, and no script runs but ours, whatever stands in the data.
        policy=f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
               f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, html)
    return target


def subject_marks(scores: Scores) -> dict[str, Markup]:
    return {name: mark_key(subject_style(name)) for name in scores.subjects}


def measured_on(scores: Scores, split: str | None = None) -> str:
    """How the table's numbers were obtained, in a sentence or two."""
    split = split or scores.split
    total = scores.examples.get(split)
    examples = f"{total:,} {split} examples" if total else f"{split} examples"
    sentences = [f"Quality on {examples}, in brackets its 95 % interval."]
    if any(one.cost.latency_median_ms is not None for one in scores.subjects.values()):
        batches = {one.cost.batch_size for one in scores.subjects.values()} - {None}
        batch = f"; throughput in batches of {batches.pop()}" if len(batches) == 1 else ""
        text = ", the whole text written" if any(one.cost.timed != "forward" for one in scores.subjects.values()) else ""
        sentences.append(f"Latency is the median for one example{text}{batch}, on the machine of the run.")
    if "teacher" in scores.subjects:
        sentences.append("Ratios are against the teacher.")
    return " ".join(sentences)


def highlighted(recipe: str) -> Markup:
    """The recipe with its keys and comments marked."""
    return Markup("\n").join(_highlighted_line(line) for line in recipe.rstrip().split("\n"))


def _highlighted_line(line: str) -> Markup:
    if line.lstrip().startswith("#"):
        return Markup('<span class="yaml-comment">{}</span>').format(line)
    found = re.match(r"(\s*(?:- )*)([\w.-]+)(:(?:\s.*)?)$", line)
    if found is None:
        return escape(line)
    return Markup('{}<span class="yaml-key">{}</span>{}').format(*found.groups())


def _subtitle(scores: Scores) -> str:
    total = scores.examples.get(scores.split)
    seeds = max((len(one.seeds) for one in scores.subjects.values()), default=0)
    return " · ".join(filter(None, (
        task_title(scores.task),
        f"{metric_title(scores.metric)} on {f'{total:,} ' if total else ''}{scores.split} examples",
        f"{seeds} seeds" if seeds > 1 else "")))


def _decision_summary(scores: Scores) -> str:
    total, what = scores.decided, scores.units
    found = sum(scores.flipped.values()) or len(scores.flips)
    counts = ", ".join(f"{scores.flipped[kind]:,} {kind} ({words})" for kind, words in KINDS.items()
                       if scores.flipped.get(kind))
    surest = "most confident" if any("student" in flip.confidences for flip in scores.flips) else "first"
    several = (total or 0) > scores.examples.get(scores.split, total or 0)
    each = ", each example's surest before its others" if several else ""
    shown = f" Shown: the {len(scores.flips):,} {surest}{each}." if len(scores.flips) < found else ""
    return (f"On {found:,}{f' of {total:,}' if total else ''} {what} teacher and student decide differently"
            f"{f': {counts}' if counts else ''}.{shown}")


def _contents(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """The sections that are there, for the line of links."""
    return [(target, name) for target, name, needs in (
        ("scores", "Scores", ("table",)), ("tasks", "Tasks", ("tasks",)), ("notes", "Notes", ("notes",)),
        ("slices", "Slices", ("slices",)), ("shifted", "Shifted data", ("shifted",)),
        ("grouped", "Parts", ("grouped",)),
        ("trade-off", "Cost", ("trade_off",)), ("seeds", "Seeds", ("seeds",)),
        ("training", "Training", ("losses", "evaluation", "spent_lines")),
        ("calibration", "Calibration", ("calibration",)), ("classes", "Classes", ("classes",)),
        ("decisions", "Decisions", ("decisions",)), ("samples", "Examples", ("samples",)),
        ("reasons", "Reasons", ("reasons",)), ("recipe", "Recipe", ("recipe",)),
        ("environment", "Environment", ("environment",)),
    ) if any(values[need] for need in needs)]


@cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(loader=jinja2.PackageLoader("stilla.report", "assets"), autoescape=True,
                              undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["with_code"] = with_code
    return made


def with_code(sentence: str) -> Markup:
    """What stands between backticks, as in a terminal, as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")
