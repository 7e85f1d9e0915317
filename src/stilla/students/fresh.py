"""A student of the teacher's architecture in other sizes, from random weights: {config: {...}}."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from stilla.errors import CompatibilityError, all_at_once, all_of, did_you_mean
from stilla.models.configs import ConfigPath, asked_for, config_sections, edited_config
from stilla.models.depths import Changes, of_depth
from stilla.models.stacks import find_stacks
from stilla.students.student import Student, automatic_layer_map
from stilla.students.trying import failure

# Changing these would make another task or another class of it, not a smaller student.
_FIXED = {
    "architectures": "the class is the teacher's",
    "id2label": "the labels are the teacher's",
    "label2id": "the labels are the teacher's",
    "model_type": "the architecture is the teacher's",
    "num_labels": "the labels are the teacher's",
}


def fresh(teacher: nn.Module, config: Mapping[str, Any]) -> Student:
    """A student of the teacher's class with some fields of the config changed and random weights in float32.

    `config` names fields as the teacher's config does, or by their general name (`num_hidden_layers`);
    sub-configs are mappings: {"text_config": {"num_hidden_layers": 4}}. Labels and all other fields are the
    teacher's. A list with one entry per layer (`layer_types`) that is not given follows the depth: its
    pattern is shortened or repeated. The caller seeds torch. The student is in eval mode; its layer map is
    the automatic one.

    Raises:
        CompatibilityError: an unknown field, one that belongs to the teacher's task, or sizes that do not
            fit.
    """
    name = type(teacher).__name__
    if not isinstance(teacher, PreTrainedModel):
        raise CompatibilityError(
            f"{name} is not a Hugging Face model: it has no config to build a smaller one from. "
            "Give the student as `student: {model: ...}`."
        )
    problems: list[str] = []
    changes = _changes(teacher.config, config, (), problems, asked_for(type(teacher)))
    if problems:
        raise all_at_once(problems, CompatibilityError)
    changes |= _what_follows(teacher, changes)
    try:
        model = type(teacher)._from_config(edited_config(teacher.config, changes), dtype=torch.float32)
    except Exception as error:  # each class refuses a config in its own way
        asked = ", ".join(f"{'.'.join(path)}={value!r}" for path, value in changes.items())
        raise CompatibilityError(f"{name} cannot be built with {asked}: {error}") from error
    _refuse_misfits(model.eval(), teacher, changes)
    if teacher.can_generate():
        model.generation_config = copy.deepcopy(teacher.generation_config)
    return Student(model, automatic_layer_map(model, teacher))


def _refuse_misfits(model: PreTrainedModel, teacher: PreTrainedModel, changes: Changes) -> None:
    """Sizes that follow from each other stand in a config each by itself (DeBERTa's pooler)."""
    error = failure(model, teacher)
    if error is None:
        return
    asked = ", ".join(f"{'.'.join(path)}={value!r}" for path, value in changes.items())
    left = [f"{'.'.join((*path[:-1], field))}={value!r}" for path, _ in changes.items()
            for section in [dict(config_sections(teacher.config))[path[:-1]]]
            for field, value in vars(section).items()
            if type(value) is int and value == vars(section).get(path[-1]) and (*path[:-1], field) not in changes]
    hint = f" As large as one of these in the teacher, and left as it was: {all_of(left)}." if left else ""
    raise CompatibilityError(f"{type(model).__name__} with {asked} cannot be run: {error}.{hint} Name all sizes that follow "
                             "from each other.") from error


def _changes(
    config: PreTrainedConfig, overrides: Mapping[str, Any], section: ConfigPath, problems: list[str], more: frozenset[str]
) -> Changes:
    """The overrides by config path, under the names that the config itself uses. `more`: fields that need not stand there."""
    fields = [*(field for field in vars(config) if not field.startswith("_")), *sorted(more)]
    general = type(config).attribute_map
    changes: Changes = {}
    for key, value in overrides.items():
        field = general.get(key, key)
        where = "student config: " + ".".join((*section, str(key)))
        old = vars(config).get(field)
        if key in _FIXED:
            problems.append(f"{where}: {_FIXED[key]} and cannot be changed; leave it out.")
        elif field not in fields:
            problems.append(
                f"{where}: {type(config).__name__} has no such field.{did_you_mean(key, [*fields, *general])}"
            )
        elif isinstance(old, PreTrainedConfig) and isinstance(value, Mapping):
            changes |= _changes(old, value, (*section, field), problems, more)
        elif not _is_like(value, old):
            problems.append(f"{where}: got {value!r}; expected a value like the teacher's, {_shown(old)}.")
        else:
            changes[*section, field] = value
    return changes


def _what_follows(teacher: PreTrainedModel, changes: Changes) -> Changes:
    """What the depths that are asked for ask for in turn, where it is not given too."""
    follow: Changes = {}
    for stack in find_stacks(teacher):
        depth = changes.get(stack.config_path)
        if isinstance(depth, int):
            follow |= of_depth(teacher.config, stack, depth)
    return {path: value for path, value in follow.items() if path not in changes}


def _is_like(value: object, old: object) -> bool:
    """Whether `value` may stand where `old` stood; the config class checks the rest. True is no number."""
    if old is None or value is None:
        return True
    if isinstance(old, bool) or isinstance(value, bool):
        return isinstance(old, bool) and isinstance(value, bool)
    if isinstance(old, int | float):
        return isinstance(value, int | float)
    if isinstance(old, list | tuple):
        return isinstance(value, list | tuple)
    if isinstance(old, dict | PreTrainedConfig):
        return isinstance(value, Mapping)
    return isinstance(value, str)


def _shown(value: object) -> str:
    return f"a mapping of {type(value).__name__}'s fields" if isinstance(value, PreTrainedConfig) else repr(value)
