"""`stages.json`: what every stage depended on, whether it is finished, and the content of what it made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from stilla.errors import RecipeError
from stilla.runtime.differences import Plain, fingerprint
from stilla.runtime.files import contents, sealed, unsealed, write_whole
from stilla.secrets import hidden
from stilla.stages import steps

NOT_OURS = frozenset({"README.md"})
"""Files that people may change in what a stage made."""


class Record(BaseModel):
    """One stage. `made`: the file or folder that it made, within the run folder; `files`: the content of that. `processes`:
    in how many it was begun or finished last; None where stages of before did not say."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    fingerprint: str
    done: bool
    inputs: dict[str, Any]
    made: str | None = None
    files: dict[str, str] | None = None
    processes: int | None = None

    def fits(self, inputs: Plain, processes: int) -> bool:
        """Whether these are its inputs, or the same training in steps as large that are cut otherwise."""
        if self.fingerprint == fingerprint(inputs):
            return True
        return self.processes is not None and steps.in_all(self.inputs, self.processes) == steps.in_all(
            plain(inputs), processes)

    def other_steps(self, now: Mapping[str, int]) -> list[str]:
        """Where it was trained in steps of another size than `now`, by place; in words."""
        before = {} if self.processes is None or not self.done else steps.sizes(self.inputs, self.processes)
        return [f"{place}: {size} examples a step in {self.processes} process{'' if self.processes == 1 else 'es'} -> "
                f"{now[place]}" for place, size in before.items() if now.get(place, size) != size]

    def damage(self, folder: Path) -> list[str]:
        """What of the files that the stage made is missing, or is not what was written; in words."""
        return [f"{file} is {'not what was written' if file.exists() else 'missing'}" for file in self.lost(folder)]

    def lost(self, folder: Path) -> list[Path]:
        """Files that the stage made and that are missing, or are not what was written."""
        if self.made is None or self.files is None:
            return []
        made = folder / self.made
        there = contents(made, NOT_OURS) if made.exists() else {}
        base = made.parent if list(self.files) == [made.name] else made
        return [base / name for name, content in self.files.items() if there.get(name) != content]


Records = dict[str, Record]
_RECORDS = TypeAdapter(Records)


def of(inputs: Plain, *, done: bool, folder: Path, made: Path | None, processes: int) -> Record:
    return Record(fingerprint=fingerprint(inputs), done=done, inputs=plain(inputs), processes=processes,
                  made=None if made is None else made.relative_to(folder).as_posix(),
                  files=None if made is None else contents(made, NOT_OURS))


def plain(inputs: Plain) -> Any:
    return hidden(json.loads(json.dumps(inputs, default=str)))


def read(path: Path) -> Records:
    """Raises:
        RecipeError: it is damaged, changed by hand, or of another version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    try:
        return _RECORDS.validate_python(unsealed(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _unreadable(path, f"{place or 'it'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error


def write(path: Path, records: Mapping[str, Record]) -> None:
    write_whole(path, sealed({name: one.model_dump(exclude_none=True) for name, one in records.items()}))


def refuse_other_steps(folder: Path, records: Records, now: Mapping[str, int]) -> None:
    """now: how many examples a step has in each of a recipe's trainings, by place.

    Raises:
        RecipeError: what is finished was trained in others, and what comes could not be compared with it.
    """
    changed = sorted({line for known in records.values() for line in known.other_steps(now)})
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise RecipeError(
            f"{folder}: what is finished was trained in steps of another size:\n{lines}\n"
            "Start as many processes as then, or let batch_size × accumulate × processes make as many examples; else give "
            "another `output`, or --overwrite (in Python, overwrite=True) to throw the old run away")


def _unreadable(path: Path, why: str) -> RecipeError:
    return RecipeError(f"{path}: cannot be read ({why}), and nothing else says which stages are finished. "
                       "Give another `output`, or --overwrite to throw the run away")
