"""Does mixing pictures, answered by the teacher, bring a student nearer to it? The same student, for as many steps, on photos
of flowers at 32 by 32 pixels: cut and mirrored; cut, mirrored and mixed; each beside its baseline on labels alone.

    python -m benchmarks.mixing resnet --data DATA
    python -m benchmarks.mixing vit --data DATA

Teacher and student have random weights; the teacher is trained first, once. Objectives: labels 0.1, logits 0.9 at T = 2. The
same command again continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import (
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from benchmarks.inputs import add_data_option, flowers
from benchmarks.students import parser, run_of, show
from stilla import Scores
from stilla.runtime.quiet import quiet_libraries

SIZE, STORED = 32, 40
"""Pixels that models see, and that are kept of each photo, which has little more detail."""
PLAIN: Mapping[str, Any] = {"crop": 0.35, "flip": True}
WAYS: Mapping[str, Mapping[str, Any]] = {"cut": PLAIN, "mixed": {**PLAIN, "mixup": 0.4, "cutmix": 0.4}}
STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1]},
    "vit": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3},
}


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/mixing", teacher_epochs=24.0, teacher_learning_rate=2e-3, epochs=30.0,
                  learning_rate=2e-3, seeds=1)
    made.add_argument("models", choices=list(STUDENTS))
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    stored(flowers(options.data), options.output / "data")
    show(options.models, distilled(options, options.output / options.models))


def distilled(options: argparse.Namespace, output: Path) -> dict[str, Scores]:
    """The runs' scores by how pictures are changed."""
    trained, scores = output / options.ways[0] / "teacher", dict[str, Scores]()
    for way in options.ways:
        source: dict[str, Any] = {"model": str(trained)}
        if way == options.ways[0]:
            source = {"model": str(start(options.models, output / "start")), "train": {
                "epochs": options.teacher_epochs, "learning_rate": options.teacher_learning_rate, "batch_size": 64}}
        scores[way] = run_of({
            "task": "image-classification", "data": {"train": str(options.output / "data"), "augment": dict(WAYS[way]),
                                                     "limit": options.limit},
            "teacher": source, "student": {"config": dict(STUDENTS[options.models])}, "export": [],
            "distill": {"epochs": options.epochs, "learning_rate": options.learning_rate, "batch_size": 64, "objectives": [
                {"kind": "labels", "weight": 0.1}, {"kind": "logits", "weight": 0.9, "temperature": 2.0}]},
            "evaluate": {"baseline": True, "seeds": options.seeds}, "output": str(output / way),
        }, options.overrides).scores
    return scores


def start(models: str, folder: Path) -> Path:
    """What the teacher begins with."""
    if (folder / "config.json").is_file():
        return folder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = ResNetForImageClassification(ResNetConfig(
            embedding_size=32, hidden_sizes=[32, 64, 128], depths=[2, 2, 2], layer_type="basic", num_labels=5,
        )) if models == "resnet" else ViTForImageClassification(ViTConfig(
            image_size=SIZE, patch_size=4, hidden_size=96, num_hidden_layers=4, num_attention_heads=3, intermediate_size=192,
            num_labels=5))
    model.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=half, image_std=half).save_pretrained(folder)
    return folder


def stored(source: Path, folder: Path) -> None:
    """The photos, small."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        if (folder / f"{split}.parquet").is_file():
            continue
        rows = pq.read_table(source / f"{split}.parquet").to_pylist()
        pq.write_table(pa.Table.from_pylist([{"image": _small(row["image"]), "label": str(row["label"])} for row in rows]),
                       folder / f"{split}.parquet")


def _small(image: Mapping[str, Any]) -> dict[str, Any]:
    written = BytesIO()
    PIL.Image.open(BytesIO(image["bytes"])).convert("RGB").resize((STORED, STORED)).save(written, "PNG")
    return {"bytes": written.getvalue(), "path": None}


if __name__ == "__main__":
    main()
