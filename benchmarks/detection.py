"""What a small detector of blood cells learns from labels alone, and what from a larger one beside them.

    python -m benchmarks.detection --data DATA

Both are RT-DETRs with random weights, of 96 x 128 pixels: seconds to minutes a run, and no reference for anything but the
difference between the two (docs/object-detection.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

import stilla
from benchmarks.inputs import add_data_option, bccd
from stilla.report.table import markdown_table

SIZE = {"height": 96, "width": 128}
MODELS = {"teacher": (64, 3, [16, 32, 48, 64]), "student": (32, 2, [8, 16, 24, 32])}
"""Width, decoder layers, and the widths of the backbone's stages."""
WAYS: dict[str, list[dict[str, Any]]] = {
    "both": [{"kind": "objects"}, {"kind": "queries"}],
    "queries": [{"kind": "queries"}],
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["both"])
    parser.add_argument("--epochs", type=float, default=16)
    parser.add_argument("--teacher-epochs", type=float, default=24)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/detection"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    data = bccd(options.data)
    for way in options.ways:
        learning = {"batch_size": 8, "learning_rate": options.learning_rate, "precision": "float32"}
        run = stilla.distill({
            "task": "object-detection",
            "data": {split: str(data / f"{split}.parquet") for split in ("train", "validation", "test")},
            "teacher": {"model": made("teacher", options.output), "train": {**learning, "epochs": options.teacher_epochs}},
            "student": {"model": made("student", options.output)},
            "distill": {**learning, "epochs": options.epochs, "objectives": WAYS[way]},
            "evaluate": {"baseline": way == "both", "speed": False}, "output": str(options.output / way)})
        print(f"\n### {way}\n\n{markdown_table(run.scores)}\n\n{run.scores.verdict}\n")


def made(who: str, output: Path) -> str:
    """The folder of a model with random weights."""
    width, layers, stages = MODELS[who]
    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(embedding_size=stages[0], hidden_sizes=stages, depths=[1, 1, 1, 1], layer_type="bottleneck",
                                  out_features=["stage2", "stage3", "stage4"])
    config = RTDetrConfig(
        backbone_config=backbone, freeze_backbone_batch_norms=False, encoder_in_channels=stages[1:], encoder_hidden_dim=width,
        encoder_ffn_dim=2 * width, encoder_attention_heads=4, encoder_layers=1, d_model=width,
        decoder_in_channels=[width] * 3, decoder_ffn_dim=2 * width, decoder_attention_heads=4, decoder_layers=layers,
        num_queries=40, num_denoising=0,
        hidden_expansion=0.5, num_labels=3)
    folder = output / f"{who}-untrained"
    RTDetrForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessorPil(size=SIZE).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
