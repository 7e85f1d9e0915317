"""How a command ends that cannot go on: in words for a person's mistake, with a file for one of ours."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from stilla.errors import StillaError, visible
from stilla.runtime.launching import started_by
from stilla.runtime.situations import in_words, is_full, is_left_alone

FAULT, MISTAKE, STOPPED = 1, 2, 130
PATIENCE = 20.0
"""Seconds that other processes wait for the main one to say what is wrong: a launcher ends all when the first has ended."""

arguments: ContextVar[Sequence[str]] = ContextVar("arguments", default=())
"""What stands on the command line."""
run_folder: ContextVar[Path | None] = ContextVar("run_folder", default=None)
"""Where the command works, once that is known: the place for a traceback."""


class Guarded(TyperGroup):
    """The commands, with every exception turned into an ending that a person can read."""

    def invoke(self, ctx: Any) -> Any:
        with explained(debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


@contextmanager
def explained(*, debug: bool) -> Iterator[None]:
    """`debug`: let tracebacks through."""
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        # typer's own usage errors say themselves what is wrong
        if debug or type(error).__module__.startswith(("typer.", "click.")):
            raise
        if isinstance(error, KeyboardInterrupt):
            raise _ended(_stopped(error), STOPPED) from None
        if isinstance(error, BrokenPipeError):
            # whoever read our output has gone: nobody is left to tell, not even when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAULT) from None
        words = _mistake(error)
        if words is not None:
            raise _ended(f"Error: {words}", MISTAKE) from None
        words = _alone(error) if is_left_alone(error) else _fault(error)
        raise _ended(words, FAULT, all_processes=True) from None


def _ended(words: str, code: int, *, all_processes: bool = False) -> typer.Exit:
    """Says the words; processes other than the main one only say what might be theirs alone."""
    from rich.text import Text

    from stilla.runtime.narrate import Console

    if all_processes or os.environ.get("RANK", "0") == "0":
        style = "yellow" if code == STOPPED else "red"
        with suppress(OSError, SystemExit):  # rich exits where nobody reads it; the code says it
            Console(stderr=True, highlight=False).print(Text(words, style=style), soft_wrap=True)
    elif code == MISTAKE:
        time.sleep(PATIENCE)
    return typer.Exit(code)


def _mistake(error: Exception) -> str | None:
    """What a person has to put right; None where nobody foresaw it."""
    if isinstance(error, StillaError):
        return str(error)
    if isinstance(error, OSError) and (words := in_words(error)) is not None:
        return words
    if is_full(error):
        return f"no room left on a disk: {error}. Nothing that was finished is lost: make room and run this again"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return (
            "out of memory. Lower batch_size and raise accumulate by the same factor (the result is the same), or "
            "lower data.max_length"
        )
    return None


def _alone(error: Exception) -> str:
    command = again(arguments.get())
    return ("another process of this run has ended, or cannot be reached any more; why stands in what that one said: "
            f"{str(error).splitlines()[0]}. Nothing that was finished is lost: start all of them again"
            f"{f', each by: {command}' if command else ''}")


def _stopped(error: KeyboardInterrupt) -> str:
    command = again(arguments.get())
    return f"{str(error) or 'stopped'}{f'. To continue: {command}' if command else ''}"


def again(given: Sequence[str]) -> str:
    """The command that continues this one; empty where there is nothing to continue."""
    kept = [one for one in given if one not in ("--overwrite", "--debug")]
    if not kept or kept[0] not in ("run", "demo", "capture"):
        return ""
    launcher = started_by() if "WORLD_SIZE" in os.environ else ()
    return shlex.join([*launcher, "stilla", *kept])


def _fault(error: Exception) -> str:
    """Writes the whole story to a file and says where."""
    story = visible("".join([f"$ {shlex.join(['stilla', *arguments.get()])}\n\n", *traceback.format_exception(error)]))
    file = _written(story)
    where = f"The whole story is in {file}; please report it with that file. (--debug shows it here.)" if file else (
        f"Please report it with the whole story, which could not be written to a file:\n{story}")
    return f"{type(error).__name__}: {error}\nThis is a fault of Stilla, or of a library that it uses. {where}"


def _written(story: str) -> Path | None:
    """The file with the story: in the run folder, else among temporary files; None where neither can be written."""
    folder = run_folder.get()
    process = os.environ.get("RANK", "0")  # of several, the first to fail knows why
    if folder is not None and folder.is_dir():
        with suppress(OSError):
            file = folder / ("error.txt" if process == "0" else f"error-{process}.txt")
            file.write_text(story, encoding="utf-8")
            return file
    with suppress(OSError):
        file = Path(tempfile.mkstemp(prefix="stilla-", suffix=".txt")[1])
        file.write_text(story, encoding="utf-8")
        return file
    return None
