from __future__ import annotations

import io

import pytest
from rich.console import Console

from stilla.evaluate import _progress


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    monkeypatch.setattr(_progress, "Console", lambda stderr: console)
    return file


def test_nothing_is_shown_for_what_is_quick(written: io.StringIO) -> None:
    with _progress.progress("predicting", 3) as advance:
        for _ in range(3):
            advance(1)
    assert written.getvalue() == ""


def test_a_bar_is_shown_for_what_takes_longer(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "PATIENCE", -1.0)
    with _progress.progress("predicting", 30) as advance:
        advance(10)
        advance(10)
    assert "predicting" in written.getvalue()
    assert "20/30" in written.getvalue()
