"""Folders that are there whole or not at all: written beside their place, brought to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stilla.errors import ExportError
from stilla.runtime.files import flush, flush_all, write_whole
from stilla.runtime.situations import is_full

_MARGIN = 2**20  # bytes: configuration, label names, a file system's own


@contextmanager
def replaced(folder: Path, *, needed: int, holds: str) -> Iterator[Path]:
    """An empty folder beside `folder`, which takes its place when the block ends without an error.

    Until then the old folder is untouched: a full disk, a crash or an error in the block leave it as it was.

    Args:
        needed: bytes that will be written, about.
        holds: the file by which an older folder of the same kind is known; any other folder is not replaced.

    Raises:
        ExportError: not enough room (which path, how much is needed and free), not writable, or something
            else lies there.
    """
    folder = folder.expanduser().resolve()
    _refuse_strange(folder, holds)
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.new")
    with _explained(folder, needed):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < needed + _MARGIN:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        new.mkdir()
        try:
            yield new
            _open_up(new)
            flush_all(new)
            _swap(new, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace one file at once.

    Raises:
        ExportError: as for `replaced`.
    """
    with _explained(path, len(text.encode())):
        write_whole(path, text)


def _refuse_strange(folder: Path, holds: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: is a file; expected a folder to write into, or a new name")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / holds).is_file():
        raise ExportError(f"{folder}: holds other files and no {holds}, so it is not replaced. Give another folder")


def _open_up(folder: Path) -> None:
    """The permissions that files get here: safetensors writes for the owner alone, who need not be who deploys."""
    os.umask(hidden := os.umask(0))  # there is no other way to ask
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~hidden)


def _swap(new: Path, folder: Path) -> None:
    if not folder.exists():
        new.rename(folder)
        flush(folder.parent)
        return
    old = new.with_suffix(".old")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _explained(place: Path, needed: int) -> Iterator[None]:
    """What the system says while writing, in words."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            free = shutil.disk_usage(_existing(place)).free
            raise ExportError(
                f"{place}: the disk is full: about {_in_words(needed)} needed, {_in_words(free)} free. What was there "
                "before is untouched. Free some room, or write to another disk"
            ) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise ExportError(f"{place}: cannot be written: {error}") from error
        raise


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


def _in_words(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
