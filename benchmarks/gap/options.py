"""What all programs about the cases of the gap can be told."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from benchmarks.inputs import add_data_option


def parser(program: str, description: str | None, cases: Iterable[str], chosen: list[str]) -> argparse.ArgumentParser:
    """`cases`: those that may be named, of which `chosen` are measured where none is."""
    made = argparse.ArgumentParser(prog=f"python -m {program}", description=description,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--cases", nargs="+", choices=list(cases), default=chosen)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--output", type=Path, default=Path("runs/benchmarks/gap"))
    add_data_option(made)
    return made
