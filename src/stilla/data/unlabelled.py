"""Examples without labels: what a recipe names as such, and how they stand beside labelled ones in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, concatenate_datasets
from numpy.typing import NDArray

from stilla.data import histories, sources
from stilla.data.splits import as_examples, left_out, of_part
from stilla.errors import DataError, all_at_once, did_you_mean, one_of
from stilla.recipe import Data

MARK = "stilla_unlabelled"
"""A column of training data: whether an example comes from `data.unlabelled`, so that nobody has labelled it."""
SPLITS = ("unlabelled", "unlabeled", "unsupervised", "train")
"""Of a dataset with several splits, the one that is taken where the recipe does not say which."""
REST = "rest of the training data"
"""What `limit` leaves, among what is named."""
_SALT = 4  # of the draw; the splits' are 1 to 3


def load_unlabelled(section: Data, *, seed: int) -> dict[str, Dataset]:
    """What `data.unlabelled` names, each as it is, by its name; with `rest` what `limit`, drawn with this seed, leaves.

    Raises:
        DataError: every problem with what is named, all at once.
    """
    asked, found, problems = section.unlabelled, dict[str, Dataset](), list[str]()
    if asked is None:
        return found
    for name in asked.examples:
        of_train = name == section.train
        try:
            splits = sources.read(name, config=asked.config or (section.config if of_train else None),
                                  revision=asked.revision or (section.revision if of_train else None),
                                  document=section.unlabelled_unit, header=asked.header)
            chosen = as_examples(_chosen(name, splits, asked.split), section)
            found[name] = chosen if section.events is None else histories.gathered(chosen, section.events).dataset()
        except DataError as error:
            problems.append(f"data.unlabelled: {error}")
    if asked.rest and not problems:
        found[REST] = left_out(section, seed=seed)
    if problems:
        raise all_at_once(problems, DataError)
    return found


def load_all_unlabelled(section: Data, *, seed: int) -> dict[str, dict[str, Dataset]]:
    """The same of every task that is learnt, by its name; of a single one, which has none, under no name.

    Raises:
        DataError: see `load_unlabelled`.
    """
    found, problems = dict[str, dict[str, Dataset]](), list[str]()
    for name, own in section.by_name.items():
        try:
            found[name] = load_unlabelled(own, seed=seed)
        except DataError as error:
            problems += [of_part(name, problem) if name else problem for problem in error.problems]
    if problems:
        raise all_at_once(problems, DataError)
    return found


def _chosen(name: str, splits: Mapping[str, Dataset], wanted: str | None) -> Dataset:
    if wanted is not None:
        if wanted not in splits:
            raise DataError(f"{name!r} has no split {wanted!r}, only {one_of(sorted(splits))} (data.unlabelled.split)."
                            f"{did_you_mean(wanted, splits)}")
        return splits[wanted]
    usual = next((one for one in SPLITS if one in splits), None)
    if usual is None and len(splits) > 1:
        raise DataError(f"{name!r} holds {one_of(sorted(splits))}; say which in data.unlabelled.split, or name the file.")
    return splits[usual or next(iter(splits))]


def some_of(pool: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most so many, drawn at random, in their own order."""
    if limit is None or limit >= len(pool):
        return pool
    return pool.select(np.sort(np.random.default_rng((seed, _SALT)).choice(len(pool), limit, replace=False)))


def joined(labelled: Dataset | None, pool: Dataset) -> Dataset:
    """Both in one table, the unlabelled behind the others and marked; what they lack is null.

    Raises:
        DataError: a column is of one type in the one and of another in the other.
    """
    pool = pool.with_format(None)
    marked = pool if MARK in pool.column_names else _constant(pool, True)
    if labelled is None:
        return marked
    labelled = _constant(labelled.with_format(None), False)
    labelled = with_nulls(labelled, _only_in(marked, labelled))
    marked = with_nulls(marked, _only_in(labelled, marked)).select_columns(labelled.column_names)
    return concatenate_datasets([labelled, as_in(marked, labelled, "those of the labelled data")])


def as_in(split: Dataset, other: Dataset, named: str) -> Dataset:
    """The split with its columns of the other's types.

    Raises:
        DataError: they cannot be; `named`: what the other's columns are, in words.
    """
    if split.features == other.features:
        return split
    try:
        return split.cast(other.features)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"data.unlabelled: its columns cannot be read as {named}: {error}") from error


def with_nulls(split: Dataset, features: Mapping[str, Any]) -> Dataset:
    """With further columns, in which there is nothing."""
    if not features:
        return split
    schema = Features(dict(features)).arrow_schema
    more = pa.table({field.name: pa.nulls(len(split), field.type) for field in schema})
    return concatenate_datasets([split, Dataset(more, info=DatasetInfo(features=Features(dict(features))))], axis=1)


def are_unlabelled(split: Dataset) -> NDArray[np.bool_]:
    """(examples,) whether each comes from `data.unlabelled`."""
    if MARK not in split.column_names:
        return np.zeros(len(split), np.bool_)
    return np.array(split.select_columns([MARK]).with_format(None)[:][MARK], np.bool_)


def _constant(split: Dataset, value: bool) -> Dataset:
    column = pa.table({MARK: pa.array(np.full(len(split), value))})
    return concatenate_datasets([split, Dataset(column)], axis=1)


def _only_in(one: Dataset, other: Dataset) -> dict[str, Any]:
    return {name: feature for name, feature in one.features.items() if name not in other.column_names}
