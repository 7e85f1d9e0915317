"""The commands. Each one reads its options, calls one function and prints what came of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stilla.cli import options
from stilla.cli.caches import app as caches
from stilla.cli.failures import Guarded

if TYPE_CHECKING:
    from stilla.recipe import Recipe

app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich doubles the time that help takes
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn a large Transformer into a small one, and see honestly how much it kept.",
    epilog="Start with `stilla demo`; it needs no network. Any field of a recipe can be set on the command line: "
    "`stilla run recipe.yaml distill.epochs=1`.",
)


app.add_typer(caches, name="cache")


class Listing(StrEnum):
    TASKS = "tasks"
    OBJECTIVES = "objectives"
    FORMATS = "formats"
    RUNS = "runs"
    RECIPE = "recipe"


def _version(wanted: bool) -> None:
    if wanted:
        from stilla.cli.printing import print_version

        print_version()
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the versions.")]


@app.callback()
def stilla(version: Version = False, debug: options.Debug = False) -> None:
    pass


@app.command()
def run(
    arguments: options.Arguments = None,
    task: options.Task = None,
    teacher: options.Teacher = None,
    student: options.Student = None,
    data: options.Data = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    allow_weak_teacher: options.WeakTeacher = False,
) -> None:
    """Distil: train, compare, export, measure, report.

    With a recipe file, or with --task, --teacher, --student and --data instead. The same command again continues a
    run that was stopped, and skips what is finished.
    """
    from stilla.cli.recipes import gathered

    recipe = gathered(arguments, task, teacher, student, data, output, allow_weak_teacher=allow_weak_teacher).complete()
    _run(recipe, overwrite=overwrite)


@app.command()
def demo(arguments: options.Demo = None, output: options.Output = None, overwrite: options.Overwrite = False) -> None:
    """The main job on data that comes along: no network, minutes."""
    from stilla.cli.recipes import demo_recipe

    _run(demo_recipe(arguments, output), overwrite=overwrite)


def _run(recipe: Recipe, *, overwrite: bool) -> None:
    from stilla.check import refuse_wrong_names
    from stilla.cli.failures import run_folder

    run_folder.set(Path(recipe.output))
    refuse_wrong_names(recipe)
    from stilla.cli.printing import print_run
    from stilla.run import run as run_recipe

    print_run(run_recipe(recipe, overwrite=overwrite))


@app.command()
def check(
    arguments: options.Arguments = None,
    task: options.Task = None,
    teacher: options.Teacher = None,
    student: options.Student = None,
    data: options.Data = None,
    output: options.Output = None,
) -> None:
    """Find every problem before training, and estimate the cost."""
    from stilla.check import check_draft
    from stilla.cli.collecting import collecting_nothing
    from stilla.cli.printing import print_findings
    from stilla.cli.recipes import gathered

    with collecting_nothing():
        findings = check_draft(gathered(arguments, task, teacher, student, data, output))
    print_findings(findings)
    if findings.problems:
        raise typer.Exit(2)


@app.command()
def plan(
    arguments: options.Arguments = None,
    task: options.Task = None,
    teacher: options.Teacher = None,
    student: options.Student = None,
    data: options.Data = None,
    output: options.Output = None,
    page: options.PlanPage = Path("plan.html"),
    open_: options.Open = False,
) -> None:
    """Show what sizes of students there are, how fast they are here, and what the run costs; train nothing."""
    from stilla.check.planning import plan as planned
    from stilla.cli.collecting import collecting_nothing
    from stilla.cli.printing import open_page, print_places, print_plan
    from stilla.cli.recipes import gathered
    from stilla.report.planned import write_plan
    from stilla.runtime.paths import meant

    recipe = gathered(arguments, task, teacher, student, data, output).complete()
    with collecting_nothing():
        found = planned(recipe)
    print_plan(found)
    written = write_plan(found, recipe.task, Path(meant(str(page))))
    print_places({"plan": written})
    if open_:
        open_page(written)


@app.command()
def search(
    arguments: options.Arguments = None,
    task: options.Task = None,
    teacher: options.Teacher = None,
    student: options.Student = None,
    data: options.Data = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    open_: options.Open = False,
) -> None:
    """Try values of a recipe's fields, as its `search` says, and write the best as a recipe.

    Trials are judged on validation data alone. The same command again goes on where it was stopped; started several times
    at once, all share the trials.
    """
    from stilla.check import refuse_wrong_names
    from stilla.cli.failures import run_folder
    from stilla.cli.recipes import gathered

    recipe = gathered(arguments, task, teacher, student, data, output).complete()
    run_folder.set(Path(recipe.output))
    refuse_wrong_names(recipe)
    from stilla.cli.printing import open_page, print_search
    from stilla.series import search as search_recipe

    found = search_recipe(recipe, overwrite=overwrite)
    print_search(found)
    if open_:
        open_page(found.page)


@app.command()
def curve(
    arguments: options.Arguments = None,
    task: options.Task = None,
    teacher: options.Teacher = None,
    student: options.Student = None,
    data: options.Data = None,
    output: options.Output = None,
    per_class: options.PerClass = "4,8,16,32,64",
    draws: options.Draws = 3,
    overwrite: options.Overwrite = False,
    open_: options.Open = False,
) -> None:
    """Show what labels are worth: quality against labels per class, alone, distilled, and with the rest unlabelled.

    The same command again goes on where it was stopped, and adds sizes and draws.
    """
    from stilla.cli.failures import run_folder
    from stilla.cli.printing import open_page, print_curve
    from stilla.cli.recipes import gathered, numbers_in

    sizes = numbers_in("--per-class", per_class)
    recipe = gathered(arguments, task, teacher, student, data, output).complete()
    run_folder.set(Path(recipe.output))
    from stilla.series import curve as label_curve

    found = label_curve(recipe, per_class=sizes, draws=draws, overwrite=overwrite)
    print_curve(found)
    if open_:
        open_page(found.page)


@app.command()
def capture(
    arguments: options.Arguments = None,
    task: options.Task = None,
    teacher: options.Teacher = None,
    student: options.Student = None,
    data: options.Data = None,
    output: options.Output = None,
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    allow_weak_teacher: options.WeakTeacher = False,
) -> None:
    """Write what the teacher says of the training data to disk, once for many students.

    The same command again continues a capture that was stopped. Runs with the same recipe, or with its `cache.path`,
    read from there instead of asking the teacher.
    """
    from stilla.cli.failures import run_folder
    from stilla.cli.printing import print_cache
    from stilla.cli.recipes import gathered

    recipe = gathered(arguments, task, teacher, student, data, output, allow_weak_teacher=allow_weak_teacher).complete()
    run_folder.set(Path(recipe.output))
    from stilla.cache.care import contents
    from stilla.run import capture as capture_recipe

    for path in capture_recipe(recipe, workers=workers, overwrite=overwrite):
        print_cache(path, contents(path))


@app.command()
def evaluate(
    run: options.Run, data: options.Data = None, slices: options.Slices = None, trust_remote_code: options.Trust = False
) -> None:
    """Score a finished run again, or on new data with the same columns (--data FILE --data broken=skip)."""
    from stilla.cli.printing import print_places, print_scores
    from stilla.cli.recipes import new_data, run_at

    folder = run_at(run)
    file, fields = new_data(folder, data or [], trusted=trust_remote_code)
    from stilla.after import evaluate_run, evaluation_file

    print_scores(evaluate_run(folder, file, *fields, slices=slices or (), trust_remote_code=trust_remote_code))
    places = {"scores": folder / "scores.json", "report": folder / "report.html"}
    print_places({"scores": evaluation_file(folder, file)} if file else places)


@app.command()
def export(
    run: options.Run, format: options.Formats = None, model: options.Exported = options.Role.STUDENT,
    trust_remote_code: options.Trust = False,
) -> None:
    """Write a finished run's student for deployment, or its baseline.

    Every file is loaded again, measured, and added to the run's scores and report.
    """
    from stilla.cli.printing import print_run
    from stilla.cli.recipes import run_at

    folder = run_at(run)
    from stilla.after import export_run
    from stilla.run import Run

    export_run(folder, format or ["onnx"], model=model.value, trust_remote_code=trust_remote_code)
    print_run(Run.load(folder))


@app.command()
def report(run: options.Run, open_: options.Open = False) -> None:
    """Write the report page of a run again."""
    from stilla.cli.printing import open_page, print_places
    from stilla.cli.recipes import run_at
    from stilla.report import write_report

    page = write_report(run_at(run))
    print_places({"report": page})
    if open_:
        open_page(page)


@app.command()
def compare(runs: options.Runs, output: options.Page = Path("comparison.html"), open_: options.Open = False) -> None:
    """Compare several runs on one page."""
    from stilla.cli.printing import open_page, print_comparison, print_places
    from stilla.cli.recipes import run_at
    from stilla.report import write_comparison
    from stilla.runtime.paths import meant

    folders = [run_at(one) for one in runs]
    page = write_comparison(folders, Path(meant(str(output))))
    print_comparison(folders)
    print_places({"comparison": page})
    if open_:
        open_page(page)


@app.command("list")
def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")],
    folder: options.RunsFolder = Path("runs"),
    task: options.OfTask = None,
    json: options.Json = False,
) -> None:
    """List tasks, objectives, formats, runs, or a recipe's fields."""
    from stilla.cli.printing import print_listing
    from stilla.runtime.paths import meant

    print_listing(what.value, Path(meant(str(folder))), as_json=json, task=task)
