"""How well a small MaskFormer of random weights finds single cell nuclei, taught by labels alone and by a larger one.

    python -m benchmarks.nuclei_instances --data DATA

The 2018 Data Science Bowl's pictures of cells, 517 to learn from, each nucleus with its mask (docs/image-segmentation.md).
Nothing is trained before: the teacher learns from all masks, its student from those of `--labelled` pictures and from the
teacher's answers to all, the baseline from the same masks alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DetrConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MaskFormerImageProcessorPil,
    ResNetConfig,
)

import stilla
from benchmarks.inputs import add_data_option, data_set
from benchmarks.nuclei import some
from stilla.report.table import markdown_table

NAME = "nucleus"
LARGE: dict[str, Any] = {"width": 64, "channels": [32, 64, 96, 128], "layers": 3}
SMALL: dict[str, Any] = {"width": 32, "channels": [16, 32, 48, 64], "layers": 2}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--labelled", type=int, default=0, help="pictures whose masks students may see; 0: all")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--teacher-epochs", type=float, default=40.0)
    parser.add_argument("--epochs", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/nuclei-instances"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    place = data_set(options.data, "nuclei_dsb2018", "pictures of the 2018 Data Science Bowl: columns image, instances")
    files = {split: str(place / f"{split}.parquet") for split in ("train", "validation", "test")}
    learning: dict[str, Any] = {"batch_size": 8, "precision": "float32", "learning_rate": 1e-3}
    data: dict[str, Any] = {**files, "masks": "instances", "image": "image", "labels": [NAME]}
    if options.labelled:
        data |= {"train": str(some(place, options.output, options.labelled)), "unlabelled": files["train"]}
    models = {who: str(_random(options.output / who, options.size, options.queries, **sizes))
              for who, sizes in (("random-teacher", LARGE), ("random-student", SMALL))}
    run = stilla.distill({
        "task": "image-segmentation", "data": data, "student": {"model": models["random-student"]},
        "teacher": {"model": models["random-teacher"],
                    "train": {"epochs": options.teacher_epochs, "data": files["train"], **learning}},
        "distill": {"epochs": options.epochs, **learning}, "evaluate": {"baseline": True, "speed": False},
        "allow_weak_teacher": True, "output": str(options.output / "run")})
    print(f"\n{markdown_table(run.scores)}\n\n{run.scores.verdict}\n")


def _random(folder: Path, size: int, queries: int, *, width: int, channels: list[int], layers: int) -> Path:
    if not (folder / "model.safetensors").is_file():
        torch.manual_seed(0)
        backbone = ResNetConfig(embedding_size=channels[0], hidden_sizes=channels, depths=[1, 1, 1, 1], layer_type="basic",
                                out_features=["stage1", "stage2", "stage3", "stage4"])
        decoder = DetrConfig(
            d_model=width, decoder_layers=layers, encoder_layers=1, num_queries=queries, decoder_attention_heads=4,
            encoder_attention_heads=4, decoder_ffn_dim=2 * width, encoder_ffn_dim=2 * width, dropout=0.0,
            use_timm_backbone=False, backbone=None, backbone_config={"model_type": "resnet"})
        MaskFormerForInstanceSegmentation(MaskFormerConfig(
            backbone_config=backbone, decoder_config=decoder, fpn_feature_size=64, mask_feature_size=width, dropout=0.0,
            id2label={0: NAME}, label2id={NAME: 0})).save_pretrained(folder)
        MaskFormerImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
