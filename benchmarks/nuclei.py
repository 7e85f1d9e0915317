"""How well a small SegFormer of random weights finds cell nuclei, taught by labels alone and by a larger one.

    python -m benchmarks.nuclei --data DATA

The 2018 Data Science Bowl's pictures of cells, 517 to learn from (docs/semantic-segmentation.md). Nothing is trained before:
the teacher learns from all masks, its students from those of `--labelled` pictures and from the teacher's answers to all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

import stilla
from benchmarks.inputs import add_data_option, data_set
from stilla.report.table import markdown_table

LABELS, LOGITS = {"kind": "labels", "weight": 0.3}, {"kind": "logits", "weight": 0.7, "temperature": 1.0}
WAYS: dict[str, list[dict[str, Any]]] = {
    "pixels": [LABELS, LOGITS],
    "soft": [LABELS, {**LOGITS, "temperature": 2.0}],
    "channels": [LABELS, LOGITS, {"kind": "channels", "weight": 0.03}],
    "pairwise": [LABELS, LOGITS, {"kind": "pairwise", "weight": 3.0}],
}
NAMES = {0: "background", 1: "nucleus"}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--labelled", type=int, default=0, help="pictures whose masks students may see; 0: all")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--teacher-epochs", type=float, default=10.0)
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/nuclei"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    place = data_set(options.data, "nuclei_dsb2018", "pictures of the 2018 Data Science Bowl: columns image, mask (0 and 1)")
    files = {split: str(place / f"{split}.parquet") for split in ("train", "validation", "test")}
    learning: dict[str, Any] = {"batch_size": 16, "precision": "float32"}
    teacher = {"model": str(_random(options.output / "random", options.size)), "train": {
        "epochs": options.teacher_epochs, "learning_rate": 1e-3, "data": files["train"], **learning}}
    data: dict[str, Any] = {**files, "mask": "mask", "image": "image", "labels": NAMES}
    if options.labelled:
        data |= {"train": str(some(place, options.output, options.labelled)), "unlabelled": files["train"]}
    for way in options.ways:
        run = stilla.distill({
            "task": "semantic-segmentation", "teacher": teacher, "data": data,
            "student": {"config": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 40, 64], "decoder_hidden_size": 64}},
            "distill": {"epochs": options.epochs, "learning_rate": 3e-3, "objectives": WAYS[way], **learning},
            "evaluate": {"baseline": way == options.ways[0]}, "export": ["onnx", "int8"] if way == options.ways[0] else [],
            "output": str(options.output / way)})
        print(f"\n### {way}\n\n{markdown_table(run.scores)}\n\n{run.scores.verdict}\n")
        teacher = {"model": str(run.folder / "teacher")}


def _random(folder: Path, size: int) -> Path:
    """A SegFormer of a million random weights."""
    if not (folder / "model.safetensors").is_file():
        torch.manual_seed(0)
        SegformerForSemanticSegmentation(SegformerConfig(
            hidden_sizes=[16, 32, 80, 128], depths=[2, 2, 2, 2], num_attention_heads=[1, 2, 5, 8], decoder_hidden_size=128,
            id2label=NAMES, label2id={name: one for one, name in NAMES.items()})).save_pretrained(folder)
        SegformerImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    return folder


def some(place: Path, folder: Path, count: int) -> Path:
    """The first so many labelled pictures, as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(place / "train.parquet")
    pq.write_table(table.slice(0, count), folder / "labelled.parquet")
    return folder / "labelled.parquet"


if __name__ == "__main__":
    main(sys.argv[1:])
