"""Work that takes too long is interrupted; nothing else ever is."""

from __future__ import annotations

import threading
import time

import pytest

from stilla.runtime.watch import Watch


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.slow
def test_one_piece_that_takes_too_long_is_interrupted_and_the_next_is_not() -> None:
    with Watch(0.2) as watch:
        for _ in range(4):
            with watch.once():
                spin(0.08)  # longer than the limit in all
        with pytest.raises(TimeoutError), watch.once():
            spin(20)
        with watch.once():
            spin(0.05)


def test_time_between_the_pieces_does_not_count() -> None:
    with Watch(0.1) as watch:
        with watch.once():
            pass
        spin(0.3)
        with watch.once():
            pass


@pytest.mark.slow
def test_an_interruption_never_comes_when_the_work_is_over() -> None:
    """Work that ends about when its time does is done or interrupted; what follows is left alone."""
    for _ in range(10):
        with Watch(0.04) as watch:
            try:
                with watch.once():
                    spin(0.05)
            except TimeoutError:
                pass
            spin(0.02)


def test_nothing_is_left_running() -> None:
    before = threading.active_count()
    with Watch(1.0):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
