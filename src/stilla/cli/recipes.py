"""From what stands on the command line to recipes and run folders."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from stilla.errors import RecipeError, all_of, did_you_mean, one_of, short
from stilla.export import missing_packages
from stilla.recipe import Recipe, StudentSpec, Teacher
from stilla.recipe.file import Draft, draft, draft_of_options, read, task_in
from stilla.recipe.kinds import KINDS, sections_or_any
from stilla.recipe.yaml import flow
from stilla.runtime.narrate import say
from stilla.runtime.paths import meant
from stilla.secrets import without_secrets
from stilla.stages.folder import RunFolder, is_run
from stilla.stages.origin import elsewhere

WHICH_LAYERS = ("keep", "encoder", "decoder", "depths")
"""Ways to say which layers, other than how many: `--student keep=[0,5,11]`."""


def gathered(
    arguments: Sequence[str] | None,
    task: str | None,
    teacher: Sequence[str] | None,
    student: Sequence[str] | None,
    data: Sequence[str] | None,
    output: str | None,
    *,
    allow_weak_teacher: bool = False,
) -> Draft:
    """The recipe that a file, options and overrides mean together; an override wins over an option.

    Raises:
        RecipeError: no recipe and no options either, or a file that cannot be read.
    """
    file, overrides = _split(arguments or [])
    named = task or next((one.removeprefix("task=") for one in overrides if one.startswith("task=")), None)
    if named is None and file is not None and data:
        named = task_in(file)
    options = [
        *([f"task={task}"] if task else []),
        *_of_section("teacher", "model", Teacher.model_fields, teacher or []),
        *_of_section("student", "", [*StudentSpec.model_fields, *WHICH_LAYERS], student or []),
        *_of_section("data", "train", data_fields(named), data or []),
        *([f"output={flow(output)}"] if output else []),
        *(["allow_weak_teacher=true"] if allow_weak_teacher else []),
    ]
    if file is not None:
        found = draft(file, [*options, *overrides])
        wrong = [] if found.recipe is None else elsewhere(Path(meant(file)), found.recipe)
        return Draft(found.recipe, (*found.problems, *wrong))
    if not options:
        raise RecipeError(
            "expected a recipe file (stilla run recipe.yaml), or the essentials as options: --task "
            "text-classification --teacher ./bert --student layers=3 --data reviews.csv"
        )
    return draft_of_options({}, [*options, *overrides])


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe file, if the first argument is one, and the overrides."""
    if arguments and (Path(arguments[0]).is_file() or "=" not in arguments[0]):
        return arguments[0], list(arguments[1:])
    return None, list(arguments)


def _of_section(name: str, key: str, fields: Collection[str], values: Sequence[str]) -> Iterator[str]:
    """`./bert` means `teacher.model=./bert`, `layers=3` means `student.layers=3`."""
    for value in values:
        if _is_field(value, fields):
            inside = ".layers" if name == "student" and value.partition("=")[0] in WHICH_LAYERS else ""
            yield f"{name}{inside}.{value}"
        elif key:
            yield f"{name}.{key}={flow(value)}"
        else:
            yield f"{name}={value}"


def numbers_in(option: str, text: str) -> list[int]:
    """`4,8,16`.

    Raises:
        RecipeError: something else.
    """
    parts = [one.strip() for one in text.split(",")]
    if not all(one.isascii() and one.isdecimal() and len(one) <= 9 and int(one) > 0 for one in parts):
        raise RecipeError(f"{option}: got {short(text, 80)!r}; expected numbers from 1 on, as in {option} 4,8,16")
    return [int(one) for one in parts]


def data_fields(task: str | None) -> frozenset[str]:
    """What can be meant by a field of the data: those of the task, and of others, which are refused by name later."""
    return frozenset(name for kind in (task, *KINDS) for name in sections_or_any(kind).data.model_fields)


def _is_field(value: str, fields: Collection[str]) -> bool:
    """Whether it is `key=value`: only with a field of the section, as a path may have a `=` in it too."""
    field, equals, _ = value.partition("=")
    return bool(equals) and field.partition(".")[0] in fields


def new_data(run: Path, values: Sequence[str], *, trusted: bool = False) -> tuple[str | None, list[str]]:
    """What an old run is to be scored on, and overrides of how that is read: of `new.csv` and `broken=skip`.

    `trusted`: whether the run's own task may be imported, to know its fields.

    Raises:
        RecipeError: several files.
    """
    task = task_in(RunFolder(run).recipe)
    fields = data_fields(task if trusted or task in KINDS else None)
    files = [value for value in values if not _is_field(value, fields)]
    if len(files) > 1:
        raise RecipeError(f"--data: got {all_of(files)}; expected one file, or a folder that holds them")
    if any(without_secrets(value) != value for value in values):
        raise RecipeError("--data: a password or token stands here, and the run would write down where its new data lie. "
                          "Give it through the environment (HF_TOKEN, AWS_SECRET_ACCESS_KEY, ~/.netrc)")
    return (meant(files[0]) if files else None), [f"data.{value}" for value in values if _is_field(value, fields)]


def demo_recipe(arguments: Sequence[str] | None, output: str | None) -> Recipe:
    """Lay the demo's data, fresh teacher and recipe ready in its run folder, and read that recipe.

    Without the packages for exporting, its export is left out: a bare installation shows the rest.

    Raises:
        RecipeError: no such demo, or its folder holds something else.
    """
    from stilla.samples.demo import DEMOS, prepare

    name, overrides = "digits", list(arguments or [])
    if overrides and "=" not in overrides[0]:
        name = overrides.pop(0)
    if name not in DEMOS:
        raise RecipeError(f"demo: got {name!r}; expected {one_of(list(DEMOS))}.{did_you_mean(name, DEMOS)}")
    folder = Path(meant(output) if output is not None else ("runs/demo" if name == "digits" else f"runs/demo-{name}"))
    RunFolder(folder).refuse_strangers()
    if missing := missing_packages("onnx"):
        say(f"export: left out, as {all_of(missing)} {'is' if len(missing) == 1 else 'are'} not installed "
            '(pip install "stilla[onnx]", then the same command adds it)')
        overrides = ["export=[]", *overrides]
    return read(prepare(name, folder), overrides)


def run_at(path: str) -> Path:
    """The run folder at a path.

    Raises:
        RecipeError: there is no run; the nearest one that there is.
    """
    path = meant(path)
    folder = Path(path)
    if is_run(folder):
        return folder
    known = {str(one): one for one in _runs_near(folder)}
    # `reviews` is as near to `runs/reviews` as to `runs/review`
    names = {**{one.name: text for text, one in known.items()}, **dict(zip(known, known))}
    close = difflib.get_close_matches(path.rstrip("/"), names, n=1)
    what = "is no run folder" if folder.exists() else "no such folder"
    hint = f" Did you mean {names[close[0]]}?" if close else ""
    if not hint:
        hint = f" The runs here: {', '.join(sorted(known))}." if known else " There are no runs here."
    raise RecipeError(f"{path}: {what}.{hint}")


def _runs_near(folder: Path) -> Iterator[Path]:
    for place in dict.fromkeys((Path("runs"), folder.parent, folder)):
        if place.is_dir():
            yield from (one for one in sorted(place.iterdir()) if is_run(one))
