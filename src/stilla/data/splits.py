"""What the recipe names, as datasets: files, folders and Hugging Face datasets; splits; keys.

`load` answers with the splits `train`, `validation` and, if there is one, `test`. Which columns matter is for
the task to find out; the only thing guessed here is the label's column, to draw splits that hold every class.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Value
from numpy.typing import NDArray

from stilla.data import histories, several, sources, user_splits
from stilla.errors import DataError, all_at_once, did_you_mean, one_of
from stilla.recipe import Data, PerClass, Split

logger = logging.getLogger(__name__)

LABEL_NAMES = (
    "label",
    "labels",
    "intent",
    "class",
    "category",
    "target",
    "sentiment",
    "topic",
    "stars",
    "rating",
    "score",
    "similarity_score",
    "emotion",
    "fine_label",
)
"""What people call the column with the label, most usual first."""

SHIFTED = "shifted."
"""How the names of splits begin that are measured and never trained on: `shifted.typos`."""

TEACHER = "teacher"
"""The name of the split that a teacher alone learns from, where it has one of its own."""

_VALIDATION = 0.1
_SALTS = {
    "test": 1,
    "validation": 2,
    "limit": 3,
}  # one stream of random numbers per draw, whatever else is drawn


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
    own = _attempt(problems, "train", section.train, config=section.config, revision=section.revision,
                   document=section.text_unit)
    given = {key: _given(problems, key, section, own) for key in ("validation", "test")}
    beside = {f"{SHIFTED}{name}": _shifted(problems, name, section, own) for name in section.shifted}
    if teachers is not None:
        beside[TEACHER] = _of_path(problems, TEACHER, teachers, section, meant="train")
    if own is not None and "train" not in own:
        problems.append(f"data.train: {section.train!r} has no training split, only {one_of(sorted(own))}.")
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
        found["train"] = found["train"].select(_kept(found["train"], section, seed))
    return {name: found[name] for name in ("train", "validation", "test", *beside) if name in found}


def _parted(
    found: dict[str, Dataset], beside: dict[str, Dataset], section: Data, seed: int
) -> dict[str, Dataset]:
    """With what is missing of validation and test taken from the training data; where rows are events, a row a user."""
    if section.events is None:
        return _draw_splits(found, section, seed) | beside
    return user_splits.parted(found, beside, section, section.events, lambda some: _draw_splits(some, section, seed),
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
    return train, np.setdiff1d(np.arange(len(train)), _kept(train, section, seed))


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
    if problems:
        raise all_at_once(problems, DataError)
    return found if section.events is None else user_splits.parted({}, found, section, section.events, dict)


def load_one(name: str, section: Data | None = None) -> Dataset:
    """One file or folder as one split, for scoring a run on other data; its test split where it has several.

    `section`: of the run's recipe, which says what a document is in plain text.

    Raises:
        DataError: it cannot be read, or leaves open which split is meant.
    """
    splits = sources.read(name, hub=False, document="paragraph" if section is None else section.text_unit)
    if len(splits) > 1 and "test" not in splits:
        raise DataError(f"--data: {name!r} holds {one_of(sorted(splits))}; name the file that is meant.")
    split = splits["test"] if "test" in splits else next(iter(splits.values()))
    if section is None or section.events is None:
        return split
    return histories.ending(histories.gathered(split, section.events)).dataset()


def rows_as_read(split: Dataset, rows: Sequence[int]) -> list[int]:
    """Where rows of a split lie in the file or dataset that it was drawn from."""
    drawn = split._indices  # `datasets` has no public way to ask
    if drawn is None:
        return [int(row) for row in rows]
    return [int(row.as_py()) for row in drawn.column(0).take(pa.array(rows, pa.int64()))]


def label_column(split: Dataset, section: Data) -> str | None:
    """The column that most likely holds the label: the recipe's, a usual name, or the only class column."""
    if (named := section.label_columns) is not None:
        return named[0] if len(named) == 1 and named[0] in split.column_names else None
    lower = {name.lower(): name for name in reversed(split.column_names)}
    usual = [lower[name] for name in LABEL_NAMES if name in lower]
    if usual and (len(usual) == 1 or usual[0].lower() in ("label", "labels")):
        return str(usual[0])
    classes = [name for name, feature in split.features.items() if isinstance(feature, ClassLabel)]
    return str(classes[0]) if len(classes) == 1 else None


def _attempt(
    problems: list[str], key: str, name: str, **options: str | bool | None
) -> dict[str, Dataset] | None:
    try:
        return sources.read(name, **options)  # type: ignore[arg-type]
    except DataError as error:
        problems.append(f"{_place(key)}: {error}")
        return None


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
    splits = _attempt(problems, key, path, hub=False, document=section.text_unit)
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


def _draw_splits(found: dict[str, Dataset], section: Data, seed: int) -> dict[str, Dataset]:
    """Take validation and test away from the training data; fractions are of the whole of it."""
    fractions = {}
    for key in ("test", "validation"):
        wanted = getattr(section, key)
        if isinstance(wanted, Split) and wanted.split is not None:
            fractions[key] = wanted.split
    if "validation" not in found and "validation" not in fractions:
        fractions["validation"] = _VALIDATION
        logger.info("data.validation: a tenth of the training data, as the dataset has none of its own")
    total = len(found["train"])
    if sum(fractions.values()) >= 1:
        raise DataError(
            f"data: validation and test take {sum(fractions.values()):.0%} of the training data, so that "
            "nothing is left to train on."
        )
    for key, fraction in fractions.items():
        train = found["train"]
        count = max(1, round(fraction * total))
        if count >= len(train):
            raise DataError(
                f"data.{key}: {fraction:.0%} of {total} examples leaves nothing to train on; give a file of "
                "its own."
            )
        drawn = _draw(train, count, section, (seed, _SALTS[key]))
        found[key] = train.select(drawn)
        found["train"] = train.select(np.setdiff1d(np.arange(len(train)), drawn))
    return found


def _kept(train: Dataset, section: Data, seed: int) -> NDArray[np.int64]:
    """Indices of the training examples that `limit` keeps, in order."""
    limit, whole = section.limit, np.arange(len(train))
    if isinstance(limit, PerClass):
        return _of_each_class(train, section, limit, seed)
    if limit is None or limit >= len(train):
        return whole
    return np.setdiff1d(whole, _draw(train, len(train) - limit, section, (seed, _SALTS["limit"])))


def _of_each_class(train: Dataset, section: Data, limit: PerClass, seed: int) -> NDArray[np.int64]:
    """Each class is put in an order of its own, of which the first are kept: those of a smaller limit are among them."""
    classes = _classes(train, section)
    if classes is None:
        column = label_column(train, section)
        what = "no column holds one class for each example" if column is None else f"{column!r} holds no classes"
        raise DataError(f"data.limit.per_class: {what}, and there is nothing to count by; expected a number of examples, "
                        "data.limit: 100.")
    generator = np.random.default_rng((seed, _SALTS["limit"], limit.draw))
    return np.sort(np.concatenate([generator.permutation(np.flatnonzero(classes == one))[: limit.per_class]
                                   for one in np.unique(classes)]))


def _draw(split: Dataset, count: int, section: Data, seed: Sequence[int]) -> NDArray[np.int64]:
    """Indices of `count` examples in order, drawn at random, in the proportions of the classes if any.

    A class keeps at least one example that is not drawn, as far as that is possible.
    """
    generator = np.random.default_rng(seed)
    strata = _strata(split, section)
    members = [np.flatnonzero(strata == one) for one in np.unique(strata)]
    quotas = _quotas(np.array([len(one) for one in members]), count, generator)
    return np.sort(
        np.concatenate([generator.permutation(one)[:quota] for one, quota in zip(members, quotas)])
    )


def _quotas(sizes: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """How many of each class make up `count`: largest remainders, ties drawn, one of each left if it goes."""
    most = sizes - 1 if count <= (sizes - 1).sum() else sizes
    exact = count * sizes / sizes.sum()
    quotas: NDArray[np.int64] = np.minimum(np.floor(exact).astype(np.int64), most)
    while (missing := count - int(quotas.sum())) > 0:
        shuffled = generator.permutation(len(sizes))
        order = shuffled[np.argsort((quotas - exact)[shuffled], kind="stable")]
        quotas[order[quotas[order] < most[order]][:missing]] += 1
    return quotas


def _strata(split: Dataset, section: Data) -> NDArray[np.int64]:
    """The class of each example as a number; all zero where the label is no class."""
    classes = _classes(split, section)
    return np.zeros(len(split), np.int64) if classes is None else classes


def _classes(split: Dataset, section: Data) -> NDArray[np.int64] | None:
    """The class of each example as a number; None where the label is no class."""
    column = label_column(split, section)
    if column is None or section.label_is_amount:
        return None
    feature = split.features[column]
    if not isinstance(feature, ClassLabel) and not (
        isinstance(feature, Value)
        and feature.dtype.startswith(("string", "large_string", "int", "uint", "bool"))
    ):
        return None
    values = ["" if value is None else str(value) for value in split.with_format(None)[column][:]]
    kinds, strata = np.unique(np.array(values), return_inverse=True)
    nearly_all_different = 2 * len(kinds) > len(values)  # an amount or a name, no class
    return None if nearly_all_different else strata


def _labels_are_hidden(split: Dataset, section: Data) -> bool:
    column = label_column(split, section)
    if column is None or len(split) == 0:
        return False
    return all(value in (-1, "-1") for value in split.with_format(None)[column][:])
