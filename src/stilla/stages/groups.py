"""Groups of examples that have a part of the student to themselves, where the parts lie, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from jaxtyping import Int
from numpy.typing import NDArray
from torch import nn

from stilla.errors import CompatibilityError, DataError, FolderError, StillaError, quoted
from stilla.evaluate.grouped import Grouping
from stilla.evaluate.slices import by_value
from stilla.recipe import Personal, Recipe
from stilla.runtime.files import contents, sealed, unsealed, write_whole
from stilla.stages.folder import RunFolder
from stilla.students import numbers_of, read_part
from stilla.students.lora import lora_config
from stilla.tasks.answers import Answers
from stilla.tasks.base import Prepared, Task

LIST = "parts.json"
"""Beside the parts: which is whose."""

Ask = Callable[[nn.Module, Dataset], Answers]
"""What a model answers to examples."""


def with_a_part(
    split: Dataset, section: Personal, among: Int[NDArray[np.int64], "some"] | None = None
) -> dict[str, Int[NDArray[np.int64], "rows"]]:
    """The training examples of every group that has enough, by its name. `among`: those that something is learnt of; by
    default all.

    Raises:
        DataError: there is no such column; no group has enough, or more have than are wanted.
    """
    try:
        found = by_value(split, section.by)
    except DataError as error:
        raise DataError(f"personal.by: {error}") from error
    if among is not None:
        found = {name: np.intersect1d(rows, among) for name, rows in found.items()}
    enough = {name: rows for name, rows in found.items() if len(rows) >= section.at_least}
    if not enough:
        most = max(map(len, found.values()), default=0)
        raise DataError(f"personal.at_least: got {section.at_least}, and none of the {len(found):,} values of "
                        f"{quoted(section.by)} has so many training examples; the most frequent has {most}. Take a smaller "
                        "number, or a column of fewer values")
    if len(enough) > section.most:
        raise DataError(f"personal: {len(enough):,} values of {quoted(section.by)} have {section.at_least} training examples "
                        f"and more; expected at most {section.most} (personal.most), each of which is a training. Raise "
                        "personal.at_least, or take a column of fewer values")
    return enough


def problems(recipe: Recipe, splits: Mapping[str, Dataset], task: Task, prepared: Prepared) -> list[str]:
    """Why there can be no parts, in words."""
    section = recipe.personal
    if section is None:
        return []
    if "train" not in splits:
        return ["personal: there are no labelled training data (data.train), whose groups could have a part. Leave it out"]
    found = []
    if recipe.all_written:
        found.append("personal: students that learn what the teacher writes (completions) have no examples of a group. Leave "
                     "one of the two out")
    if recipe.data.each:
        found.append("personal: of several tasks learnt at once, each has its own columns. Give every task a run of its own")
    if prepared.packed:
        found.append("personal: these examples hold several documents each, of several groups. Use data.pack: false")
    if not task.distributions:
        found.append("personal: answers are vectors, which are held against those of other examples, and those of two parts "
                     "do not compare. Leave it out")
    if section.by in (task.resolved(recipe.data).label_columns or ()):
        found.append(f"personal.by: got {quoted(section.by)}, which is what is to be found out: nobody has it when the "
                     "student is asked. Take a column that is known before")
    try:
        with_a_part(splits["train"], section)
        lora_config(section.lora, None)
    except (DataError, CompatibilityError) as error:
        found += error.problems
    return found


@dataclass(frozen=True)
class Parts:
    """The parts of one student. by: the column. folders: by the value. learnt: from how many examples each."""

    by: str
    folders: Mapping[str, Path]
    learnt: Mapping[str, int]

    @classmethod
    def of(cls, folder: RunFolder, seed: int) -> Parts:
        """Raises:
            FolderError: there are none, or their list is damaged.
        """
        place = folder.model("personal", seed)
        try:
            known = unsealed((place / LIST).read_text(encoding="utf-8"), needed=True)
            folders = {str(value): place / str(int(one)) for value, one in known["parts"].items()}  # nowhere else
            learnt = {value: int(known["learnt from"][value]) for value in folders}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FolderError(f"{place / LIST}: it cannot be read, so nobody knows whose the parts are: {error}. Running the "
                              "recipe again writes it") from error
        return cls(str(known["by"]), folders, learnt)

    def write(self, place: Path) -> None:
        """Write the list of those that lie there."""
        write_whole(place / LIST, sealed({"by": self.by, "parts": {value: one.name for value, one in self.folders.items()},
                                          "learnt from": dict(self.learnt)}))

    def size(self, shared: nn.Module) -> tuple[int, int]:
        """Numbers and bytes of one of them."""
        weights = numbers_of(read_part(shared, next(iter(self.folders.values())))).values()
        return sum(one.numel() for one in weights), sum(one.numel() * one.element_size() for one in weights)

    def content(self) -> dict[str, str]:
        """Of all of their files."""
        return {f"{value}/{name}": one for value, folder in self.folders.items() for name, one in contents(folder).items()}

    def rows(self, split: Dataset) -> dict[str, Int[NDArray[np.int64], "rows"]]:
        """The examples of every group that has a part; of data without the column, none."""
        found = by_value(split, self.by) if self.by in split.column_names else {}
        return {value: rows for value, rows in found.items() if value in self.folders}

    def answered(self, shared: nn.Module, said: Answers, split: Dataset, ask: Ask) -> Answers:
        """What the shared student said, and in its place, where a group has a part, what that says.

        Raises:
            StillaError: examples of a group by themselves are cut otherwise than among all.
        """
        given = said.given.copy() if isinstance(said.given, np.ndarray) else list(said.given)
        for value, rows in self.rows(split).items():
            at = np.flatnonzero(np.isin(said.keys, rows))
            if not len(at):
                continue
            own = ask(read_part(shared, self.folders[value]), split.select(rows))
            kept = np.flatnonzero(np.isin(rows[own.keys], said.keys))
            if not np.array_equal(rows[own.keys[kept]], said.keys[at]):
                raise StillaError(f"personal: the examples of {self.by} {quoted(value)} by themselves are others than among "
                                  "all: a group's answers cannot be put beside the student's")
            for place, one in zip(at.tolist(), kept.tolist()):
                given[place] = own.given[one]
        return said.but(given)


def grouped(parts: Parts, shared: nn.Module, split: Dataset) -> Grouping:
    """Whose examples of a split have a part, for the scores."""
    numbers, size = parts.size(shared)
    return Grouping(parts.by, parts.rows(split), parts.learnt, numbers, size)
