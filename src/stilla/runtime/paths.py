"""Paths as a person writes them, and whether something can be written where they lead."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stilla.errors import RecipeError
from stilla.runtime.situations import is_full

LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Bytes that file systems take, in one name and in all of a path."""


def meant(text: str) -> str:
    """The path that a person means: `~` is their home folder and `~ann` that of Ann, as on a command line.

    Everything else stays as it is: relative paths, URLs, names of models and data sets. Variables are for shells: `$HOME/x`
    is refused, unless there is such a file.

    Raises:
        RecipeError: it cannot be the name of anything.
    """
    _refuse_impossible(text)
    if "://" in text:
        return text
    if not os.path.lexists(text) and re.match(r"\$(\w+|\{\w+\})(/|$)", text):
        raise RecipeError(f"got {text!r}: variables are not replaced here; write the path itself, or ~ for your home folder")
    if not text.startswith("~"):
        return text
    whole = os.path.expanduser(text)
    if whole == text and not os.path.lexists(text):
        user = text[1:].partition("/")[0]
        raise RecipeError(f"got {text!r}: this machine knows no user {user!r} and so no home folder; write ./{text} for a "
                          "file or folder of that name")
    return whole


def _refuse_impossible(text: str) -> None:
    """What no file system takes; the system's own refusals would come as late as they are used."""
    if not text:
        raise RecipeError("got nothing; expected a path or a name")
    if "\0" in text:
        raise RecipeError(f"got {text!r}: a path cannot have a NUL character in it")
    try:
        names = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:
        raise RecipeError(f"got {text!a}: has characters that no path can have") from None
    longest = max(map(len, names))
    if longest > LONGEST_NAME or len(os.fsencode(text)) >= LONGEST_PATH:
        raise RecipeError(f"got {text[:40]!r}...: a name of {longest} bytes in a path of {len(os.fsencode(text))}; file "
                          f"systems take names of up to {LONGEST_NAME} and paths below {LONGEST_PATH}")


TRIAL = ".stilla-"
"""How the name of a folder begins that is only made to see whether it can be."""


def obstacle(folder: Path) -> str | None:
    """Why a folder cannot be made, or written to if it is there; None if nothing is in the way.

    Nothing stays of the trial: only writing shows what permissions, quotas and read-only file systems allow.
    """
    whole = Path(os.path.abspath(folder))
    there = next(part for part in (whole, *whole.parents) if os.path.lexists(part))
    if there.is_symlink() and not os.path.exists(there):
        return f"{there} is a link to {os.readlink(there)}, which is not there; remove it, or make what it leads to"
    if not os.path.isdir(there):
        within = "" if there == whole else f", so that nothing can lie in it ({folder})"
        return f"{there} is a file{within}; give the name of a folder"
    if too_long := _too_long(whole.relative_to(there).parts, there):
        return too_long
    try:
        os.rmdir(tempfile.mkdtemp(prefix=TRIAL, dir=there))
        os.listdir(there)
    except OSError as error:
        made = "" if there == whole else f", so that {folder} cannot be made there"
        if is_full(error):
            return f"{there} has no room left on its disk{made}; make room, then the same command continues"
        return f"{there} cannot be written to ({error.strerror}){made}; give another place"
    return None


def _too_long(names: Sequence[str], there: Path) -> str | None:
    """Names that the file system does not take: some take fewer bytes than others."""
    if os.name != "posix":
        return None
    most = os.pathconf(there, "PC_NAME_MAX")
    long = next((name for name in names if len(os.fsencode(name)) > most), None)
    return long and f"{long[:40]!r}... is a name of {len(os.fsencode(long))} bytes, and {there} takes up to {most}"
