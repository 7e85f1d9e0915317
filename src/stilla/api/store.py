"""Answers on disk, a line for everything that happens: a request is about to be sent, has been answered, has failed.

Lines are only added, each is on the disk before anything goes on, and carries a checksum: a kill loses what was under way,
and half a line. What was under way may have been paid for, so it counts as spent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from filelock import FileLock, Timeout

from stilla.api.questions import Messages
from stilla.errors import BusyError, CacheError
from stilla.recipe.api import Price
from stilla.runtime.files import line_of, read_line
from stilla.runtime.narrate import say
from stilla.runtime.paths import obstacle

FILE = "answers.jsonl"
SENT, REPLY, FAILED = "sent", "reply", "failed"
REJECTED = "rejected"
"""Why a question has no answer: the server does not take it (it is too long, or against its rules)."""


@dataclass(frozen=True)
class Reply:
    """An answer. `why`: it ended, in the server's words (`stop`, `length`). `refusal`: what the server says instead of an
    answer. `asked`, `answered`: tokens, None where the server does not count them. `cost`: of them, 0 without a price.
    `likely`: its tokens, each with the log-probabilities of what could have stood there; None where the server gave none."""

    text: str
    why: str = "stop"
    refusal: str = ""
    asked: int | None = None
    answered: int | None = None
    cost: float = 0.0
    likely: Sequence[tuple[str, Mapping[str, float]]] | None = None

    def plain(self) -> dict[str, Any]:
        """For a line of the store."""
        found = asdict(self)
        return found if self.likely is not None else {name: one for name, one in found.items() if name != "likely"}


class Store:
    """The answers of one folder; only one process at a time adds to it, as long as it is entered. `price`: of those that were
    asked for when a recipe named none."""

    def __init__(self, folder: Path, price: Price | None = None) -> None:
        self.folder = folder
        self.file = folder / FILE
        self.price = price
        self.replies: dict[str, Reply] = {}
        self.failed = 0.0
        """What was spent on requests that brought nothing."""
        self._open: dict[str, list[float]] = {}
        self._lines: IO[str] | None = None
        self._exits = ExitStack()
        self._read()

    @property
    def spent(self) -> float:
        """With what was under way when a process ended."""
        return self.failed + sum(map(self._cost, self.replies.values())) + sum(map(sum, self._open.values()))

    @property
    def unknown(self) -> int:
        """Answers that were asked for without a price, of a server that counts no tokens: nobody knows what they cost."""
        return sum(not one.cost and one.why != REJECTED and None in (one.asked, one.answered)
                   for one in self.replies.values())

    def _cost(self, reply: Reply) -> float:
        if reply.cost or self.price is None:
            return reply.cost
        return self.price.of(reply.asked or 0, reply.answered or 0)

    def __enter__(self) -> Store:
        """Raises:
            BusyError: another process adds to it.
            CacheError: the folder cannot be made.
        """
        if why := obstacle(self.folder):
            raise CacheError(f"teacher.api.store: {why}")
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(f"{self.folder}: another run is asking for answers into it. Wait for its end, or name another "
                            "folder (teacher.api.store)") from None
        self._exits.callback(lock.release)
        self._read()  # another process may have added something
        self._lines = self._exits.enter_context(self.file.open("a+", encoding="utf-8"))
        if not _ends_whole(self.file):
            self._lines.write("\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lines = None
        self._exits.close()

    def begin(self, key: str, most: float) -> None:
        """A request is about to be sent, which may cost so much."""
        self._add({"event": SENT, "key": key, "most": most})
        self._open.setdefault(key, []).append(most)

    def end(self, key: str, reply: Reply, messages: Messages) -> None:
        """It was answered. `messages`: what was asked, for whoever reads the file."""
        self._add({"event": REPLY, "key": key, **reply.plain(), "question": [dict(one) for one in messages]})
        self._settle(key, 0.0)
        self.replies[key] = reply

    def fail(self, key: str, cost: float) -> None:
        """It was not answered, and may have cost so much."""
        self._add({"event": FAILED, "key": key, "cost": cost})
        self._settle(key, cost)

    def _settle(self, key: str, cost: float) -> None:
        under_way = self._open.get(key, [])
        if under_way:
            under_way.pop()
        self.failed += cost

    def _add(self, entry: Mapping[str, Any]) -> None:
        assert self._lines is not None, "a store is entered before anything is added"
        self._lines.write(line_of(entry))
        self._lines.flush()
        os.fsync(self._lines.fileno())

    def _read(self) -> None:
        self.replies, self.failed, self._open = {}, 0.0, {}
        damaged = 0
        for line in self.file.read_text(encoding="utf-8", errors="replace").split("\n") if self.file.is_file() else ():
            if not line.strip():
                continue
            try:
                self._take(read_line(line))
            except (ValueError, TypeError, KeyError, AttributeError):
                damaged += 1
        if damaged > 1:  # one is what a kill leaves
            say(f"{self.file}: {damaged} lines are damaged; what stood in them is asked again")

    def _take(self, entry: Any) -> None:
        key = entry["key"]
        if entry["event"] == SENT:
            self._open.setdefault(key, []).append(float(entry["most"]))
        elif entry["event"] == REPLY:
            likely = None if entry.get("likely") is None else [(token, dict(others)) for token, others in entry["likely"]]
            reply = Reply(**{name: entry[name] for name in ("text", "why", "refusal", "asked", "answered", "cost")},
                          likely=likely)
            self._settle(key, 0.0)
            self.replies[key] = reply
        else:
            self._settle(key, float(entry["cost"]))


def _ends_whole(file: Path) -> bool:
    """Whether the last line has an end: what is added behind half a line would be lost with it."""
    with file.open("rb") as lines:
        if not lines.seek(0, os.SEEK_END):
            return True
        lines.seek(-1, os.SEEK_END)
        return lines.read(1) == b"\n"
