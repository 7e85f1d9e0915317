"""What is started beside a measurement ends with it."""

from __future__ import annotations

from subprocess import Popen

import pytest
from benchmarks.busy import busy


@pytest.mark.slow
def test_busy_processes_end_with_what_they_are_beside() -> None:
    def measure() -> None:
        with busy(2) as started:
            processes.extend(started)
            assert [process.poll() for process in started] == [None, None]
            raise ZeroDivisionError

    processes: list[Popen[str]] = []
    with pytest.raises(ZeroDivisionError):
        measure()
    assert len(processes) == 2
    assert all(process.poll() is not None for process in processes)


@pytest.mark.slow
def test_a_busy_process_ends_when_nobody_holds_it_any_more() -> None:
    with busy(1) as (process,):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0
        process.stdin = None
