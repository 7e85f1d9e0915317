from __future__ import annotations

import io

import pytest
from rich.console import Console

from stilla.runtime import narrate


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    monkeypatch.setattr(narrate, "console", lambda: console)
    return file


def test_nothing_is_shown_for_what_is_quick(written: io.StringIO) -> None:
    with narrate.progress("predicting", 3) as advance:
        for _ in range(3):
            advance(1)
    assert written.getvalue() == ""


def test_a_bar_is_shown_for_what_takes_longer(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrate, "PATIENCE", -1.0)
    with narrate.progress("predicting", 30) as advance:
        advance(10)
        advance(10)
    assert "predicting" in written.getvalue()
    assert "20/30" in written.getvalue()


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    console = Console(file=file, width=100)
    monkeypatch.setattr(narrate, "console", lambda: console)
    return file


def test_without_a_terminal_a_line_is_written_now_and_then(piped: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(narrate.time, "monotonic", lambda: now)
    with narrate.progress("student", 1000) as advance:
        for second in range(1000):
            now = float(second)
            advance(1, f"loss {second}")
    lines = piped.getvalue().splitlines()
    assert lines[0] == "student: 31 of 1000 (loss 30)"
    assert 8 < len(lines) < 20
    with narrate.progress("student", 1000, show=False) as advance:
        now += 1000
        advance(1)
    assert piped.getvalue().splitlines() == lines
