"""Convolutional and other models of pictures as teachers and students of each other, from folders and from configs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel, TrainingArguments, set_seed
from transformers.utils import is_timm_available

from stilla import DistillationTrainer, Term
from stilla.errors import CompatibilityError
from stilla.export import onnx
from stilla.objectives import Labels, Logits, Maps
from stilla.recipe import ModelSource, StudentSpec
from stilla.stages.starting import start_student
from tests.tasks.tiny import image_processor, labels_of, vit_config
from tests.tasks.vision.test_image_classification import rows_of, task_of

SIZE = 32
STAGES: dict[str, Any] = {"hidden_sizes": [8, 8, 16], "depths": [1, 1, 1]}
LABELS = labels_of("cat", "dog")
FAMILIES: Mapping[str, Callable[[], PreTrainedModel]] = {
    "resnet": lambda: hf.ResNetForImageClassification(
        hf.ResNetConfig(embedding_size=8, layer_type="basic", **STAGES, **LABELS)),
    "bottleneck": lambda: hf.ResNetForImageClassification(hf.ResNetConfig(embedding_size=8, **STAGES, **LABELS)),
    "regnet": lambda: hf.RegNetForImageClassification(
        hf.RegNetConfig(embedding_size=8, groups_width=8, **STAGES, **LABELS)),
    "convnext": lambda: hf.ConvNextForImageClassification(
        hf.ConvNextConfig(num_stages=3, image_size=SIZE, **STAGES, **LABELS)),
    "mobilenet_v2": lambda: hf.MobileNetV2ForImageClassification(
        hf.MobileNetV2Config(image_size=SIZE, depth_multiplier=0.1, finegrained_output=False, **LABELS)),
    "efficientnet": lambda: hf.EfficientNetForImageClassification(hf.EfficientNetConfig(
        image_size=SIZE, hidden_dim=1280, in_channels=[32, 8], out_channels=[8, 8], kernel_sizes=[3, 3], strides=[1, 2],
        num_block_repeats=[1, 1], expand_ratios=[1, 2], depthwise_padding=[], width_coefficient=1.0, depth_coefficient=1.0,
        **LABELS)),
    "swin": lambda: hf.SwinForImageClassification(hf.SwinConfig(
        image_size=SIZE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, **LABELS)),
    "pvt": lambda: hf.PvtForImageClassification(hf.PvtConfig(
        image_size=SIZE, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2],
        sequence_reduction_ratios=[2, 2, 1, 1], mlp_ratios=[2] * 4, num_labels=2, **LABELS)),
    "vit": lambda: hf.ViTForImageClassification(vit_config(image_size=SIZE, patch_size=8, **LABELS)),
}


def folder_of(place: Path, name: str) -> str:
    torch.manual_seed(0)
    FAMILIES[name]().save_pretrained(place)
    image_processor(SIZE).save_pretrained(place)
    return str(place)


def distilled(place: Path, teacher: str, student: StudentSpec) -> PreTrainedModel:
    """The student after two steps, saved, and loaded with transformers alone."""
    rows = rows_of(8)
    task = task_of(rows)
    told = task.load(ModelSource(model=teacher), labelled=True)
    task = task.adapted_to(told)
    set_seed(0)
    made, loaded = start_student(student, task, told)
    before = {name: one.clone() for name, one in made.model.state_dict().items()}
    trainer = DistillationTrainer(
        made, told.model, terms=[Term(Labels()), Term(Logits())], task=task,
        train_dataset=task.prepare(rows, loaded.processor, told.processor, training=True),
        args=TrainingArguments(str(place), per_device_train_batch_size=4, max_steps=2, learning_rate=1e-2, use_cpu=True,
                               report_to=[], save_strategy="no", disable_tqdm=True))
    trainer.train()
    assert any(not torch.equal(before[name], one) for name, one in made.model.named_parameters())
    trainer.save_model(str(place / "student"))
    found: PreTrainedModel = AutoModelForImageClassification.from_pretrained(place / "student")
    pixels = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(found(pixel_values=pixels).logits, made.model.eval()(pixel_values=pixels).logits)
    return found


@pytest.mark.parametrize(("teacher", "student"), [
    ("resnet", "vit"), ("vit", "resnet"), ("bottleneck", "convnext"), ("convnext", "mobilenet_v2"), ("swin", "regnet"),
    ("efficientnet", "swin"), ("regnet", "efficientnet"), ("mobilenet_v2", "bottleneck"), ("pvt", "vit"), ("vit", "pvt")])
@pytest.mark.slow
def test_every_family_teaches_and_learns_from_another(tmp_path: Path, teacher: str, student: str) -> None:
    ours = StudentSpec(model=folder_of(tmp_path / "ours", student))
    found = distilled(tmp_path, folder_of(tmp_path / "theirs", teacher), ours)
    assert type(found) is type(FAMILIES[student]())


def _with_config(place: Path, **changes: Any) -> str:
    """The folder with these fields in its config.json; None: without them."""
    file = place / "config.json"
    said = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in said.items() if value is not None}))
    return str(place)


@pytest.mark.slow
def test_a_pvt_has_as_many_outputs_as_its_labels_have_names(tmp_path: Path) -> None:
    """Its config keeps a number of its own, 1,000 where nothing says it, as in folders of transformers 4."""
    task = task_of(rows_of(4))
    source = ModelSource(model=_with_config(Path(folder_of(tmp_path / "of-4", "pvt")), num_labels=None))
    assert AutoConfig.from_pretrained(source.model).num_labels == 1000
    for labelled in (True, False):
        made = task.load(source, labelled=labelled).model
        assert made.classifier.out_features == 2
        assert made.config.num_labels == 2
        stored = load_file(tmp_path / "of-4/model.safetensors")
        torch.testing.assert_close(made.classifier.weight, stored["classifier.weight"])
        made.save_pretrained(tmp_path / str(labelled))
        again = AutoModelForImageClassification.from_pretrained(tmp_path / str(labelled))
        assert (again.classifier.out_features, again.config.id2label) == (2, {0: "cat", 1: "dog"})
    # of other labels, and of none at all
    for place, changes in (("other", {"id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 3}),
                           ("none", {"id2label": None, "label2id": None})):
        started = task.load(ModelSource(model=_with_config(Path(folder_of(tmp_path / place, "pvt")), **changes)),
                            labelled=False).model
        assert started.classifier.out_features == 2
        assert started.config.id2label == {0: "cat", 1: "dog"}


def test_a_pvt_whose_head_has_other_outputs_than_names_does_not_teach(tmp_path: Path) -> None:
    """What transformers makes where only names are given."""
    names = dict(LABELS)
    hf.PvtForImageClassification(hf.PvtConfig(
        image_size=SIZE, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2],
        sequence_reduction_ratios=[2, 2, 1, 1], **names)).save_pretrained(tmp_path / "m")
    image_processor(SIZE).save_pretrained(tmp_path / "m")
    with pytest.raises(CompatibilityError, match=r"holds weights of other shapes than its config\.json says"):
        task_of(rows_of(4)).load(ModelSource(model=str(tmp_path / "m")), labelled=True)


@pytest.mark.slow
def test_a_resnet_is_distilled_into_a_smaller_one_and_into_fewer_of_its_layers(tmp_path: Path) -> None:
    teacher = folder_of(tmp_path / "teacher", "resnet")
    smaller = distilled(tmp_path / "a", teacher, StudentSpec(config={"hidden_sizes": [4, 4, 8], "embedding_size": 4}))
    assert smaller.config.hidden_sizes == [4, 4, 8]
    assert smaller.config.id2label == {0: "cat", 1: "dog"}
    deep = tmp_path / "deep"
    torch.manual_seed(0)
    hf.ResNetForImageClassification(hf.ResNetConfig(
        embedding_size=8, layer_type="basic", hidden_sizes=[8, 16], depths=[2, 3], **LABELS)).save_pretrained(deep)
    image_processor(SIZE).save_pretrained(deep)
    cut = distilled(tmp_path / "b", str(deep), StudentSpec(layers={"depths": [1, 2]}))  # type: ignore[dict-item]
    assert cut.config.depths == [1, 2]


@pytest.mark.parametrize("name", ["regnet", "convnext", "efficientnet"])  # others: tests/export
@pytest.mark.slow
def test_an_exported_graph_answers_like_the_model(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model, task = FAMILIES[name]().eval(), task_of(rows_of())
    pixels = {"pixel_values": torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))}
    onnx.export_onnx(model, task.axes, task.outputs, [pixels], tmp_path / "model.onnx")  # compares, at 1e-4
    assert (tmp_path / "model.onnx").is_file()


# --- timm ---


@pytest.mark.skipif(is_timm_available(), reason="timm is installed")
def test_a_model_of_timm_is_refused_in_words_where_timm_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "timm_wrapper", "architecture": "resnet18"}', encoding="utf-8")
    with pytest.raises(CompatibilityError, match=r'is a model of timm, which .*pip install "stilla\[timm\]"'):
        task_of(rows_of()).load(ModelSource(model=str(tmp_path)), labelled=True)


class OneStep:
    """Like the processor of transformers' wrapper of timm: transforms in one step, and no mean to be asked for."""

    def __init__(self, size: int) -> None:
        self.inner = image_processor(size, image_mean=[0.2] * 3)

    def to_dict(self) -> dict[str, Any]:
        return {"data_config": {"input_size": self.inner.size["height"]}}

    def __call__(self, picture: Any) -> Any:
        return self.inner(picture, return_tensors="pt")


def test_a_processor_of_transforms_is_taken_as_it_is() -> None:
    rows = rows_of()
    batch = task_of(rows).prepare(rows, image_processor(6), OneStep(9), training=True).collate([2, 1])
    alone = task_of(rows).prepare(rows, image_processor(9, image_mean=[0.2] * 3), None, training=True).collate([2, 1])
    torch.testing.assert_close(batch.teacher["pixel_values"], alone.student["pixel_values"])
    assert batch.student["pixel_values"].shape[-1] == 6


# --- maps between families ---


@pytest.mark.parametrize(("teacher", "student", "distance"), [
    ("vit", "resnet", "cosine"), ("resnet", "vit", "attention")])
@pytest.mark.slow
def test_maps_are_learnt_in_all_directions_however_a_step_is_cut(
    tmp_path: Path, teacher: str, student: str, distance: Any
) -> None:
    rows = rows_of(8)
    task = task_of(rows)
    torch.manual_seed(0)
    told = FAMILIES[teacher]()
    found = []
    for pieces in ((8, 1), (2, 4)):
        torch.manual_seed(1)
        made = FAMILIES[student]()
        frozen = any(isinstance(one, torch.nn.BatchNorm2d) for one in made.modules())
        if frozen:
            with torch.no_grad():
                made.train()(pixel_values=torch.randn(8, 3, SIZE, SIZE))
        set_seed(0)
        prepared = task.prepare(rows, image_processor(SIZE), image_processor(SIZE), training=True)
        trainer = DistillationTrainer(
            made, told, terms=[Term(Maps(distance=distance, pairs="all"))], task=task, train_dataset=prepared,
            batch_norm="frozen" if frozen else "model",
            args=TrainingArguments(str(tmp_path), per_device_train_batch_size=pieces[0], logging_steps=1,
                                   gradient_accumulation_steps=pieces[1], max_steps=8, learning_rate=1e-2, use_cpu=True,
                                   report_to=[], save_strategy="no", disable_tqdm=True))
        trainer.train()
        found.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert found[0] == pytest.approx(found[1], rel=2e-2)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert found[0][-1] < 0.9 * found[0][0]
