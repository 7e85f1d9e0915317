"""What the recipe names, as datasets: files, folders and Hugging Face datasets; splits; keys.

`load` answers with the splits `train`, `validation` and, if there is one, `test`. Which columns matter is for
the task to find out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from stilla.data import cells, histories, listed, several, sources, user_splits, word_rows
from stilla.data.drawing import drawn_splits, kept, label_column, scarce_classes
from stilla.errors import DataError, all_at_once, all_of, did_you_mean, one_of
from stilla.recipe import Data, Split

logger = logging.getLogger(__name__)

SHIFTED = "shifted."
"""How the names of splits begin that are measured and never trained on: `shifted.typos`."""

TEACHER = "teacher"
"""The name of the split that a teacher alone learns from, where it has one of its own."""


def load(section: Data, *, seed: int, teachers: str | None = None) -> dict[str, Dataset]:
    """The labelled splits that a recipe's `data` means: train, validation, test, and those of `shifted`; without `train`
    those that are measured. `teachers`: what a teacher alone learns from, as the split `teacher`.

    Splits taken from the training data are drawn with `seed` and, where the label is a class, in the
    proportions of the classes. A test split whose labels are hidden (-1 everywhere, as in GLUE) is left out
    unless the recipe asks for it.

    Raises:
        DataError: every problem with the named sources, all at once.
    """
    problems: list[str] = []
    if section.each:
        return _of_each(section.each, seed, teachers)
    if section.train is None:
        return _measured(problems, section)
    own = _attempt(problems, "train", section.train, section, config=section.config, revision=section.revision)
    given = {key: _given(problems, key, section, own) for key in ("validation", "test")}
    beside = {f"{SHIFTED}{name}": _shifted(problems, name, section, own) for name in section.shifted}
    if teachers is not None:
        beside[TEACHER] = _of_path(problems, TEACHER, teachers, section, meant="train")
    if own is not None and "train" not in own:
        problems.append(f"data.train: {section.train!r} has no training split, only {one_of(sorted(own))}.")
    read = {**(own or {}), **given, **beside}
    problems += [] if problems else _headless(section, [split for split in read.values() if split is not None])
    if problems or own is None:
        raise all_at_once(problems, DataError)

    found = {"train": own["train"], **{key: split for key, split in given.items() if split is not None}}
    if section.validation is None and "validation" in own:
        found["validation"] = own["validation"]
    if section.test is None and "test" in own:
        if _labels_are_hidden(own["test"], section):
            logger.info(
                "data.test: the dataset's test split is left out: its labels are hidden (-1 everywhere)"
            )
        else:
            found["test"] = own["test"]
    found = _parted(found, {name: split for name, split in beside.items() if split is not None}, section, seed)
    for name, split in found.items():
        if len(split) == 0:
            problems.append(f"{_place(name)}: there are no examples in it.")
    if problems:
        raise all_at_once(problems, DataError)
    if section.limit is not None:
        if (scarce := scarce_classes(found["train"], section)) is not None:
            logger.warning(scarce)
        found["train"] = found["train"].select(kept(found["train"], section, seed))
    return {name: found[name] for name in ("train", "validation", "test", *beside) if name in found}


def _parted(
    found: dict[str, Dataset], beside: dict[str, Dataset], section: Data, seed: int
) -> dict[str, Dataset]:
    """With what is missing of validation and test taken from the training data; where rows are events, a row a user."""
    if section.events is None:
        return drawn_splits(found, section, seed) | beside
    return user_splits.parted(found, beside, section, section.events, lambda some: drawn_splits(some, section, seed),
                              learnt_from=("train", TEACHER))


def left_out(section: Data, *, seed: int) -> Dataset:
    """What `limit` leaves of the training data.

    Raises:
        DataError: it leaves none; every problem with the named sources.
    """
    train, rest = _with_rest(section, seed)
    if not len(rest):
        raise DataError(f"data.unlabelled.rest: data.limit keeps all {len(train):,} training examples, so that nothing is "
                        "left without labels; take less of them, or leave `rest` out.")
    return train.select(rest)


def number_left(section: Data, *, seed: int) -> tuple[int, int]:
    """How many training examples there are, and how many of them `limit` leaves.

    Raises:
        DataError: every problem with the named sources.
    """
    train, rest = _with_rest(section, seed)
    return len(train), len(rest)


def _with_rest(section: Data, seed: int) -> tuple[Dataset, NDArray[np.int64]]:
    """All training examples, and the indices of those that `limit` leaves."""
    train = load(section.model_copy(update={"limit": None, "shifted": {}}), seed=seed)["train"]
    return train, np.setdiff1d(np.arange(len(train)), kept(train, section, seed))


def _of_each(sections: Mapping[str, Data], seed: int, teachers: str | None) -> dict[str, Dataset]:
    """Those of several tasks, in one table a split."""
    problems, found = [], {}
    if teachers is not None:
        problems.append(f"teacher.train.data: got {teachers!r}; a teacher of several tasks learns from the data of each; "
                        "leave it out.")
    for name, section in sections.items():
        try:
            found[name] = load(section, seed=seed)
        except DataError as error:
            problems += [of_part(name, problem) for problem in error.problems]
    if problems:
        raise all_at_once(problems, DataError)
    return several.united(found)


def of_part(name: str, problem: str) -> str:
    """What is wrong with the data of one of several tasks, with its place in the recipe."""
    return f"data.parts.{name}.{problem}" if problem.startswith("data.") else f"data.parts.{name}: {problem}"


def to_learn_from(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """What a training may depend on: not what is only measured beside."""
    return {name: split for name, split in splits.items() if not name.startswith(SHIFTED)}


def to_measure(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Validation and test data, and those from elsewhere."""
    return {name: split for name, split in splits.items() if name in ("validation", "test") or name.startswith(SHIFTED)}


def _measured(problems: list[str], section: Data) -> dict[str, Dataset]:
    """Validation data, and test data and data from elsewhere if any are named, where nothing labelled is to be learnt."""
    given = {**{key: _given(problems, key, section, None) for key in ("validation", "test")},
             **{f"{SHIFTED}{name}": _shifted(problems, name, section, None) for name in section.shifted}}
    found = {key: split for key, split in given.items() if split is not None}
    problems += [f"data.{name}: there are no examples in it." for name, split in found.items() if len(split) == 0]
    problems += [] if problems else _headless(section, [*found.values()])
    if problems:
        raise all_at_once(problems, DataError)
    return found if section.events is None else user_splits.parted({}, found, section, section.events, dict)


def _headless(section: Data, read: Sequence[Dataset]) -> list[str]:
    """What is wrong with `data.header`: that it names the columns of nothing."""
    if section.header is None or any({*section.header} <= {*split.column_names} for split in read):
        return []
    return [f"data.header: got {all_of(section.header)}, and nothing that is named is a CSV or TSV of these columns; leave "
            "it out, or name the file"]


def load_one(name: str, section: Data | None = None) -> Dataset:
    """One file or folder as one split, for scoring a run on other data; its test split where it has several.

    `section`: of the run's recipe, which says what a document is in plain text.

    Raises:
        DataError: it cannot be read, or leaves open which split is meant.
    """
    splits = sources.read(name, hub=False) if section is None else sources.read(
        name, hub=False, document=section.text_unit, header=section.header)
    if len(splits) > 1 and "test" not in splits:
        raise DataError(f"--data: {name!r} holds {one_of(sorted(splits))}; name the file that is meant.")
    split = splits["test"] if "test" in splits else next(iter(splits.values()))
    if section is None or section.events is None:
        return split if section is None else as_examples(split, section)
    return histories.ending(histories.gathered(split, section.events)).dataset()


def rows_as_read(split: Dataset, rows: Sequence[int]) -> list[int]:
    """Where rows of a split lie in the file or dataset that it was drawn from."""
    drawn = split._indices  # `datasets` has no public way to ask
    if drawn is None:
        return [int(row) for row in rows]
    return [int(row.as_py()) for row in drawn.column(0).take(pa.array(rows, pa.int64()))]


def _attempt(
    problems: list[str], key: str, name: str, section: Data, **options: str | bool | None
) -> dict[str, Dataset] | None:
    try:
        found = sources.read(name, document=section.text_unit, header=section.header, **options)  # type: ignore[arg-type]
        return {split: as_examples(rows, section) for split, rows in found.items()}
    except DataError as error:
        problems.append(f"{_place(key)}: {error}")
        return None


def as_examples(split: Dataset, section: Data) -> Dataset:
    """What a file holds in a form of its own, as its task reads it."""
    lists = cells.as_lists(listed.apart(split, section.listed), section.cells)
    return word_rows.sentences(lists, section.word_rows)


def _place(split: str) -> str:
    """Where a recipe names it."""
    return "teacher.train.data" if split == TEACHER else f"data.{split}"


def _given(
    problems: list[str], key: str, section: Data, own: Mapping[str, Dataset] | None
) -> Dataset | None:
    """The split that the recipe names for validation or test; None where it is drawn or taken by default."""
    wanted: str | Split | None = getattr(section, key)
    if isinstance(wanted, str):
        return _of_path(problems, key, wanted, section, meant=key)
    if wanted is not None and wanted.name is not None and own is not None:
        return _of_dataset(problems, key, wanted.name, own)
    return None


def _shifted(problems: list[str], name: str, section: Data, own: Mapping[str, Dataset] | None) -> Dataset | None:
    wanted, key = section.shifted[name], f"{SHIFTED}{name}"
    if isinstance(wanted, str):
        return _of_path(problems, key, wanted, section, meant="test")
    if own is None and section.train is None:
        problems.append(f"data.{key}: got a split of the training data, {wanted.name!r}, and there are none (data.train); "
                        "expected a file or a folder.")
    return None if own is None else _of_dataset(problems, key, wanted.name, own)


def _of_path(problems: list[str], key: str, path: str, section: Data, *, meant: str) -> Dataset | None:
    """A file's or folder's only split, or the one that is meant."""
    splits = _attempt(problems, key, path, section, hub=False)
    if splits is None:
        return None
    if len(splits) > 1 and meant not in splits:
        problems.append(f"{_place(key)}: {path!r} holds {one_of(sorted(splits))}; name the file that is meant.")
        return None
    return splits[meant] if meant in splits else next(iter(splits.values()))


def _of_dataset(problems: list[str], key: str, name: str, own: Mapping[str, Dataset]) -> Dataset | None:
    if name not in own:
        problems.append(f"data.{key}.name: got {name!r}; expected {one_of(sorted(own))}.{did_you_mean(name, own)}")
    return own.get(name)


def _labels_are_hidden(split: Dataset, section: Data) -> bool:
    column = label_column(split, section)
    if column is None or len(split) == 0:
        return False
    return all(value in (-1, "-1") for value in split.with_format(None)[column][:])
