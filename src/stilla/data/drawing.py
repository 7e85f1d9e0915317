"""Examples drawn from a split: validation and test data taken from the training data, and few of many labels.

The only thing guessed of the columns is which of them holds the label, so that what is drawn holds every class.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from datasets import ClassLabel, Dataset, Value
from numpy.typing import NDArray

from stilla.data.several_classes import classes_of_each, drawn_of_each
from stilla.errors import DataError
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

_VALIDATION = 0.1
_SALTS = {
    "test": 1,
    "validation": 2,
    "limit": 3,
}  # one stream of random numbers per draw, whatever else is drawn


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


def drawn_splits(found: dict[str, Dataset], section: Data, seed: int) -> dict[str, Dataset]:
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


def kept(train: Dataset, section: Data, seed: int) -> NDArray[np.int64]:
    """Indices of the training examples that `limit` keeps, in order."""
    limit, whole = section.limit, np.arange(len(train))
    if isinstance(limit, PerClass):
        return _of_each_class(train, section, limit, seed)
    if limit is None or limit >= len(train):
        return whole
    return np.setdiff1d(whole, _draw(train, len(train) - limit, section, (seed, _SALTS["limit"])))


def scarce_classes(train: Dataset, section: Data) -> str | None:
    """That classes have fewer examples than `limit` asks for; None where all have as many, or examples have several."""
    limit = section.limit
    if not isinstance(limit, PerClass) or section.between_labels is not None or (classes := _classes(train, section)) is None:
        return None
    counts = np.unique(classes, return_counts=True)[1]
    few = int((counts < limit.per_class).sum())
    return None if few == 0 else (
        f"data.limit.per_class: {few} of {len(counts)} classes {'has' if few == 1 else 'have'} fewer than {limit.per_class} "
        f"examples (the fewest {counts.min()}); of those, all are taken")


def _of_each_class(train: Dataset, section: Data, limit: PerClass, seed: int) -> NDArray[np.int64]:
    """Each class is put in an order of its own, of which the first are kept: those of a smaller limit are among them.

    Examples that have several classes are put in one order (`drawn_of_each`).
    """
    generator = np.random.default_rng((seed, _SALTS["limit"], limit.draw))
    classes = None if section.between_labels is not None else _classes(train, section)
    if classes is None:
        several = classes_of_each(train, section, label_column(train, section))
        if several is not None:
            return drawn_of_each(several, limit.per_class, generator)
        column = label_column(train, section)
        what = "no column holds one class for each example" if column is None else f"{column!r} holds no classes"
        raise DataError(f"data.limit.per_class: {what}, and there is nothing to count by; expected a number of examples, "
                        "data.limit: 100.")
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
