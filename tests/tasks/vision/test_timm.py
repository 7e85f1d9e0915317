"""Models of timm as teachers and students: heads, names of labels, pictures, files; most of it where timm is installed."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.utils import is_timm_available

import stilla
from stilla.export.deploy import readme
from stilla.export.session import OnnxModel
from stilla.recipe import ModelSource
from tests.tasks.tiny import labels_of, vit_folder
from tests.tasks.vision.test_families import OneStep
from tests.tasks.vision.test_image_classification import rows_of, task_of

with_timm = pytest.mark.skipif(not is_timm_available(), reason="timm and torchvision are not installed")
NAMES = ("blue", "green", "red")


def made(place: Path, kind: str = "test_resnet", names: tuple[str, ...] = NAMES, seed: int = 0) -> str:
    """As timm's own models lie on the hub: the weights by its names, and a config that says no model type."""
    timm: Any = importlib.import_module("timm")
    torch.manual_seed(seed)
    model = timm.create_model(kind, num_classes=len(names))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.1)
    place.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, place / "model.safetensors",
              {"format": "pt"})
    (place / "config.json").write_text(json.dumps({
        "architecture": kind, "num_classes": len(names), "num_features": model.num_features, "label_names": list(names),
        "pretrained_cfg": {name: value for name, value in model.pretrained_cfg.items()
                           if isinstance(value, str | int | float | bool | list | tuple)}}))
    return str(place)


def pictures(place: Path, count: int = 8, names: tuple[str, ...] = NAMES) -> str:
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for channel, name in enumerate(names):
            (place / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 120, (40, 56, 3)).astype(np.uint8)
                pixels[8:24, 8:40, 2 - channel] = 220
                PIL.Image.fromarray(pixels).save(place / split / name / f"{number}.png")
    return str(place)


def recipe(place: Path, **changes: Any) -> dict[str, Any]:
    return {"task": "image-classification", "data": {"train": pictures(place / "data")}, "allow_weak_teacher": True,
            "distill": {"max_steps": 2, "batch_size": 8, "precision": "float32"}, "output": str(place / "run"),
            "evaluate": {"resamples": 100, "speed": False}, **changes}


class Tensors(OneStep):
    """Which gives tensors of torch and nothing else, as timm's does."""

    def __call__(self, picture: Any, return_tensors: str = "pt") -> Any:
        if return_tensors != "pt":
            raise ValueError("return_tensors must be 'pt'")
        return self.inner(picture, return_tensors="pt")


class File(OnnxModel):
    def __init__(self) -> None:
        self.inputs, self.output, self.shapes = ("pixel_values",), "logits", {}


def test_the_program_beside_a_file_asks_transforms_for_what_they_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A config of timm names its labels otherwise than others."""
    config = AutoConfig.for_model("timm_wrapper", architecture="test_resnet", **labels_of("cat", "dog"))
    config.pretrained_cfg = {"classifier": "fc"}
    (program,) = re.findall(r"```python\n(.*?)```", readme(File(), "", config, task_of(rows_of()), Tensors(9)), re.DOTALL)

    class Session:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def get_inputs(self) -> list[Any]:
            return [type("Input", (), {"name": "pixel_values"})]

        def run(self, _: Any, inputs: Any) -> Any:
            assert type(inputs["pixel_values"]) is np.ndarray
            return (np.array([[0.0, float(inputs["pixel_values"].shape[-1])]]),)

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", lambda *_, **__: Tensors(9))
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("RGB", (20, 12)).save("picture.png")
    Path("config.json").write_text(json.dumps(config.to_dict()))
    said: list[Any] = []
    exec(program, {"print": said.append})
    assert said == [["dog"]]


@with_timm
@pytest.mark.parametrize("kind", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_a_teacher_of_timm_answers_as_timm_does(tmp_path: Path, kind: str) -> None:
    timm: Any = importlib.import_module("timm")
    rows = rows_of()
    task = task_of(rows)
    loaded = task.load(ModelSource(model=made(tmp_path / "m", kind, ("dog", "cat"))), labelled=True)
    task = task.adapted_to(loaded)
    assert task.problem.names == ("dog", "cat")  # by name, in the teacher's order
    batch = task.prepare(rows, loaded.processor, None, training=False).collate(range(len(rows)))
    plain = timm.create_model(kind, num_classes=2).eval()
    plain.load_state_dict(load_file(tmp_path / "m/model.safetensors"))
    see = timm.data.create_transform(**timm.data.resolve_model_data_config(plain))
    shown = torch.stack([see(one.convert("RGB")) for one in rows["image"]])
    torch.testing.assert_close(batch.student["pixel_values"], shown, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model.eval()(**batch.student).logits, plain(shown), rtol=1e-5, atol=1e-5)


@with_timm
@pytest.mark.parametrize("names", [("a", "b", "c", "d"), ("red", "blue", "green")])
def test_a_student_of_other_labels_has_a_new_head_with_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Another number of them, or as many in another order."""
    source = ModelSource(model=made(tmp_path / "m", "test_vit", names))
    rows = rows_of(6)
    split = rows.remove_columns("label").add_column("label", [*NAMES, *NAMES])
    loaded = task_of(split).load(source, labelled=False)
    stored, own = load_file(tmp_path / "m/model.safetensors"), loaded.model.state_dict()
    for name, value in stored.items():
        here = own[f"timm_model.{name}"]
        if name != "head.bias":  # 0, before and after
            assert (here.shape == value.shape and torch.equal(here, value)) is (name != "head.weight"), name
    loaded.model.save_pretrained(tmp_path / "again")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "again")
    assert again.config.id2label == dict(enumerate(NAMES))
    assert json.loads((tmp_path / "again/config.json").read_text())["label_names"] == list(NAMES)


@with_timm
@pytest.mark.parametrize("labelled", [True, False])
def test_what_timm_writes_of_how_a_model_was_made_is_no_hindrance(tmp_path: Path, labelled: bool) -> None:
    """transformers gives timm the number of classes, and once more where it stands among these."""
    config = Path(made(tmp_path / "m", "test_vit")) / "config.json"
    given = {"num_classes": 3, "in_chans": 3, "global_pool": "token"}
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_args": given}))
    split = rows_of(6).remove_columns("label").add_column("label", [*NAMES, *NAMES])
    loaded = task_of(split).load(ModelSource(model=str(tmp_path / "m")), labelled=labelled)
    loaded.model.save_pretrained(tmp_path / "again")
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "again").config.id2label == dict(enumerate(NAMES))


@with_timm
@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "student"), [("test_resnet", "test_vit"), ("test_convnext", "test_efficientnet")])
def test_a_run_between_models_of_timm_is_used_as_its_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: str, student: str
) -> None:
    """The student was made for other classes; its teacher is trained first."""
    theirs = {"model": made(tmp_path / "teacher", teacher, ("x", "y")), "train": {"max_steps": 2, "precision": "float32"}}
    run = stilla.distill(recipe(tmp_path, teacher=theirs, export=["onnx"], student={
        "model": made(tmp_path / "student", student, tuple("abcdefg"))}))
    plain = AutoModelForImageClassification.from_pretrained(run.student).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(run.student)
    right = run.scores.student.quality["test"]["accuracy"].value
    files = sorted(Path(tmp_path / "data/test").glob("*/*.png"))
    with torch.no_grad():
        said = plain(processor([PIL.Image.open(one) for one in files], return_tensors="pt")["pixel_values"]).logits.argmax(-1)
    assert np.mean([plain.config.id2label[int(one)] == file.parent.name for one, file in zip(said, files)]) == right
    (program,) = re.findall(r"```python\n(.*?)```", (run.folder / "export/onnx/README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(run.folder / "export/onnx")
    printed: list[Any] = []
    for file, one in zip(files, said):
        PIL.Image.open(file).save("picture.png")
        exec(program, {"print": printed.append})
        assert printed[-1] == [plain.config.id2label[int(one)]]


@with_timm
@pytest.mark.slow
def test_models_of_timm_teach_others_and_learn_from_them(tmp_path: Path) -> None:
    other = str(vit_folder(tmp_path / "vit", **labels_of(*NAMES)))
    pairs = {"a": (made(tmp_path / "resnet"), other), "b": (other, made(tmp_path / "own", "test_vit"))}
    for place, (teacher, student) in pairs.items():
        run = stilla.distill(recipe(tmp_path / place, teacher=teacher, student={"model": student}, cache={"form": "dense"}))
        assert set(run.scores.subjects) == {"teacher", "student"}
