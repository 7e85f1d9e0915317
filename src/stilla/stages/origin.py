"""Where a run began: from there its recipe's relative paths start, wherever the run is looked at later."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilla.errors import StillaError
from stilla.recipe import Recipe
from stilla.recipe.code import code_in
from stilla.recipe.paths import Place, named
from stilla.runtime import imports
from stilla.runtime.files import unsealed
from stilla.runtime.narrate import say
from stilla.stages.folder import RunFolder, is_run


@dataclass(frozen=True)
class Origin:
    """`started`: the folder that the run was started in. `run`: where its own folder was then."""

    started: Path
    run: Path

    @classmethod
    def here(cls, folder: RunFolder) -> Origin:
        return cls(Path.cwd(), Path(os.path.abspath(folder.path)))

    @classmethod
    def of(cls, folder: RunFolder) -> Origin | None:
        """What the run wrote down; None for one that has not."""
        try:
            places = unsealed(folder.environment.read_text(encoding="utf-8"))["places"]
            return cls(Path(places["started in"]), Path(places["run folder"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def plain(self) -> dict[str, str]:
        return {"started in": str(self.started), "run folder": str(self.run)}

    def now(self, path: str, run: Path) -> tuple[Path, bool]:
        """Where something is now that the recipe names by this path, and whether it was moved along with the run.

        What lay in the run folder lies in it still. The rest lies where it was; or, if a project was moved as a whole, as far
        from the run folder as before. Where nothing is, the place where it was.
        """
        then = Path(os.path.normpath(self.started / path))
        if then.is_relative_to(self.run):
            return run / then.relative_to(self.run), False
        along = Path(os.path.normpath(run / os.path.relpath(then, self.run)))
        return (along, True) if not then.exists() and along.exists() else (then, False)


def from_anywhere(recipe: Recipe, folder: RunFolder) -> Recipe:
    """A run's recipe with the whole paths of all files and folders that it names relatively, and that are there.

    Names of the Hugging Face Hub, URLs and import paths stay; modules are looked for where the run began, too.
    """
    origin = Origin.of(folder)
    if origin is None:
        return recipe
    if code_in(recipe):  # which a person has trusted; else nothing is imported, and what is beside it need not be found
        imports.look_in(origin.started)
    found: dict[Place, str] = {}
    for place, path in _files(recipe):
        now, moved = origin.now(path, Path(os.path.abspath(folder.path)))
        if now.exists() or _means_a_path(path):
            found[place] = str(now)
        if moved:
            say(f"{_shown(place)}: {path} is no more where it was; taken from {now}, which was moved with the run")
    plain = _lists(recipe.model_dump(mode="python"))
    for place, path in found.items():
        node: Any = plain
        for step in place[:-1]:
            node = node[step]
        node[place[-1]] = path
    return Recipe.model_validate(plain)


@contextmanager
def told_where(recipe: Recipe, folder: RunFolder) -> Iterator[None]:
    """What is missing of what a run's recipe names, with where it was looked for and what to do. `recipe`: from anywhere."""
    try:
        yield
    except StillaError as error:
        missing = [f"{_shown(place)}: {path}" for place, path in _files(recipe)
                   if _means_a_path(path) and not Path(path).exists()]
        if not missing:
            raise
        raise type(error)(f"{error}\n{_way_on(folder, missing)}") from error


def _way_on(folder: RunFolder, missing: list[str]) -> str:
    origin = Origin.of(folder)
    where = f"the current folder, {Path.cwd()}; this run did not write down where it was started" if origin is None else \
        f"the folder that this run was started in, {origin.started} (then it was {origin.run})"
    return (f"Not there any more of what the run's recipe names: {'; '.join(missing)}. Relative paths start in {where}. Put "
            f"it back, or write where it is now into {folder.recipe} and take its last line out")


def elsewhere(file: Path, recipe: Recipe) -> list[str]:
    """Why the recipe that a run wrote down does not mean here what it meant where that run was started."""
    folder = RunFolder(file.parent)
    if file.name != folder.recipe.name or not is_run(folder.path):
        return []
    origin = Origin.of(folder)
    if origin is None or not origin.started.is_dir() or os.path.samefile(origin.started, os.curdir):
        return []
    lost = [_shown(place) for place, path in _files(recipe)
            if (origin.started / path).exists() and not Path(path).exists()]
    if not Path(recipe.output).is_absolute() and Path(os.path.normpath(origin.started / recipe.output)) == origin.run:
        lost.append("output")
    return lost and [f"{file}: is of a run that was started in {origin.started}, and its relative paths start there "
                     f"({', '.join(lost)}). Go there first: cd {origin.started}"]


def _files(recipe: Recipe) -> Iterator[tuple[Place, str]]:
    """What may be files or folders and is no place of the run's own."""
    for place, path in named(recipe):
        if place != ("output",) and "://" not in path and not imports.is_import_path(path):
            yield place, path


def _means_a_path(name: str) -> bool:
    return name.startswith((".", "/")) or bool(Path(name).suffix) or name.count("/") > 1


def _shown(place: Place) -> str:
    return ".".join(map(str, place))


def _lists(plain: Any) -> Any:
    """As YAML has it: strict sections take lists, which a dump has as tuples."""
    if isinstance(plain, Mapping):
        return {key: _lists(value) for key, value in plain.items()}
    return [_lists(one) for one in plain] if isinstance(plain, tuple | list) else plain
