"""Whole runs on pictures: a convolutional teacher, a transformer as its student, fresh views, maps, several labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification

import stilla
from stilla.scores import Scores
from tests.tasks.tiny import image_processor, vit_folder

pytestmark = pytest.mark.slow
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def picture(colours: list[str], draw: np.random.Generator) -> PIL.Image.Image:
    """Noise with a field of each colour."""
    pixels = draw.integers(0, 120, (20, 24, 3))
    for colour in colours:
        top, left = draw.integers(0, 10), draw.integers(0, 12)
        pixels[top : top + 9, left : left + 11] = COLOURS[colour]
    return PIL.Image.fromarray(pixels.astype(np.uint8))


def folders(place: Path, count: int = 24) -> Path:
    """A folder for each class and split, and one of pictures that nobody has labelled."""
    draw = np.random.default_rng(0)
    for split, number in (("train", count), ("validation", 8), ("test", 8)):
        for colour in COLOURS:
            (place / split / colour).mkdir(parents=True)
            for index in range(number):
                picture([colour], draw).save(place / split / colour / f"{index}.png")
    (place / "more").mkdir()
    for index in range(30):
        picture([list(COLOURS)[index % 3]], draw).save(place / "more" / f"{index}.png")
    return place


def resnet(place: Path) -> str:
    torch.manual_seed(0)
    ResNetForImageClassification(ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)).save_pretrained(place)
    image_processor(16).save_pretrained(place)
    return str(place)


def vit(place: Path) -> str:
    vit_folder(place, image_size=8, num_labels=3)
    return str(place)


def recipe(place: Path, data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    pictures = folders(place / "pictures")
    return {
        "task": "image-classification",
        "data": {"train": str(pictures), "validation": str(pictures / "validation"), "test": str(pictures / "test"), **data},
        "teacher": {"model": resnet(place / "resnet"), "train": {"epochs": 5, "batch_size": 8, "learning_rate": 1e-2}},
        "student": {"model": vit(place / "vit")},
        "distill": {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3},
        "evaluate": {"baseline": True, "speed": False, "resamples": 100}, "output": str(place / "run"), **changes,
    }


def losses(run: Path) -> list[float]:
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry and entry["stage"] == "student"]


def test_a_resnet_teaches_a_vit_by_the_hardest_of_mixed_views_that_it_answered_once(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"augment": {"crop": 0.5, "flip": True, "mixup": 0.3, "cutmix": 0.3}, "views": 2,
                             "unlabelled": str(tmp_path / "pictures" / "more")})
    made["distill"]["hardest"] = 2
    run = stilla.distill(None, **made)
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    read = {entry["stage"]: entry for entry in entries if "operations" in entry}
    assert read["student"]["looked_at"] == 2 * read["student"]["entered"]
    assert "looked_at" not in read["baseline"]  # which has no teacher to go by
    scores: Scores = run.scores
    assert scores.teacher["accuracy"] > 0.5
    again = stilla.distill(None, **{**made, "output": str(tmp_path / "again"), "cache": "none",
                                    "teacher": {"model": str(tmp_path / "run" / "teacher")}})
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "again"), rel=1e-4)
    assert any((tmp_path / "run").rglob("cache.json"))
    student = AutoModelForImageClassification.from_pretrained(tmp_path / "run" / "student")
    assert sorted(student.config.id2label.values()) == sorted(COLOURS)
    assert again.scores.examples == scores.examples


def test_maps_and_a_smaller_resolution_in_a_whole_run_of_convolutions(tmp_path: Path) -> None:
    run = stilla.distill(None, **recipe(
        tmp_path, {"resolution": 8, "augment": "light"}, student={"config": {"hidden_sizes": [4, 8], "embedding_size": 4}},
        distill={"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "objectives": [
            {"kind": "labels", "weight": 0.1}, {"kind": "logits", "weight": 0.9}, {"kind": "maps", "weight": 1.0}]}))
    assert run.scores.student["accuracy"] > 0
    saved = json.loads((tmp_path / "run" / "student" / "preprocessor_config.json").read_text())
    assert saved["size"] == {"height": 8, "width": 8}


def test_several_labels_of_a_picture_are_learnt_from_a_resnet(tmp_path: Path) -> None:
    draw, rows = np.random.default_rng(1), []
    (tmp_path / "several").mkdir()
    for split, number in (("train", 60), ("validation", 20), ("test", 20)):
        (tmp_path / "several" / split).mkdir()
        rows = []
        for index in range(number):
            chosen = [colour for colour in COLOURS if draw.random() < 0.5]
            picture(chosen, draw).save(tmp_path / "several" / split / f"{index}.png")
            rows.append({"file_name": f"{index}.png", **{colour: int(colour in chosen) for colour in COLOURS}})
        (tmp_path / "several" / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    made = recipe(tmp_path, {})
    made["data"] = {"train": str(tmp_path / "several"), "label": list(COLOURS), "augment": "strong"}
    run = stilla.distill(None, **made)
    assert run.scores.student["micro_f1"] > 0.3
    assert run.scores.teacher["micro_f1"] > 0.3
