"""Semantic segmentation: from pictures and masks to rows, and what models of every family say as rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, ConvNextConfig

from stilla import data, objectives
from stilla.errors import CompatibilityError
from stilla.objectives import Channels, Labels, Logits
from stilla.recipe import ModelSource
from stilla.rows import row_loss
from stilla.signals import Batch, Dense, Side
from stilla.tasks import of_model
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.forward import listen
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision.segmentation import SemanticSegmentation
from stilla.tasks.vision.segmentation_models import on_grid, scores, whole_pictures
from stilla.teachers import CachedTeacher, CapturingTeacher, LiveTeacher
from stilla.teachers.keeping import Keep
from tests.tasks.vision.scenes import NAMES, loaded, processor, section, segformer, table


def bound(place: Path, count: int = 6, **said: Any) -> tuple[SemanticSegmentation, Dataset]:
    asked = section(train=table(place / "t.parquet", count), **said)
    split = data.sources.read(str(asked.train))["train"]
    return SemanticSegmentation.understand(asked, {"train": split}), split


def batch_of(task: SemanticSegmentation, split: Dataset, student: Any, teacher: Any = None, **how: Any) -> Batch:
    prepared = task.prepare(split, student, teacher, training=True, **how)
    return prepared.collate(range(len(prepared)))


SWIN: dict[str, Any] = {"model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1],
                        "num_heads": [1, 2, 2, 4], "window_size": 2, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
VIT: dict[str, Any] = {"image_size": 64, "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 4,
                       "num_attention_heads": 2, "intermediate_size": 32}
QUERIES: dict[str, Any] = {"mask_feature_size": 32, "hidden_dim": 32, "encoder_feedforward_dim": 32, "encoder_layers": 1,
                           "decoder_layers": 2, "num_attention_heads": 2, "dim_feedforward": 32, "num_queries": 5}
FAMILIES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "beit": ("Beit", "BeitForSemanticSegmentation", {
        **VIT, "out_indices": [1, 2, 3, 4], "out_features": None, "use_auxiliary_head": False, "pool_scales": [1, 2]}, 64),
    "data2vec": ("Data2VecVision", "Data2VecVisionForSemanticSegmentation", {
        **VIT, "out_indices": [0, 1, 2, 3], "use_auxiliary_head": False, "pool_scales": [1, 2]}, 64),
    "dpt": ("DPT", "DPTForSemanticSegmentation", {
        **VIT, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8,
        "use_auxiliary_head": False}, 64),
    "mobilevit": ("MobileViT", "MobileViTForSemanticSegmentation", {
        "image_size": 64, "hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [4, 8, 8, 12, 12, 16, 16],
        "aspp_out_channels": 16, "output_stride": 16}, 64),
    "mobilevitv2": ("MobileViTV2", "MobileViTV2ForSemanticSegmentation", {
        "image_size": 64, "width_multiplier": 0.25, "aspp_out_channels": 16, "output_stride": 16}, 64),
    "mobilenet_v2": ("MobileNetV2", "MobileNetV2ForSemanticSegmentation", {"image_size": 64, "depth_multiplier": 0.2}, 64),
    "upernet": ("UperNet", "UperNetForSemanticSegmentation", {
        "backbone_config": ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4,
                                          out_features=["stage1", "stage2", "stage3", "stage4"]),
        "hidden_size": 16, "pool_scales": [1, 2], "use_auxiliary_head": False}, 64),
    "mask2former": ("Mask2Former", "Mask2FormerForUniversalSegmentation", {
        "backbone_config": SWIN, "feature_size": 32, **QUERIES}, 64),
    "maskformer": ("MaskFormer", "MaskFormerForInstanceSegmentation", {
        "backbone_config": SWIN, "fpn_feature_size": 32, "mask_feature_size": 32,
        "decoder_config": {"model_type": "detr", "d_model": 16, "decoder_layers": 1, "encoder_layers": 1, "num_queries": 5,
                           "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "encoder_ffn_dim": 32,
                           "encoder_attention_heads": 2, "use_timm_backbone": False, "backbone": None,
                           "backbone_config": {"model_type": "resnet"}}}, 64),
    "eomt": ("Eomt", "EomtForUniversalSegmentation", {
        **VIT, "num_blocks": 1, "num_queries": 5, "num_upscale_blocks": 2}, 64),
}


def family(name: str, place: Path) -> Path:
    config, model, options, size = FAMILIES[name]
    torch.manual_seed(0)
    made = getattr(transformers, f"{config}Config")(
        **options, id2label=dict(enumerate(NAMES)), label2id={one: number for number, one in enumerate(NAMES)})
    getattr(transformers, model)(made).save_pretrained(place)
    processor(size).save_pretrained(place)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_for_every_place_of_the_grid_and_takes_gradients(name: str, tmp_path: Path) -> None:
    task, split = bound(tmp_path, 2)
    one = loaded(task, family(name, tmp_path / name))
    batch = batch_of(task, split, one.processor)
    said = listen(one.model, task, batch, Side.STUDENT)
    assert isinstance(said.logits, Dense)
    assert said.logits.logits.shape == (2 * 16 * 16, 3)
    assert said.grid == (16, 16)
    loss, _ = row_loss(((Labels(), 1.0),), said.logits, None, said.labels, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert any(float(weight.grad.abs().max()) > 0 for weight in one.model.parameters() if weight.grad is not None)


def test_a_row_is_a_place_of_the_grid_and_the_middle_of_it_says_its_class(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 2)
    batch = batch_of(task, split, processor(32))
    assert batch.labels is not None
    assert batch.labels.shape == (2, 8, 8)
    assert batch["sizes"].tolist() == [[40, 56]] * 2
    ids = task._ids().encoded(np.asarray(split.with_format(None)[0]["mask"]))
    expected = ids[np.ix_([int((one + 0.5) * 5) for one in range(8)], [int((one + 0.5) * 7) for one in range(8)])]
    np.testing.assert_array_equal(batch.labels[0], expected)
    batch.labels[1, 3] = NO_ANSWER
    assert task.counts(batch) == {"rows": 128, "labelled": 120, "tokens": 2, "examples": 2, "pictures": 2}


@pytest.mark.slow
def test_garbage_where_nothing_is_labelled_changes_no_loss_of_labels_and_no_gradient(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 2)
    one = loaded(task, segformer(tmp_path / "t"))
    batch = batch_of(task, split, one.processor)
    assert batch.labels is not None
    batch["labels"][:, :3] = NO_ANSWER
    said = listen(one.model, task, batch, Side.STUDENT)
    assert isinstance(said.logits, Dense)
    assert said.labels is not None
    logits = said.logits.logits.detach()
    free = said.labels == NO_ANSWER
    noisy = torch.where(free[:, None], 50 * torch.randn(logits.shape), logits)
    found = []
    for values in (logits, noisy):
        leaf = values.clone().requires_grad_()
        loss, _ = row_loss(((Labels(), 1.0),), Dense(leaf), None, said.labels, 0.0)
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((float(loss.detach()), leaf.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert found[0][1] is not None
    assert found[1][1] is not None
    assert not found[1][1][free].any()
    torch.testing.assert_close(found[0][1][~free], found[1][1][~free])


def test_a_picture_of_255_alone_adds_no_labelled_row_and_no_number_that_is_none(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 2)
    one = loaded(task, segformer(tmp_path / "t"))
    batch = batch_of(task, split, one.processor)
    batch["labels"] = torch.full_like(batch["labels"], NO_ANSWER)
    assert task.counts(batch)["labelled"] == 0
    said = listen(one.model, task, batch, Side.STUDENT)
    assert isinstance(said.logits, Dense)
    loss, _ = row_loss(((Labels(), 1.0), (Logits(), 1.0)), said.logits, said.logits, said.labels, 0.0)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
def test_a_teacher_of_another_resolution_is_brought_to_the_students_grid(tmp_path: Path) -> None:
    """Of smooth logits, a quarter's grid and the whole one say nearly the same; on one grid, exactly."""
    task, split = bound(tmp_path, 2)
    down, across = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    fine = torch.stack([down, across, 0.5 * down * across])[None]
    coarse = torch.nn.functional.avg_pool2d(fine, 4)
    grid = (16, 16)
    assert on_grid(coarse, grid) is coarse
    ours, theirs = (Dense(on_grid(one, grid).permute(0, 2, 3, 1).flatten(0, 2)) for one in (coarse, fine))
    loss, _ = row_loss(((Logits(temperature=1.0), 1.0 / 256),), ours, theirs, None, 0.0)
    assert float(loss) < 1e-4
    same, _ = row_loss(((Logits(temperature=1.0), 1.0),), ours, ours, None, 0.0)
    assert float(same) == pytest.approx(0, abs=1e-5)
    one = loaded(task, segformer(tmp_path / "t"))
    batch = batch_of(task, split, processor(32), processor(64))
    said = listen(one.model, task, batch, Side.TEACHER)
    assert (batch.teacher["pixel_values"].shape[-1], said.grid) == (64, (8, 8))
    student, teacher = task.align(listen(one.model, task, batch, Side.STUDENT), said, batch)
    assert float(Channels().total(student, teacher, 0.0).detach()) > 0


def test_queries_become_a_distribution_over_the_classes_of_each_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    classes, masks = torch.randn(2, 5, 4, generator=generator), torch.randn(2, 5, 6, 7, generator=generator)
    said = scores({"class_queries_logits": classes, "masks_queries_logits": masks})
    shares = np.einsum("bqc,bqhw->bchw", classes.softmax(-1)[..., :-1].numpy(), masks.sigmoid().numpy())
    np.testing.assert_allclose(said.exp().numpy(), shares / shares.sum(1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(said.exp().sum(1), 1, rtol=1e-5)
    with pytest.raises(CompatibilityError, match="expected `logits`, or `class_queries_logits`"):
        scores({"pred_boxes": classes})


@pytest.mark.parametrize(("name", "expected"), [
    ("mobilevit", {"size": {"height": 256, "width": 256}, "do_center_crop": False}),
    ("eomt", {"size": {"height": 640, "width": 640}}), ("mask2former", {"size": {"height": 800, "width": 800}}),
    ("dpt", {"size": {"height": 384, "width": 384}}), ("segformer", {"size": {"height": 512, "width": 512}}),
])
def test_processors_are_made_to_see_whole_pictures_of_one_size(name: str, expected: dict[str, Any], tmp_path: Path) -> None:
    names = {"mobilevit": "MobileViT", "eomt": "Eomt", "mask2former": "Mask2Former", "dpt": "DPT", "segformer": "Segformer"}
    made = whole_pictures(getattr(transformers, f"{names[name]}ImageProcessorPil")(), None, name)
    picture = np.zeros((40, 56, 3), np.uint8)
    assert made(picture, return_tensors="np")["pixel_values"].shape == (1, 3, *expected["size"].values())
    made.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert again(picture, return_tensors="np")["pixel_values"].shape == (1, 3, *expected["size"].values())
    own = again.to_dict()
    assert {key: {a: b for a, b in own[key].items() if b} if isinstance(own[key], dict) else own[key] for key in expected} \
        == expected
    assert whole_pictures(again, None, name) is again
    small = whole_pictures(again, (64, 96), name)(picture, return_tensors="np")["pixel_values"]
    assert small.shape == (1, 3, 64, 96)


def test_a_side_that_a_processor_would_fill_up_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"data.size: got \[50, 64\]; expected multiples of 32"):
        whole_pictures(transformers.Mask2FormerImageProcessorPil(), (50, 64), "teacher")


def test_a_student_reads_at_the_size_of_the_recipe_and_says_so_in_its_folder(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 2, size=[24, 40])
    one = loaded(task, segformer(tmp_path / "t"))
    batch = batch_of(task, split, one.processor)
    assert batch.student["pixel_values"].shape == (2, 3, 24, 40)
    assert batch.labels is not None
    assert batch.labels.shape == (2, 6, 10)


def test_the_teachers_order_of_classes_is_taken(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 2)
    teacher = loaded(task, segformer(tmp_path / "t", ("road", "1", "sky", "tree")))
    adapted = task.adapted_to(teacher)
    assert adapted.class_names() == ("road", "1", "sky", "tree")
    before, after = (batch_of(one, split, teacher.processor).labels for one in (task, adapted))
    assert before is not None
    assert after is not None
    moved = torch.tensor([2, 3, 0])[before.clamp_min(0)]
    assert torch.equal(after, torch.where(before == NO_ANSWER, NO_ANSWER, moved))


@pytest.mark.slow
def test_a_teacher_that_reduces_labels_wants_it_said(tmp_path: Path) -> None:
    task, _ = bound(tmp_path, 2)
    place = segformer(tmp_path / "t")
    processor(32, do_reduce_labels=True).save_pretrained(place)
    with pytest.raises(CompatibilityError, match=r"its processor reduces labels .* Set data.reduce_labels: true, or false"):
        task.adapted_to(loaded(task, place))
    said, _ = bound(tmp_path, 2, reduce_labels=False)
    assert said.adapted_to(loaded(said, place)).class_names() == NAMES


@pytest.mark.slow
@pytest.mark.parametrize(("names", "words"), [
    (("sky", "sea"), "does not know 2 of the data's 3 labels"),
    (("one",), "answers with regression|has one output|gives"),
])
def test_a_teacher_of_other_classes_is_refused(names: tuple[str, ...], words: str, tmp_path: Path) -> None:
    task, _ = bound(tmp_path, 2)
    with pytest.raises(CompatibilityError, match=words):
        task.adapted_to(loaded(task, segformer(tmp_path / "t", names)))


def test_a_cache_gives_the_teachers_maps_back_and_keeps_grids_apart(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 4)
    one = loaded(task, segformer(tmp_path / "t", std=0.3))
    batch = batch_of(task, split, one.processor, one.processor)
    live = LiveTeacher(one.model, task)
    capturing = CapturingTeacher(live, task, tmp_path / "cache", Keep(), {})
    capturing(batch)
    capturing.close()
    cached = CachedTeacher(tmp_path / "cache", task)
    expected, found = live(batch), cached(batch)
    assert isinstance(expected.logits, Dense)
    assert isinstance(found.logits, Dense)
    torch.testing.assert_close(found.logits.logits, expected.logits.logits)
    finer, _ = bound(tmp_path, 4, stride=2)
    other = batch_of(finer, split, one.processor, one.processor)
    assert {a.content for a in task.segments(batch)}.isdisjoint(b.content for b in finer.segments(other))


def test_augmentation_depends_on_seed_epoch_and_key_alone_and_both_sides_see_the_same(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 4, augment="flips")
    plain = processor(32, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    prepared = task.prepare(split, processor(32), plain, training=True, seed=3)
    assert prepared.on_epoch is not None
    prepared.on_epoch(1)
    first, alone = prepared.collate([0, 1, 2, 3]), prepared.collate([2])
    assert torch.equal(first.student["pixel_values"][2], alone.student["pixel_values"][0])
    assert torch.equal(first["labels"][2], alone["labels"][0])
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(first.student["pixel_values"] * std + mean, first.teacher["pixel_values"], atol=1e-5, rtol=0)
    prepared.on_epoch(2)
    assert not torch.equal(first.student["pixel_values"], prepared.collate([0, 1, 2, 3]).student["pixel_values"])
    assert task.prepare(split, processor(32), None, training=False).on_epoch is None


def test_what_does_not_fit_into_memory_is_read_again_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, split = bound(tmp_path, 4)
    kept = batch_of(task, split, processor(32), processor(16))
    monkeypatch.setattr("stilla.tasks.vision.scenes._KEEP", 0)
    again = batch_of(task, split, processor(32), processor(16))
    for name in ("student", "teacher"):
        assert torch.equal(kept[name]["pixel_values"], again[name]["pixel_values"])
    assert torch.equal(kept["labels"], again["labels"])
    assert torch.equal(kept["sizes"], again["sizes"])


def test_unlabelled_pictures_stand_beside_labelled_ones_and_have_rows_without_label(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 3)
    pool = Dataset.from_parquet(table(tmp_path / "p.parquet", 2, 50, masks=False))
    found = task.usable(task.unlabelled(pool, {}))
    assert found.column_names == ["image"]
    joined = data.joined(task.beside(split), found)
    batch = batch_of(task, joined, processor(32))
    assert batch.labels is not None
    assert (batch.labels[3:] == NO_ANSWER).all()
    assert task.counts(batch)["rows"] == 5 * 64
    assert (batch.labels[:3] != NO_ANSWER).any((1, 2)).all()


def test_a_batch_of_a_persons_own_has_its_border_taken_for_no_class(tmp_path: Path) -> None:
    model = AutoModelForSemanticSegmentation.from_pretrained(segformer(tmp_path / "t"))
    task = of_model(model)
    assert isinstance(task, SemanticSegmentation)
    labels = torch.randint(0, 3, (2, 32, 32))
    labels[:, 0] = 255
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32)}
    batch = Batch(student=inputs, teacher=inputs, labels=task.placed(labels))
    assert task.counts(batch)["labelled"] == 2 * 31 * 32
    said = listen(model.eval(), task, batch, Side.STUDENT)
    assert isinstance(said.logits, Dense)
    loss, _ = row_loss(((Labels(), 1 / (2 * 31 * 32)),), said.logits, None, said.labels, 0.0)
    assert float(loss.detach()) == pytest.approx(float(model(**inputs, labels=labels).loss.detach()), rel=1e-4)


class Own(nn.Module):
    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, num_labels, 3, stride=2, padding=1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.one(pixel_values)
        return made


def flat(num_labels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_labels))


def test_a_module_of_a_persons_own_answers_on_any_grid(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 2)
    place = segformer(tmp_path / "t")
    source = ModelSource(model=f"{__name__}:Own", processor=str(place))
    one = task.load(source, labelled=False)
    batch = batch_of(task, split, one.processor)
    said = listen(one.model, task, batch, Side.STUDENT)
    assert isinstance(said.logits, Dense)
    assert said.logits.logits.shape == (128, 3)
    with pytest.raises(CompatibilityError, match=r"expected \(batch, labels, height, width\)"):
        task.load(source.model_copy(update={"model": f"{__name__}:flat"}), labelled=False)


def test_folders_without_processor_or_of_other_heads_are_refused(tmp_path: Path) -> None:
    task, _ = bound(tmp_path, 2)
    place = segformer(tmp_path / "t")
    (place / "preprocessor_config.json").unlink()
    with pytest.raises(CompatibilityError, match="holds no image processor"):
        loaded(task, place)


def test_a_teachers_pixels_are_learnt_as_they_are() -> None:
    """Softened, the pixels of which it is sure would drown the rest."""
    labels, logits = SemanticSegmentation(Problem("class", ())).learns_by()
    assert (labels.kind, labels.weight(0)) == ("labels", 0.3)
    made = objectives.term(logits).objective
    assert isinstance(made, Logits)
    assert (logits.weight(0), made.temperatures) == (0.7, (1.0,))
