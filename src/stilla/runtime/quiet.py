"""Silence for libraries that chat while a run works."""

from __future__ import annotations

import logging

from stilla.runtime.narrate import LastResort


def quiet_libraries(*, going_on: bool = False) -> None:
    """Switch off the bars and reports of datasets and transformers; warnings stay, and are said like everything else.

    going_on: it may be a part of something that has begun, which says no warning twice.
    """
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if not (going_on and isinstance(logging.lastResort, LastResort)):
        logging.lastResort = LastResort()
