"""A run folder has one owner at a time, and a dead process owns nothing."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from stilla.errors import FolderError
from stilla.stages.folder import RunFolder
from stilla.stages.lock import LOCK, OWNER

HOLD = """
import os, sys, time
from pathlib import Path
from stilla.stages.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.open(overwrite=False)
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(100)
print("held", flush=True)
time.sleep(100)
"""


def holder(path: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), *more], stdout=subprocess.PIPE, text=True,
                               start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.slow
def test_a_second_run_is_refused_and_told_who_is_at_work(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        for overwrite in (False, True):
            with pytest.raises(FolderError, match=rf"process {process.pid} on {socket.gethostname()}, since 20.*output"):
                RunFolder(tmp_path / "run").open(overwrite=overwrite)
        with pytest.raises(FolderError, match="at work"), RunFolder(tmp_path / "run").held():
            pass
    finally:
        end(process)
    folder = RunFolder(tmp_path / "run")  # killed: nothing of its lock is left
    folder.open(overwrite=False)
    folder.close()


@pytest.mark.slow
def test_what_a_killed_run_has_forked_does_not_keep_the_folder(tmp_path: Path) -> None:
    process = holder(tmp_path / "run", "fork")
    try:
        process.send_signal(signal.SIGKILL)  # its child, as a worker that loads data, lives on for a while
        process.wait()
        folder = RunFolder(tmp_path / "run")
        deadline = time.monotonic() + 5
        while True:
            try:
                folder.open(overwrite=False)
                break
            except FolderError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        folder.close()
    finally:
        end(process)


def test_the_folder_is_free_when_the_run_is_over(tmp_path: Path) -> None:
    one, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    one.open(overwrite=False)
    with pytest.raises(FolderError, match=f"process {os.getpid()}"):
        other.open(overwrite=False)
    one.close()
    assert not (tmp_path / "run" / OWNER).exists()
    other.open(overwrite=False)
    other.close()


def test_a_folder_that_cannot_be_opened_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("stilla.stages.record.write_whole", _full)
        with pytest.raises(OSError, match="No space"):
            folder.open(overwrite=False)
    RunFolder(tmp_path / "run").open(overwrite=False)


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", none)
    folder = RunFolder(tmp_path / "run")
    folder.open(overwrite=False)
    folder.close()
    assert "has no locks" in capfd.readouterr().err


def test_a_run_of_another_machine_that_did_not_say_its_end_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path / "run").open(overwrite=False)
    (tmp_path / "run" / OWNER).write_text('{"host": "elsewhere", "process": 7, "since": "2025-01-01 10:00:00+00:00"}')
    (tmp_path / "run" / LOCK).rename(tmp_path / "gone")  # as where locks do not reach other machines
    folder = RunFolder(tmp_path / "run")
    folder.open(overwrite=False)
    folder.close()
    assert "process 7 on elsewhere, since 2025" in capfd.readouterr().err
