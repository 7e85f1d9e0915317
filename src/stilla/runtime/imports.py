"""Things by import path: `package.module:name`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stilla.errors import RecipeError, did_you_mean

imported: list[str] = []
"""The paths that a person's own code was imported by, in this process."""


_places: list[str] = []


def look_in(folder: Path) -> None:
    """Find modules in this folder too: a finished run's recipe means those where the run began."""
    if str(folder) not in _places:
        _places.append(str(folder))


def import_path(path: str) -> Any:
    """What `package.module:name` means; modules in the folder that a command was started in are found too.

    Raises:
        RecipeError: no import path, no such module or name, or importing it fails.
    """
    if not is_import_path(path):
        raise RecipeError(f"{path!r}: is no import path; expected package.module:name")
    module_name, _, name = path.partition(":")
    here = os.getcwd()
    if module_name.split(".")[0] != __name__.split(".")[0]:
        imported.append(path)
        # as for `python -m stilla`; last, so that nothing installed is hidden by what lies there. Not for our own modules:
        # else whoever works in a downloaded folder would let it stand in for packages that are not installed
        sys.path += [place for place in (*([] if "" in sys.path else [here]), *_places) if place not in sys.path]
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of a person's own may raise anything
        message = f"{type(error).__name__}: {error}"
        raise RecipeError(f"{path!r}: the module {module_name!r} cannot be imported ({message}). It is "
                          f"looked for among what is installed, on the PYTHONPATH, and in {here}, where this was started"
                          f"{''.join(f', and in {place}, where the run was' for place in _places if place != here)}"
                          ) from error
    if name not in vars(module):
        names = [known for known in vars(module) if not known.startswith("_")]
        raise RecipeError(f"{path!r}: the module {module_name!r} has no {name!r}.{did_you_mean(name, names)}")
    return vars(module)[name]


def own_function(path: str, place: str) -> Callable[..., Any]:
    """A person's function by its import path; what it raises is said as its own fault. `place`: in the recipe.

    Raises:
        RecipeError: it cannot be imported, or is no function.
    """
    try:
        function = import_path(path)
    except RecipeError as error:
        raise RecipeError(f"{place}: {error}") from error
    if not callable(function):
        raise RecipeError(f"{place}: {path!r} is {type(function).__name__}; expected a function")

    def called(*given: Any) -> Any:
        try:
            return function(*given)
        except Exception as error:  # whatever a person's own code raises
            raise RecipeError(f"{place}: {path!r} raised {type(error).__name__}: {error}") from error

    return called


def is_import_path(name: str) -> bool:
    """Whether it is written `package.module:name` (and not a Windows path, a URL or a folder)."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))
