"""What libraries and failures show beside our own lines (`narrate.Console`), without passwords and tokens."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from typing import Any

from stilla.secrets import without_secrets


def discreet_libraries() -> None:
    """For a process of ours: what libraries log and warn of is shown without secrets too."""
    made, formatted = logging.getLogRecordFactory(), warnings.formatwarning

    def record(*given: Any, **named: Any) -> logging.LogRecord:
        one = made(*given, **named)
        try:
            said = one.getMessage()
        except Exception:  # a mistake of whoever logs, which logging itself reports
            return one
        if (clean := without_secrets(said)) != said:
            one.msg, one.args = clean, ()
        return one

    logging.setLogRecordFactory(record)
    warnings.formatwarning = lambda *given, **named: without_secrets(formatted(*given, **named))


def show_failure(error: Exception) -> None:
    """As Python shows it."""
    if sys.stderr is not None:
        sys.stderr.write(without_secrets("".join(traceback.format_exception(error))))
