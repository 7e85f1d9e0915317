"""What is saved is what was trained, loads anywhere, and never half replaces what was there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    pipeline,
)

from stilla.errors import ExportError
from stilla.export import restore, save_student

from . import setting
from .setting import Net, Student, picture, plain_student, resnet_student, text_student, vit_student


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Equal but for the order of sums, which depends on where weights lie in memory."""
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_text_student_loads_with_auto_classes_and_pipeline(tmp_path: Path) -> None:
    student = text_student()
    folder = save_student(student.model, student.processor, tmp_path / "student", example=student.example)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        close(loaded(**student.example).logits, student.model.eval()(**student.example).logits)
    tokens = AutoTokenizer.from_pretrained(folder)("good film").input_ids
    assert tokens == student.processor("good film").input_ids
    answers = pipeline("text-classification", model=str(folder))(["good film", "bad"])
    assert {answer["label"] for answer in answers} <= {"bad", "good"}


def test_image_student_loads_with_auto_classes_and_pipeline(tmp_path: Path) -> None:
    student = vit_student()
    folder = save_student(student.model, student.processor, tmp_path / "student", example=student.example)
    loaded = AutoModelForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        close(loaded(**student.example).logits, student.model.eval()(**student.example).logits)
    answers = pipeline("image-classification", model=str(folder))(picture(3))
    assert {answer["label"] for answer in answers} == {"bad", "good"}


def test_folder_holds_nothing_but_what_hugging_face_writes(tmp_path: Path) -> None:
    student = text_student()
    save_student(student.model, student.processor, tmp_path / "ours")
    student.model.save_pretrained(tmp_path / "theirs")  # type: ignore[operator]
    student.processor.save_pretrained(tmp_path / "theirs")
    assert listing(tmp_path / "ours") == listing(tmp_path / "theirs")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_whoever_may_read_files_here_may_read_the_weights(tmp_path: Path) -> None:
    student = text_student()
    before = os.umask(0o027)
    try:
        save_student(student.model, student.processor, tmp_path / "student")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "student").iterdir()} == {0o640}


def test_saving_leaves_the_modes_of_the_model_alone(tmp_path: Path) -> None:
    student = resnet_student()
    frozen = next(one for one in student.model.modules() if isinstance(one, torch.nn.BatchNorm2d)).eval()
    save_student(student.model, None, tmp_path / "student", example=student.example)
    assert student.model.training
    assert not frozen.training


def test_plain_student_is_its_state_dict_and_says_how_to_load_it(tmp_path: Path) -> None:
    student = plain_student()
    folder = save_student(student.model, student.processor, tmp_path / "student", example=student.example)
    assert not (folder / "config.json").exists()
    fresh = Net()
    fresh.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        close(fresh.eval()(**student.example), student.model.eval()(**student.example).logits)
    readme = (folder / "README.md").read_text()
    assert f"from {setting.__name__} import Net" in readme
    assert "`bad`, `good`" in readme
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata()["labels"] == '["bad", "good"]'


@pytest.mark.parametrize("make", [text_student, plain_student])
def test_weights_go_back_into_the_model(make: Callable[[], Student], tmp_path: Path) -> None:
    student = make()
    save_student(student.model, None, tmp_path / "student")
    other = make()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.zero_()
    restore(other.model, tmp_path / "student")
    assert all(torch.equal(one, two) for one, two in zip(student.model.parameters(), other.model.parameters()))
    assert all(parameter.requires_grad for parameter in other.model.parameters())


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_student(plain_student().model, None, tmp_path / "student")
    with pytest.raises(ExportError, match="holds no weights for this Linear"):
        restore(torch.nn.Linear(2, 2), tmp_path / "student")


def test_plain_student_with_more_than_tensors_in_its_state_is_refused(tmp_path: Path) -> None:
    class Strange(Net):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

        def set_extra_state(self, state: Any) -> None: ...

    with pytest.raises(ExportError, match="_extra_state"):
        save_student(Strange(), None, tmp_path / "student")
    assert not list(tmp_path.iterdir())


def test_saving_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    student = text_student()
    folder = save_student(student.model, student.processor, tmp_path / "student")
    (folder / "old.txt").write_text("of an older student")
    before = (folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        next(student.model.parameters()).add_(1)
    save_student(student.model, student.processor, folder)
    assert not (folder / "old.txt").exists()
    assert (folder / "model.safetensors").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"holds other files and no model\.safetensors"):
        save_student(text_student().model, None, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    student = text_student()
    folder = save_student(student.model, student.processor, tmp_path / "student")
    before = listing(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6, 12_345))
    with pytest.raises(ExportError, match=r"student: the disk is full: about 2\d\.\d kB needed, 12\.3 kB free"):
        save_student(student.model, student.processor, folder)
    assert listing(folder) == before


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
])
def test_disk_that_fills_while_writing_leaves_the_old_folder(tmp_path: Path, error: Exception) -> None:
    class Filling:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "half").write_text("hal")
            raise error

    student = text_student()
    folder = save_student(student.model, student.processor, tmp_path / "student")
    before = listing(folder)
    with pytest.raises(ExportError, match="disk is full"):
        save_student(student.model, Filling(), folder)
    assert listing(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_folder_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"student: cannot be written: .*file"):
        save_student(text_student().model, None, tmp_path / "file" / "student")


class Shifted(BertForSequenceClassification):
    """Computes with something that its folder does not hold."""

    shift = 0.0

    def forward(self, **inputs: Any) -> Any:
        outputs = super().forward(**inputs)
        outputs.logits = outputs.logits + self.shift
        return outputs


@pytest.mark.slow
def test_model_that_does_not_come_back_as_it_was_is_refused(tmp_path: Path) -> None:
    student = text_student()
    folder = save_student(student.model, student.processor, tmp_path / "student")
    before = listing(folder)
    shifted = Shifted(student.model.config)
    shifted.load_state_dict(student.model.state_dict())
    save_student(shifted, student.processor, tmp_path / "same", example=student.example)
    shifted.shift = 0.5
    with pytest.raises(ExportError, match=r"answers an example differently, by 0\.5"):
        save_student(shifted, student.processor, folder, example=student.example)
    assert listing(folder) == before


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    student = text_student()
    with torch.no_grad():
        student.model.get_parameter("classifier.bias")[0] = float("nan")
    with pytest.raises(ExportError, match=r"classifier\.bias differ.*NaN"):
        save_student(student.model, student.processor, tmp_path / "student")
