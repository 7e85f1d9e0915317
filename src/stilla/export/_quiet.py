"""Silence for libraries that chat, and a plain word where one is missing."""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from transformers.utils import logging as transformers_logging

from stilla.errors import ExportError, all_of
from stilla.export import NEEDS


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, log lines, prints or progress bars from inside; errors are raised as ever."""
    logged = logging.root.manager.disable
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    logging.disable(max(logged, logging.WARNING))
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logged)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def require_onnx() -> None:
    """Raise an ExportError that says what to install, unless the packages behind ONNX are there."""
    missing = []
    for name in NEEDS["onnx"]:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ExportError(f"onnx needs {all_of(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
                          'pip install "stilla[onnx]"')
