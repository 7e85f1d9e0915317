"""Files of detectors: every family is written, for any number of pictures, and finds what its model does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stilla.errors import ExportError
from stilla.export import onnx as exporter
from stilla.export.graphs import Inputs, check, ready
from stilla.export.session import OnnxModel
from stilla.tasks.vision.detection import Detection
from tests.tasks.vision.detecting import FAMILIES, model


def _pictures(number: int) -> Inputs:
    return {"pixel_values": torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(number))}


def written(place: Path, family: str) -> None:
    """A file of this family that is compared with its model."""
    made = model(family, **({"image_size": [64, 64]} if family == "yolos" else {}))
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:  # else all proposals are as good, and which of them are taken is rounding
                weight.normal_(0, 0.3, generator=draw)
    task = Detection.of_model(made)
    assert task.unwritten(made, ["onnx"]) == []
    batches = [_pictures(number) for number in (3, 1, 5)]
    exporter.export_onnx(made, task.axes, task.outputs, batches[:1], place, task.answer, sets=True)
    file, whole = OnnxModel(place), ready(made)
    for batch in batches:
        with torch.no_grad():
            expected = task.outputs(whole(**batch))
        got = file(batch)
        assert got.shape == expected.shape
        for one, other in zip(got, expected, strict=True):
            nearest = torch.cdist(one, other, p=torch.inf)
            for axis in (0, 1):
                assert nearest.amin(axis).max() <= 1e-4 * max(1.0, float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_of_every_family_finds_what_its_model_does(tmp_path: Path, family: str) -> None:
    """In a process of its own, without the checks of shapes that tests have: RT-DETR and its like ask a tensor for its `len`,
    which torch's exporter can hold only where it reads the code that it traces, and it cannot read those."""
    place = tmp_path / "model.onnx"
    done = subprocess.run([sys.executable, "-m", __name__, str(place), family], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert place.is_file()


def _found(number: int = 300) -> Tensor:
    return torch.randn(2, number, 7, generator=torch.Generator().manual_seed(0))


def test_sets_may_come_in_another_order_and_one_of_a_hundred_may_be_another() -> None:
    found, order = _found(), torch.randperm(300, generator=torch.Generator().manual_seed(1))
    other = found[:, order] + 1e-5
    other[:, :3] += 5.0  # proposals that were as sure as those that the model took
    check(lambda _: other, lambda _: found, [_pictures(2)], sets=True)
    with pytest.raises(ExportError, match=r"differ from the model's by"):
        check(lambda _: other, lambda _: found, [_pictures(2)])


@pytest.mark.parametrize("wrong", ["four", "all a little", "no number", "the same twice"])
def test_sets_of_other_things_are_refused(wrong: str) -> None:
    found = _found()
    other = found.clone()
    if wrong == "four":
        other[1, :4] += 5.0
    elif wrong == "all a little":
        other += 0.05
    elif wrong == "no number":
        other[0, :4] = torch.nan
    else:
        other[1, :4] = other[1, 4:8]
    with pytest.raises(ExportError, match=r"differ from the model's by"):
        check(lambda _: other, lambda _: found, [_pictures(2)], sets=True)
    few = found[:, :8].clone()
    few[0, 0] += 1.0
    with pytest.raises(ExportError, match=r"differ from the model's by"):  # of fewer than a hundred, none may be another
        check(lambda _: few, lambda _: found[:, :8], [_pictures(2)], sets=True)


if __name__ == "__main__":
    written(Path(sys.argv[1]), sys.argv[2])
