"""Models by import path teach and learn like others; checkpoints that do not fit exactly are refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError, StillaError
from stilla.recipe import ModelSource
from stilla.runtime.imports import import_path, is_import_path
from stilla.signals import Dense
from stilla.tasks import find
from stilla.tasks.base import Side
from stilla.tasks.shared.imported import ImportedModel
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.vision.image_classification import ImageClassification
from stilla.tasks.vision.sections import ImageClassificationData
from tests.tasks import own_models
from tests.tasks.text.test_text_classification import ROWS
from tests.tasks.tiny import bert_tokenizer, image_processor, splits_of
from tests.tasks.vision.test_image_classification import rows_of

HERE = own_models.__name__


@pytest.fixture
def images(tmp_path: Path) -> tuple[ImageClassification, str]:
    image_processor(8).save_pretrained(tmp_path / "processor")
    task = ImageClassification.understand(ImageClassificationData(train="x"), {"train": rows_of()})
    return task, str(tmp_path / "processor")


@pytest.fixture
def texts(tmp_path: Path) -> tuple[TextClassification, str]:
    bert_tokenizer().save_pretrained(tmp_path / "processor")
    return TextClassification.understand(TextClassificationData(train="x"), splits_of(ROWS)), str(tmp_path / "processor")


def checkpoint(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: torch.full_like(value, 0.25) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("form", [".pth", ".pt", ".safetensors", "state_dict", "module."])
def test_a_model_of_ones_own_is_filled_from_its_checkpoint(images: Any, tmp_path: Path, form: str) -> None:
    task, processor = images
    state: Any = checkpoint(own_models.Convolutional())
    path = tmp_path / ("weights" + (form if form.startswith(".") else ".pth"))
    if form == ".safetensors":
        save_file(state, path)
    else:
        prefixed = {f"module.{name}": value for name, value in state.items()}
        torch.save({"state_dict": {"state_dict": state, "epoch": 3}, "module.": prefixed}.get(form, state), path)
    source = ModelSource(model=f"{HERE}:Convolutional", weights=str(path), processor=processor)
    loaded = task.load(source, labelled=True)
    assert isinstance(loaded.model, ImportedModel)
    assert all((value == 0.25).all() for value in loaded.model.state_dict().values())
    assert task.adapted_to(loaded).class_names() == ("cat", "dog")
    batch = task.prepare(rows_of(), loaded.processor, None, training=False).collate([0, 1])
    signals = task.signals(loaded.model(**batch.student), batch, Side.TEACHER)
    assert isinstance(signals.logits, Dense)
    assert signals.logits.logits.shape == (2, 2)


@pytest.mark.parametrize(("name", "kind"), [("Named", "images"), ("Bag", "texts"), ("Maskless", "texts")])
def test_models_are_called_with_their_own_arguments(
    request: pytest.FixtureRequest, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    task, processor = request.getfixturevalue(kind)
    with caplog.at_level(logging.WARNING):
        loaded = task.load(ModelSource(model=f"{HERE}:{name}", processor=processor), labelled=False)
    assert ("takes no attention_mask" in caplog.text) == (name == "Maskless")
    rows = rows_of() if kind == "images" else Dataset.from_dict(ROWS)
    batch = task.prepare(rows, loaded.processor, None, training=False).collate([0, 1, 2])
    assert "token_type_ids" not in batch.student
    whole = task.outputs(loaded.model(**batch.student))
    assert whole.shape == (3, 2)
    alone = task.prepare(rows, loaded.processor, None, training=False).collate([1])
    torch.testing.assert_close(task.outputs(loaded.model(**alone.student)), whole[1:2])


def test_the_number_of_labels_is_given_to_who_takes_it(images: Any) -> None:
    rows = rows_of(6).remove_columns("label").add_column("label", ["a", "b", "c"] * 2)
    task = ImageClassification.understand(ImageClassificationData(train="x"), {"train": rows})
    loaded = task.load(ModelSource(model=f"{HERE}:Convolutional", processor=images[1]), labelled=False)
    assert loaded.model.config.id2label == {0: "a", 1: "b", 2: "c"}  # type: ignore[union-attr]
    with pytest.raises(CompatibilityError, match="gives 2 outputs, the data have 3 labels"):
        task.load(ModelSource(model=f"{HERE}:Named", processor=images[1]), labelled=False)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("should never be printed",))


def test_a_checkpoint_with_more_than_tensors_is_never_run(
    images: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weights": Evil()}, tmp_path / "evil.pth")
    source = ModelSource(model=f"{HERE}:Convolutional", weights=str(tmp_path / "evil.pth"), processor=images[1])
    with pytest.raises(CompatibilityError, match="holds more than tensors, and reading that could run code"):
        images[0].load(source, labelled=True)
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("head.bias"), r"missing 1: head\.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected 1: extra"),
        (lambda state: state.update({"head.bias": torch.zeros(5)}), r"head\.bias is \(5,\), the model's \(2,\)"),
        (lambda state: state.update(epoch=3), "is no state dict"),
    ],
)
def test_weights_that_do_not_fit_are_refused(images: Any, tmp_path: Path, change: Any, words: str) -> None:
    state: dict[str, Any] = checkpoint(own_models.Convolutional())
    change(state)
    torch.save(state, tmp_path / "w.pth")
    source = ModelSource(model=f"{HERE}:Convolutional", weights=str(tmp_path / "w.pth"), processor=images[1])
    with pytest.raises(CompatibilityError, match=words):
        images[0].load(source, labelled=True)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"model": f"{HERE}:Flat"}, r"the model's logits are \(2,\); expected \(batch, labels\)"),
        ({"model": f"{HERE}:Bag"}, r"its forward fails on pixel_values \(2, 3, 8, 8\)"),
        ({"model": f"{HERE}:not_a_module"}, "returned str; expected an nn.Module"),
        ({"model": f"{HERE}:number"}, "is int; expected a function or class"),
        ({"model": f"{HERE}:Convolutionel"}, r"has no 'Convolutionel'\. Did you mean Convolutional\?"),
        ({"model": "no_such_module:Model"}, "the module 'no_such_module' cannot be imported"),
        ({"model": f"{HERE}:Convolutional", "weights": "/nowhere/w.pth"}, "no such file"),
        ({"model": f"{HERE}:Convolutional", "weights": __file__}, "cannot be read|more than tensors"),
        ({"model": f"{HERE}:Convolutional", "processor": None}, "is a model by import path and brings none"),
    ],
)
def test_what_is_no_model_is_refused(images: Any, source: dict[str, Any], words: str) -> None:
    with pytest.raises(StillaError, match=words):
        images[0].load(ModelSource(**{"processor": images[1], **source}), labelled=True)


def test_weights_are_for_models_by_import_path(images: Any, tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="is a Hugging Face model and brings its own weights"):
        images[0].load(ModelSource(model=str(tmp_path), weights="w.pth"), labelled=True)


def test_import_paths_are_told_from_other_names() -> None:
    assert [name for name in ("a.b:C", "C:\\bert", "https://x.y:80/z", "user/model", "./a:b", "a-b:C", "m:f")
            if is_import_path(name)] == ["a.b:C", "m:f"]  # fmt: skip
    assert import_path("math:pi") > 3


def test_tasks_are_found_by_name_or_import_path() -> None:
    assert find("text-classification") is TextClassification
    assert find("stilla.tasks.vision.image_classification:ImageClassification") is ImageClassification
    with pytest.raises(RecipeError, match=r"task: got 'text-clasification'; .* Did you mean text-classification\?"):
        find("text-clasification")
    with pytest.raises(RecipeError, match="which is not a subclass of"):
        find("math:pi")
