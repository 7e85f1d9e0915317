"""What the system says of a place (no room, not writable, no file) or of another process, in words."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WHAT = {
    **dict.fromkeys(_FULL, ("no room left on its disk",
                            "Nothing that was finished is lost: make room, then the same command continues")),
    errno.EFBIG: ("no file may be as large there", "Its disk (FAT32: 4 GB) or a limit (ulimit -f) says so: raise that, or "
                                                   "give another place; then the same command continues"),
    errno.EROFS: ("it lies on a disk that can only be read", "Give a place that can be written to"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), ("you may not read or write there",
                                                  "Give yourself the right to, or give another place")),
    errno.EISDIR: ("it is a folder, and a file is expected there", "Move the folder away, or give another place"),
    errno.ENOTDIR: ("it is a file, or lies in one, and a folder is expected there",
                    "Move the file away, or give another place"),
    errno.ENOENT: ("it is not there, or no more", "Look whether the disk or folder that it was in is still there"),
    errno.EEXIST: ("something else is there already", "Move it away, or give another place"),
    errno.ENOTEMPTY: ("something is in it that was not there before", "Look what else writes there"),
    errno.ENAMETOOLONG: ("the name is too long for its disk", "Give a shorter one"),
    errno.ELOOP: ("its links lead in a circle", "Give a place that is there"),
    errno.EMFILE: ("too many files are open at once", "Raise the limit (ulimit -n), then the same command continues"),
    errno.EIO: ("the disk cannot be read or written", "It may be failing: look at the system's log, save what you can"),
    errno.ESTALE: ("the server that it lies on has lost it", "Mount it again, then the same command continues"),
    errno.ENODEV: ("the disk is gone", "Bring it back, then the same command continues"),
    errno.ENXIO: ("the disk is gone", "Bring it back, then the same command continues"),
}

_ALONE = ("Connection closed by peer", "Connection reset by peer", "remote worker", "gloo/transport")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: exporters and quantisers wrap what the system says."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_full(error: BaseException) -> bool:
    """Whether there was no room left, whoever says it."""
    return any(map(_says_full, chain(error)))


def is_left_alone(error: BaseException) -> bool:
    """Whether another process of this run has ended, or is not to be reached: torch has classes for that, gloo sentences."""
    return any(_of_torch(one, "DistError") or (isinstance(one, RuntimeError) and any(
        sentence in str(one) for sentence in _ALONE)) for one in chain(error))


def in_words(error: OSError) -> str | None:
    """'/data/run: no room left on its disk. ...'; None where the error is of no place that a person could put right."""
    if error.errno not in _WHAT or (error.filename is None and error.errno not in _FULL):
        return None
    what, way = _WHAT[error.errno]
    places = " -> ".join(str(one) for one in (error.filename, error.filename2) if one is not None)
    return f"{places}: {what}. {way}" if places else f"{what.replace('its', 'a')}. {way}"


def _of_torch(error: BaseException, name: str) -> bool:
    """By name: here torch is not imported."""
    return any(kind.__name__ == name and kind.__module__.startswith("torch") for kind in type(error).__mro__)


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # safetensors raises a class of its own that has no errno; torch and arrow say it in a sentence
    said = str(error)
    return any(one in said for one in ("No space left on device", "Disk quota exceeded", "File too large", "unexpected pos",
                                       *(f"(os error {number})" for number in _FULL)))
