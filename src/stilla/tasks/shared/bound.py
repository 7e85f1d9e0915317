"""Which columns of unlabelled examples are those that the labelled data are read by: of the same name, as the recipe says, or
the ones that can only be meant."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from stilla.data import LABEL_NAMES
from stilla.errors import DataError, all_of, did_you_mean, one_of
from stilla.tasks.shared.columns import PAIRS, TEXTS, columns_of, existing, is_text

logger = logging.getLogger(__name__)


def bound(
    pool: Dataset, wanted: Sequence[str], called: Mapping[str, str], fits: Callable[[Any], bool], what: str,
    usual: Callable[[Dataset, Sequence[str]], Sequence[str] | None], labels: Sequence[str] = (),
) -> Dataset:
    """Unlabelled examples with the columns of these names and no others: those called so, or as the recipe says, or the ones
    that can be meant. Says what was guessed, and that labels are not read.

    Args:
        called: names in these examples by the wanted ones.
        fits, what: which types of columns can be meant, and what they hold in words.
        usual: of the columns that fit, which are meant where none has the wanted name; None where that is open.
        labels: what the labelled data call the label.

    Raises:
        DataError: no such column, or which one is meant is left open.
    """
    if unknown := [name for name in called if name not in wanted]:
        raise DataError(f"data.unlabelled.columns: got {unknown[0]!r}; expected what the labelled data call what is read: "
                        f"{one_of(wanted)}.{did_you_mean(unknown[0], wanted)}")
    names = [name if called.get(name) not in pool.column_names else called[name] for name in wanted]
    guessed = False
    if not set(names) <= set(pool.column_names):
        fitting = [name for name in pool.column_names if name not in labels and name.lower() not in LABEL_NAMES
                   and fits(pool.features[name])]
        found = None if called else usual(pool, fitting)
        if found is None or len(found) != len(names):
            lacking = next(name for name in names if name not in pool.column_names)
            raise DataError(f"data.unlabelled: which column is {lacking!r}? {columns_of(pool)} Say it in "
                            f"data.unlabelled.columns, for example {{{lacking}: {(fitting or ['text'])[0]}}}.")
        names, guessed = list(found), True
    names = list(existing("unlabelled.columns", names, pool, fits, what))
    _tell(pool, names, wanted, labels, guessed=guessed)
    return pool.select_columns(names).rename_columns(dict(zip(names, wanted)))


def _tell(
    pool: Dataset, names: Sequence[str], wanted: Sequence[str], labels: Sequence[str], *, guessed: bool
) -> None:
    if guessed:
        read = [f"{name!r} as {as_what!r}" for name, as_what in zip(names, wanted) if name != as_what]
        beside = [repr(name) for name in pool.column_names if name not in names and is_text(pool.features[name])]
        logger.warning("data.unlabelled: read is %s%s", all_of(read),
                       f"; not read: {all_of(beside)}" if beside else "")
    ignored = [repr(name) for name in pool.column_names
               if name not in names and (name in labels or name.lower() in LABEL_NAMES)]
    if ignored:
        logger.warning("data.unlabelled: %s %s not read; only the teacher says what these examples are", all_of(ignored),
                       "is" if len(ignored) == 1 else "are")


def usual_texts(pool: Dataset, texts: Sequence[str], count: int) -> Sequence[str] | None:
    """Of columns of text, the one that is meant, or the two of pairs; None where that is open."""
    lower = {name.lower(): name for name in reversed(texts)}
    if count == 1:
        known = [lower[name] for name in TEXTS if name in lower]
        return (known or texts)[:1] if len(known or texts) == 1 else None
    pairs = [(lower[a], lower[b]) for a, b in PAIRS if a in lower and b in lower]
    return pairs[0] if len(pairs) == 1 else None
