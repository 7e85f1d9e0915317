"""What a small detector of blood cells learns from labels alone, and what from a larger one beside them.

    python -m benchmarks.detection --data DATA
    python -m benchmarks.detection --data DATA --labelled 24 --speed

Both are RT-DETRs with random weights, of 96 x 128 pixels: minutes a run, and no reference for anything but the difference
between the two (docs/object-detection.md). With `--labelled` the student knows the boxes of so many pictures only, as labels
alone do, and sees the others; the teacher has learnt from all. The same command again continues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

from benchmarks.inputs import add_data_option, bccd
from benchmarks.methods import differences, qualities, show, sizes, taught
from benchmarks.students import parser
from stilla.runtime.quiet import quiet_libraries

SIZE = {"height": 96, "width": 128}
MODELS = {"teacher": (64, 2, [16, 32, 64]), "student": (32, 1, [8, 16, 32])}
"""Width, decoder layers, and the widths of the backbone's stages, of which the last two are looked at."""
WAYS: dict[str, dict[str, Any]] = {
    "both": {"objectives": [{"kind": "objects"}, {"kind": "queries"}]},
    "queries": {"objectives": [{"kind": "queries"}]},
}


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/detection", threads=1, teacher_epochs=36.0, teacher_learning_rate=1e-3,
                  epochs=12.0, learning_rate=1e-3, batch_size=4, export=["onnx"])
    made.add_argument("--ways", nargs="+", choices=list(WAYS), default=["both"])
    made.add_argument("--labelled", type=int, help="pictures whose boxes students and labels alone may see; by default all")
    made.add_argument("--speed", action="store_true", help="measure latency and throughput too")
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    place = bccd(options.data)
    files = {split: str(place / f"{split}.parquet") for split in ("train", "validation", "test")}
    few = {} if options.labelled is None else {"limit": options.labelled, "unlabelled": {"rest": True}}
    base = {"task": "object-detection", "data": {**files, "limit": options.limit, **few},
            "student": {"model": str(begun("student", options.output))},
            "evaluate": {} if options.speed else {"speed": False}, "allow_weak_teacher": True}
    runs = taught(options, base, begun("teacher", options.output), {way: WAYS[way] for way in options.ways},
                  more=Path(files["train"]) if few else None, told={"precision": "float32"})
    scores = {way: run.scores for way, run in runs.items()}
    show("### blood cells", qualities(scores), differences(scores), sizes(next(iter(scores.values()))))


def begun(who: str, output: Path) -> Path:
    """The folder of a model with random weights. Of three stages: objects are a fifth of the picture at most, and maps of 32
    pixels a place would be a third of what a step takes."""
    folder = output / f"{who}-untrained"
    if (folder / "model.safetensors").is_file():
        return folder
    width, layers, stages = MODELS[who]
    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(embedding_size=stages[0], hidden_sizes=stages, depths=[1, 1, 1], layer_type="bottleneck",
                                  out_features=["stage2", "stage3"])
    config = RTDetrConfig(
        backbone_config=backbone, freeze_backbone_batch_norms=False, encoder_in_channels=stages[1:], encoder_hidden_dim=width,
        encoder_ffn_dim=2 * width, encoder_attention_heads=4, encoder_layers=1, encode_proj_layers=[1], d_model=width,
        feat_strides=[8, 16], num_feature_levels=2, decoder_in_channels=[width] * 2, decoder_ffn_dim=2 * width,
        decoder_attention_heads=4, decoder_layers=layers, num_queries=40, num_denoising=0, hidden_expansion=0.5, num_labels=3)
    RTDetrForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessorPil(size=SIZE).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
