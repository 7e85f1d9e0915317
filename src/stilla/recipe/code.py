"""What in a recipe is code: whatever a run would import or let run because the recipe says so. The only list of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stilla.errors import all_of, short
from stilla.recipe.kinds import KINDS
from stilla.recipe.overrides import apply
from stilla.recipe.whole import Recipe, long_form
from stilla.recipe.yaml import flow
from stilla.runtime.imports import is_import_path


@dataclass(frozen=True)
class Code:
    """`place`: in the recipe. `what`: the import path, or whose own code is trusted."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {short(self.what, 120)}"


def code_in(recipe: Recipe | Mapping[str, Any]) -> tuple[Code, ...]:
    """Every place of a recipe that is code; of plain values too, whose shape nobody has looked at: that would import."""
    plain = recipe.model_dump() if isinstance(recipe, Recipe) else long_form(recipe)
    found = tuple(_found(plain))
    return (*found, *_searched(plain, {one.what for one in found}))


def untrusted(recipe: Recipe | Mapping[str, Any], trusted: Collection[Code] = ()) -> tuple[Code, ...]:
    """What is code in it and not among this, wherever it stands."""
    known = {one.what for one in trusted}
    return tuple(one for one in code_in(recipe) if one.what not in known)


def in_words(found: Collection[Code]) -> str:
    """`task: mine:Task and completions.keep: mine:keep`; of many, the first."""
    shown = [str(one) for one in found][:10]
    return all_of([*shown, f"{len(found) - 10} more"] if len(found) > 10 else shown)


def _found(plain: Mapping[str, Any]) -> Iterator[Code]:
    task = plain.get("task")
    if isinstance(task, str) and task not in KINDS and ":" in task:
        yield Code("task", task)
    data = _section(plain.get("data"))
    each = {f"data.parts.{name}.data": _section(_section(one).get("data"))
            for name, one in _section(data.get("parts")).items()}
    for place, own in {"data": data, **each}.items():
        if keep := _section(own.get("unlabelled")).get("keep"):
            yield Code(f"{place}.unlabelled.keep", str(keep))
    for role in ("teacher", "student"):
        yield from _of_model(role, _section(plain.get(role)))
    yield from _of_training("teacher.train", _section(_section(plain.get("teacher")).get("train")))
    stages = [_section(stage) for stage in _list(plain.get("distill"))]
    for number, stage in enumerate(stages):
        place = "distill" if len(stages) == 1 else f"distill[{number}]"
        yield from _of_training(place, stage)
        for index, spec in enumerate(_list(stage.get("objectives"))):
            yield from _import_path(f"{place}.objectives[{index}].kind", _section(spec).get("kind"))
    personal = _section(plain.get("personal"))
    yield from _of_training("personal", personal)
    for index, spec in enumerate(_list(personal.get("objectives"))):
        yield from _import_path(f"personal.objectives[{index}].kind", _section(spec).get("kind"))
    keep = _section(plain.get("completions")).get("keep")
    if keep:
        yield Code("completions.keep", str(keep))
    generation = _section(_section(plain.get("evaluate")).get("generation"))
    for index, metric in enumerate(_list(generation.get("metrics"))):
        yield from _import_path(f"evaluate.generation.metrics[{index}]", metric)


def _searched(plain: Mapping[str, Any], known: Collection[str]) -> Iterator[Code]:
    """What a recipe would name with the values that a search tries."""
    over = _section(_section(plain.get("search")).get("over"))
    rest = {name: value for name, value in plain.items() if name != "search"}
    for path, values in over.items():
        for number, value in enumerate(values if isinstance(values, list | tuple) else ()):
            changed, _, _ = apply(rest, [f"{path}={flow(value)}"])  # what cannot be there is refused elsewhere
            yield from (Code(f"search.over.{path}[{number}]", one.what) for one in _found(changed) if one.what not in known)


def _of_model(role: str, section: Mapping[str, Any]) -> Iterator[Code]:
    model = section.get("model")
    if isinstance(model, str) and is_import_path(model):
        yield Code(f"{role}.model", model)
    if section.get("trust_remote_code") not in (None, False):
        yield Code(f"{role}.trust_remote_code", f"code that comes with {model or 'its model'}")


def _of_training(place: str, section: Mapping[str, Any]) -> Iterator[Code]:
    """DeepSpeed's configuration may name a compiler by its module."""
    trainer = _section(section.get("trainer"))
    if trainer.get("deepspeed") is not None:
        yield Code(f"{place}.trainer.deepspeed", f"what {trainer['deepspeed']} names")


def _import_path(place: str, value: object) -> Iterator[Code]:
    if isinstance(value, str) and ":" in value:
        yield Code(place, value)


def _section(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
