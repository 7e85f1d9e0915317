"""Values that a program has written into a cell of text: as Python, JSON or numpy show them."""

from __future__ import annotations

import ast
import json
from typing import Any


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
