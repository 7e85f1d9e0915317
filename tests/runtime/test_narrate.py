from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest
from rich.table import Table
from rich.text import Text

from stilla.cli import failures, printing
from stilla.runtime import narrate
from stilla.runtime.narrate import Console
from stilla.runtime.quiet import quiet_libraries


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200, highlight=False)
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


EVIL = "\x1b[2J\x1b]0;owned\x07"
SHOWN = r"\x1b[2J\x1b]0;owned"  # rich leaves bells out


def table(text: str) -> Table:
    made = Table("column", width=80)
    made.add_row(Text(text))
    return made


@pytest.mark.parametrize("things", [lambda text: text, Text, table], ids=["a string", "a text", "a table"])
def test_a_terminal_shows_control_characters_and_obeys_none(things: Callable[[str], object]) -> None:
    file = io.StringIO()
    Console(file=file, force_terminal=True, width=200, highlight=False).print(things(EVIL), markup=False)
    written = file.getvalue()
    assert SHOWN in written
    assert "\x1b[2J" not in written
    assert "\x1b]0" not in written
    assert "\x07" not in written


def test_colours_are_still_colours() -> None:
    file = io.StringIO()
    Console(file=file, force_terminal=True, color_system="standard").print(Text("red", style="red"))
    assert file.getvalue() == "\x1b[31mred\x1b[0m\n"


def test_every_way_to_the_terminal_goes_through_it(written: io.StringIO, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    narrate.say(EVIL)
    monkeypatch.setattr(narrate, "PATIENCE", -1.0)
    with narrate.progress(EVIL, 3) as advance:
        advance(1, EVIL)
    assert written.getvalue().count(SHOWN[:7]) >= 3  # the line, the bar's title and its note
    assert "\x1b]0" not in written.getvalue()
    printing.console.cache_clear()
    printing.show(EVIL)
    failures._ended(EVIL, failures.MISTAKE)
    said = capsys.readouterr()
    assert SHOWN in said.out.replace("\n", "")
    assert SHOWN in said.err.replace("\n", "")
    assert "\x1b" not in said.out + said.err


def test_warnings_that_nobody_collects_are_said_with_the_other_lines(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "lastResort", None)
    quiet_libraries()
    own = logging.getLogger("stilla.of_a_test")
    monkeypatch.setattr(own, "parent", None)  # pytest listens at the root
    own.warning("2 rows hold %s", EVIL)
    own.info("nothing to see")
    quiet_libraries(going_on=True)
    own.warning("2 rows hold %s", EVIL)  # prepared for another model, or measured once more
    assert written.getvalue() == f"2 rows hold {SHOWN}\n"
    quiet_libraries()  # another run
    own.warning("2 rows hold %s", EVIL)
    assert written.getvalue() == f"2 rows hold {SHOWN}\n" * 2
