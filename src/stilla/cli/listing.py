"""What there is to choose from, described by the code itself: tasks, objectives, formats, runs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilla.scores import Scores
from stilla.stages.folder import is_run


@dataclass(frozen=True)
class Option:
    """A keyword of an objective: what it takes, and its default (`required` if it has none)."""

    name: str
    takes: str
    default: str


@dataclass(frozen=True)
class Entry:
    """One choice: its name in a recipe, what it is in a sentence, and its options."""

    name: str
    summary: str
    options: tuple[Option, ...] = ()


@dataclass(frozen=True)
class TaskEntry(Entry):
    """A task, with what a student of it can learn by and be exported as (`stilla.tasks.offered`)."""

    by_default: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    without: str = ""

    @property
    def handed_over(self) -> str:
        """The files that there are beside the plain folder, and why there are no others, in words."""
        files = ", ".join(self.formats) or "the plain folder only"
        return f"{files} ({self.without})" if self.without else files


@dataclass(frozen=True)
class RunEntry:
    """One run: its folder, and its numbers if it has been scored (quality by subject on the headline metric)."""

    folder: Path
    task: str = ""
    metric: str = ""
    quality: Mapping[str, float] | None = None
    retention: float | None = None
    state: str = "not finished"


def tasks() -> tuple[TaskEntry, ...]:
    from stilla.tasks import find, kinds
    from stilla.tasks.offered import OFFERED

    return tuple(TaskEntry(kind, summary(find(kind)), (), one.by_default, one.others, one.formats, one.without)
                 for kind in kinds() for one in (OFFERED[kind],))


def objectives() -> tuple[Entry, ...]:
    from stilla.objectives import KINDS, find
    from stilla.objectives.base import options_model

    return tuple(Entry(kind, summary(find(kind)), options(options_model(find(kind)))) for kind in KINDS)


def formats() -> tuple[Entry, ...]:
    from stilla.export import KINDS, find

    return tuple(Entry(kind, summary(find(kind))) for kind in KINDS)


def runs(folder: Path) -> tuple[RunEntry, ...]:
    """Every run directly inside the folder, by name."""
    found = (run_entry(one) for one in sorted(folder.iterdir())) if folder.is_dir() else ()
    return tuple(one for one in found if one is not None)


def run_entry(folder: Path) -> RunEntry | None:
    """None where there is no run."""
    try:
        if not is_run(folder):
            return None
    except OSError as error:  # it need not hide the others
        return RunEntry(folder, state=f"cannot be read: {error.strerror}")
    if not (folder / "scores.json").exists():
        return RunEntry(folder)
    try:
        scores = Scores.load(folder / "scores.json")
    except (OSError, ValueError, RecursionError):
        return RunEntry(folder, state="scores.json cannot be read")
    quality = {name: found[scores.metric].value for name, one in scores.subjects.items()
               if scores.metric in (found := one.quality.get(scores.split, {}))}
    return RunEntry(folder, scores.task, scores.metric, quality, None if scores.retention is None else scores.retention.value,
                    "finished")


def summary(thing: object) -> str:
    """The first sentence of a docstring."""
    text = inspect.getdoc(thing) or ""
    return " ".join(text.split("\n\n")[0].split())


def options(model: Any) -> tuple[Option, ...]:
    """The fields of a pydantic model, in words."""
    schema = model.model_json_schema()
    properties, needed = schema.get("properties", {}), schema.get("required", [])
    return tuple(
        Option(name, takes(field), "required" if name in needed else _shown(field.get("default")))
        for name, field in properties.items()
    )


def takes(field: Mapping[str, Any]) -> str:
    """What a JSON schema admits, in words."""
    if "anyOf" in field:
        kinds = dict.fromkeys(takes(one) for one in field["anyOf"] if one.get("type") != "null")
        return " or ".join(kinds)
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    if field.get("type") == "object" and {"linear", "cosine", "steps"} & set(field.get("properties", ())):
        return "a schedule"
    words = {"number": "a number", "integer": "a whole number", "string": "text", "boolean": "true or false",
             "array": "a list", "object": "keys and values"}  # fmt: skip
    return words.get(str(field.get("type")), "anything")


def _shown(default: object) -> str:
    if default is None:
        return "automatic"
    return str(default).lower() if isinstance(default, bool) else str(default)
