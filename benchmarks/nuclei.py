"""How well a small SegFormer of random weights finds cell nuclei, taught by labels alone and by a larger one.

    python -m benchmarks.nuclei --data DATA
    python -m benchmarks.nuclei --data DATA --labelled 48 --ways pixels --speed

The 2018 Data Science Bowl's pictures of cells, 517 to learn from (docs/semantic-segmentation.md). Nothing is trained before:
the teacher learns from all masks, its students from those of `--labelled` pictures and from the teacher's answers to all. The
same command again continues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from benchmarks.inputs import add_data_option, data_set
from benchmarks.methods import differences, qualities, show, sizes, taught
from benchmarks.students import parser
from stilla.runtime.quiet import quiet_libraries

LABELS, LOGITS = {"kind": "labels", "weight": 0.3}, {"kind": "logits", "weight": 0.7, "temperature": 1.0}
WAYS: dict[str, dict[str, Any]] = {
    "pixels": {"objectives": [LABELS, LOGITS]},
    "soft": {"objectives": [LABELS, {**LOGITS, "temperature": 2.0}]},
    "channels": {"objectives": [LABELS, LOGITS, {"kind": "channels", "weight": 0.03}]},
    "pairwise": {"objectives": [LABELS, LOGITS, {"kind": "pairwise", "weight": 3.0}]},
}
NAMES = {0: "background", 1: "nucleus"}


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/nuclei", threads=1, teacher_epochs=10.0, teacher_learning_rate=1e-3, epochs=10.0,
                  learning_rate=3e-3, batch_size=16)
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    made.add_argument("--labelled", type=int, help="pictures whose masks students may see; by default all")
    made.add_argument("--size", type=int, default=128)
    made.add_argument("--speed", action="store_true", help="measure latency and throughput too")
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    place = data_set(options.data, "nuclei_dsb2018", "pictures of the 2018 Data Science Bowl: columns image, mask (0 and 1)")
    files = {split: str(place / f"{split}.parquet") for split in ("train", "validation", "test")}
    data: dict[str, Any] = {**files, "mask": "mask", "image": "image", "labels": NAMES, "limit": options.limit}
    if options.labelled:
        data |= {"train": str(some(place, options.output, options.labelled)), "unlabelled": files["train"]}
    base = {"task": "semantic-segmentation", "data": data,
            "student": {"config": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 40, 64], "decoder_hidden_size": 64}},
            "evaluate": {} if options.speed else {"speed": False}}
    runs = taught(options, base, _random(options.output / "random", options.size), {way: WAYS[way] for way in options.ways},
                  more=Path(files["train"]) if options.labelled else None, told={"precision": "float32"})
    scores = {way: run.scores for way, run in runs.items()}
    show("### nuclei", qualities(scores), differences(scores), sizes(next(iter(scores.values()))))


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
    main()
