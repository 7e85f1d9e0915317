"""What a split of texts is: texts by themselves, pairs with a score, queries with what answers them, or a search."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from stilla.data.retrieval_folders import COLUMNS
from stilla.errors import DataError, all_of
from stilla.tasks.retrieval.layout import Kind
from stilla.tasks.retrieval.naming import ANSWERING, ASKING, OTHERS, holds_numbers, is_number, number_in
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.retrieval.texts import ALONE
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_empty

logger = logging.getLogger(__name__)

Kinds = Literal["texts", "scored", "answered", "search"]
LABELS = ("label", "labels", "is_duplicate", "gold_label")
"""What says of pairs of texts something that may be a score."""
SCORES = ("score", "similarity_score", "similarity")


@dataclass(frozen=True)
class Form:
    """`kind`: texts by themselves; pairs with a score; a query, what answers it, and maybe what does not; queries and
    documents of a search. `columns`: of the texts."""

    kind: Kinds
    columns: tuple[str, ...]
    score: str | None = None

    @property
    def classes(self) -> int:
        """Scores of an example: of a pair's texts, or of what stands beside a query."""
        return len(self.columns) - 1

    def kinds(self, split: Dataset) -> list[tuple[Kind | None, ...]]:
        """(examples, columns): what each text is, where queries and documents are told apart."""
        if self.kind == "answered":
            others: list[Kind | None] = ["document"] * self.classes
            return [("query", *others)] * len(split)
        if "role" in split.column_names and self.kind != "scored":
            said = split.with_format(None)["role"][:]
            return [(one if one in ("query", "document") else None,) for one in said]
        return [(None,) * len(self.columns)] * len(split)


def form_of(section: EmbeddingData, split: Dataset) -> Form:
    """What a split is, by the recipe's columns where it has them, else by its names.

    Raises:
        DataError: the names leave it open.
    """
    there = set(split.column_names)
    if set(COLUMNS) <= there:
        return Form("search", ("text",))
    texts = section.text if section.text is not None and set(section.text) <= there else _usual(split)
    if texts is None:
        texts = _columns.texts(section, split, [name for name in SCORES if name in there], alone=True)
    texts = _columns.existing("text", texts, split, _columns.is_text, "text")
    score = _score(section, split, pairs=len(texts) == 2)
    if section.score in there and len(texts) != 2:
        raise DataError(f"data.score: says how alike two texts are, and the texts are {all_of([repr(one) for one in texts])}"
                        ". Set data.text to two columns.")
    if len(texts) == 1:
        return Form("texts", texts)
    if len(texts) == 2 and score is None:
        score = _labelled(section, split, texts)
    return Form("scored", texts, score) if score is not None and len(texts) == 2 else Form("answered", texts)


def of_splits(section: EmbeddingData, splits: Mapping[str, Dataset]) -> tuple[dict[str, Form], list[str]]:
    """What splits are, and what is wrong with them, in words."""
    found, problems = dict[str, Form](), list[str]()
    for name, split in splits.items():
        try:
            found[name] = form_of(section, split)
            if found[name].kind == "scored":
                scores_of(section, found[name], name, split)
            refuse_empty(section, name, split, texts_of(found[name], split), _columns.named(found[name].columns))
        except DataError as error:
            problems += [one if one.startswith(f"data.{name}") else f"{one} (data.{name})" for one in error.problems]
    return found, problems


def by_kind(found: Mapping[str, Form]) -> dict[Kinds, Form]:
    """Of what is measured; that of the validation data first, as by what validation is measured a training may go."""
    measured: dict[Kinds, Form] = {}
    for name in ("validation", "test", *found):
        if name in found and name != "train":
            measured.setdefault(found[name].kind, found[name])
    return measured


def of_pool(section: EmbeddingData) -> Form:
    """Of unlabelled examples where nothing else is learnt from: texts by themselves, or what the recipe names."""
    columns = section.text or ALONE
    return Form("texts" if len(columns) == 1 else "answered", columns)


def _score(section: EmbeddingData, split: Dataset, *, pairs: bool) -> str | None:
    """Raises:
        DataError: what is called so, beside the two texts of a pair, says no number, and so would teach and measure nothing.
    """
    if section.score is not None and section.score in split.column_names:
        if holds_numbers(split, section.score):
            return section.score
        (name,) = _columns.existing("score", (section.score,), split, is_number, "numbers")
        return name
    usual = [name for name in SCORES if name in split.column_names]
    found = next((name for name in usual if holds_numbers(split, name)), None)
    said = [name for name in usual if any(one is not None and one != "" for one in _columns.values(split, name))]
    if pairs and found is None and said:
        raise DataError(f"data.score: the column {said[0]!r} holds {_columns.said(split.features[said[0]])} that says no "
                        "number; expected how alike two texts are. Write numbers, or leave the column out of the file.")
    return found


def _labelled(section: EmbeddingData, split: Dataset, texts: tuple[str, ...]) -> str | None:
    """The column called a label that says how alike the texts of pairs are (GLUE's STS-B); None where there is none.

    Raises:
        DataError: it says something else, so that not every second text may answer the first.
    """
    lower = {name.lower(): name for name in reversed(split.column_names)}
    name: str | None = next((lower[one] for one in LABELS if one in lower), None)
    if name is None or name in texts:
        return None
    if holds_numbers(split, name) and any(one % 1 for one in map(number_in, _columns.values(split, name)) if one == one):
        return name
    if section.text == texts:
        logger.warning("data.score: %r is not read: the second text of every pair counts as what answers the first", name)
        return None
    raise DataError(f"data.score: {name!r} stands beside {_columns.named(texts)}: does it say how alike the two are, or "
                    f"whether the second answers the first? Set data.score: {name} for numbers that do (0 and 1 as well), "
                    f"keep only the rows whose texts belong together, or set data.text: [{', '.join(texts)}] if all do.")


def _usual(split: Dataset) -> tuple[str, ...] | None:
    """A query with what answers it (and what does not), or two texts, by names; None where these say nothing."""
    lower = {name.lower(): name for name in reversed(split.column_names) if _columns.is_text(split.features[name])}
    asking, answering = ([lower[name] for name in names if name in lower] for names in (ASKING, ANSWERING))
    others = [lower[name] for name in OTHERS if name in lower]
    if len(asking) == len(answering) == 1:
        return (*asking, *answering, *others)
    pairs = [(lower[a], lower[b]) for a, b in _columns.PAIRS if a in lower and b in lower]
    return pairs[0] if len(pairs) == 1 else None


def scores_of(section: EmbeddingData, form: Form, name: str, split: Dataset) -> NDArray[np.float64]:
    """How alike the texts of every pair are, from 0 to 1; NaN where nobody has said it.

    Raises:
        DataError: scores that lie elsewhere.
    """
    assert form.score is not None
    values = np.array([number_in(one) for one in _columns.values(split, form.score)], np.float64)
    low, high = section.score_range or (0.0, 1.0)
    if low >= high:
        raise DataError(f"data.score_range: got {[low, high]}; expected first the score of nothing alike, then of the same.")
    known = values[~np.isnan(values)]
    if len(known) and (known.min() < low or known.max() > high):
        said = f"[{math.floor(known.min())}, {math.ceil(known.max())}]"
        raise DataError(f"data.{name}: the scores in {form.score!r} go from {known.min():g} to {known.max():g}, and cosines "
                        f"are held against numbers from {low:g} to {high:g}. Say which is which: data.score_range: {said}.")
    scaled: NDArray[np.float64] = (values - low) / (high - low)
    return scaled


def texts_of(form: Form, split: Dataset) -> list[list[str]]:
    """(columns, examples)."""
    return [_columns.values(split, column) for column in form.columns]
