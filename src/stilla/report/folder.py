"""What a report reads from a run folder: scores, recipe, environment and log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from stilla.errors import DataError
from stilla.report.curves import Training, read_log
from stilla.report.numbers import MISSING
from stilla.runtime.files import is_as_signed, unsealed, unsigned
from stilla.scores import Scores


@dataclass(frozen=True)
class RunFolder:
    """One run. `recipe` is its text, `environment` flat; both empty where the file is missing.

    `problems`: what could not be read, in words, for the page's notes.
    """

    path: Path
    name: str
    scores: Scores
    recipe: str
    environment: Mapping[str, str]
    training: Training
    problems: tuple[str, ...]


def read_run(folder: Path) -> RunFolder:
    """Read what is there; only scores.json must be.

    Raises:
        DataError: no such folder, or no readable scores.json in it.
    """
    problems: list[str] = []
    scores = _scores(folder)
    training, unread = read_log(folder / "log.jsonl")
    if unread:
        problems.append(f"log.jsonl: {unread} {'line' if unread == 1 else 'lines'} could not be read; "
                        f"the curves leave {'it' if unread == 1 else 'them'} out.")
    return RunFolder(
        path=folder,
        name=folder.resolve().name,
        scores=scores,
        recipe=_text(folder / "recipe.yaml", problems),
        environment=_environment(folder / "environment.json", problems),
        training=training,
        problems=tuple(problems),
    )


def flat(plain: object, prefix: str = "") -> dict[str, object]:
    """Nested mappings and lists as dotted keys, as overrides write them: `distill.0.objectives.1.weight`."""
    if isinstance(plain, Mapping):
        items = [(str(key), value) for key, value in plain.items()]
    elif isinstance(plain, list | tuple):
        items = [(str(index), value) for index, value in enumerate(plain)]
    else:
        return {prefix: plain}
    if not items:
        return {prefix: plain} if prefix else {}
    found: dict[str, object] = {}
    for key, value in items:
        found |= flat(value, f"{prefix}.{key}" if prefix else key)
    return found


def _scores(folder: Path) -> Scores:
    path = folder / "scores.json"
    if path.is_dir():
        raise DataError(f"{path}: is a folder, and a file is expected there. Move it away, then: stilla evaluate {folder}")
    if not path.is_file():
        raise DataError(_no_scores(folder))
    try:
        return Scores.load(path)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as scores ({error}). "
                        f"Measure the run again: stilla evaluate {folder}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _no_scores(folder: Path) -> str:
    """What is wrong with a folder that is no finished run, and which one was perhaps meant."""
    if not folder.exists():
        return f"{folder}: there is no such run folder.{_meant(folder)}"
    if not folder.is_dir():
        return f"{folder}: expected a run folder, got a file.{_meant(folder)}"
    if (folder / "recipe.yaml").is_file():
        return (f"{folder}: no scores.json, so this run is not finished. "
                f"Continue it: stilla run {folder / 'recipe.yaml'}")
    return f"{folder}: no scores.json, so this is not the folder of a run.{_meant(folder)}"


def _meant(folder: Path) -> str:
    """Runs inside the folder, else the sibling with the closest name, else all siblings (a few of them)."""
    inside = _runs_in(folder)
    if inside:
        return f" Runs in it: {', '.join(str(folder / name) for name in inside[:5])}."
    beside = _runs_in(folder.parent)
    close = get_close_matches(folder.name, beside, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {folder.parent / close[0]}?"
    return f" Runs beside it: {', '.join(str(folder.parent / one) for one in beside[:5])}." if beside else ""


def _runs_in(folder: Path) -> list[str]:
    try:
        return sorted(child.name for child in folder.iterdir() if (child / "scores.json").is_file())
    except OSError:
        return []


def _text(path: Path, problems: list[str]) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        problems.append(f"{path.name}: cannot be read ({error.strerror}).")
        return ""
    if not is_as_signed(text):
        problems.append(f"{path.name}: it is damaged, or was changed since the run wrote it.")
    return unsigned(text)


def _environment(path: Path, problems: list[str]) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        plain = unsealed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"environment.json: cannot be read ({error}).")
        return {}
    # where it lay is of use on that machine alone, and a page may be shown to anybody
    return {str(key): text for name, value in plain.items() if name != "places" for key, text in _facts(str(name), value)}


def _facts(name: str, value: object) -> list[tuple[str, str]]:
    """A value as text; of nested ones each, by dotted name; lists in one line."""
    if isinstance(value, dict):
        return [fact for key, one in value.items() for fact in _facts(f"{name}.{key}", one)]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)) or "none")]
    return [(name, MISSING if value is None else str(value))]


