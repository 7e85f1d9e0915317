"""Tiny detectors of every family, and pictures with coloured boxes for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import nn
from transformers import (
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    DabDetrConfig,
    DabDetrForObjectDetection,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    Deimv2Config,
    Deimv2ForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    DFineConfig,
    DFineForObjectDetection,
    HGNetV2Config,
    LwDetrConfig,
    LwDetrForObjectDetection,
    LwDetrViTConfig,
    ResNetConfig,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    YolosConfig,
    YolosForObjectDetection,
)
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

NAMES = ("circle", "square", "triangle")
COLOURS = {"circle": (220, 40, 40), "square": (40, 200, 40), "triangle": (40, 40, 220)}

_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
_DETR = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "d_model": 16, "encoder_layers": 2,
         "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32,
         "decoder_ffn_dim": 32, "num_queries": 8, "dropout": 0.0, "backbone_kwargs": {}}


def _resnet() -> ResNetConfig:
    return ResNetConfig(**_RESNET, out_features=["stage4"])


def _pyramid() -> ResNetConfig:
    return ResNetConfig(**_RESNET, out_features=["stage2", "stage3", "stage4"])


def _rt(**more: Any) -> dict[str, Any]:
    return {"backbone_config": RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"]),
        "encoder_hidden_dim": 16, "encoder_in_channels": [16, 16, 16], "encoder_ffn_dim": 32, "encoder_attention_heads": 2,
        "encoder_layers": 1, "d_model": 16, "num_queries": 8, "decoder_in_channels": [16, 16, 16], "decoder_ffn_dim": 32,
        "decoder_attention_heads": 2, "decoder_layers": 2, "num_feature_levels": 3, "decoder_n_points": 2,
        "num_denoising": 4, "hidden_expansion": 1.0, **more}


def _fine(**more: Any) -> dict[str, Any]:
    return {**_rt(), "backbone_config": HGNetV2Config(
        stem_channels=[3, 8, 8], stage_in_channels=[8, 16, 16, 16], stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[16, 16, 16, 16], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[16, 16, 16, 16], depths=[1, 1, 1, 1], embedding_size=8,
        out_features=["stage2", "stage3", "stage4"]), "max_num_bins": 8, "decoder_n_points": [2, 2, 2], **more}


def config(family: str, names: Sequence[str] = NAMES, **changes: Any) -> Any:
    """Of a family without timm and torchvision, tiny."""
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    made: dict[str, Any] = {
        "yolos": lambda **more: YolosConfig(**{
            "image_size": [48, 48], "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
            "intermediate_size": 64, "num_detection_tokens": 8, "use_mid_position_embeddings": False,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **more}),
        "detr": lambda **more: DetrConfig(**{**_DETR, "backbone_config": _resnet(), **more}),
        "conditional": lambda **more: ConditionalDetrConfig(**{**_DETR, "backbone_config": _resnet(), **more}),
        "dab": lambda **more: DabDetrConfig(**{
            **{name: value for name, value in _DETR.items() if name != "d_model"}, "hidden_size": 16,
            "backbone_config": _resnet(), **more}),
        "deformable": lambda **more: DeformableDetrConfig(**{**_DETR, "d_model": 32, "backbone_config": _pyramid(),
                                                             "num_feature_levels": 3, "encoder_n_points": 2,
                                                             "decoder_n_points": 2, **more}),
        "rt-detr": lambda **more: RTDetrConfig(**_rt(**more)),
        "rt-detr-v2": lambda **more: RTDetrV2Config(**_rt(**more)),
        "d-fine": lambda **more: DFineConfig(**_fine(**more)),
        "deimv2": lambda **more: Deimv2Config(**_fine(**more)),
        "lw-detr": lambda **more: LwDetrConfig(**{
            "backbone_config": LwDetrViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=64,
                                               patch_size=8, window_block_indices=[0], num_windows=4, pretrain_image_size=64,
                                               out_features=["stage1", "stage2"], out_indices=[1, 2], mlp_ratio=2),
            "d_model": 16, "num_queries": 8, "decoder_layers": 2, "decoder_self_attention_heads": 2,
            "decoder_cross_attention_heads": 2, "decoder_ffn_dim": 32, "decoder_n_points": 2, "group_detr": 3,
            "hidden_expansion": 1.0, "dropout": 0.0, "projector_scale_factors": [1.0], **more}),
    }
    return made[family](**{**labels, **changes})


CLASSES: dict[str, Any] = {
    "yolos": YolosForObjectDetection, "detr": DetrForObjectDetection, "conditional": ConditionalDetrForObjectDetection,
    "dab": DabDetrForObjectDetection, "deformable": DeformableDetrForObjectDetection, "rt-detr": RTDetrForObjectDetection,
    "rt-detr-v2": RTDetrV2ForObjectDetection, "d-fine": DFineForObjectDetection, "deimv2": Deimv2ForObjectDetection,
    "lw-detr": LwDetrForObjectDetection,
}
FAMILIES = tuple(CLASSES)


def model(family: str, seed: int = 0, names: Sequence[str] = NAMES, **changes: Any) -> nn.Module:
    """With random weights, large enough that its queries differ."""
    torch.manual_seed(seed)
    made: nn.Module = CLASSES[family](config(family, names, **changes))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.dim() > 1 and ("embed" in name or "predictor" in name or "classifier" in name or "head" in name):
                weight.normal_(0, 0.3)
    return made.eval()


def processor(family: str, size: int = 64, fixed: bool | None = None) -> Any:
    """`fixed`: to one size; by default where the family has to."""
    if family.startswith(("rt", "d-fine", "deim")):
        return RTDetrImageProcessorPil(size={"height": size, "width": size})
    kind = YolosImageProcessorPil if family == "yolos" else DetrImageProcessorPil
    square = family in ("yolos", "lw-detr") if fixed is None else fixed
    return kind(size={"height": size, "width": size} if square else {"shortest_edge": size // 2, "longest_edge": size})


def folder(path: Path, family: str = "yolos", *, size: int = 64, fixed: bool | None = None, **changes: Any) -> str:
    """A detector as `save_pretrained` leaves it."""
    model(family, **changes).save_pretrained(path)
    processor(family, size, fixed).save_pretrained(path)
    return str(path)


def picture(
    draw: np.random.Generator, width: int, height: int, most: int = 3
) -> tuple[PIL.Image.Image, list[dict[str, Any]]]:
    """Grey, with up to so many coloured boxes: their colour is their class."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    found = []
    for _ in range(draw.integers(0, most + 1)):
        name = str(draw.choice(NAMES))
        wide, high = (int(draw.integers(span // 5, span // 2)) for span in (width, height))
        left, top = int(draw.integers(0, width - wide)), int(draw.integers(0, height - high))
        pixels[top : top + high, left : left + wide] = COLOURS[name]
        found.append({"bbox": [float(left), float(top), float(wide), float(high)], "category": name})
    return PIL.Image.fromarray(pixels), found


def coco(path: Path, count: int = 12, seed: int = 0, *, most: int = 3, sizes: Sequence[tuple[int, int]] = ((64, 48), (48, 64))
         ) -> str:
    """A folder of pictures and a file in COCO's form, with sparse ids; gives the file's name."""
    draw = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    ids = {name: 7 + 11 * number for number, name in enumerate(reversed(NAMES))}
    images, annotations = [], []
    for number in range(count):
        width, height = sizes[number % len(sizes)]
        made, found = picture(draw, width, height, most)
        made.save(path / f"{number}.png")
        images.append({"id": 100 + 3 * number, "file_name": f"{number}.png", "width": width, "height": height})
        annotations += [{"id": len(annotations) + place + 1, "image_id": 100 + 3 * number,
                         "category_id": ids[one["category"]], "bbox": one["bbox"], "area": 1.0, "iscrowd": 0}
                        for place, one in enumerate(found)]
    whole = {"images": images, "annotations": annotations,
             "categories": [{"id": number, "name": name} for name, number in ids.items()]}
    (path / "boxes.json").write_text(json.dumps(whole))
    return str(path / "boxes.json")
