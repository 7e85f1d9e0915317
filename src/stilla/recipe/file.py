"""Recipes as files: reading them with overrides, and all their problems in words.

Nothing here imports torch or looks at the network. Relative paths in a recipe mean what they mean on a
command line: they start at the current directory, wherever the recipe lies.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stilla.errors import RecipeError, all_at_once
from stilla.recipe.in_words import Path as Place
from stilla.recipe.in_words import Problem, problems, secrets, shown, shown_path, without
from stilla.recipe.overrides import apply
from stilla.recipe.paths import named
from stilla.recipe.whole import Recipe
from stilla.recipe.yaml import load
from stilla.runtime.paths import meant


@dataclass(frozen=True)
class Draft:
    """A recipe that may have problems. `recipe`: what can be understood of it, if that is enough to go on."""

    recipe: Recipe | None
    problems: tuple[str, ...]

    def complete(self) -> Recipe:
        """The recipe.

        Raises:
            RecipeError: its problems, all at once.
        """
        if self.problems or self.recipe is None:
            raise all_at_once(self.problems, RecipeError)
        return self.recipe


def read(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with `distill.epochs=1`-like overrides in place.

    Raises:
        RecipeError: no such file, not YAML, or every problem of its shape, all at once.
    """
    return draft(path, overrides).complete()


def from_options(options: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from plain values; `output` is by default `runs/<name of the training data>`.

    Raises:
        RecipeError: every problem of its shape, all at once.
    """
    return draft_of_options(options, overrides).complete()


def draft(path: str | Path, overrides: Sequence[str] = ()) -> Draft:
    """As `read`, but problems of the shape come beside what can be understood without the wrong places.

    Raises:
        RecipeError: no such file, or not YAML.
    """
    file = Path(meant(str(path)))
    plain = load(_text(file), file.name)
    if plain is None:
        raise RecipeError(f"{file}: is empty; a recipe needs at least task, data, teacher and student")
    if not isinstance(plain, Mapping):
        raise RecipeError(f"{file}: got {shown(plain)}; expected keys and values (task: ..., data: ...)")
    return _drafted(plain, overrides, file.name, f"runs/{file.stem}", beside=file.parent)


def draft_of_options(options: Mapping[str, Any], overrides: Sequence[str] = ()) -> Draft:
    """As `from_options`, but problems are returned, as by `draft`."""
    return _drafted(options, overrides, "recipe", None, beside=None)


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
        return file.read_text(encoding="utf-8-sig")
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


def _near(file: Path) -> str:
    folder = file.parent
    known = [one.name for one in (*folder.glob("*.yaml"), *folder.glob("*.yml"))]
    close = difflib.get_close_matches(file.name, known, n=1)
    return f" Did you mean {folder / close[0]}?" if close else ""


def _drafted(plain: Mapping[str, Any], overrides: Sequence[str], source: str, output: str | None,
             beside: Path | None) -> Draft:
    changed, places, wrong = apply(plain, overrides)
    changed.setdefault("output", output or f"runs/{_stem(changed)}")
    stages = changed.get("distill")
    single_stage = not isinstance(stages, list) or len(stages) == 1

    def where(path: Place) -> str:
        overridden = any(path[: len(place)] == place or (place[: len(path)] == path and path[0] not in plain)
                         for place in places)
        return f"{'command line' if overridden else source}: {shown_path(path, single_stage)}"

    recipe, found = _validated(changed)
    found += secrets(changed)
    if recipe is not None and beside is not None:
        found += _only_beside(recipe, beside)
    return Draft(recipe, (*wrong, *(f"{where(one.path)}: {one.text}" for one in found)))


def _stem(plain: Mapping[str, Any]) -> str:
    data = plain.get("data")
    train = data.get("train") if isinstance(data, Mapping) else None
    return (Path(train).stem if isinstance(train, str) else "") or "run"


def _validated(plain: dict[str, Any]) -> tuple[Recipe | None, list[Problem]]:
    """The recipe, as far as it goes, and what is wrong with it."""
    found: list[Problem] = []
    rest = plain
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
        and not Path(value).exists()
        and (folder / value).exists()
    ]
