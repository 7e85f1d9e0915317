"""How the process of a command ends: nothing is lost, nobody complains, and its code is the command's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stilla.runtime import imports

STAND_IN = """
import ctypes

libc = ctypes.CDLL(None)
libc.strdup.restype = ctypes.c_void_p
complaint = libc.strdup(b"stand-in: leaked 1 instance!\\\\n")
# called when the process ends, as dprintf(exit code, complaint): code 2 is standard error
libc.on_exit(ctypes.cast(libc.dprintf, ctypes.c_void_p), ctypes.c_void_p(complaint))


class Counted:
    def __init__(self):
        self.itself = self  # only a search for garbage finds it

    def __del__(self, silence=ctypes.memset, complaint=complaint):
        silence(complaint, 0, 1)


counted = Counted()
"""
"""A library that counts its objects when Python has ended, as nanobind does: no object of it may be left."""

COMMAND = "import sys; sys.argv = ['stilla', *sys.argv[1:]]; from stilla.cli import program; program()"


@pytest.fixture
def ended(tmp_path: Path):
    """Runs Python code, then a command as a process of its own; gives the finished process."""
    (tmp_path / "stand_in.py").write_text(STAND_IN.replace("\\\\n", "\\n"))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def ended(before: str, *arguments: str, after: str = "", **options: object) -> subprocess.CompletedProcess[str]:
        code = f"{before}\n{COMMAND}" if not after else f"{before}\ntry:\n    {COMMAND}\nfinally:\n    {after}"
        return subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": path},
                              **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})  # type: ignore[call-overload]

    return ended


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the stand-in is made of glibc")
class TestALibraryThatCountsItsObjects:
    @pytest.mark.slow
    def test_says_nothing_when_a_command_ends(self, ended):
        done = ended("import stand_in", "run", "absent.yaml")
        assert done.returncode == 2
        assert "absent.yaml: no such file" in done.stderr
        assert "leaked" not in done.stderr

    @pytest.mark.slow
    def test_complains_where_objects_are_frozen(self, ended):
        """The stand-in is one: else the test above would hold whatever happens."""
        done = ended("import stand_in, gc, stilla.cli.ending as e; e.leave = lambda code: gc.freeze()", "run", "absent.yaml")
        assert done.stderr.count("leaked 1 instance") == 1

    @pytest.mark.slow
    def test_says_nothing_where_python_itself_ends_the_process(self, ended):
        done = ended("import stand_in, stilla.runtime.imports as i; i.imported.append('mine:metric')", "run", "absent.yaml")
        assert done.returncode == 2
        assert "leaked" not in done.stderr


@pytest.mark.slow
def test_what_was_registered_and_begun_is_done_before_the_end(ended, tmp_path):
    done = ended(
        "import atexit, logging, logging.handlers, threading, time, weakref\n"
        "def late():\n    time.sleep(0.5); open('thread', 'w').write('done')\n"
        "threading.Thread(target=late).start()\n"
        "atexit.register(lambda: open('atexit', 'w').write('done'))\n"
        "class Thing: pass\nthing = Thing(); weakref.finalize(thing, lambda: open('finalised', 'w').write('done'))\n"
        "forgotten = open('open', 'w'); forgotten.write('done')\n"
        "raw = open('raw', 'wb'); raw.write(b'done')\n"
        "memory = logging.handlers.MemoryHandler(99, target=logging.FileHandler('log'))\n"
        "logging.getLogger('mine').addHandler(memory); logging.getLogger('mine').warning('done')\n",
        "--version")
    assert done.returncode == 0, done.stderr
    for name in ("thread", "atexit", "finalised", "open", "raw", "log"):
        assert (tmp_path / name).read_text().strip() == "done", name


def test_objects_that_stand_for_others_are_not_asked_what_they_are(ended):
    """torch has one that warns when it is."""
    done = ended("import warnings\nclass Stands:\n    @property\n    def __class__(self):\n        print('asked')\n"
                 "        return int\nstands = [Stands()]", "--version")
    assert done.stdout.startswith("stilla ")
    assert done.stderr == ""


def test_what_libraries_in_c_have_printed_arrives(ended):
    done = ended("import ctypes; ctypes.CDLL(None).printf(b'from C\\n')", "--version")
    assert "from C" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["run", "absent.yaml"], 2), (["no-such-command"], 2)])
def test_the_code_is_the_commands(ended, arguments, code):
    assert ended("", *arguments).returncode == code


@pytest.mark.slow
def test_a_reader_who_has_gone_is_no_success_and_no_traceback(ended):
    read, write = os.pipe()
    os.close(read)
    try:
        done = ended("", "list", "tasks", stdout=write)
    finally:
        os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("streams", "arguments", "code"), [
    (">&- 2>&-", "run absent.yaml", 2), ("2>&-", "run absent.yaml", 2), (">&- 2>&-", "--version", 0)])
def test_a_command_without_standard_streams_ends_with_its_code(streams, arguments, code):
    shell = f"exec {sys.executable} -m stilla {arguments} {streams}"
    assert subprocess.run(["sh", "-c", shell], check=False).returncode == code


@pytest.mark.slow
def test_an_error_that_nobody_reads_keeps_its_code(ended):
    read, write = os.pipe()
    os.close(read)
    try:
        assert ended("", "run", "absent.yaml", stderr=write).returncode == 2
    finally:
        os.close(write)


@pytest.mark.slow
def test_whoever_watches_a_command_sees_its_end(ended, tmp_path):
    """A profiler, a debugger, coverage."""
    done = ended("import sys; sys.setprofile(lambda *_: None)", "run", "absent.yaml", after="print('seen')")
    assert (done.returncode, done.stdout.strip()) == (2, "seen")


@pytest.mark.slow
def test_objects_of_a_persons_own_code_are_taken_apart(ended, tmp_path):
    (tmp_path / "mine.py").write_text("import zipfile\nfile = zipfile.ZipFile('mine.zip', 'w')\nfile.writestr('a', 'b')\n"
                                      "def metric(texts, references): return 1\n")
    done = ended("from stilla.runtime.imports import import_path; import_path('mine:metric')", "run", "absent.yaml")
    assert done.returncode == 2
    import zipfile

    assert zipfile.ZipFile(tmp_path / "mine.zip").namelist() == ["a"]


def test_the_projects_own_objects_are_no_code_of_a_persons(monkeypatch):
    monkeypatch.setattr(imports, "imported", [])
    imports.import_path("stilla.objectives.labels:Labels")
    assert imports.imported == []
    imports.import_path("json:dumps")
    assert imports.imported == ["json:dumps"]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "parted"), [(["--version"], True), (["run", "absent.yaml"], False)])
def test_processes_that_trained_together_part_before_python_ends_them(ended, arguments, parted):
    """Not where one has failed: the others wait for it, and it must not wait for them."""
    done = ended("import torch.distributed as d, stilla.runtime.imports as i; i.imported.append('mine:metric')\n"
                 "d.init_process_group('gloo', store=d.HashStore(), rank=0, world_size=1)", *arguments,
                 after="print('parted:', not d.is_initialized())")
    assert f"parted: {parted}" in done.stdout
