"""How labels are written: texts that hold numbers, truth values or lists; words for what is missing; and what is no label."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Literal

from datasets import ClassLabel, Dataset, LargeList, List, Value

from stilla.data import rows_as_read
from stilla.data.cells import is_number, number_in, parsed_list
from stilla.errors import DataError, all_of, quoted
from stilla.tasks.shared.columns import is_text, said, values
from stilla.tasks.shared.sections import Labelled

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Joined:
    """Names of several labels, with this between them; it alone where there are none."""

    mark: str


Notation = Literal["plain", "number", "boolean", "list"] | Joined
"""What texts in a label column stand for; `plain` for themselves. Values that are no texts are what they are."""

_COMMAS = re.compile(r"[+-]?\d+(,\d+)+(\.\d+)?|[+-]?\d+(\.\d{3})+,\d+", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./](\d\d){1,2}|\d{4}/\d\d?/\d\d?", re.ASCII)
_NOTHING = frozenset({"na", "n/a", "<na>", "#n/a", "nan", "null", "nil"})
_NOTHING_AMONG_NUMBERS = _NOTHING | {"none", "-", "?", ".", "missing", "inf", "-inf", "+inf", "infinity"}
_SAY = "Correct or remove these, or set data.kind: single_label if all are classes."


def notation_of(section: Labelled, column: str, where: str, split: Dataset) -> Notation:
    """What the texts of a label column stand for.

    Raises:
        DataError: it is no column of labels; or its texts can be read in two ways, with what to do.
    """
    feature = split.features[column]
    _refuse_other_types(column, feature)
    if section.label_separator is not None and not is_text(feature):
        raise DataError(f"data.label_separator: {column!r} holds {said(feature)}, and no texts that could be parted. Leave "
                        "it out.")
    if isinstance(feature, List | LargeList):
        return "list"
    if isinstance(feature, ClassLabel) or not is_text(feature):
        return "boolean" if isinstance(feature, Value) and feature.dtype == "bool" else "number" if isinstance(
            feature, Value) else "plain"
    counts = Counter(values(split, column))
    if section.label_separator is not None:
        if not any(section.label_separator in text for text in counts):
            logger.warning("data.label_separator: %r stands in no text of %r in %s: every example has a single label",
                           section.label_separator, column, where)
        return Joined(section.label_separator)
    if section.labels is not None and set(counts) <= set(section.labels):
        return "plain"
    declared = section.kind == "single_label"
    if section.kind != "single_label" and _are_lists(section.kind, column, where, split, counts):
        return "list"
    if {text.strip().casefold() for text in counts} <= {"true", "false"}:
        if len(counts) > 2:
            logger.warning("data.label: %r writes true and false in several ways, read as two classes", column)
        return "boolean"
    if _are_numbers(section, column, counts):
        return "number"
    if section.kind is None and all(_DATE.fullmatch(text.strip()) for text in counts):
        raise DataError(f"data.label: {column!r} holds dates ({quoted(next(iter(counts)))}); expected classes or numbers. "
                        "Set data.label, or data.kind: single_label if every date is a class.")
    if not declared:
        known = set(section.labels or ())
        nothing = [text for text in counts
                   if text not in known and (text.strip().casefold() in _NOTHING or text.strip() == "None")]
        if nothing and section.kind is None:
            listed = _counted(nothing, counts)
            raise DataError(f"data.label: {column!r} holds {listed}: a missing label, or a class of that name? Remove these "
                            "examples, or name all classes in data.labels (or set data.kind: single_label).")
        _refuse_joined(column, counts)
    return "plain"


def read(split: Dataset, column: str, notation: Notation) -> list[Any]:
    """A label column as values: numbers, truth values, lists; or as it stands.

    Raises:
        DataError: a text that is not what the others are, with its rows.
    """
    rows = values(split, column)
    feature = split.features[column]
    _refuse_other_types(column, feature)
    if not is_text(feature) and isinstance(feature, List | LargeList) != (notation == "list"):
        raise DataError(f"data.label: {column!r} holds {said(feature)} in one split and none in another; expected "
                        "the same in all.")
    if notation == "plain" or not is_text(split.features[column]):
        return rows
    parse: Mapping[str, Callable[[str], Any]] = {"number": number_in, "boolean": _truth, "list": parsed_list}
    parsed = partial(_parted, mark=notation.mark) if isinstance(notation, Joined) else parse[notation]
    known: dict[Any, Any] = {None: None}
    wrong = set()
    for text in set(rows) - {None}:
        try:
            known[text] = parsed(text)
        except ValueError:
            wrong.add(text)
    if wrong:
        places = [row for row, text in enumerate(rows) if text in wrong]
        kinds = {"number": "numbers", "boolean": "true and false", "list": "lists"}
        others = kinds[notation] if not isinstance(notation, Joined) else (
            f"names between {notation.mark!r} (it alone where none applies)")
        raise DataError(f"data.label: {column!r} holds {quoted(rows[places[0]])} in row {rows_as_read(split, places[:1])[0]}"
                        f"{f' and {len(places) - 1} more' * (len(places) > 1)}; expected {others}, "
                        "as everywhere else.")
    return [known[text] for text in rows]


def feature_of(feature: Any, notation: Notation, rows: Sequence[Any]) -> Any:
    """The feature that a column of text would have if its values stood there as what they are."""
    if notation == "plain" or not is_text(feature):
        return feature
    if isinstance(notation, Joined):
        return List(Value("string"))
    if notation == "list":
        items = {type(item) for several in rows if several for item in several} - {type(None)}
        if items <= {bool} and items:
            return List(Value("bool"))
        return List(Value("string" if str in items else "float64" if float in items else "int64"))
    if notation == "boolean":
        return Value("bool")
    return Value("float64" if any(isinstance(value, float) for value in rows) else "int64")


def number_or_none(value: Any) -> float:
    """NaN where nothing stands there.

    Raises:
        ValueError: it is no number.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    if isinstance(value, str):
        return float(number_in(value))
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(value)
    return float(value)


def flags(split: Dataset, column: str) -> list[Any]:
    """A column of 0 and 1, or of true and false, in numbers or in words; anything else as it stands."""
    known = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
    rows = values(split, column)
    return [known.get(value.strip().casefold(), value) if isinstance(value, str) else value for value in rows]


# --- what texts stand for ---


def _parted(text: str, mark: str) -> list[str]:
    """Raises:
        ValueError: there is nothing between two marks, or before or after one.
    """
    if text.strip() == mark.strip():
        return []
    names = [name.strip() for name in text.split(mark)]
    if not all(names):
        raise ValueError(text)
    return names


def _truth(text: str) -> bool:
    word = text.strip().casefold()
    if word not in ("true", "false"):
        raise ValueError(text)
    return word == "true"


def _are_lists(kind: str | None, column: str, where: str, split: Dataset, counts: Mapping[str, int]) -> bool:
    """Whether all texts are lists; some that evidently are, among others that are not, cannot be meant."""
    found = {}
    for text in counts:
        try:
            found[text] = parsed_list(text)
        except (ValueError, SyntaxError):
            continue
    bare = all(len(items) == 1 and isinstance(items[0], str) and "'" not in text and '"' not in text
               for text, items in found.items())
    if not found or bare:  # [unknown], [UNK]: names
        if broken := [text for text in counts if text.strip()[:2] in ("['", '["')]:
            raise DataError(_half_lists(column, where, split, broken, "no lists"))
        return False
    others = [text for text in counts if text not in found]
    if others:
        raise DataError(_half_lists(column, where, split, others, "lists"))
    if kind is None:
        raise DataError(f"data.label: {column!r} holds lists written as text ({quoted(next(iter(found)))}). Set data.kind: "
                        "multi_label to read them as several labels per example, or single_label if each is a class.")
    return True


def _half_lists(column: str, where: str, split: Dataset, odd: Sequence[str], rest: str) -> str:
    wanted = set(odd)
    first = next(row for row, text in enumerate(values(split, column)) if text in wanted)
    return (f"data.{where}: {column!r} holds {quoted(odd[0])} (row {rows_as_read(split, [first])[0]}), where other rows are "
            f"{rest}. Write every label as a list, [\"a\", \"b\"], or set data.kind: single_label if these are names.")


def _are_numbers(section: Labelled, column: str, counts: Mapping[str, int]) -> bool:
    """Whether all texts are numbers that can be read in one way only."""
    numbers = [text for text in counts if is_number(text)]
    strange = [text for text in counts if not is_number(text)]
    commas = [text for text in strange if _COMMAS.fullmatch(text.strip())]
    if section.kind == "single_label" and strange:
        return False
    if commas and len(commas) == len(strange):
        raise DataError(f"data.label: {column!r} holds {quoted(commas[0])}: decimals or thousands? Write the numbers with "
                        "a point and without a mark for thousands (1.5, 1500), or set data.kind: single_label for names.")
    if not numbers:
        return False
    if strange:
        rare = 10 * sum(counts[text] for text in strange) <= sum(counts.values())
        asked = rare or all(text.strip().casefold() in _NOTHING_AMONG_NUMBERS for text in strange)
        if asked and not set(strange) <= set(section.labels or ()):
            raise DataError(f"data.label: {column!r} would be numbers but for {_counted(strange, counts)}. {_SAY}")
        return False
    if section.kind == "regression":
        return True
    alike: dict[int | float, list[str]] = {}
    for text in numbers:
        alike.setdefault(number_in(text), []).append(text)
    padded = [text for text in numbers if re.match(r"\s*[+-]?0\d", text)]
    twins = [several for several in alike.values() if len(several) > 1 and set(several) & set(padded)]
    if twins:
        listed = all_of([quoted(text) for text in twins[0]])
        raise DataError(f"data.label: {column!r} holds {listed}: one class or several? Write them alike, or name all of "
                        "them in data.labels.")
    return not padded  # 007 is a name


def _counted(texts: Sequence[str], counts: Mapping[str, int]) -> str:
    listed = [f"{quoted(text)} ({counts[text]} times)" for text in texts[:5]]
    return all_of(listed) + (" ..." if len(texts) > 5 else "")


def _refuse_joined(column: str, counts: Mapping[str, int]) -> None:
    """`a|b` beside `a` and `b`: several labels in one text, or a class of that name."""
    for mark in ("|", ";", ","):
        joined = [text for text in counts if mark in text]
        parts = [[part.strip() for part in text.split(mark)] for text in joined]
        if joined and all(part in counts for several in parts for part in several):
            raise DataError(f"data.label: {column!r} holds {quoted(joined[0])} beside its parts: several labels, or a class "
                            f"of that name? Set data.label_separator: {mark!r}, or data.kind: single_label.")


def _refuse_other_types(column: str, feature: Any) -> None:
    """What no reading makes a label: objects, times, bytes, lists of lists."""
    inner = feature.feature if isinstance(feature, List | LargeList) else feature
    dtypes = ("int", "uint", "float", "double", "decimal", "bool", "null")
    fits = isinstance(inner, ClassLabel) or is_text(inner) or (isinstance(inner, Value) and inner.dtype.startswith(dtypes))
    if not fits:
        what = "values of different types" if type(inner).__name__ == "Json" else said(feature)
        raise DataError(f"data.label: {column!r} holds {what}; expected a class (text, a whole number or true and false), "
                        "a list of classes, or a number.")
