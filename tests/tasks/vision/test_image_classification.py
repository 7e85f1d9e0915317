"""From columns of pictures to pixels, for one or two image processors, with and without augmentation."""

from __future__ import annotations

import base64
import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from sklearn.metrics import f1_score
from torch.utils.data import DataLoader
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from stilla import data, tasks
from stilla.data import sources
from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource, StudentSpec
from stilla.signals import Dense
from stilla.stages.starting import start_student
from stilla.tasks.answers import Answers
from stilla.tasks.base import Side
from stilla.tasks.vision import pixels as _pixels
from stilla.tasks.vision.image_classification import ImageClassification
from stilla.tasks.vision.pictures import Pictures, as_rgb, light
from stilla.tasks.vision.sections import ImageClassificationData
from stilla.views import Picture
from tests.tasks.tiny import image_processor, labels_of, vit_config, vit_folder


def noise(size: int = 12, seed: int = 0, channels: int = 3) -> np.ndarray[Any, Any]:
    shape = (size, size, channels) if channels > 1 else (size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(array: np.ndarray[Any, Any]) -> bytes:
    written = BytesIO()
    PIL.Image.fromarray(array).save(written, "PNG")
    return written.getvalue()


def rows_of(count: int = 4, size: int = 12) -> Dataset:
    return Dataset.from_dict(
        {"image": [{"bytes": png(noise(size, seed)), "path": None} for seed in range(count)],
         "label": ["cat", "dog"] * (count // 2)},
        features=Features({"image": Image(), "label": Value("string")}),
    )  # fmt: skip


def task_of(rows: Dataset, **section: Any) -> ImageClassification:
    return ImageClassification.understand(ImageClassificationData(train="x", **section), {"train": rows})


def by_hand(picture: PIL.Image.Image, processor: ViTImageProcessorPil) -> np.ndarray[Any, Any]:
    """What the processor is documented to do: resize bilinearly, to 0..1, minus mean, by deviation."""
    size = (processor.size["width"], processor.size["height"])
    pixels = np.asarray(picture.resize(size, PIL.Image.Resampling.BILINEAR), np.float64) / 255
    return ((pixels - processor.image_mean) / processor.image_std).transpose(2, 0, 1)


def test_a_batch_holds_finished_pixels_labels_and_keys() -> None:
    rows, processor = rows_of(), image_processor(8, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    prepared = task_of(rows).prepare(rows, processor, None, training=True)
    batch = prepared.collate([prepared.examples[3], prepared.examples[0]])
    assert batch.student["pixel_values"].shape == (2, 3, 8, 8)
    assert batch.student["pixel_values"].dtype == torch.float32
    for row, key in enumerate((3, 0)):
        oracle = by_hand(PIL.Image.fromarray(noise(12, key)), processor)
        np.testing.assert_allclose(batch.student["pixel_values"][row], oracle, atol=1e-5)
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0]
    assert batch.keys_ is not None
    assert batch.keys_.tolist() == [3, 0]
    assert batch.teacher is batch.student
    assert prepared.lengths is None


@pytest.mark.parametrize("augment", ["none", "light"])
def test_two_processors_see_the_same_crop_each_in_its_own_way(augment: str) -> None:
    rows = rows_of()
    small, large = image_processor(6), image_processor(9, image_mean=[0.1] * 3, image_std=[0.7] * 3)
    prepared = task_of(rows, augment=augment).prepare(rows, small, large, training=True, seed=5)
    batch = prepared.collate([0, 1, 2, 3])
    assert batch.student is not batch.teacher
    for key in range(4):
        picture = PIL.Image.fromarray(noise(12, key))
        seen = light(picture, (5, 0, key)) if augment == "light" else picture
        np.testing.assert_allclose(batch.student["pixel_values"][key], by_hand(seen, small), atol=1e-5)
        np.testing.assert_allclose(batch.teacher["pixel_values"][key], by_hand(seen, large), atol=1e-5)
    assert not prepared.aligned
    assert task_of(rows).prepare(rows, small, image_processor(6, image_mean=[0.9] * 3), training=True).aligned


@pytest.mark.parametrize(("other", "framed"), [
    (image_processor(16), True), (image_processor(5), True),
    (ConvNextImageProcessorPil(size={"shortest_edge": 8}, crop_pct=0.5), False),
    (ConvNextImageProcessorPil(size={"shortest_edge": 384}), True),
])
def test_it_is_known_whether_two_processors_see_the_same_part_of_a_picture(other: Any, framed: bool) -> None:
    rows = rows_of()
    assert task_of(rows).prepare(rows, image_processor(8), other, training=True).framed == framed


def test_equal_processors_share_their_pixels() -> None:
    rows = rows_of()
    batch = task_of(rows).prepare(rows, image_processor(), image_processor(), training=True).collate([0])
    assert batch.student is batch.teacher


def test_pictures_that_do_not_fit_into_memory_are_read_again_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, pair = rows_of(), (image_processor(6), image_processor(9))
    kept = task_of(rows).prepare(rows, *pair, training=True).collate([2, 1])
    monkeypatch.setattr(_pixels, "_KEEP", 0)
    read = task_of(rows).prepare(rows, *pair, training=True).collate([2, 1])
    assert torch.equal(kept.student["pixel_values"], read.student["pixel_values"])
    assert torch.equal(kept.teacher["pixel_values"], read.teacher["pixel_values"])


# --- augmentation ---


def pixels(prepared: Any, keys: list[int], epoch: int, workers: int = 0) -> torch.Tensor:
    prepared.on_epoch(epoch)
    loader = DataLoader(
        prepared.examples,
        batch_sampler=[[key] for key in keys],
        num_workers=workers,
        collate_fn=prepared.collate,
    )
    return torch.cat([batch.student["pixel_values"] for batch in loader])


def test_augmentation_depends_on_seed_epoch_and_key_alone() -> None:
    rows = rows_of()
    task = task_of(rows, augment="light")
    prepared = task.prepare(rows, image_processor(), None, training=True, seed=1)
    first = pixels(prepared, [0, 1, 2, 3], epoch=0)
    assert torch.equal(first.flip(0), pixels(prepared, [3, 2, 1, 0], epoch=0))
    assert not torch.equal(first, pixels(prepared, [0, 1, 2, 3], epoch=1))
    assert torch.equal(first, pixels(prepared, [0, 1, 2, 3], epoch=0))
    other = task.prepare(rows, image_processor(), None, training=True, seed=2)
    assert not torch.equal(first, pixels(other, [0, 1, 2, 3], epoch=0))
    twins = Dataset.from_list([rows[0], rows[0]], features=rows.features)
    twin = task.prepare(twins, image_processor(), None, training=True, seed=1)
    assert not torch.equal(*pixels(twin, [0, 1], epoch=0))


@pytest.mark.slow
def test_the_loaders_processes_see_the_same_epoch() -> None:
    rows = rows_of()
    prepared = task_of(rows, augment="light").prepare(rows, image_processor(), None, training=True, seed=1)
    for epoch in (0, 1):
        expected = pixels(prepared, [0, 1, 2, 3], epoch)
        assert torch.equal(pixels(prepared, [0, 1, 2, 3], epoch, workers=2), expected)


def test_only_training_is_augmented() -> None:
    rows = rows_of()
    prepared = task_of(rows, augment="light").prepare(rows, image_processor(), None, training=False)
    assert prepared.on_epoch is None
    plain = task_of(rows).prepare(rows, image_processor(), None, training=True)
    assert plain.on_epoch is None
    assert torch.equal(prepared.collate([0]).student["pixel_values"], plain.collate([0]).student["pixel_values"])


def test_light_augmentation_cuts_little_and_mirrors_nothing() -> None:
    ramp = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (40, 1))
    picture = PIL.Image.fromarray(ramp).convert("RGB")
    for seed in range(20):
        seen = np.asarray(light(picture, (seed,)), float)
        assert seen.shape == (40, 40, 3)
        assert (np.diff(seen[20, 2:-2, 0]) >= 0).all()  # still from dark to bright
        assert seen[20, 0, 0] < 80 < 140 < seen[20, -1, 0]


# --- kinds of pictures ---


def test_grey_transparent_and_deep_pictures_become_rgb() -> None:
    grey = noise(6, channels=1)
    assert np.array_equal(np.asarray(as_rgb(PIL.Image.fromarray(grey))), np.stack([grey] * 3, -1))
    deep = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(as_rgb(deep)), np.stack([grey] * 3, -1))
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2, :, 3] = 255  # black above, transparent below
    seen = np.asarray(as_rgb(PIL.Image.fromarray(clear)))
    assert (seen[:2] == 0).all()
    assert (seen[2:] == 255).all()
    palette = PIL.Image.fromarray(noise(6)).convert("P")
    assert as_rgb(palette).mode == "RGB"
    turned = PIL.Image.fromarray(noise(6)[:4])
    turned.getexif()[0x0112] = 6  # to be shown turned by a quarter
    assert as_rgb(turned).size == (4, 6)


@pytest.mark.parametrize("form", ["feature", "struct", "binary"])
def test_bytes_are_read_however_they_are_stored(tmp_path: Path, form: str) -> None:
    stored: list[Any] = [png(noise(12, seed)) for seed in range(4)]
    feature: Any = Value("binary")
    if form != "binary":
        stored = [{"bytes": one, "path": f"{row}.png"} for row, one in enumerate(stored)]
        feature = {"bytes": Value("binary"), "path": Value("string")} if form == "struct" else Image()
    features = Features({"picture": feature, "label": Value("int64")})
    Dataset.from_dict({"picture": stored, "label": [0, 1, 0, 1]}, features=features).to_parquet(tmp_path / "d.parquet")
    section = ImageClassificationData(train=str(tmp_path / "d.parquet"), validation=str(tmp_path / "d.parquet"))
    splits = data.load(section, seed=0)
    task = ImageClassification.understand(section, splits)
    assert task.image == "picture"
    batch = task.prepare(splits["train"], image_processor(12), None, training=True).collate([2])
    oracle = by_hand(PIL.Image.fromarray(noise(12, 2)), image_processor(12))
    np.testing.assert_allclose(batch.student["pixel_values"][0], oracle, atol=1e-5)


def test_an_image_folder_keeps_its_class_names(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for seed in range(6):
            (tmp_path / "d" / name / f"{seed}.png").write_bytes(png(noise(8, seed)))
    section = ImageClassificationData(train=str(tmp_path / "d"), validation={"split": 0.2})  # type: ignore[arg-type]
    splits = data.load(ImageClassificationData.model_validate(section.model_dump()), seed=0)
    task = ImageClassification.understand(section, splits)
    assert task.class_names() == ("cat", "dog")
    assert task.image == "image"


def test_a_processor_with_one_mean_sees_grey(tmp_path: Path) -> None:
    vit_folder(tmp_path, num_channels=1, **labels_of("cat", "dog"))
    image_processor(8, image_mean=[0.5], image_std=[0.5]).save_pretrained(tmp_path)
    rows = rows_of()
    task = task_of(rows)
    loaded = task.load(ModelSource(model=str(tmp_path)), labelled=True)
    batch = task.prepare(rows, loaded.processor, None, training=False).collate([0, 1])
    assert batch.student["pixel_values"].shape == (2, 1, 8, 8)
    assert loaded.model(**batch.student).logits.shape == (2, 2)


class Rounded(ViTImageProcessorPil):
    """Does something after normalising, so that its two steps cannot be told apart."""

    def _preprocess(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._preprocess(*args, **kwargs)
        found["pixel_values"] = [np.round(one, 1) for one in found["pixel_values"]]
        return found


def test_processors_of_another_make_are_taken_at_their_word() -> None:
    rows, processor = rows_of(), Rounded(size={"height": 8, "width": 8})
    batch = task_of(rows).prepare(rows, processor, None, training=True).collate([1, 2])
    expected = processor([PIL.Image.fromarray(noise(12, seed)) for seed in (1, 2)])["pixel_values"]
    assert np.array_equal(batch.student["pixel_values"], np.stack(expected))


def test_a_processor_that_leaves_sizes_as_they_are_is_refused() -> None:
    rows = Dataset.from_dict(
        {"image": [{"bytes": png(noise(size)), "path": None} for size in (8, 9)], "label": ["a", "b"]},
        features=Features({"image": Image(), "label": Value("string")}),
    )
    processor = image_processor(8)
    processor.do_resize = False
    with pytest.raises(CompatibilityError, match="leaves pictures of different sizes, "):
        task_of(rows).prepare(rows, processor, None, training=True)


def test_a_crop_of_the_processors_own_is_kept() -> None:
    rows = rows_of(size=20)
    processor = ConvNextImageProcessorPil(size={"shortest_edge": 8}, crop_pct=0.5)
    batch = task_of(rows).prepare(rows, processor, None, training=True).collate([1])
    expected = processor(PIL.Image.fromarray(noise(20, 1)))["pixel_values"][0]
    np.testing.assert_allclose(batch.student["pixel_values"][0], expected, atol=1e-5)


# --- what is refused ---


def broken_rows() -> Dataset:
    whole = png(noise(40))
    stored = [whole, b"not a picture", whole[: len(whole) // 2], whole, None, whole]
    return Dataset.from_dict(
        {"image": [one and {"bytes": one, "path": f"{row}.png"} for row, one in enumerate(stored)],
         "label": ["cat", "dog"] * 3},
        features=Features({"image": Image(), "label": Value("string")}),
    )  # fmt: skip


def test_broken_pictures_are_named_counted_and_refused() -> None:
    with pytest.raises(DataError) as caught:
        task_of(broken_rows())
    message = str(caught.value)
    assert "data.train: 3 of 6 pictures cannot be read" in message
    assert "row 1 (1.png): not a picture" in message
    assert "row 2 (2.png): " in message
    assert "row 4: there is no picture" in message
    assert "data.broken: skip" in message


def test_broken_pictures_are_skipped_if_the_recipe_says_so(caplog: pytest.LogCaptureFixture) -> None:
    rows = broken_rows()
    with caplog.at_level(logging.WARNING):
        task = task_of(rows, broken="skip")
    assert "3 of 6 pictures cannot be read; left out: row 1" in caplog.text
    prepared = task.prepare(rows, image_processor(), None, training=True)
    assert prepared.keys.tolist() == [0, 3, 5]
    batch = prepared.collate([0, 1, 2])
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 1]
    assert prepared.references is not None
    assert list(prepared.references) == [0, 1, 1]
    with pytest.raises(DataError, match="there is no picture left"):
        task.prepare(rows.select([1, 2]), image_processor(), None, training=True)


def test_pictures_that_are_named_and_not_there_are_skipped_like_broken_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(noise(12, number)))
    lines = [f"{number}.png,{'cat' if number % 2 else 'dog'}" for number in range(6)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *lines]) + "\n")
    rows = sources.read(str(tmp_path))["train"]
    with pytest.raises(DataError, match=r"4\.png\): there is no such file.*leave them out with data\.broken: skip"):
        task_of(rows)
    with caplog.at_level(logging.WARNING):
        task = task_of(rows, broken="skip")
    assert "2 of 6 pictures cannot be read; left out: row 4" in caplog.text
    assert task.prepare(rows, image_processor(), None, training=True).keys.tolist() == [0, 1, 2, 3]


def test_truncated_jpegs_are_found() -> None:
    written = BytesIO()
    PIL.Image.fromarray(noise(64)).save(written, "JPEG")
    half = written.getvalue()[: len(written.getvalue()) // 2]
    rows = Dataset.from_dict({"image": [written.getvalue(), half]}, features=Features({"image": Value("binary")}))
    assert list(Pictures.of(rows, "image").broken()) == [1]


@pytest.mark.parametrize(
    ("columns", "section", "words"),
    [
        ({"label": Value("string")}, {}, "no column holds pictures"),
        ({"a": Image(), "b": Image(), "label": Value("string")}, {}, "a or b could be it"),
        (
            {"a": Image(), "label": Value("string")},
            {"image": "label"},
            "the column 'label' holds text; expected pictures",
        ),
        ({"a": Image(), "label": Value("string")}, {"image": "imag"}, r"data\.image: got 'imag'"),
        ({"a": Image()}, {}, "which column is the label"),
    ],
)
def test_unclear_columns_are_asked_for(columns: dict[str, Any], section: dict[str, Any], words: str) -> None:
    rows = {name: ["x", "y"] if name == "label" else [png(noise())] * 2 for name in columns}
    stored = {
        name: values if name == "label" else [{"bytes": one, "path": None} for one in values]
        for name, values in rows.items()
    }
    with pytest.raises(DataError, match=words):
        task_of(Dataset.from_dict(stored, features=Features(columns)), **section)


def test_a_model_that_cannot_see_the_processors_pictures_is_refused(tmp_path: Path) -> None:
    vit_folder(tmp_path, num_labels=2)
    image_processor(16).save_pretrained(tmp_path)
    with pytest.raises(CompatibilityError, match=r"its forward fails on pixel_values \(2, 3, 16, 16\)"):
        task_of(rows_of()).load(ModelSource(model=str(tmp_path)), labelled=True)


def test_a_folder_without_image_processor_is_refused(tmp_path: Path) -> None:
    vit_folder(tmp_path, num_labels=2)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(CompatibilityError, match="holds no image processor; copy its preprocessor_config"):
        task_of(rows_of()).load(ModelSource(model=str(tmp_path)), labelled=True)


# --- models and pages ---


def test_from_pictures_to_logits_in_the_teachers_order(tmp_path: Path) -> None:
    folder, rows = vit_folder(tmp_path, **labels_of("dog", "cat")), rows_of()
    task = task_of(rows)
    teacher = task.load(ModelSource(model=str(folder)), labelled=True)
    task = task.adapted_to(teacher)
    batch = task.prepare(rows, teacher.processor, None, training=False).collate([0, 1, 2, 3])
    signals = task.signals(teacher.model(**batch.teacher), batch, Side.TEACHER)
    assert isinstance(signals.logits, Dense)
    assert signals.logits.logits.shape == (4, 2)
    assert signals.labels is not None
    assert signals.labels.tolist() == [1, 0, 1, 0]
    assert task.counts(batch) == {"rows": 4, "labelled": 4, "examples": 4, "tokens": 4}
    assert task.mask(batch, Side.STUDENT) is None
    assert isinstance(tasks.of_model(teacher.model), ImageClassification)


def test_a_new_head_has_the_datas_labels(tmp_path: Path) -> None:
    loaded = task_of(rows_of()).load(ModelSource(model=str(vit_folder(tmp_path, num_labels=7))), labelled=False)
    config: Any = loaded.model.config
    assert (config.id2label, config.problem_type) == ({0: "cat", 1: "dog"}, "single_label_classification")
    assert vit_config().id2label != config.id2label


def test_a_picture_is_shown_small_as_a_data_uri() -> None:
    large = Dataset.from_dict(
        {"image": [png(noise(200))] * 2, "label": ["a", "b"]},
        features=Features({"image": Value("binary"), "label": Value("string")}),
    )
    for rows, kind, size in ((rows_of(), "png", 12), (large, "jpeg", 96)):
        view = task_of(rows).show(rows, 1)
        assert isinstance(view, Picture)
        head, encoded = view.uri.split(",")
        assert head == f"data:image/{kind};base64"
        assert PIL.Image.open(BytesIO(base64.b64decode(encoded))).size == (size, size)


def test_several_labels_per_picture() -> None:
    rows = rows_of().remove_columns("label").add_column("labels", [["a"], ["a", "b"], [], ["b"]])
    task = task_of(rows)
    batch = task.prepare(rows, image_processor(), None, training=True).collate([1, 2])
    assert batch.labels is not None
    assert batch.labels.tolist() == [[1, 1], [0, 0]]


def test_class_columns_name_the_classes() -> None:
    rows = rows_of().remove_columns("label").add_column("label", [0, 1, 1, 0])
    rows = rows.cast_column("label", ClassLabel(names=["zebra", "ant"]))
    assert task_of(rows).class_names() == ("zebra", "ant")


# --- another resolution than the teacher's ---


@pytest.mark.parametrize(("processor", "framed"), [
    (image_processor(16), True), (ConvNextImageProcessorPil(size={"shortest_edge": 16}, crop_pct=0.5), True)])
def test_a_student_sees_the_same_crop_at_its_own_resolution(processor: Any, framed: bool) -> None:
    rows, small = rows_of(size=40), _pixels.at_resolution(processor, 8)
    prepared = task_of(rows).prepare(rows, small, processor, training=True)
    batch = prepared.collate([1])
    assert batch.student["pixel_values"].shape[-2:] == (8, 8)
    assert batch.teacher["pixel_values"].shape[-2:] == (16, 16)
    assert prepared.framed == framed
    assert not prepared.aligned
    assert settings_of(processor) == settings_of(_pixels.at_resolution(small, 16))


def settings_of(processor: Any) -> dict[str, Any]:
    return _pixels.settings(processor)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "section", "size"), [
    ({"config": {"image_size": 4}}, {}, 4), ({"config": {"hidden_size": 8}}, {}, 8), ({"layers": 1}, {}, 8),
    ({"model": "resnet"}, {"resolution": 32}, 32)])
def test_the_students_processor_follows_from_the_recipe(tmp_path: Path, spec: Any, section: Any, size: int) -> None:
    theirs = vit_folder(tmp_path / "vit", **labels_of("cat", "dog"))
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], **labels_of("cat", "dog"))
    ResNetForImageClassification(config).save_pretrained(tmp_path / "resnet")
    image_processor().save_pretrained(tmp_path / "resnet")
    if "model" in spec:
        spec = {"model": str(tmp_path / spec["model"])}
    task = task_of(rows_of(), **section)
    teacher = task.load(ModelSource(model=str(theirs)), labelled=True)
    _, loaded = start_student(StudentSpec(**spec), task.adapted_to(teacher), teacher)
    assert dict(loaded.processor.to_dict()["size"]) == {"height": size, "width": size}
    assert dict(teacher.processor.to_dict()["size"]) == {"height": 8, "width": 8}


def test_a_student_that_cannot_see_that_resolution_is_refused(tmp_path: Path) -> None:
    task = task_of(rows_of(), resolution=4)
    teacher = task.load(ModelSource(model=str(vit_folder(tmp_path, **labels_of("cat", "dog")))), labelled=True)
    with pytest.raises(CompatibilityError, match=r"its forward fails on pixel_values \(2, 3, 4, 4\)"):
        start_student(StudentSpec(layers=1), task.adapted_to(teacher), teacher)


# --- metrics ---


@pytest.mark.parametrize(("classes", "named"), [(3, False), (7, True)])
def test_of_many_classes_the_five_likeliest_are_measured_and_of_all_each(classes: int, named: bool) -> None:
    names = [f"class {index}" for index in range(classes)]
    rows = rows_of(2 * classes).remove_columns("label").add_column("label", names * 2)
    exam = task_of(rows).exam()
    metrics = {metric.name: metric for metric in exam.metrics()}
    assert next(iter(metrics)) == "accuracy"
    assert ("top_5_accuracy" in metrics) == named
    logits = np.random.default_rng(0).normal(size=(2 * classes, classes))
    labels = np.arange(2 * classes) % classes
    answers = Answers(np.arange(2 * classes), logits, labels)
    by_class = exam.by_class(answers)
    assert by_class is not None
    assert by_class.names == tuple(sorted(names))
    expected = f1_score(labels, logits.argmax(-1), average=None, labels=range(classes), zero_division=0)
    np.testing.assert_allclose(by_class.values, expected)
