"""Queries and candidates that teachers alone read, in place of their students' (see `shared.privileged`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datasets import Dataset

from stilla.errors import DataError, all_at_once, counted
from stilla.tasks.retrieval import candidates
from stilla.tasks.retrieval.grades import is_list
from stilla.tasks.retrieval.sections import RerankingData
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_empty
from stilla.tasks.shared.classification import attempt
from stilla.tasks.shared.label_checks import rows_in_words
from stilla.tasks.shared.privileged import columns_of_teacher


def is_read(feature: object) -> bool:
    return _columns.is_text(feature) or is_list(feature, _columns.is_text)


def columns(
    section: RerankingData | None, said: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]
) -> tuple[str, ...]:
    """The columns of the query and of its candidates that teachers read, each in the place of the students'; none where these
    are the same.

    Raises:
        DataError: see `columns_of_teacher`; other columns of other kinds, empty texts, lists of other lengths.
    """
    if not said:
        return ()
    assert section is not None  # of a recipe
    forms = {name: candidates.form_of(section, split) for name, split in splits.items()}
    if searched := [name for name, form in forms.items() if form.kind == "search"]:
        raise DataError(f"teacher.data: data.{searched[0]} is a folder for search, whose texts have no others beside them. "
                        "Give rows of a query and its candidates, or leave it out.")
    scores = {form.score for form in forms.values() if form.score is not None}
    found = columns_of_teacher(said, "text", splits, scores, fits=is_read, what="text, or lists of text")
    problems: list[str] = []
    for name, form in forms.items():
        attempt(problems, _check, section, name, form.columns, found, splits[name])
    if problems:
        raise all_at_once(problems, DataError)
    return () if all(found == form.columns for form in forms.values()) else found


def _check(section: RerankingData, name: str, own: Sequence[str], found: Sequence[str], split: Dataset) -> None:
    listed = [[is_list(split.features[column], _columns.is_text) for column in columns] for columns in (own, found)]
    if listed[0] != listed[1]:
        raise DataError(f"teacher.data.text: got {_columns.named(found)} in place of {_columns.named(own)} (data.{name}); "
                        "expected a column for each, of texts for one of texts and of lists for one of lists.")
    form = candidates.Form("pairs", tuple(found))
    refuse_empty(section, name, split, candidates.texts_of(form, split), _columns.named(found))
    refuse_other_lists(name, own, found, split)


def refuse_other_lists(name: str, own: Sequence[str], found: Sequence[str], split: Dataset) -> None:
    """Raises:
        DataError: a teacher's list has not a text for each candidate of its student's.
    """
    for mine, other in zip(own, found):
        both = [_columns.values(split, column) for column in (mine, other)]
        wrong = [row for row, (a, b) in enumerate(zip(*both)) if isinstance(a, list) and a and b and len(a) != len(b)]
        if wrong:
            raise DataError(f"teacher.data: {counted(len(wrong), 'list')} of {other!r} (data.{name}) with more or fewer "
                            f"texts than in {mine!r}: {rows_in_words(split, wrong)}. Give one for each candidate, in their "
                            "order.")
