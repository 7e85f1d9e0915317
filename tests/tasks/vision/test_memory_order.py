"""Batches of pixels lie in memory as (batch, channels, height, width), whatever order processors leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from stilla.recipe import ModelSource
from stilla.signals import Batch
from stilla.tasks.base import Prepared
from stilla.tasks.vision import canvases, pixels, scenes
from stilla.tasks.vision.pixels import Processor
from tests.tasks.tiny import image_processor
from tests.tasks.vision.detecting import folder
from tests.tasks.vision.scenes import processor
from tests.tasks.vision.test_detection import task_of as detection
from tests.tasks.vision.test_image_classification import rows_of, task_of
from tests.tasks.vision.test_segmentation import bound
from tests.tasks.vision_text.setting import captioned, clip_folder, loaded, siglip_folder
from tests.tasks.vision_text.test_image_text import understood


@pytest.fixture(params=["kept", "read anew"])
def memory(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pixels, canvases, scenes) if request.param == "read anew" else ():
        monkeypatch.setattr(module, "_KEEP", 0)


def refuse_another_order(prepared: Prepared) -> None:
    batch: Batch = prepared.collate([prepared.examples[place] for place in range(3)])
    assert batch.student is not batch.teacher
    for side in (batch.student, batch.teacher):
        assert side["pixel_values"].is_contiguous()


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("augment", ["none", "light", "strong"])
def test_pictures_of_classes_lie_in_order(augment: str) -> None:
    rows = rows_of()
    task = task_of(rows, augment=augment)
    refuse_another_order(task.prepare(rows, image_processor(8), image_processor(12), training=True))


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("augment", ["none", "light", "flips"])
def test_scenes_lie_in_order(augment: str, tmp_path: Path) -> None:
    task, split = bound(tmp_path, augment=augment)
    refuse_another_order(task.prepare(split, processor(32), processor(48), training=True))


@pytest.mark.slow
@pytest.mark.usefixtures("memory")
def test_canvases_lie_in_order(tmp_path: Path) -> None:
    task, splits = detection(tmp_path)
    ours, theirs = (task.load(ModelSource(model=folder(tmp_path / family, family, size=size)), labelled=True).processor
                    for family, size in (("detr", 64), ("yolos", 96)))
    refuse_another_order(task.prepare(splits["train"], ours, theirs, training=True))


@pytest.mark.slow
@pytest.mark.usefixtures("memory")
def test_pictures_with_texts_lie_in_order(tmp_path: Path) -> None:
    task, splits = understood(captioned(tmp_path / "x.parquet", 6))
    ours, theirs = loaded(clip_folder(tmp_path / "c")), loaded(siglip_folder(tmp_path / "s"))
    refuse_another_order(task.prepare(splits["train"], ours.processor, theirs.processor, training=True))


@pytest.mark.parametrize("exact", [True, False])
def test_views_of_another_order_are_finished_in_order(exact: bool) -> None:
    made = Processor(ViTImageProcessorPil(size={"height": 8, "width": 8}), PIL.Image.new("RGB", (9, 9)))
    made.exact = exact
    views = np.zeros((2, 8, 8, 3), np.uint8 if exact else np.float32).transpose(0, 3, 1, 2)
    assert not views.flags.c_contiguous
    assert made.finish(views).flags.c_contiguous
