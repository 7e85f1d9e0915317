"""What a run says while it works: short lines and progress bars on standard error, from the main process only."""

from __future__ import annotations

import os
from functools import lru_cache

from rich.console import Console


@lru_cache(maxsize=1)
def console() -> Console:
    """The console that lines and bars share, so that they do not overwrite each other."""
    return Console(stderr=True, quiet=not _main_process(), highlight=False)


def say(line: str) -> None:
    console().print(line, soft_wrap=True, markup=False)


def _main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
