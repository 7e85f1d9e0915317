"""How well a small MaskFormer of random weights finds single cell nuclei, taught by labels alone and by a larger one.

    python -m benchmarks.nuclei_instances --data DATA
    python -m benchmarks.nuclei_instances --data DATA --panoptic
    python -m benchmarks.nuclei_instances --drawn --labelled 32 --size 64 --seeds 3

The 2018 Data Science Bowl's pictures of cells, 517 to learn from, each nucleus with its mask (docs/image-segmentation.md);
with `--panoptic` pictures are parted into nuclei and the background as stuff. `--drawn` needs no data: panoptic pictures with
rectangles of two classes before grass and sky.
Nothing is trained before: the teacher learns from all masks, its student from those of `--labelled` pictures and from the
teacher's answers to all, the baseline from the same masks alone.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Dataset, Features, Image, List, Value
from numpy.typing import NDArray
from transformers import (
    DetrConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MaskFormerImageProcessorPil,
    ResNetConfig,
)

from benchmarks.inputs import add_data_option, data_set
from benchmarks.methods import differences, qualities, show, sizes, taught
from benchmarks.nuclei import some
from benchmarks.students import parser
from stilla.runtime.quiet import quiet_libraries
from stilla.tasks.vision.beginnings import begin_apart

THINGS, STUFF = ("nucleus",), ("background",)
DRAWN_THINGS, DRAWN_STUFF = ("box", "door"), ("grass", "sky")
COLOURS = {"box": (200, 120, 60), "door": (90, 60, 160), "grass": (80, 130, 70), "sky": (150, 180, 210)}
WAYS: dict[str, dict[str, Any]] = {"student": {"objectives": None}}
"""What the task does by itself."""
SIZES = {"train": 400, "validation": 60, "test": 200}
LARGE: dict[str, Any] = {"width": 64, "channels": [32, 64, 96, 128], "layers": 3}
SMALL: dict[str, Any] = {"width": 32, "channels": [16, 32, 48, 64], "layers": 2}


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/nuclei-instances", threads=1, teacher_epochs=40.0, teacher_learning_rate=1e-3,
                  epochs=30.0, learning_rate=1e-3, batch_size=8, export=[])
    made.add_argument("--labelled", type=int, help="pictures whose masks students may see; by default all")
    made.add_argument("--panoptic", action="store_true", help="the background is stuff, and a pixel of one segment")
    made.add_argument("--drawn", action="store_true", help="rectangles before grass and sky instead; always panoptic")
    made.add_argument("--threshold", type=float, default=0.8, help="how sure a guess has to be to be a panoptic segment")
    made.add_argument("--size", type=int, default=96)
    made.add_argument("--queries", type=int, default=60)
    made.add_argument("--speed", action="store_true", help="measure latency and throughput too")
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    place = _drawn(options.output / "drawn", options.size) if options.drawn else data_set(
        options.data, "nuclei_dsb2018", "pictures of the 2018 Data Science Bowl: columns image, instances")
    files = {split: str(place / f"{split}.parquet") for split in SIZES}
    data: dict[str, Any] = {**files, "image": "image", "limit": options.limit}
    if options.panoptic or options.drawn:
        data |= {"threshold": options.threshold, "stuff": [*(DRAWN_STUFF if options.drawn else STUFF)]}
    if not options.drawn:
        data |= {"masks": "instances", "labels": [*THINGS]}
    if options.labelled:
        data |= {"train": str(some(place, options.output, options.labelled)), "unlabelled": files["train"]}
    names = DRAWN_THINGS + DRAWN_STUFF if options.drawn else THINGS + STUFF * options.panoptic
    models = {who: _random(options.output / who, names, options.size, options.queries, **parts)
              for who, parts in (("random-teacher", LARGE), ("random-student", SMALL))}
    base = {"task": "image-segmentation", "data": data, "student": {"model": str(models["random-student"])},
            "evaluate": {} if options.speed else {"speed": False}, "allow_weak_teacher": True}
    runs = taught(options, base, models["random-teacher"], WAYS, more=Path(files["train"]) if options.labelled else None,
                  told={"precision": "float32"})
    scores = {way: run.scores for way, run in runs.items()}
    show("### single nuclei" if not options.drawn else "### drawn", qualities(scores), differences(scores),
         sizes(next(iter(scores.values()))))


def _random(
    folder: Path, names: tuple[str, ...], size: int, queries: int, *, width: int, channels: list[int], layers: int
) -> Path:
    if not (folder / "model.safetensors").is_file():
        torch.manual_seed(0)
        backbone = ResNetConfig(embedding_size=channels[0], hidden_sizes=channels, depths=[1, 1, 1, 1], layer_type="basic",
                                out_features=["stage1", "stage2", "stage3", "stage4"])
        decoder = DetrConfig(
            d_model=width, decoder_layers=layers, encoder_layers=1, num_queries=queries, decoder_attention_heads=4,
            encoder_attention_heads=4, decoder_ffn_dim=2 * width, encoder_ffn_dim=2 * width, dropout=0.0,
            use_timm_backbone=False, backbone=None, backbone_config={"model_type": "resnet"})
        model = MaskFormerForInstanceSegmentation(MaskFormerConfig(
            backbone_config=backbone, decoder_config=decoder, fpn_feature_size=64, mask_feature_size=width, dropout=0.0,
            id2label=dict(enumerate(names)), label2id={name: number for number, name in enumerate(names)}))
        begin_apart(model)
        model.save_pretrained(folder)
        MaskFormerImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    return folder


# --- drawn pictures ---


def _drawn(folder: Path, size: int) -> Path:
    """Tables of pictures and their segments, as the Hub has panoptic data."""
    folder.mkdir(parents=True, exist_ok=True)
    features = Features({"image": Image(), "panoptic": Image(), "segments_info": List(
        {"id": Value("int64"), "category": Value("string")})})
    for split, number in SIZES.items():
        rows = [_picture(np.random.default_rng((list(SIZES).index(split), row)), size) for row in range(number)]
        Dataset.from_dict({"image": [_png(pixels) for pixels, _, _ in rows], "panoptic": [_png(ids) for _, ids, _ in rows],
                           "segments_info": [some for _, _, some in rows]}, features=features
                          ).to_parquet(folder / f"{split}.parquet")
    return folder


def _picture(
    draw: np.random.Generator, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[dict[str, Any]]]:
    """Pixels, ids as colours, and what each is: sky above grass, before them one to four rectangles that may overlap, and
    noise over all."""
    ids = np.where(np.arange(size)[:, None] < size * draw.uniform(0.3, 0.7), 1, 2).repeat(size, 1)
    kinds = ["sky", "grass"]
    for _ in range(draw.integers(1, 5)):
        kind = str(draw.choice(DRAWN_THINGS))
        high, wide = (int(size * share * draw.uniform(0.8, 1.3)) for share in ((0.2, 0.3) if kind == "box" else (0.35, 0.18)))
        top, left = draw.integers(0, size - high), draw.integers(0, size - wide)
        kinds.append(kind)
        ids[top : top + high, left : left + wide] = len(kinds)
    colours = np.array([COLOURS[kind] for kind in kinds]) + draw.normal(0, 25, (len(kinds), 3))
    pixels = (colours[ids - 1] + draw.normal(0, 30, (size, size, 3))).clip(0, 255).astype(np.uint8)
    there = np.unique(ids).tolist()
    return pixels, np.stack([ids, 0 * ids, 0 * ids], -1).astype(np.uint8), [
        {"id": one, "category": kinds[one - 1]} for one in there]


def _png(values: NDArray[np.uint8]) -> dict[str, Any]:
    written = BytesIO()
    PIL.Image.fromarray(values).save(written, "PNG")
    return {"bytes": written.getvalue(), "path": None}


if __name__ == "__main__":
    main()
