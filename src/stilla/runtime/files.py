"""Files that are there whole or not at all, and that are known by their content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from stilla.runtime.differences import Plain, fingerprint
from stilla.secrets import without_secrets

PARTIAL = ".partial"
"""How the names of files end that are being written: what a killed process leaves."""
CHECKSUM = "checksum"
_SIGNATURE = "# As Stilla wrote it; evaluate and export refuse what was changed since: "


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file at once, and bring it to the disk: a reader, a kill, a full disk or a power cut never see half of it.

    Raises:
        OSError: it cannot be written; the old file is still there, and nothing of the new one.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):  # what kept it from being written may keep it from being removed; the first error says more
            partial.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handles of folders
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_all(folder: Path) -> None:
    """A folder with all that is in it: a rename that survives a power cut while its content does not is worse than none."""
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def contents(path: Path, leave_out: Collection[str] = ()) -> dict[str, str]:
    """A hash of every file within a folder, by its path there; of a single file, under its name.

    `leave_out`: names of files.
    """
    found = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    files = [one for one in found if one.name not in leave_out]
    base = path.parent if path.is_file() else path
    with ThreadPoolExecutor() as threads:  # hashing leaves the interpreter to others
        return {file.relative_to(base).as_posix(): one for file, one in zip(files, threads.map(_hash, files))}


def sealed(plain: Plain, **how: Any) -> str:
    """Plain data as JSON with a checksum of them. `how`: of `json.dumps`."""
    content = json.loads(json.dumps(plain, **how))
    return json.dumps({**content, CHECKSUM: fingerprint(content)}, indent=1, ensure_ascii=False) + "\n"


def unsealed(text: str, *, needed: bool = False) -> dict[str, Any]:
    """What `sealed` wrote. `needed`: also where files of before there were checksums are known.

    Raises:
        ValueError: no JSON, no keys and values, or not what its checksum is of.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"expected keys and values, got {type(content).__name__}")
    if CHECKSUM not in content:
        if needed:
            raise ValueError("it has no checksum")
        return content
    if content.pop(CHECKSUM) != fingerprint(content):
        raise ValueError("its content is not what its checksum is of: it is damaged, or was changed by hand")
    return content


def is_as_sealed(text: str) -> bool:
    """Whether plain data are as they were written; also where they never got a checksum."""
    try:
        unsealed(text)
    except (ValueError, RecursionError):
        return False
    return True


def line_of(plain: Plain) -> str:
    """A line of a log, with a checksum of its own.

    Raises:
        ValueError: a number that is not finite.
    """
    content = json.loads(json.dumps(plain, allow_nan=False))
    return json.dumps({**content, "check": fingerprint(content)[:8]}) + "\n"


def read_line(text: str) -> Any:
    """Raises:
        ValueError: no JSON, or not what its checksum is of.
    """
    line = json.loads(text)
    if isinstance(line, dict) and "check" in line and line.pop("check") != fingerprint(line)[:8]:
        raise ValueError("the line is not what its checksum is of")
    return line


def signed(text: str) -> str:
    """Lines of text, without secrets, with a comment that says what they were when they were written."""
    text = without_secrets(text)
    return f"{text}{_SIGNATURE}{fingerprint(text)}\n"


def is_as_signed(text: str) -> bool:
    """Whether text is as it was written; also where it was never signed."""
    content, sign, written = text.partition(_SIGNATURE)
    return not sign or written.strip() == fingerprint(content)


def unsigned(text: str) -> str:
    return text.partition(_SIGNATURE)[0]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
