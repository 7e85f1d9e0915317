"""What something depends on, as plain data: its fingerprint, and where two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Plain = Mapping[str, Any]


def fingerprint(plain: Any) -> str:
    """A hash of plain data that does not depend on the order of keys."""
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differences(before: Plain, after: Plain) -> list[str]:
    """`distill.0.epochs: 3.0 -> 1.0` for every leaf that differs."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return [f"{key}: {_shown(old.get(key))} -> {_shown(new.get(key))}"
            for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]


def _leaves(plain: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(plain, Mapping):
        return [leaf for key, value in plain.items() for leaf in _leaves(value, f"{prefix}{key}.")]
    if isinstance(plain, list | tuple):
        return [leaf for index, value in enumerate(plain) for leaf in _leaves(value, f"{prefix}{index}.")]
    return [(prefix.rstrip("."), plain)]


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
