"""`data.unlabelled` of a recipe: examples for which the teacher alone answers, and how they stand beside labelled ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray

from stilla import data
from stilla.data.overlap import WORDS, Met
from stilla.data.unlabelled import as_in, some_of
from stilla.errors import DataError, all_at_once
from stilla.recipe import Recipe, Unlabelled
from stilla.runtime.narrate import progress
from stilla.tasks.base import Task
from stilla.tasks.language.writing import Writes

logger = logging.getLogger(__name__)

MEASURED = "in validation or test data"


@dataclass(frozen=True)
class Pool:
    """Unlabelled examples in the columns that the task reads. `left_out`: how many are not among them, by the reason.
    `generated`: how many a language model wrote, which are the last ones."""

    data: Dataset
    left_out: Mapping[str, int] = field(default_factory=dict)
    generated: int = 0
    parts: Mapping[str, Pool] = field(default_factory=dict)
    """By name those of each task, where several are learnt: `data` are theirs in one table."""

    @classmethod
    def of_parts(cls, parts: Mapping[str, Pool]) -> Pool:
        """Those of several tasks, one after the other."""
        left_out = {f"{name}, {why}": count for name, one in parts.items() for why, count in one.left_out.items()}
        return cls(data.in_one_table({name: one.data for name, one in parts.items()}), left_out, parts=parts)

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def fingerprint(self) -> str:
        return data.fingerprint.of_splits({"unlabelled": self.data})

    def without(self, why: NDArray[np.object_]) -> Pool:
        """The same without some of them. `why`: of each example the reason, None where it stays.

        Raises:
            DataError: none is left.
        """
        counts = Counter(reason for reason in why if reason is not None)
        if not counts:
            return self
        if counts.total() == len(self):
            listed = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
            raise DataError(f"data.unlabelled: all {len(self):,} examples are left out ({listed}).")
        kept = np.flatnonzero([reason is None for reason in why])
        return Pool(self.data.select(kept), {**self.left_out, **counts}, int((kept >= len(self) - self.generated).sum()))

    def beside(self, generated: Pool) -> Pool:
        """With generated ones behind those that are there."""
        left_out = Counter(self.left_out) + Counter(generated.left_out)
        return Pool(_together([self.data, generated.data]), left_out, generated.generated)


def of_run(
    recipe: Recipe, task: Task, splits: Mapping[str, Dataset], named: Mapping[str, Mapping[str, Dataset]],
    generated: Callable[[Pool | None], Pool | None] = lambda _: None,
) -> Pool | None:
    """What is learnt without labels, of every task that is learnt; None where there is nothing of any.

    named: what `data.load_all_unlabelled` gives; else see `read`.

    Raises:
        DataError: see `read`.
    """
    if not recipe.data.each:
        return read(recipe, task, splits, named[""], generated)
    found, problems = dict[str, Pool](), list[str]()
    for name, own in recipe.by_name.items():
        theirs = {split: some for split, examples in splits.items() if len(some := data.part_of(examples, name)[0])}
        try:
            pool = read(own, task.by_name[name], theirs, named[name])
        except DataError as error:
            problems += [data.of_part(name, problem) for problem in error.problems]
            continue
        if pool is not None:
            found[name] = pool
    if problems:
        raise all_at_once(problems, DataError)
    return Pool.of_parts(found) if found else None


def read(
    recipe: Recipe, task: Task, splits: Mapping[str, Dataset], named: Mapping[str, Dataset],
    generated: Callable[[Pool | None], Pool | None] = lambda _: None,
) -> Pool | None:
    """What the recipe names, and what a model wrote, without what is broken or stands in the data that are measured; None
    where there is neither.

    splits: the labelled ones that the task is bound to. named: what `data.load_unlabelled` gives. generated: what a model
    wrote beside those that are left of these.

    Raises:
        DataError: it cannot be read, its columns are not those of the labelled data, some of it stands in the data that are
            measured and is not to be left out, or nothing is left.
    """
    section = recipe.data.unlabelled
    if section is None:
        return None
    measured = Met(trace for split in data.to_measure(splits).values() for trace in task.traces(split))
    given = _unmet(Pool(_given(recipe, section, task, named)), section, task, measured) if named else None
    more = generated(given)
    if more is None:
        return given
    more = _unmet(more, section, task, measured)
    return more if given is None else given.beside(more)


def _given(recipe: Recipe, section: Unlabelled, task: Task, named: Mapping[str, Dataset]) -> Dataset:
    """What is named, in one table."""
    parts, problems = list[Dataset](), list[str]()
    for name, examples in named.items():
        try:
            parts.append(task.unlabelled(examples, section.columns))
        except DataError as error:
            problems += [f"{one} (in {name!r})" for one in error.problems]
    if problems:
        raise all_at_once(problems, DataError)
    whole = task.usable(some_of(_together(parts), section.limit, recipe.seed))
    if not len(whole):
        raise DataError("data.unlabelled: there are no examples in it.")
    return whole


def _together(parts: list[Dataset]) -> Dataset:
    return concatenate_datasets([as_in(one, parts[0], "those of the first of its files") for one in parts])


def _unmet(pool: Pool, section: Unlabelled, task: Task, measured: Met) -> Pool:
    """The pool without what is measured: to learn what the teacher says of the test data is no test."""
    with progress("looking for test data", len(pool)) as advance:
        why = np.full(len(pool), None, object)
        for row, trace in enumerate(task.traces(pool.data)):
            why[row] = MEASURED if measured.has(trace) else None
            advance(1)
    rows = np.flatnonzero(why)
    if not len(rows):
        return pool
    what = "generated texts" if pool.generated else "examples"
    found = f"data.unlabelled: {len(rows):,} of {len(pool):,} {what} stand {MEASURED} (the same, or {WORDS} words in a row)"
    if section.overlap == "refuse" and not pool.generated:  # nobody could remove what a model wrote
        raise DataError(f"{found}, the first is row {rows[0]}. Remove them, or leave them out: data.unlabelled.overlap: "
                        "skip.")
    logger.warning("%s; left out", found)
    return pool.without(why)


def is_written(task: Task) -> bool:
    """Whether the teacher has to write something for unlabelled examples before anything can be learnt of them."""
    return isinstance(task, Writes) and task.unasked() is None


def together(task: Task, splits: Mapping[str, Dataset], pool: Pool | None) -> Dataset:
    """Labelled and unlabelled examples in one table, as a training takes them."""
    train = splits.get("train")
    if pool is None:
        assert train is not None  # a recipe names one of them at least
        return train
    return data.joined(None if train is None else task.beside(train), pool.data)


def to_look_at(task: Task, splits: Mapping[str, Dataset], pool: Pool | None, *, answered: bool = False) -> Dataset:
    """Examples such as a student will learn from, as far as they are there before the teacher has written any, or has
    `answered` what they are."""
    if pool is not None and (answered or is_written(task)):
        return splits.get("train", splits["validation"])
    return together(task, splits, pool)


def number_written(recipe: Recipe, splits: Mapping[str, Dataset], pool: Pool | None) -> int:
    """How many texts the teacher writes to be learnt."""
    if recipe.completions is None:
        return 0
    return number_of(splits, pool) if recipe.all_written else number_of({}, pool)


def number_learnt(recipe: Recipe, splits: Mapping[str, Dataset], pool: Pool | None) -> int:
    """How many a student learns from, with all answers that a teacher behind an address gives."""
    api = recipe.teacher.api
    answers = 1 if api is None else api.answers * (1 if api.reasons is None else 2)
    if recipe.all_written or answers == 1:
        return answers * number_of(splits, pool)
    return number_of(splits, None) + answers * number_of({}, pool)


def number_of(splits: Mapping[str, Dataset], pool: Pool | None) -> int:
    """How many examples a student learns from."""
    return (len(splits["train"]) if "train" in splits else 0) + (0 if pool is None else len(pool))
