"""Families of transformers with two towers, made from configs: their vectors, layers, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from stilla.errors import CompatibilityError
from stilla.students import by_layers
from stilla.tasks.vision_text.model import as_dual
from tests.tasks.vision_text.setting import loaded, siglip_tokenizer

_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
_TEXT: dict[str, dict[str, Any]] = {
    "clip": {"eos_token_id": 1, "bos_token_id": 1}, "metaclip_2": {"eos_token_id": 1, "bos_token_id": 1},
    "chinese_clip": {}, "altclip": {"project_dim": 32},
    "siglip": {"projection_size": 32, "eos_token_id": 1, "bos_token_id": 1}}


def folder(path: Path, family: str) -> str:
    tokenizer: PreTrainedTokenizerFast = siglip_tokenizer()
    if family != "siglip":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    text = {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 80, "pad_token_id": 0, **_TEXT[family]}
    more = {} if family == "siglip" else {"projection_dim": 24}
    vision = {**_SIZES, "image_size": 16, "patch_size": 8}
    config = AutoConfig.for_model(family, text_config=text, vision_config=vision, **more)
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    model.save_pretrained(path)
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    PROCESSOR_MAPPING[type(model.config)](image_processor=images, tokenizer=tokenizer).save_pretrained(path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("family", _TEXT)
def test_a_family_gives_the_vectors_of_transformers_also_with_layers_left_out(tmp_path: Path, family: str) -> None:
    made = loaded(folder(tmp_path / family, family))
    plain = AutoModel.from_pretrained(tmp_path / family)
    inputs = made.processor.tokenizer(["a text", "one"], return_tensors="pt", padding="max_length", max_length=12)
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        ours, theirs = made.model(pixel_values=pixels, **inputs), plain.eval()(pixel_values=pixels, **inputs)
    torch.testing.assert_close(ours.image_embeds, theirs.image_embeds)
    torch.testing.assert_close(ours.text_embeds, theirs.text_embeds)
    assert made.model.width == ours.text_embeds.shape[1]
    student: Any = by_layers(made.model, {"text": 1, "vision": 2}).model
    assert student(pixel_values=pixels, **inputs).image_embeds.shape == ours.image_embeds.shape


def test_pictures_as_patches_of_any_size_are_refused(tmp_path: Path) -> None:
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model, Siglip2Processor

    tokenizer = siglip_tokenizer()
    text = {**_SIZES, "vocab_size": 40, "max_position_embeddings": 64, "projection_size": 32, "pad_token_id": 0,
            "eos_token_id": 1, "bos_token_id": 1}
    Siglip2Model(Siglip2Config(text_config=text, vision_config={**_SIZES, "num_patches": 16})).save_pretrained(tmp_path)
    Siglip2Processor(image_processor=Siglip2ImageProcessor(), tokenizer=tokenizer).save_pretrained(tmp_path)
    with pytest.raises(CompatibilityError, match=r"cannot be read by its tower for pictures .* pixel values of one size"):
        loaded(tmp_path)


def test_a_model_without_towers_is_no_model_of_pictures_and_texts() -> None:
    from tests.tasks.tiny import bert_config

    with pytest.raises(CompatibilityError, match="such as CLIP or SigLIP"):
        as_dual(AutoModel.from_config(bert_config()))
