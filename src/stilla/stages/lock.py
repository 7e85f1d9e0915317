"""One owner of a run folder at a time: a lock of the system's, which ends with the process that holds it.

    .lock         held from the opening of the folder to the end; stays there, as removing it would let two in
    .owner.json   who holds it: for the words in which a second one is refused
"""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stilla.errors import FolderBusyError
from stilla.runtime.files import write_whole
from stilla.runtime.narrate import say

LOCK, OWNER = ".lock", ".owner.json"
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class Lock:
    """Held by one process. Of several processes of one run only the main one takes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._owner = folder / OWNER
        self._held: FileLock | None = None

    def take(self) -> None:
        """Raises:
            FolderBusyError: another run holds it; who, and since when.
        """
        if self._held is not None:
            return
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FolderBusyError(
                f"{self.folder}: {self._who()} is at work in it. Wait for its end, stop it, or give another `output`. "
                "Reading (stilla report, compare, list runs) is safe meanwhile") from None
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            say(f"{self.folder}: its file system has no locks; see to it that no second run works in it")
            return
        self._held = lock
        try:
            self._warn_of_elsewhere()
            write_whole(self._owner, json.dumps({"host": socket.gethostname(), "process": os.getpid(),
                                                 "since": datetime.now().astimezone().isoformat(" ", "seconds")}))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        if self._held is None:
            return
        lock, self._held = self._held, None
        with suppress(OSError):  # a disk that has gone: what the run has to say of it is said already
            self._owner.unlink(missing_ok=True)
        lock.release()

    def _warn_of_elsewhere(self) -> None:
        """Locks of some network file systems do not reach other machines: nobody can know whether a run there goes on."""
        owner = self._read()
        if owner and owner.get("host") != socket.gethostname():
            say(f"{self.folder}: {self._who()} has not said that it is over. If it still works, stop one of the two: not all "
                "file systems tell machines of each other's locks")

    def _who(self) -> str:
        owner = self._read()
        if not owner:
            return "another run"
        return f"another run (process {owner.get('process')} on {owner.get('host')}, since {owner.get('since')})"

    def _read(self) -> dict[str, Any]:
        try:
            owner = json.loads(self._owner.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return owner if isinstance(owner, dict) else {}
