"""One server for all tests of a module; each begins with a script of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stilla.api import asking
from tests.api.server import Script, Server, served


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with served() as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    running.script = Script()
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.01)
    return running
