"""A format's folder can be deployed as it is: its README is a program, and it replaces an older one at once."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedConfig

from stilla.errors import ExportError, RecipeError
from stilla.export import KINDS, OnnxModel, export, find
from stilla.export.deploy import readme, write_folder

from ..tasks.tiny import labels_of
from .setting import LABELS, Student, picture, plain_student, resnet_student, text_student


def said_by_readme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    said: list[object] = []
    monkeypatch.chdir(folder)
    exec(code, {"print": said.append})
    (last,) = said
    return last


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "make"), [("onnx", text_student), ("int8", resnet_student)])
def test_folder_runs_as_its_readme_says(
    kind: str, make: Callable[[], Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make()
    path = export(kind, student.model, student.processor, student.task, student.prepared, tmp_path / "export" / kind)
    folder = tmp_path / "export" / kind
    assert path == folder / "model.onnx"
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    picture(3).save(folder / "picture.png")
    assert said_by_readme(folder, monkeypatch) in (["bad"], ["good"])
    expected = OnnxModel(path)(student.example)
    with torch.no_grad():
        own = student.model.eval()(**student.example).logits
    torch.testing.assert_close(expected, own, rtol=0.1, atol=0.1 * float(own.abs().max()))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    student = plain_student()
    folder = tmp_path_factory.mktemp("plain") / "onnx"
    return export("onnx", student.model, student.processor, student.task, student.prepared, folder).parent


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "answers"), [
    (None, (["bad"], ["good"])),
    ("multi_label_classification", ([[]], [["bad"]], [["good"]], [["bad", "good"]])),
])
def test_classes_of_a_plain_module_are_named(
    problem: str | None, answers: tuple[object, ...], plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PreTrainedConfig(**LABELS, problem_type=problem)
    (plain / "README.md").write_text(readme(OnnxModel(plain / "model.onnx"), "", config))
    picture(3).save(plain / "picture.png")
    assert said_by_readme(plain, monkeypatch) in answers


@pytest.mark.slow
def test_numbers_are_printed_as_numbers(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PreTrainedConfig(**labels_of("LABEL_0"), problem_type="regression")
    (plain / "README.md").write_text(readme(OnnxModel(plain / "model.onnx"), "", config))
    picture(3).save(plain / "picture.png")
    assert np.asarray(said_by_readme(plain, monkeypatch)).dtype == np.float32


def test_folder_is_replaced_when_all_is_written_and_kept_when_something_fails(plain: Path, tmp_path: Path) -> None:
    student, folder = plain_student(), tmp_path / "onnx"

    def copying(model: object, task: object, prepared: object, path: Path) -> str:
        shutil.copy(plain / "model.onnx", path)
        return "Copied."

    def failing(model: object, task: object, prepared: object, path: Path) -> str:
        path.write_bytes(b"half")
        raise ExportError("differs")

    everything = (student.model, student.processor, student.task, student.prepared, folder)
    write_folder(copying, *everything)
    (folder / "by-hand.txt").write_text("")
    with pytest.raises(ExportError, match="differs"):
        write_folder(failing, *everything)
    assert (folder / "by-hand.txt").exists()
    assert (folder / "model.onnx").read_bytes() == (plain / "model.onnx").read_bytes()
    write_folder(copying, *everything)
    assert not (folder / "by-hand.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_disk_that_fills_is_said_however_deep_it_happens(plain: Path, tmp_path: Path) -> None:
    student = plain_student()

    def filling(model: object, task: object, prepared: object, path: Path) -> str:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ExportError("the exporter cannot hold this") from error

    with pytest.raises(ExportError, match="onnx: the disk is full"):
        write_folder(filling, student.model, student.processor, student.task, student.prepared, tmp_path / "onnx")


def test_unknown_format_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    student = plain_student()
    with pytest.raises(RecipeError, match=r"export: got 'onxx'; expected onnx or int8\. Did you mean onnx\?"):
        export("onxx", student.model, student.processor, student.task, student.prepared, tmp_path / "x")


def test_every_format_describes_itself() -> None:
    for kind in KINDS:
        first = (find(kind).__doc__ or "").split("\n\n")[0]
        assert 20 < len(first) < 130


def test_formats_are_known_without_torch() -> None:
    code = ("import sys, stilla.export as e; assert 'onnx' in e.KINDS; "
            "assert not {'torch', 'transformers', 'onnx'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
