"""Things by import path: `package.module:name`."""

from __future__ import annotations

import importlib
from typing import Any

from stilla.errors import RecipeError, did_you_mean


def import_path(path: str) -> Any:
    """What `package.module:name` means.

    Raises:
        RecipeError: no such module or name, or importing it fails.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of a person's own may raise anything
        message = f"{type(error).__name__}: {error}"
        raise RecipeError(f"{path!r}: the module {module_name!r} cannot be imported ({message}). Is it on "
                          "the PYTHONPATH?") from error
    if name not in vars(module):
        names = [known for known in vars(module) if not known.startswith("_")]
        raise RecipeError(f"{path!r}: the module {module_name!r} has no {name!r}.{did_you_mean(name, names)}")
    return vars(module)[name]


def is_import_path(name: str) -> bool:
    """Whether it is written `package.module:name` (and not a Windows path, a URL or a folder)."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))
