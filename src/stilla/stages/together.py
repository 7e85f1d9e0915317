"""The folder of several runs that belong together, a search's or a label curve's: whose it is, and where things lie.

    search.json    what is searched, of which recipe                    curve.json
    trials.log     every trial with its values and what it reached: Optuna's journal, which several processes share
    trials/0007/   a run folder: the trial's student, log and recipe    points/8-0/
                   (of those that are not the best without its weights)
    shared/        what the runs make alike, made once: the teacher, its texts, its answers
    best.yaml      a plain recipe with the values of the best trial
    search.html    all of them on a page                                curve.html
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from stilla.errors import FolderError, RecipeError
from stilla.runtime.differences import differences
from stilla.runtime.files import sealed, unsealed, write_whole
from stilla.runtime.paths import obstacle
from stilla.stages.folder import RunFolder, instead_of, kind_at
from stilla.stages.shelf import Shelf

Kind = Literal["search", "curve"]
_RUNS: Mapping[Kind, str] = {"search": "trials", "curve": "points"}


class TogetherFolder:
    """On disk. Several processes work in it at once; what only one may do is done in `choosing`."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path = path
        self.kind = kind
        self.said = path / f"{kind}.json"
        self.runs = path / _RUNS[kind]
        self.page = path / f"{kind}.html"
        self.shared = path / "shared"
        self.journal = path / "trials.log"
        self.best = path / "best.yaml"

    def refuse_strangers(self) -> None:
        """Raises:
            RecipeError: something else lies there; nothing of it may be touched.
        """
        if why := obstacle(self.path):
            raise RecipeError(f"output: {why}")
        if not self.path.exists() or self.said.is_file() or all(one.name.startswith(".") for one in self.path.iterdir()):
            return
        there = kind_at(self.path)
        what = f"exists and is no {self.kind} of Stilla" if there is None else \
            f"holds a {there} of Stilla, which is no {self.kind}"
        raise RecipeError(f"output: {self.path} {what}; nothing in it was touched. {instead_of(self.path, self.kind)}")

    def open(self, inputs: Mapping[str, Any], *, overwrite: bool) -> None:
        """Begin, or take up what is there. `inputs`: all that the runs depend on.

        Raises:
            RecipeError: it was begun with others; what differs.
            FolderError: it cannot be read, or is to be thrown away while somebody is at work in it.
        """
        self.refuse_strangers()
        self.path.mkdir(parents=True, exist_ok=True)
        plain: dict[str, Any] = json.loads(json.dumps(inputs))
        with self.choosing():
            if overwrite and self.said.exists():
                self._clear()
            if self.said.exists():
                self._refuse_another(plain)
            else:
                write_whole(self.said, sealed(plain))

    def choosing(self) -> FileLock:
        """`with folder.choosing():` one process at a time, the others wait."""
        return FileLock(self.path / ".choosing.lock")

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.runs / name, shelf=Shelf(self.shared))

    def trial(self, number: int) -> RunFolder:
        return self.run(f"{number:04}")

    def _refuse_another(self, inputs: Mapping[str, Any]) -> None:
        try:
            before = unsealed(self.said.read_text(encoding="utf-8"), needed=True)
        except (OSError, ValueError) as error:
            raise FolderError(f"{self.said}: cannot be read ({error}), and nothing else says what was begun. Give another "
                              f"`output`, or --overwrite to throw the {self.kind} away") from error
        if changed := differences(before, inputs):
            lines = "\n".join(f"  {line}" for line in changed)
            raise RecipeError(f"{self.path} holds another {self.kind}. What differs:\n{lines}\nGive another `output`, or "
                              f"--overwrite to throw the old {self.kind} away")

    def _clear(self) -> None:
        held = list[RunFolder]()
        try:
            for path in sorted(self.runs.glob("*")):
                held.append(RunFolder(path))
                held[-1].open(overwrite=False)  # raises where somebody is at work
        finally:
            for one in held:
                one.close()
        for folder in (self.runs, self.shared):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.journal, self.best, self.page, self.said):  # the last: without it nobody might touch the rest
            file.unlink(missing_ok=True)
