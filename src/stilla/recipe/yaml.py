"""YAML 1.2 as recipes use it: `1e-4` is a number, `no` a word, a key that is there twice an error."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.parser import Parser

from stilla.errors import RecipeError, short
from stilla.recipe.limits import SIZE, BeyondError, look

WINDOW, LONGEST = 100, 300
"""Characters of a line that an error shows, and of what is wrong with it."""


def load(text: str, source: str) -> Any:
    """What a YAML document says; `source` is its name in errors.

    Raises:
        RecipeError: not YAML, or beyond the limits (`recipe/limits.py`), with line, column and the line itself.
    """
    if len(text) > SIZE:
        raise RecipeError(f"{source}: {len(text):,} characters; a recipe has at most {SIZE:,}")
    try:
        maker = YAML(typ="safe", pure=True)
        maker.Parser = partial(_Read, look(text))
        return maker.load("")
    except MarkedYAMLError as error:
        raise RecipeError(_located(error, text, source)) from None
    except Exception as error:  # the date 2024-13-45, a merge of what is no mapping: ruamel.yaml raises of every kind
        raise RecipeError(f"{source}: cannot be read as YAML ({short(_first_line(error), LONGEST)})") from None


class _Read(Parser):
    """Gives events that have been read before: reading takes most of the time, so it happens once."""

    def __init__(self, events: Sequence[Any], loader: YAML) -> None:
        super().__init__(loader)
        self.state = partial(next, iter(events), None)


def flow(value: object) -> str:
    """A value in one line, as `load` reads it back equal."""
    # a recipe is written out value by value, and most of its values are the same few
    return _scalar_flow(value) if isinstance(value, str | int | None) else _flow(value)


@lru_cache(maxsize=1024, typed=True)
def _scalar_flow(value: str | int | None) -> str:
    return _flow(value)


def _flow(value: object) -> str:
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = True
    writer.width = 2**20  # never break the line
    writer.allow_unicode = True
    writer.sort_base_mapping_type_on_output = False
    text = io.StringIO()
    writer.dump(_builtin(value), text)
    return text.getvalue().removesuffix("\n").removesuffix("\n...")


def _builtin(value: object) -> object:
    """Lists and dicts instead of whatever sequence or mapping: what the safe writer knows."""
    if isinstance(value, Mapping):
        return {key: _builtin(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_builtin(one) for one in value]
    return value


def _located(error: MarkedYAMLError, text: str, source: str) -> str:
    mark, problem = error.problem_mark or error.context_mark, short(_in_words(error), LONGEST)
    if error.context_mark is not None and mark is not None and not text[mark.index :].strip("\n \0"):
        mark = error.context_mark  # something never ended: where it began says more than the end of the file
    if mark is None:
        return f"{source}: {problem}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    start = max(0, mark.column - WINDOW // 2) if len(line) > WINDOW else 0
    shown = line[start : start + WINDOW].replace(chr(9), " ")
    return (f"{source}, line {mark.line + 1}, column {mark.column + 1}: {problem}\n"
            f"    {shown}\n    {' ' * (mark.column - start)}^")


def _in_words(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or _first_line(error))
    if isinstance(error, BeyondError):
        return problem
    if "duplicate key" in problem:  # 1 and true are two words, and one key
        return f"the key {problem.split(chr(34))[1]} is there twice; keep one of them"
    if "'\\t'" in problem:
        return "a tab where YAML wants spaces; indent with spaces"
    if "mapping values are not allowed" in problem:
        return "a second ': ' in one value, or wrong indentation; put quotes around a value with ': ' in it"
    if "could not determine a constructor for the tag" in problem:
        return "a YAML tag (!...) or sign (= or <<) that no recipe uses; put quotes around text"
    if "end of stream" in problem and "quoted" in str(error.context):
        return "a quotation mark that is never closed"
    if "<stream end>" in problem and "flow" in str(error.context):
        return "a bracket that is never closed"
    if "undefined alias" in problem:
        return "a value that starts with * means an alias in YAML; put quotes around it"
    if "cannot start any token" in problem:
        return f"{problem.removeprefix('found ')}; put quotes around the value"
    if "another document" in problem:
        return "a second document ('---'); a recipe is one document"
    where = f" ({error.context})" if error.context and error.problem else ""
    return f"{problem}{where}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
