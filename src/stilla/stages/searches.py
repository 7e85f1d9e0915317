"""The folder of a search: whose it is, and where things lie.

    search.json    what is searched, of which recipe
    trials.log     every trial with its values and what it reached: Optuna's journal, which several processes share
    trials/0007/   a run folder: the trial's student, log and recipe; of those that are not the best without its weights
    shared/        what trials make alike, made once: the teacher, its texts, its answers
    best.yaml      a plain recipe with the values of the best trial
    search.html    all trials on a page
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock

from stilla.errors import FolderError, RecipeError
from stilla.recipe import Recipe
from stilla.runtime.differences import differences
from stilla.runtime.files import sealed, unsealed, write_whole
from stilla.runtime.paths import obstacle
from stilla.stages.folder import RunFolder, is_run
from stilla.stages.shelf import Shelf

BUDGET = ("trials", "minutes", "patience", "until")
"""Of the search: what may change when it goes on."""


class SearchFolder:
    """A search's folder on disk. Several processes work in it at once; what only one may do is done in `choosing`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said = path / "search.json"
        self.journal = path / "trials.log"
        self.trials = path / "trials"
        self.shared = path / "shared"
        self.best = path / "best.yaml"
        self.page = path / "search.html"

    def refuse_strangers(self) -> None:
        """Raises:
            RecipeError: what lies there is no search; nothing of it may be touched.
        """
        if why := obstacle(self.path):
            raise RecipeError(f"output: {why}")
        if not self.path.exists() or self.said.is_file() or all(one.name.startswith(".") for one in self.path.iterdir()):
            return
        what = "holds a run, which is no search" if is_run(self.path) else "exists and is no search of Stilla"
        raise RecipeError(f"output: {self.path} {what}; nothing in it was touched. Give another `output`")

    def open(self, recipe: Recipe, *, overwrite: bool) -> None:
        """Begin a search, or take up the one that is there.

        Raises:
            RecipeError: it is of another recipe, or of other values; what differs.
            FolderError: it cannot be read, or is to be thrown away while somebody is at work in it.
        """
        self.refuse_strangers()
        self.path.mkdir(parents=True, exist_ok=True)
        with self.choosing():
            if overwrite and self.said.exists():
                self._clear()
            if self.said.exists():
                self._refuse_another(recipe)
            else:
                write_whole(self.said, sealed(self._plain(recipe)))

    def choosing(self) -> FileLock:
        """`with folder.choosing():` one process at a time, the others wait."""
        return FileLock(self.path / ".choosing.lock")

    def trial(self, number: int) -> RunFolder:
        return RunFolder(self.trials / f"{number:04}", shelf=Shelf(self.shared))

    def _refuse_another(self, recipe: Recipe) -> None:
        try:
            before = unsealed(self.said.read_text(encoding="utf-8"), needed=True)
        except (OSError, ValueError) as error:
            raise FolderError(f"{self.said}: cannot be read ({error}), and nothing else says what was searched. Give another "
                              "`output`, or --overwrite to throw the search away") from error
        if changed := differences(before, self._plain(recipe)):
            lines = "\n".join(f"  {line}" for line in changed)
            raise RecipeError(f"{self.path} holds another search. What differs:\n{lines}\nGive another `output`, or "
                              "--overwrite to throw the old search away")

    def _plain(self, recipe: Recipe) -> dict[str, Any]:
        plain = recipe.model_dump(mode="json", exclude={"output": True, "search": set(BUDGET)})
        found: dict[str, Any] = json.loads(json.dumps(plain))
        return found

    def _clear(self) -> None:
        held = list[RunFolder]()
        try:
            for path in sorted(self.trials.glob("*")):
                held.append(RunFolder(path))
                held[-1].open(overwrite=False)  # raises where somebody is at work
        finally:
            for one in held:
                one.close()
        for folder in (self.trials, self.shared):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.journal, self.best, self.page, self.said):  # the last: without it nobody might touch the rest
            file.unlink(missing_ok=True)
