"""Tables of words, a row each, with the number of the sentence beside it: a row for every sentence, with lists."""

from __future__ import annotations

from datasets import Dataset, Features, List, Value

from stilla.errors import DataError, did_you_mean, one_of
from stilla.recipe.rows import WordRows

SENTENCES = ("sentence_id", "sentence #", "sentence_number", "sentence_idx", "sent_id", "sentence")


def sentences(split: Dataset, rows: WordRows | None) -> Dataset:
    """Every other column as lists, in the order of the rows. A row without a number belongs to the sentence before it, as in
    files that write it once. Tables whose names say nothing of this kind are as they were.

    Raises:
        DataError: the recipe names a column of sentences that is not there; the first row belongs to none.
    """
    if rows is None:
        return split
    lower = {name.lower(): name for name in reversed(split.column_names)
             if isinstance(feature := split.features[name], Value) and feature.dtype in ("string", "large_string")}
    words = [lower[name] for name in rows.usual if name in lower] if rows.word is None else [rows.word]
    named = {name.lower(): name for name in reversed(split.column_names) if isinstance(split.features[name], Value)}
    by = rows.sentence or next((named[name] for name in SENTENCES if name in named), None)
    if rows.sentence is not None and rows.sentence not in split.column_names:
        raise DataError(f"data.sentence: got {by!r}, which is no column; the data have {one_of(split.column_names)}."
                        f"{did_you_mean(rows.sentence, split.column_names)}")
    if by is None or len(words) != 1 or words[0] not in lower.values() or by == words[0]:
        return split
    found: dict[object, list[int]] = {}
    last = None
    for row, said in enumerate(split.with_format(None)[by][:]):
        last = last if said is None or (isinstance(said, str) and not said.strip()) else said
        if last is None:
            raise DataError(f"data.sentence: the first rows of {by!r} are empty; expected the number of their sentence.")
        found.setdefault(last, []).append(row)
    plain = split.with_format(None)
    columns = {name: plain[name][:] for name in split.column_names if name != by}
    features = {name: List(feature) for name, feature in split.features.items() if name != by}
    made = Dataset.from_dict({by: list(found), **{name: [[column[row] for row in of_one] for of_one in found.values()]
                                                   for name, column in columns.items()}})
    return made.cast(Features({**made.features, **features}))
