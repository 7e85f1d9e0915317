"""Where a cache lies: a local folder, or any store that fsspec reaches. Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
from filelock import FileLock, Timeout

from stilla.errors import BusyError, CacheError

PARTIAL = ".partial"
"""How the names of files end that are being written; what a killed writer leaves."""


class Place:
    """A flat folder of files at a path (`./cache`) or URL (`s3://bucket/cache`, `memory://cache`).

    Raises:
        CacheError: fsspec does not know the URL's protocol, or lacks the package for it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.path)
        except (ImportError, ValueError) as error:  # a protocol that fsspec does not know, or whose package is missing
            raise CacheError(f"{self.path}: no such store can be reached: {error}") from error
        protocol = self._files.protocol
        self.local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)
        self._copies: Path | None = None

    def names(self) -> list[str]:
        """The files there, sorted; none where there is no folder yet."""
        try:
            found = self._files.ls(self._root, detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(PurePosixPath(one["name"]).name for one in found if one["type"] == "file")

    def within(self) -> list[Place]:
        """The folders there, sorted by name: places of their own."""
        try:
            found = self._files.ls(self._root, detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = sorted(PurePosixPath(one["name"]).name for one in found if one["type"] == "directory")
        return [Place(f"{self.path.rstrip('/')}/{name}") for name in names]

    def size(self, name: str) -> int:
        return int(self._files.size(self._at(name)))

    def read(self, name: str) -> bytes:
        with self._files.open(self._at(name), "rb") as file:
            content: bytes = file.read()
        return content

    def write(self, name: str, content: bytes | memoryview, *, by: str = "0") -> None:
        """`by`: the writer, by which it finds again what it left when it was killed.

        Raises:
            CacheError: there is no room left; nothing of the file stays.
        """
        try:
            if self.local:
                self._write_local(Path(self._root), name, content, by)
            else:  # an object appears when its last byte has arrived
                self._files.makedirs(self._root, exist_ok=True)
                self._files.pipe_file(self._at(name), bytes(content))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CacheError(
                    f"no room left to write {name} in {self.path}: {error}. What was written before is intact; make "
                    "room, then the same command continues") from error
            raise

    def map(self, name: str) -> pa.Buffer:
        """A file's bytes, mapped into memory; from elsewhere it is copied to this machine first."""
        if self.local:
            return pa.memory_map(self._at(name)).read_buffer()
        if self._copies is None:
            self._copies = Path(tempfile.mkdtemp(prefix="stilla-cache-"))
            weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)
        copy = self._copies / name
        if not copy.exists():
            self._files.get_file(self._at(name), str(copy))
        return pa.memory_map(str(copy)).read_buffer()

    def remove(self, name: str) -> None:
        self._files.rm_file(self._at(name))

    def lock(self, name: str) -> FileLock | None:
        """Held by one writer at a time, and by none that was killed; elsewhere than here there are no locks.

        Raises:
            BusyError: somebody else holds it.
        """
        if not self.local:
            return None
        Path(self._root).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._at(name))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BusyError(
                f"{self.path}: another process is writing to this cache. Wait for it, then the same command continues "
                "where it stopped; reading meanwhile is safe") from error
        return lock

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @staticmethod
    def _write_local(folder: Path, name: str, content: bytes | memoryview, by: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{by}-{name}.{os.getpid()}{PARTIAL}"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, folder / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def __repr__(self) -> str:
        return f"Place({self.path!r})"

    # worker processes get the path alone
    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.path,)
