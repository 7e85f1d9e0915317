"""What several runs make alike, made once: a finished stage is laid on a shelf, and other runs take it from there.

    <stage>-<digits>/         by what the stage depends on
      record.json             what stages.json says of it
      <folder>/               what it made, as in the run's folder
    <stage>-<digits>.lock     held while somebody makes it
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from stilla.runtime.differences import Plain, fingerprint
from stilla.runtime.files import PARTIAL
from stilla.runtime.narrate import say
from stilla.stages import record
from stilla.stages.record import Record

SHARED = frozenset({"teacher", "teacher-check", "generated", "proposals", "unlabelled", "negatives", "completions", "size",
                    "layers", "width"})
"""Stages that do not depend on how a student is trained, or seldom: worth keeping for the next run."""
LOOK_AGAIN = 1.0
"""Seconds after which a waiting run looks again."""
_DIGITS = 16


class Shelf:
    """One run's way to the shelf. Who finds nothing there makes it, and the others wait until it is laid down."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: dict[str, FileLock] = {}

    def take(self, stage: str, inputs: Plain, folder: Path) -> Record | None:
        """What the stage made with these inputs, laid into the run's folder, and its record; None if it is to be made."""
        if stage.partition(".")[0] not in SHARED:
            return None
        name = self._name(stage, inputs)
        place = self.path / name
        if not (place / "record.json").is_file() and name not in self._held:
            lock = self._lock(name, stage)
            if not (place / "record.json").is_file():
                self._held[name] = lock
                return None
            lock.release()
        if name in self._held:
            return None
        known = record.read(place / "record.json")[stage]
        if known.lost(place):
            shutil.rmtree(place)
            return self.take(stage, inputs, folder)
        if known.made is not None:
            _lay(place / known.made, folder / known.made)
            say(f"{stage}: made by a run beside it, taken over")
        return known

    def give(self, stage: str, inputs: Plain, folder: Path, done: Record) -> None:
        """Lay down what a run has made."""
        name = self._name(stage, inputs)
        if name not in self._held:
            return
        new = self.path / f".{name}{PARTIAL}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        if done.made is not None:
            _lay(folder / done.made, new / done.made)
        record.write(new / "record.json", {stage: done})
        new.rename(self.path / name)
        self._held.pop(name).release()

    def release(self) -> None:
        """Let others make what this run has not finished."""
        while self._held:
            self._held.popitem()[1].release()

    def _name(self, stage: str, inputs: Plain) -> str:
        return f"{stage}-{fingerprint(inputs)[:_DIGITS]}"

    def _lock(self, name: str, stage: str) -> FileLock:
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / f"{name}.lock")
        waited(lock, lambda: say(f"{stage}: a run beside this one is making it; waiting"))
        return lock


def waited(lock: FileLock, told: Callable[[], None] = lambda: None) -> None:
    """Take a lock, whoever has it now; `told` once if that takes a while."""
    try:
        lock.acquire(timeout=LOOK_AGAIN)
    except Timeout:
        told()
        lock.acquire(poll_interval=LOOK_AGAIN)


def _lay(source: Path, target: Path) -> None:
    """Files as they are: the same ones where a disk can have them twice, else copies. No stage changes what it has made."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, copy_function=_linked)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
