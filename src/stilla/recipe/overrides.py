"""`distill.epochs=1` on the command line: what it says, and putting it into a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stilla.errors import RecipeError, short
from stilla.recipe.in_words import Path, shown
from stilla.recipe.limits import DEPTH
from stilla.recipe.whole import long_form
from stilla.recipe.yaml import load

EXAMPLE = "for example distill.epochs=1"
COMMAND_LINE = "command line"
"""Where overrides stand, in messages."""


@dataclass(frozen=True)
class Override:
    """One `path=value`; `path` as it was written, split at its dots."""

    text: str
    path: Path
    value: Any


def parse(text: str, source: str = COMMAND_LINE) -> Override:
    """Read `distill.objectives.1.temperature=4`; `[1]` for `.1` works too. Values are YAML. `source`: where it stands.

    Raises:
        RecipeError: no `=`, no key before it, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    steps = _steps(key)
    if not equals or not all(re.fullmatch(r"[\w-]+", step) for step in steps):
        raise RecipeError(f"{source}: got {short(text, LONGEST)!r}; expected key=value, {EXAMPLE}")
    if len(steps) > DEPTH:
        raise RecipeError(f"{source}: got {short(text, LONGEST)!r}; nothing in a recipe is {len(steps)} levels deep")
    return Override(text, _path(steps), load(value, f"{source}: {short(key, LONGEST)}"))


LONGEST = 120
"""Characters of an override that an error shows."""


def field_at(key: str) -> Path:
    """Where a key's field stands in the long form: that of the only stage by its number too."""
    path = _path(_steps(key))
    return ("distill", 0, *path[1:]) if len(path) > 1 and path[0] == "distill" and not isinstance(path[1], int) else path


def _steps(key: str) -> list[str]:
    return re.sub(r"\[(\d+)\]", r".\1", key.strip()).split(".")


def _path(steps: Sequence[str]) -> Path:
    return tuple(int(step) if _is_index(step) else step for step in steps)


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdecimal() and len(step) <= 9


def apply(
    plain: Mapping[str, Any], overrides: Sequence[str], source: str = COMMAND_LINE
) -> tuple[dict[str, Any], list[Path], list[str]]:
    """The long form with every override in its place, these places, and the other overrides' problems."""
    changed = long_form({key: _copied(value) for key, value in plain.items()})
    places: list[Path] = []
    problems: list[str] = []
    for text in overrides:
        try:
            override = parse(text, source)
            places.append(_put(changed, override, source))
            changed = long_form(changed)
        except RecipeError as error:
            problems.append(str(error))
    return changed, places, problems


def _copied(value: Any) -> Any:
    """A copy with lists for tuples, which from Python mean the same."""
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(one) for one in value]
    return value


def _put(plain: dict[str, Any], override: Override, source: str) -> Path:
    """Set the value and return where it is in the long form."""
    if override.path[0] == "distill" and len(override.path) > 1:
        plain.setdefault("distill", [{}])
    place: list[str | int] = []
    node: Any = plain
    steps = list(override.path)
    while True:
        said = ".".join(map(str, override.path[: len(override.path) - len(steps)]))
        try:
            step = _step(node, steps[0], said)
        except RecipeError as error:
            raise RecipeError(f"{source}: {short(override.text, LONGEST)}: {error}") from None
        place.append(step)
        if str(step) == str(steps[0]):  # else the only stage was meant, without its number
            steps.pop(0)
        if not steps:
            node[step] = override.value
            return tuple(place)
        if isinstance(node, dict) and node.get(step) is None and not isinstance(steps[0], int):
            node[step] = {}
        node = node.get(step) if isinstance(node, dict) else node[step]


def _step(node: Any, step: str | int, said: str) -> str | int:
    """The key or index in this node that a step means."""
    if isinstance(node, dict):
        return step if step in node or not isinstance(step, int) else str(step)
    if node is None or node == []:
        raise RecipeError(f"{said} has no entries yet; give the whole list, {said}='[...]'")
    if not isinstance(node, list):
        raise RecipeError(f"{said} is {shown(node)}, which has no keys; "
                          f"give the whole of it, {said}='{{{step}: ...}}'")
    if isinstance(step, int) and step < len(node):
        return step
    if said == "distill" and len(node) == 1 and not isinstance(step, int):
        return 0
    upto = f" to {said}.{len(node) - 1}" if len(node) > 1 else ""
    raise RecipeError(f"{said} is a list of {len(node)}; say which entry: {said}.0{upto}")
