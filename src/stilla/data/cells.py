"""Values that a program has written into cells of text: as Python, JSON or numpy show them. Nothing is run."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset, Value

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DIGITS = 400  # more than any number of 64 bits has

def as_lists(split: Dataset, names: Sequence[str]) -> Dataset:
    """With lists in the columns of these names (in lower case) whose cells all show one, of texts or of whole numbers."""
    for name in split.column_names:
        feature = split.features[name]
        if name.lower() in names and isinstance(feature, Value) and feature.dtype in ("string", "large_string"):
            column = _lists_in(split.with_format(None)[name][:])
            if column is not None:
                split = split.remove_columns(name).add_column(name, column).select_columns(split.column_names)
    return split


def _lists_in(cells: Sequence[str | None]) -> pa.Array | None:
    try:
        found = [None if cell is None else parsed_list(cell) for cell in cells]
    except (ValueError, SyntaxError):
        return None
    kinds = {type(one) for row in found for one in row or ()}
    return pa.array(found, pa.list_(pa.int64() if kinds == {int} else pa.string())) if kinds in ({str}, {int}) else None


def written(text: str) -> Any:
    """What the text shows: lists, mappings, texts, numbers; `array([...], dtype=object)` is its list. The text itself where
    it shows nothing of this kind. Nothing is run."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text


def _value(node: ast.expr) -> Any:
    """Raises:
        ValueError: it is no value.
    """
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values) if key is not None}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(one) for one in node.elts]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "array" and node.args:
        return _value(node.args[0])
    return ast.literal_eval(node)


_ITEM = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"\[\](){}]+)\s*""", re.DOTALL)


def parsed_list(text: str) -> list[Any]:
    """`["a", "b"]`, `['a', 'b']`, `('a', 'b')`, `[0, 1]`; and as NumPy writes them, without commas: `['a' 'b']`, `[0 1]`.

    Raises:
        ValueError: it is none of these, or some items are parted by commas and others are not.
    """
    inside = text.strip()
    if inside[:1] + inside[-1:] not in ("[]", "()") or len(inside) < 2:
        raise ValueError("no list")
    inside = inside[1:-1].strip()
    items: list[Any] = []
    commas = 0
    place = 0
    while place < len(inside):
        item = _ITEM.match(inside, place)
        if item is None:
            raise ValueError("no list")
        items.append(_item(item[1]))
        place = item.end()
        if inside[place:place + 1] == ",":
            commas += 1
            place += 1
    ends = inside[-1:] == ","
    if commas not in (0, len(items) - 1 + ends) or ... in items:
        raise ValueError("items that are parted in several ways, or left out")
    return items


def _item(word: str) -> Any:
    if word[0] == '"':
        try:
            return json.loads(word, strict=False)
        except ValueError:
            return ast.literal_eval(word)
    if word[0] == "'":
        return ast.literal_eval(word)
    if word == "...":
        return ...
    if word in ("True", "true", "False", "false"):
        return word in ("True", "true")
    if word in ("None", "null", "nan", "NaN"):
        return None
    try:
        return number_in(word)
    except ValueError:
        return word


def is_number(text: str) -> bool:
    return len(text) < _DIGITS and _NUMBER.fullmatch(text.strip()) is not None


def number_in(text: str) -> int | float:
    if not is_number(text):
        raise ValueError(text)
    text = text.strip()
    return int(text) if text.lstrip("+-").isdigit() else float(text)
