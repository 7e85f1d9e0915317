"""The command line: parses, calls, prints. Commands import what they need when they run, so that help is fast."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main", "program"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a fault of Stilla's, 2 something to put right, 130 stopped."""
    from stilla.cli import failures
    from stilla.cli.app import app

    given = list(sys.argv[1:] if arguments is None else arguments)
    failures.arguments.set(given)
    # `--debug` belongs to every command, wherever it stands
    app(["--debug"] * ("--debug" in given) + [one for one in given if one != "--debug"], prog_name="stilla")


def program() -> None:
    """`main` as a process of its own, which ends with it."""
    from stilla.cli.ending import leave
    from stilla.runtime.terminal import discreet_libraries, show_failure

    discreet_libraries()
    try:
        main()
    except SystemExit as ended:
        leave(ended.code)
        raise
    except Exception as error:  # --debug
        show_failure(error)
        sys.exit(1)
