"""Full, read-only and vanished disks, and folders where files should be: every command says so, and goes on afterwards."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer import Exit

from stilla.cli import failures, main, printing
from tests import tiny
from tests.faults import failing
from tests.report import fakes

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs a command in this process; gives its exit code and what it said."""
    monkeypatch.setenv("COLUMNS", "80")
    printing.console.cache_clear()

    def command(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    yield command
    printing.console.cache_clear()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run with an exported file, and its recipe beside it."""
    folder = tmp_path_factory.mktemp("finished")
    with (folder / "recipe.yaml").open("w") as file:
        YAML().dump(tiny.recipe(folder, distill={"max_steps": 4, "precision": "float32", "trainer": {
            "save_strategy": "steps", "save_steps": 2}}, evaluate={"resamples": 100, "speed": False}), file)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(folder / "recipe.yaml")])
    assert not ended.value.code
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def again(finished: Path, output: Path) -> list[str]:
    return ["run", str(finished / "recipe.yaml"), f"output={output}"]


def in_words(ended: tuple[int, str], *expected: str) -> None:
    code, said = ended
    assert code == 2, said
    assert "Traceback" not in said
    assert "fault of Stilla" not in said
    for words in expected:
        assert words in said


FULL, READ_ONLY = ("no room left", "full"), ("can only be read", "cannot be written")
FAULTS = [(errno.ENOSPC, FULL), (errno.EROFS, READ_ONLY)]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "words"), FAULTS)
def test_a_run_into_a_place_that_cannot_be_written_to(
    command: Command, finished: Path, tmp_path: Path, code: int, words: tuple[str, ...]
) -> None:
    with failing(tmp_path / "new", code) as refused:
        ended = command(*again(finished, tmp_path / "new" / "run"))
    assert refused
    in_words(ended)
    assert any(one in ended[1] for one in words), ended[1]


@pytest.mark.slow
@pytest.mark.parametrize("room", [3, 8, 14, 20, 26, 32, 38, 44, 50])
def test_a_run_whose_disk_fills_up_says_so_and_ends_equal_when_there_is_room(
    command: Command, finished: Path, tmp_path: Path, room: int
) -> None:
    output = tmp_path / "run"
    with failing(output, errno.ENOSPC, after=room) as refused:
        ended = command(*again(finished, output))
    assert refused, "more room than it needs"
    in_words(ended)
    assert any(one in ended[1] for one in FULL), ended[1]
    code, said = command(*again(finished, output))
    assert code == 0, said
    for role in ("teacher", "student"):
        weights = f"{role}/model.safetensors"
        assert (output / weights).read_bytes() == (finished / "run" / weights).read_bytes()
    assert not list(output.rglob(".*.new"))
    assert not list(output.rglob(".*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(("code", "words"), FAULTS)
@pytest.mark.parametrize("what", ["run", "evaluate", "evaluate --data", "export", "report"])
def test_a_finished_run_that_cannot_be_added_to(
    command: Command, finished: Path, run: Path, what: str, code: int, words: tuple[str, ...]
) -> None:
    arguments = {"run": [*again(finished, run), "evaluate.metric=macro_f1"], "evaluate": ["evaluate", run],
                 "evaluate --data": ["evaluate", run, "--data", finished / "data" / "test.jsonl"],
                 "export": ["export", run], "report": ["report", run]}[what]
    before = (run / "scores.json").read_bytes()
    with failing(run, code) as refused:
        ended = command(*arguments)
    assert refused
    in_words(ended)
    assert any(one in ended[1] for one in words), ended[1]
    assert (run / "scores.json").read_bytes() == before
    assert command(*arguments)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stages.json", "scores.json", "report.html", "log.jsonl", "recipe.yaml", "environment.json",
                                  "student/model.safetensors", "student/config.json"])
def test_a_folder_where_a_file_should_be(command: Command, finished: Path, run: Path, name: str) -> None:
    (run / name).unlink()
    (run / name).mkdir()
    for arguments in (["report", run], ["evaluate", run], again(finished, run)):
        code, said = command(*arguments)
        assert code in (0, 2), said
        assert "fault of Stilla" not in said, said


@pytest.mark.parametrize(("code", "words"), FAULTS)
@pytest.mark.parametrize("what", ["report", "compare"])
def test_pages_that_cannot_be_written(
    command: Command, tmp_path: Path, what: str, code: int, words: tuple[str, ...]
) -> None:
    runs = [fakes.write_run(tmp_path / name, fakes.regression()) for name in ("one", "two")]
    arguments = {"report": ["report", runs[0]], "compare": ["compare", *runs, "--output", tmp_path / "page.html"]}[what]
    with failing(tmp_path, code) as refused:
        ended = command(*arguments)
    assert refused
    in_words(ended)
    assert any(one in ended[1] for one in words), ended[1]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "words"), FAULTS)
def test_a_plan_whose_page_cannot_be_written(
    command: Command, finished: Path, tmp_path: Path, code: int, words: tuple[str, ...]
) -> None:
    with failing(tmp_path, code) as refused:
        ended = command("plan", finished / "recipe.yaml", "--page", tmp_path / "plan.html")
    assert refused
    in_words(ended)
    assert any(one in ended[1] for one in words), ended[1]


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"tried": 3, "chosen": null, "by": []}', "\0"])
def test_a_choice_that_was_changed_by_hand_says_nothing(
    command: Command, finished: Path, tmp_path: Path, content: str
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    (tmp_path / "run" / "plan").mkdir()
    (tmp_path / "run" / "plan" / "plan.json").write_text(content)
    code, said = command("plan", finished / "recipe.yaml", f"output={tmp_path / 'run'}", "--page", tmp_path / "plan.html")
    assert code == 0, said
    assert "reached" not in said


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("what", ["report", "compare", "list"])
def test_runs_that_cannot_be_read(command: Command, tmp_path: Path, what: str, code: int) -> None:
    runs = [fakes.write_run(tmp_path / name, fakes.regression()) for name in ("one", "two")]
    arguments = {"report": ["report", runs[0]], "compare": ["compare", *runs, "--output", tmp_path / "page.html"],
                 "list": ["list", "runs", "--folder", tmp_path]}[what]
    with failing(runs[0], code, reading=True) as refused:
        exit_code, said = command(*arguments)
    assert refused
    assert exit_code == (0 if what == "list" else 2), said
    assert "fault of Stilla" not in said
    assert "two" in said or what != "list"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_demo_that_has_no_place(command: Command, tmp_path: Path, code: int) -> None:
    with failing(tmp_path / "demo", code) as refused:
        in_words(command("demo", "--output", tmp_path / "demo"))
    assert refused


def test_an_unforeseen_error_is_told_even_where_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    failures.run_folder.set(tmp_path)
    try:
        with failing(tmp_path, errno.ENOSPC), pytest.raises(Exit), failures.explained(debug=False):
            raise ZeroDivisionError("the cause itself")
    finally:
        failures.run_folder.set(None)
    said = capsys.readouterr().err
    assert "ZeroDivisionError: the cause itself" in said
    assert "could not be written to a file" in said
    assert "Traceback" in said
