"""What is wrong with a recipe's shape, in words: from pydantic's errors to lines that a person can act on."""

from __future__ import annotations

import copy
import datetime
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stilla.errors import all_of, did_you_mean, one_of, short, visible
from stilla.recipe.kinds import PLACES, owners, sections_or_any
from stilla.recipe.section import Section
from stilla.recipe.whole import recipe_for
from stilla.secrets import places_of_secrets

Path = tuple[str | int, ...]

OTHER_NAMES = {
    "lr": "learning_rate", "num_train_epochs": "epochs", "num_epochs": "epochs", "n_epochs": "epochs",
    "per_device_train_batch_size": "batch_size", "train_batch_size": "batch_size", "bs": "batch_size",
    "gradient_accumulation_steps": "accumulate", "warmup_ratio": "warmup", "bf16": "precision",
    "fp16": "precision", "dtype": "precision",
    "torch_dtype": "precision", "num_layers": "layers", "n_layers": "layers",
    "num_hidden_layers": "layers", "output_dir": "output", "losses": "objectives", "loss": "objectives",
    "objective": "objectives", "dataset": "train", "path": "model", "name": "model", "tokenizer": "processor",
    "alpha": "weight", "type": "kind", "metrics": "metric", "text_column": "text", "label_column": "label",
}  # fmt: skip
"""What other tools call our keys; only used to guess what an unknown key meant."""


@dataclass(frozen=True)
class Problem:
    """One wrong place: its path in the long form of the recipe, and what is wrong there."""

    path: Path
    text: str
    vague: bool = False
    """Whether a problem further inside says it better: one of several forms, or a list left too short."""


MOST = 200
"""Wrong places that are put in words; who has more of them has another trouble than these words can say."""


def problems(error: ValidationError, plain: Mapping[str, Any]) -> list[Problem]:
    """One problem per wrong place of `plain`, the long form that was validated."""
    found = [_problem(detail, plain) for detail in error.errors(include_url=False)[:MOST]]
    deeper = [other.path for other in found]
    kept = [one for one in found if not (one.vague and any(_within(path, one.path) for path in deeper))]
    places: dict[Path, list[Problem]] = {}
    for one in kept:
        places.setdefault(one.path, []).append(one)
    return [_merged(path, same, plain) for path, same in places.items()]


def shown_path(path: Path, single_stage: bool) -> str:
    """`distill.objectives[1].divergence`; a stage that is not in a list has no index."""
    if single_stage and path[:2] == ("distill", 0):
        path = ("distill", *path[2:])
    first, *others = path
    return "".join([short(str(first), 80), *(f"[{step}]" if isinstance(step, int) else f".{short(str(step), 80)}"
                                            for step in others)])


def without(plain: Mapping[str, Any], wrong: Sequence[Problem]) -> dict[str, Any]:
    """The recipe without its wrong places, so that the rest of it can be looked at."""
    rest = copy.deepcopy(dict(plain))
    for path in sorted({one.path for one in wrong}, key=_removal_order):
        *parents, last = path
        node: Any = rest
        for step in parents:
            node = node[step] if _has(node, step) else None
        if _has(node, last):
            del node[last]
    return rest


def _removal_order(path: Path) -> tuple[int, int]:
    """Deep places first, and in a list the last first: no removal shifts what is still to be removed."""
    return (-len(path), -path[-1] if path and isinstance(path[-1], int) else 0)


def _problem(detail: ErrorDetails, plain: Mapping[str, Any]) -> Problem:
    path, at_union = _path(detail, plain)
    specific = detail["type"] == "value_error"
    vague = (at_union and not specific) or detail["type"] == "too_short"
    return Problem(path, _words(detail, path, plain.get("task")), vague)


def _path(detail: ErrorDetails, plain: Mapping[str, Any]) -> tuple[Path, bool]:
    """The error's location without pydantic's names for the members of a union."""
    path: list[str | int] = []
    node: Any = plain
    at_union = False
    steps = detail["loc"]
    for number, step in enumerate(steps):
        if _has(node, step):
            path.append(step)
            node, at_union = node[step], False
        elif detail["type"] == "missing" and number == len(steps) - 1:
            return (*path, step), False
        else:
            at_union = True
    return tuple(path), at_union


def _has(node: Any, step: str | int) -> bool:
    if isinstance(node, Mapping):
        return step in node
    return isinstance(node, list | tuple) and isinstance(step, int) and 0 <= step < len(node)


def _within(path: Path, outer: Path) -> bool:
    return len(path) > len(outer) and path[: len(outer)] == outer


def _merged(path: Path, same: Sequence[Problem], plain: Mapping[str, Any]) -> Problem:
    clear = [one for one in same if not one.vague]
    if clear or len(same) == 1:
        return (clear or same)[0]
    value: Any = plain
    for step in path:
        value = value[step]
    return Problem(path, f"got {shown(value)}; expected {_forms(path, plain.get('task'))}")


def _forms(path: Path, task: object) -> str:
    """What the description of the field, or of the one around it, says that it takes."""
    for end in range(len(path), 0, -1):
        section, field = _section(path[:end], task), path[end - 1]
        known = section.model_fields if section else {}
        if field not in known:
            continue
        inner = next(_sections_of(known[str(field)].annotation), None)
        if description := known[str(field)].description or (inner.__doc__ if inner else None):
            return _sentence(description)
    return "another form"


def _words(detail: ErrorDetails, path: Path, task: object) -> str:
    kind, got, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in ("extra_forbidden", "invalid_key"):
        return _unknown_key(path, task)
    if kind == "missing":
        return f"missing; expected {_forms(path, task)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return f"got {shown(got)}; expected {one_of(allowed)}.{did_you_mean(got, allowed)}"
    if kind in RANGES:
        word, key = RANGES[kind]
        return f"got {shown(got)}; expected {word} {_number(context[key])}"
    if kind == "model_type" or kind.endswith("_instance_of"):
        return f"got {shown(got)}; expected {_example(_section((*path, ''), task), got)}"
    if kind == "too_short":
        return f"got {shown(got)}; expected at least one entry"
    if kind in TYPES:
        return f"got {shown(got)}; expected {TYPES[kind]}{_quotes_hint(kind, got)}"
    message = detail["msg"]
    return f"got {shown(got)}; {message[:1].lower()}{message[1:]}"


def secrets(plain: Mapping[str, Any]) -> list[Problem]:
    """Passwords and tokens, which a run would write down: a problem for each, without what it is."""
    return [Problem(path, _SECRET) for path in places_of_secrets(plain)]


_SECRET = ("a password or token stands here, and a run writes its recipe into its folder and its report. Leave it out of the "
           "recipe, and give it through the environment: HF_TOKEN for the Hugging Face Hub, AWS_ACCESS_KEY_ID and "
           "AWS_SECRET_ACCESS_KEY for s3://, ~/.netrc for https://")


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


RANGES = {
    "greater_than": ("more than", "gt"), "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le"),
}  # fmt: skip
TYPES = {
    "string_type": "text", "int_type": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "bool_type": "true or false", "dict_type": "keys and values ({key: value})",
    "mapping_type": "keys and values ({key: value})", "list_type": "a list ([a, b])",
    "tuple_type": "a list ([a, b])", "finite_number": "a finite number",
}  # fmt: skip


def _quotes_hint(kind: str, got: object) -> str:
    if not isinstance(got, str):
        return ". Put it in quotes to make it text" if kind == "string_type" and _is_scalar(got) else ""
    if kind in ("int_type", "float_type") and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", got.lower()):
        return " (without quotes)"
    if kind == "bool_type" and got.lower() in ("yes", "no", "on", "off"):
        return f". Did you mean {'true' if got.lower() in ('yes', 'on') else 'false'}?"
    return ""


def _is_scalar(value: object) -> bool:
    return value is not None and not isinstance(value, Mapping | Sequence)


def _unknown_key(path: Path, task: object) -> str:
    section, key = _section(path, task), str(path[-1])[:80]
    if section is None:
        return "unknown key"
    known = list(section.model_fields)
    for place in PLACES:
        if path == (place, key) and (others := owners(place, key)):
            return f"a field of {all_of(others)}; {task} takes {all_of(sections_or_any(task).own(place) or known)}"
    meant = OTHER_NAMES.get(key.lower())
    if meant in known:
        return f"unknown key; Stilla calls it {meant}"
    guess = did_you_mean(key, known)
    if guess:
        return f"unknown key.{guess}"
    elsewhere = [place for place, other in _sections(recipe_for(task)) if key in other.model_fields]
    if elsewhere:
        return f"unknown key here; it belongs to {one_of(elsewhere)}"
    hint = ". Fields of transformers.TrainingArguments go under trainer" if "trainer" in known else ""
    return f"unknown key; expected {one_of(known)}{hint}"


def _example(section: type[Section] | None, got: object) -> str:
    """What a section is written like; a single word was probably meant for the one key that it needs."""
    if section is None:
        return "keys and values ({key: value})"
    needed = [name for name, field in section.model_fields.items() if field.is_required()]
    if isinstance(got, str) and len(needed) == 1:
        return f"keys and values, for example {{{needed[0]}: {got}}}"
    return f"keys and values, of {one_of(list(section.model_fields))}"


def _section(path: Path, task: object) -> type[Section] | None:
    """The section that the last key of the path stands in."""
    section: type[Section] | None = recipe_for(task)
    for step in path[:-1]:
        if isinstance(step, int):
            continue
        if section is None or step not in section.model_fields:
            return None
        section = next(_sections_of(section.model_fields[step].annotation), None)
    return section


def _sections(section: type[Section], place: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every section below this one, with where it stands."""
    for name, field in section.model_fields.items():
        for inner in _sections_of(field.annotation):
            here = f"{place}.{name}".removeprefix(".")
            yield here, inner
            yield from _sections(inner, here)


def _sections_of(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, tuple, list):
        for inner in get_args(annotation):
            yield from _sections_of(inner)


def _sentence(description: str) -> str:
    """The first sentence, as the end of another one."""
    first = re.split(r"\.\s", re.sub(r"\s+", " ", description))[0].rstrip(".")  # indented where it goes over lines
    return first[:1].lower() + first[1:]


def shown(value: object, longest: int = 60) -> str:
    """A value as its user wrote it, cut where it is long; of what no file could hold, its type."""
    text = "nothing" if value is None else visible(json.dumps(_beginning(value, longest), ensure_ascii=False))
    return text if len(text) <= longest else f"{text[:longest]}..."


_READ = 2000
"""Characters of a text that are looked at to show its beginning."""


def _beginning(value: object, longest: int) -> object:
    """As much of a value as may be shown: from Python it may be anything, of any size."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:_READ]  # what is a secret is seen in the whole of it
    if isinstance(value, datetime.date | datetime.time):
        return str(value)
    if isinstance(value, dict) and longest > 0:
        return {str(key): _beginning(one, longest // 3) for key, one in itertools.islice(value.items(), longest)}
    if isinstance(value, list | tuple) and longest > 0:
        return [_beginning(one, longest // 3) for one in value[:longest]]
    return f"<{type(value).__name__}>"
