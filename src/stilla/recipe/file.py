"""Recipes as files: reading them with overrides, and all their problems in words.

Nothing here imports torch or looks at the network. Relative paths in a recipe mean what they mean on a
command line: they start at the current directory, wherever the recipe lies.
"""

from __future__ import annotations

import difflib
import itertools
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stilla.errors import SHOWN, RecipeError, TrustError, all_at_once, short
from stilla.recipe.code import Code, in_words, untrusted
from stilla.recipe.in_words import MOST, Problem, problems, secrets, shown, shown_path, without
from stilla.recipe.in_words import Path as Place
from stilla.recipe.kinds import refuse_unknown
from stilla.recipe.limits import SIZE, beyond, too_large
from stilla.recipe.overrides import COMMAND_LINE, apply
from stilla.recipe.paths import named
from stilla.recipe.whole import Recipe
from stilla.recipe.yaml import flow, load
from stilla.runtime.paths import meant


@dataclass(frozen=True)
class Draft:
    """A recipe that may have problems. `recipe`: what can be understood of it, if that is enough to go on; else `plain` is
    what stands there."""

    recipe: Recipe | None
    problems: tuple[str, ...]
    plain: Mapping[str, Any] = field(default_factory=dict)

    def complete(self) -> Recipe:
        """The recipe.

        Raises:
            RecipeError: its problems, all at once.
        """
        if self.problems or self.recipe is None:
            raise all_at_once(self.problems, RecipeError)
        return self.recipe


def read(path: str | Path, overrides: Sequence[str] = (), *, trusted: Collection[Code] | None = None) -> Recipe:
    """The recipe in a YAML file, with `distill.epochs=1`-like overrides in place.

    `trusted`: all code that the file may name (`recipe/code.py`); by default any, as whoever runs a recipe has chosen it.

    Raises:
        RecipeError: no such file, not YAML, or every problem of its shape, all at once.
        TrustError: it names other code; nothing of it was run.
    """
    return draft(path, overrides, trusted=trusted).complete()


def from_options(options: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from plain values; `output` is by default `runs/<name of the training data>`.

    Raises:
        RecipeError: every problem of its shape, all at once.
    """
    return draft_of_options(options, overrides).complete()


def draft(path: str | Path, overrides: Sequence[str] = (), *, trusted: Collection[Code] | None = None) -> Draft:
    """As `read`, but problems of the shape come beside what can be understood without the wrong places.

    Raises:
        RecipeError: no such file, or not YAML.
        TrustError: see `read`.
    """
    file, plain = Path(meant(str(path))), plain_values(path)
    if trusted is not None and (found := untrusted(plain, trusted)):  # before the shape is looked at, which imports the task
        raise TrustError(f"{file} names code that would run here: {in_words(found)}")
    return draft_of_options(plain, overrides, file)


def plain_values(path: str | Path) -> Mapping[str, Any]:
    """What stands in a recipe's file, whatever it is.

    Raises:
        RecipeError: no such file, not YAML, or no keys and values.
    """
    file = Path(meant(str(path)))
    plain = load(_text(file), file.name)
    if plain is None:
        raise RecipeError(f"{file}: is empty; a recipe needs at least task, data, teacher and student")
    if not isinstance(plain, Mapping):
        raise RecipeError(f"{file}: got {shown(plain)}; expected keys and values (task: ..., data: ...)")
    return plain


def draft_of_options(options: Mapping[str, Any], overrides: Sequence[str] = (), file: Path | None = None) -> Draft:
    """As `from_options`, but problems are returned, as by `draft`. `file`: where the options stand."""
    if file is None:
        return _drafted(options, overrides, "recipe", None, beside=None)
    return _drafted(options, overrides, file.name, f"runs/{file.stem}", beside=file.parent)


def task_in(file: str | Path) -> str | None:
    """The task that a recipe's file names; None where it names none, or cannot be read, which reading it will say."""
    try:
        plain = load(_text(Path(file)), "")
    except RecipeError:
        return None
    named = plain.get("task") if isinstance(plain, Mapping) else None
    return named if isinstance(named, str) else None


def _text(file: Path) -> str:
    try:
        kind = os.stat(file).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or _is_given_open(file)):  # a pipe would be waited for
            raise RecipeError(f"{file}: is no regular file; expected a recipe (a YAML file)")
        with file.open("rb") as stream:
            read = stream.read(LARGEST + 1)
        if len(read) > LARGEST:
            raise RecipeError(f"{file}: more than {LARGEST:,} bytes; a recipe has a few thousand")
        return read.decode("utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such file.{_near(file)}") from None
    except IsADirectoryError:
        inside = file / "recipe.yaml"
        hint = f". Did you mean {inside}?" if inside.is_file() else "; expected a recipe (a YAML file)"
        raise RecipeError(f"{file}: is a folder{hint}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: is not UTF-8 text (byte {error.start}); expected a YAML file") from None
    except OSError as error:
        raise RecipeError(f"{file}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a name with a NUL in it
        raise RecipeError(f"{file}: cannot be the name of a file ({error})") from None


LARGEST = 4 * SIZE
"""Bytes of a recipe's file: as many as its characters may take."""


def _is_given_open(file: Path) -> bool:
    """Whether a shell hands it over: `stilla run <(sed ... recipe.yaml)`."""
    return file.is_relative_to("/dev/fd") or file.is_relative_to("/proc/self/fd") or file == Path("/dev/stdin")


def _near(file: Path) -> str:
    folder = file.parent
    known = [one.name for one in (*folder.glob("*.yaml"), *folder.glob("*.yml"))]
    close = difflib.get_close_matches(file.name, known, n=1)
    return f" Did you mean {folder / close[0]}?" if close else ""


def with_values(recipe: Recipe, values: Mapping[str, Any], said_in: str) -> Draft:
    """A recipe with other values of some fields, by their paths as on the command line. `said_in`: where they stand."""
    overrides = [f"{path}={flow(value)}" for path, value in values.items()]
    return _drafted(recipe.model_dump(mode="json", exclude={"search"}), overrides, "recipe", None, beside=None,
                    said_in=said_in)


def _drafted(plain: Mapping[str, Any], overrides: Sequence[str], source: str, output: str | None,
             beside: Path | None, said_in: str = COMMAND_LINE) -> Draft:
    if problem := too_large(plain):
        raise RecipeError(f"{source}: {problem}; a recipe has a few")
    changed, places, wrong = apply(plain, overrides, said_in)
    changed.setdefault("output", output or f"runs/{_stem(changed)}")
    stages = changed.get("distill")
    single_stage = not isinstance(stages, list) or len(stages) == 1

    def where(path: Place) -> str:
        overridden = any(path[: len(place)] == place or (place[: len(path)] == path and path[0] not in plain)
                         for place in places)
        return f"{said_in if overridden else source}: {shown_path(path, single_stage)}"

    recipe, found = _validated(changed)
    found += secrets(changed)
    if recipe is None:  # else whoever goes on with it looks
        found += _wrong_task(changed.get("task"))
    if recipe is not None and beside is not None:
        found += _only_beside(recipe, beside)
    return Draft(recipe, _first([*wrong, *(f"{where(one.path)}: {one.text}" for one in found)]),
                 changed if recipe is None else {})


def _wrong_task(task: Any) -> list[Problem]:
    """That there is no such task: what its data may say is then anybody's guess."""
    try:
        if isinstance(task, str):
            refuse_unknown(task)
    except RecipeError as error:
        return [Problem(("task",), str(error).removeprefix("task: "))]
    return []


LONGEST = 400
"""Characters of a problem: what a recipe says may be of any length."""


def _first(wrong: Sequence[str]) -> tuple[str, ...]:
    """As many as a person would read, and how many more there are."""
    first = tuple(short(one, LONGEST) for one in wrong)
    if len(first) <= SHOWN:
        return first
    return (*first[: SHOWN - 1], f"and {len(first) - SHOWN + 1} problems more, or yet more behind them")


def _stem(plain: Mapping[str, Any]) -> str:
    data = plain.get("data")
    named = [data.get("train"), *_examples(data.get("unlabelled"))] if isinstance(data, Mapping) else []
    return next((stem for one in named if isinstance(one, str) and (stem := Path(one).stem)), "run")


def _examples(unlabelled: Any) -> list[Any]:
    examples = unlabelled.get("examples") if isinstance(unlabelled, Mapping) else None
    return [examples] if isinstance(examples, str) else list(examples) if isinstance(examples, list | tuple) else []


def _validated(plain: dict[str, Any]) -> tuple[Recipe | None, list[Problem]]:
    """The recipe, as far as it goes, and what is wrong with it."""
    found = [Problem(place, text) for place, text in itertools.islice(beyond(plain), MOST)]
    rest = without(plain, found)
    if next(beyond(rest), None) is not None:
        return None, found
    for _ in range(3):  # what stands behind a wrong place may be wrong too
        try:
            return Recipe.model_validate(rest), found
        except ValidationError as error:
            new = problems(error, rest)
            known = [one.path for one in found]  # a place that has lost its content is no news
            found += [one for one in new if not any(path[: len(one.path)] == one.path for path in known)]
            rest = without(rest, new)
    return None, found


def _only_beside(recipe: Recipe, folder: Path) -> list[Problem]:
    """Paths that would exist if they started at the recipe's folder."""
    return [
        Problem(place, f"there is no {value} in the current directory, but there is one beside the "
                                f"recipe; write {folder / value}, or start Stilla in {folder}")
        for place, value in named(recipe)
        if place != ("output",)
        and (value.startswith(".") or Path(value).suffix)
        and not _is_there(Path(value))
        and _is_there(folder / value)
    ]


def _is_there(path: Path) -> bool:
    """Whether something lies there; not where no path can be (a name of 300 characters) or none may look."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
