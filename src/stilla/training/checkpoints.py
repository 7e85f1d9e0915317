"""Checkpoints that are believed only where a list of their files with their hashes says that they are whole.

    checkpoint-40/files.json    written last, when everything else is on the disk
    checkpoint-40/logged.json   what was seen of the losses since the last line of the log
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from stilla.runtime.files import contents, flush, flush_all, sealed, unsealed, write_whole

FILES, LOGGED = "files.json", "logged.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def at(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def seal(checkpoint: Path) -> None:
    """Bring a checkpoint to the disk, and say that it is whole.

    Raises:
        OSError: no room, not writable; the checkpoint then counts for nothing.
    """
    flush_all(checkpoint)
    write_whole(checkpoint / FILES, sealed({"files": contents(checkpoint, {FILES})}))
    flush(checkpoint.parent)


def wrong_with(checkpoint: Path) -> str | None:
    """Why a checkpoint is not to be believed; None where it is whole."""
    try:
        listed = unsealed((checkpoint / FILES).read_text(encoding="utf-8"), needed=True)["files"]
        there = contents(checkpoint, {FILES})
    except FileNotFoundError:
        return "it was not written to its end"
    except (OSError, ValueError, KeyError) as error:
        return f"{FILES} cannot be read ({error})"
    missing = sorted(listed.keys() - there.keys())
    other = [name for name, content in there.items() if name in listed and listed[name] != content]
    return "; ".join([*(f"{name} is missing" for name in missing), *(f"{name} is damaged" for name in other)]) or None


def newest(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint, and the newer ones that are not, with what is wrong with each.

    One that goes by an older one as the best so far is only as good as that.
    """
    broken: list[tuple[Path, str]] = []
    for path in reversed(_all(folder)):
        wrong = wrong_with(path) or _wrong_with_best(path)
        if wrong is None:
            return path, broken
        broken.append((path, wrong))
    return None, broken


def last(folder: Path) -> Path | None:
    """The newest, whole or not."""
    there = _all(folder)
    return there[-1] if there else None


def _wrong_with_best(checkpoint: Path) -> str | None:
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    if not state.get("best_model_checkpoint"):
        return None
    best = checkpoint.parent / Path(state["best_model_checkpoint"]).name
    wrong = None if best == checkpoint else wrong_with(best)
    return wrong and f"of the best so far, {best.name}, {wrong}"


def rotate(folder: Path, keep: int | None, best: str | None) -> None:
    """Remove all but the newest `keep` checkpoints and the best; called when the newest is known to be whole."""
    if not keep:
        return
    for path in _all(folder)[:-keep]:
        if best is None or path.resolve() != Path(best).resolve():
            shutil.rmtree(path, ignore_errors=True)


def _all(folder: Path) -> Sequence[Path]:
    """By step, oldest first."""
    return sorted((path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)), key=step_of)
