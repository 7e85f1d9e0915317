"""What the parts find out: lines of JSON while they work, one file and a readable page at the end."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown

HELD, FAILED, LEFT_OUT, MEASURED = "held", "FAILED", "left out", "measured"


class LeftOutError(Exception):
    """This cannot be asked here; the message says what it would need."""


@dataclass(frozen=True)
class Finding:
    """state: held, FAILED, left out or measured. said: in words; numbers: of a measurement, by name."""

    part: str
    name: str
    state: str
    said: str
    seconds: float
    numbers: Mapping[str, Any]

    @classmethod
    def read(cls, lines: Path) -> list[Finding]:
        """A part may have been ended in the middle of its last line."""
        there = lines.read_text(encoding="utf-8").splitlines(keepends=True) if lines.is_file() else []
        return [cls(**json.loads(line)) for line in there if line.endswith("\n")]


@dataclass(frozen=True)
class Notebook:
    """Where a part writes down what it finds, at once: what comes after may end it."""

    part: str
    lines: Path

    def check(self, name: str, question: Callable[[], str]) -> None:
        """Ask; what it returns is said of it, an exception is its failure, and the next question is asked all the same."""
        began = time.perf_counter()
        try:
            state, said = HELD, question()
        except LeftOutError as reason:
            state, said = LEFT_OUT, str(reason)
        except Exception as error:
            traceback.print_exc()
            state, said = FAILED, f"{type(error).__name__}: {str(error).strip()[:600]}"
        self._write(Finding(self.part, name, state, said, time.perf_counter() - began, {}))

    def measure(self, name: str, numbers: Mapping[str, Any]) -> None:
        self._write(Finding(self.part, name, MEASURED, "", 0.0, numbers))

    def _write(self, finding: Finding) -> None:
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(finding)) + "\n")
        print(f"{finding.state:>8}  {finding.part}: {finding.name}  {finding.said or dict(finding.numbers)}", flush=True)


def page(facts: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """Markdown: where, what held and what did not, then every table of numbers."""
    checks = [one for one in findings if one.state != MEASURED]
    counts = ", ".join(f"{sum(one.state == state for one in checks)} {state}" for state in (HELD, FAILED, LEFT_OUT))
    parts = ["# What holds on this machine", "\n".join(f"- {name}: {value}" for name, value in facts.items()),
             f"{counts}.", markdown(["what", "state", "said", "s"], [
                 [f"{one.part}: {one.name}", one.state, _cell(one.said), f"{one.seconds:.1f}"] for one in checks])]
    return "\n\n".join([*parts, *_tables(findings)]) + "\n"


def _tables(findings: Sequence[Finding]) -> Iterator[str]:
    """A table of every kind of numbers, by the first word of `table` among them."""
    titles = dict.fromkeys(one.numbers["table"] for one in findings if one.state == MEASURED)
    for title in titles:
        rows = [one for one in findings if one.state == MEASURED and one.numbers["table"] == title]
        columns = list(dict.fromkeys(name for one in rows for name in one.numbers if name != "table"))
        yield markdown([title, *columns], [[one.name, *(_number(one.numbers.get(name, "")) for name in columns)]
                                           for one in rows])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(said: str) -> str:
    return " ".join(said.replace("|", "/").split())[:200]
