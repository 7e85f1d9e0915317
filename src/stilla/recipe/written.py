"""Recipes written out: resolved, in short, as a list of every field there is, and as a schema for editors."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic.fields import FieldInfo

from stilla.errors import all_of
from stilla.recipe.data import Data, Split
from stilla.recipe.kinds import COMMON, KINDS, PLACES, Place, sections
from stilla.recipe.section import Section
from stilla.recipe.whole import Recipe, recipe_for
from stilla.recipe.yaml import flow


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out and explained; reads back equal."""
    return "".join(f"{line}\n" for line in _lines(recipe, explained=True))


def brief(recipe: Recipe) -> str:
    """The same for a terminal: without explanations and fields that are not set; reads back equal."""
    return "".join(f"{line}\n" for line in _lines(recipe, explained=False))


def every_field(task: str | None = None) -> str:
    """A recipe with every field that it can have, its default and meaning: of one task, or of all of them.

    Of all, it reads back as a recipe too: what only some tasks have is commented out, behind their names.

    Raises:
        RecipeError: no such task.
    """
    least = Data.example() if task is None else sections(task).data.example()
    example = Recipe.model_validate({"task": next(iter(KINDS)), "data": Data.example(), "teacher": "./bert", "student": 3,
                                     "output": "runs/reviews"})
    # unchecked: of a task that is made of others, the examples are those of its parts
    common = {"data": COMMON.data.model_construct(train=least.get("train")), "evaluate": COMMON.evaluate()}
    recipe = example.model_copy(update={**common, **({} if task is None else {"task": task})})
    more: dict[str, list[str]] = {
        place: list(_of_tasks(place) if task is None else _of_task(place, task)) for place in PLACES}
    return "".join(f"{line}\n" for line in _lines(recipe, explained=True, more=more))


def _of_task(place: Place, task: str) -> Iterator[str]:
    """The fields there that only this task, or some, have."""
    found = sections(task)
    for name in found.own(place):
        field = found.at(place).model_fields[name]
        least = sections(task).data.example().get(name) if place == "data" else None
        shown = _default(field) if least is None else flow(least)
        yield from _commented(f"  {name}: {shown}".rstrip(), field.description or "")


def _of_tasks(place: Place) -> Iterator[str]:
    """The same of every task, commented out; tasks in which a field is the same share its lines."""
    tasks: dict[tuple[str, str, str], list[str]] = {}
    for task in KINDS:
        for name in sections(task).own(place):
            field = sections(task).at(place).model_fields[name]
            tasks.setdefault((name, _default(field), field.description or ""), []).append(task)
    order = list(dict.fromkeys(name for name, _, _ in tasks))
    for (name, default, meaning), having in sorted(tasks.items(), key=lambda one: order.index(one[0][0])):
        yield from _commented(f"  # {name}: {default}".rstrip(), f"{all_of(having)}: {meaning}")


def _default(field: FieldInfo) -> str:
    """As YAML; nothing where the field has to be given."""
    return "" if field.is_required() else flow(field.get_default(call_default_factory=True))


WIDTH, COMMENTS_AT = 110, 32


def _lines(
    section: Section, indent: str = "", *, explained: bool, more: Mapping[str, Sequence[str]] | None = None
) -> Iterator[str]:
    """`more`: lines behind those of a section's sections, by name."""
    plain = section.model_dump(mode="python")
    for name, field in type(section).model_fields.items():
        value, start = getattr(section, name), f"{indent}{name}:"
        comment = field.description or "" if explained else ""
        if isinstance(value, Section) and not isinstance(value, Split):
            yield start
            yield from _lines(value, f"{indent}  ", explained=explained)
            yield from (more or {}).get(name, ())
        elif name == "distill":
            yield start
            yield from _stage_lines(value, f"{indent}  ", explained=explained)
        elif name == "objectives" and value:
            yield from _commented(start, comment)
            yield from (f"{indent}  - {flow(_without_nones(one))}" for one in value)
        elif explained or value not in (None, {}, ()) or value != field.get_default(call_default_factory=True):
            shown_value = _without_nones(value) if isinstance(value, Split) else plain[name]
            yield from _commented(f"{start} {flow(shown_value)}", comment)


def _stage_lines(stages: Sequence[Section], indent: str, *, explained: bool) -> Iterator[str]:
    if len(stages) == 1:
        yield from _lines(stages[0], indent, explained=explained)
        return
    for stage in stages:
        first, *others = _lines(stage, f"{indent}  ", explained=explained)
        yield f"{indent}- {first.lstrip()}"
        yield from others


def _without_nones(section: Section) -> dict[str, Any]:
    """A section that is written in one line; an objective's own options are written even where they are nothing."""
    plain = section.model_dump(mode="python")
    return {name: value for name, value in plain.items() if value is not None or name not in type(section).model_fields}


def _commented(line: str, comment: str) -> Iterator[str]:
    """The line with its explanation in a column beside it."""
    column = f"{'':{COMMENTS_AT}}# "
    first, *others = textwrap.wrap(" ".join(comment.split()), WIDTH - len(column)) or [""]
    if len(line) < COMMENTS_AT:
        yield f"{line:<{COMMENTS_AT}}# {first}" if first else line
    else:
        yield line
        yield from [f"{column}{first}"] if first else []
    yield from (f"{column}{other}" for other in others)


def json_schema(task: str | None = None) -> dict[str, Any]:
    """The JSON schema of a recipe, short forms included: what an editor completes and checks with.

    Without a task it is that of all: what `data` and `evaluate` may say then follows from what stands under `task`, and
    for a task of a person's own is left open.

    Raises:
        RecipeError: no such task.
    """
    if task is not None:
        sections(task)
    schema = (Recipe if task is None else recipe_for(task)).model_json_schema()
    fields = schema["properties"]
    for name, kinds in (("data", ["string"]), ("teacher", ["string"]), ("student", ["string", "integer"])):
        fields[name] = {"anyOf": [{"type": kinds}, fields[name]]}
    fields["distill"] = {**fields["distill"], "anyOf": [{"$ref": "#/$defs/Stage"}, {
        "type": fields["distill"].pop("type"), "items": fields["distill"].pop("items")}]}
    schema["required"].remove("output")
    if task is not None:
        fields["task"]["const"] = task
        return schema
    for place in PLACES:
        del schema["$defs"][COMMON.at(place).__name__]["additionalProperties"]
    own = {name: json_schema(name) for name in KINDS}
    for one in own.values():
        schema["$defs"] = {**one["$defs"], **schema["$defs"]}
    schema["allOf"] = [{"if": {"properties": {"task": {"const": name}}, "required": ["task"]},
                        "then": {"properties": {place: one["properties"][place] for place in PLACES}}}
                       for name, one in own.items()]
    return schema
