"""Tiny models that write about pictures, with their processors, and pictures of squares with what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3Processor,
    GemmaConfig,
    Idefics3Config,
    Idefics3Processor,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2VLConfig,
    SmolVLMConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tests.tasks.vision_text.setting import NAMES, picture

VOCABULARY = 300


def template(place: str, before: str = "", after: str = "") -> str:
    """A chat template as these models have them: contents are lists of parts."""
    return ("{% for message in messages %}<{{ message.role }}> {% for part in message.content %}"
            "{% if part.type == 'image' %}" + before + place + after + "{% else %}{{ part.text }}{% endif %}{% endfor %}</s>"
            "{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}")


def tokenizer(chat: str | None, extra: Sequence[str] = (), **named: str) -> PreTrainedTokenizerFast:
    """Every byte is a token."""
    pieces = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *extra]
    made = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    told = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                   extra_special_tokens=named, model_max_length=256)
    told.add_special_tokens({"additional_special_tokens": list(extra)})
    told.chat_template = chat
    return told


def _text(layers: int, width: int) -> dict[str, Any]:
    return {"vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": width // 2, "max_position_embeddings": 256,
            "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _vision(size: int, width: int = 16) -> dict[str, Any]:
    return {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": size, "patch_size": 8, "initializer_range": 0.2}


def llava(layers: int, width: int, size: int, chat: bool) -> tuple[Any, Any]:
    told = tokenizer(template("<image>") if chat else None, ["<image>"])
    config = LlavaConfig(vision_config=CLIPVisionConfig(**_vision(size)), text_config=LlamaConfig(**_text(layers, width)),
                         image_token_index=told.convert_tokens_to_ids("<image>"))
    images = CLIPImageProcessorPil(size={"height": size, "width": size}, do_center_crop=False)
    return config, LlavaProcessor(images, told, patch_size=8, vision_feature_select_strategy="default",
                                  num_additional_image_tokens=1, chat_template=told.chat_template)


def llava_next(layers: int, width: int, size: int, chat: bool) -> tuple[Any, Any]:
    config, known = llava(layers, width, size, chat)
    points = [[size, 2 * size], [2 * size, size]]
    made = LlavaNextConfig(vision_config=config.vision_config, text_config=config.text_config,
                           image_token_index=config.image_token_index, image_grid_pinpoints=points)
    images = LlavaNextImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size},
                                        image_grid_pinpoints=points)
    return made, LlavaNextProcessor(images, known.tokenizer, patch_size=8, vision_feature_select_strategy="default",
                                    num_additional_image_tokens=1, chat_template=known.chat_template)


_IDEFICS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
            *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)))


def idefics3(layers: int, width: int, size: int, chat: bool) -> tuple[Any, Any]:
    told = tokenizer(template("<image>") if chat else None, _IDEFICS)
    config = Idefics3Config(vision_config=_vision(size), text_config=LlamaConfig(**_text(layers, width)), scale_factor=2,
                            image_token_id=told.convert_tokens_to_ids("<image>"), pad_token_id=0)
    images = Idefics3ImageProcessorPil(size={"longest_edge": size}, max_image_size={"longest_edge": size},
                                       do_image_splitting=False)
    return config, Idefics3Processor(images, told, image_seq_len=(size // 16) ** 2, chat_template=told.chat_template)


def smolvlm(layers: int, width: int, size: int, chat: bool) -> tuple[Any, Any]:
    told = tokenizer(template("<image>") if chat else None, _IDEFICS)
    config = SmolVLMConfig(vision_config=_vision(size), text_config=LlamaConfig(**_text(layers, width)), scale_factor=2,
                           image_token_id=told.convert_tokens_to_ids("<image>"), pad_token_id=0)
    images = SmolVLMImageProcessorPil(size={"longest_edge": size}, max_image_size={"longest_edge": size},
                                      do_image_splitting=False)
    return config, (images, told, {"image_seq_len": (size // 16) ** 2, "processor_class": "SmolVLMProcessor",
                                   "video_processor": {"video_processor_type": "SmolVLMVideoProcessor"}})


def qwen2_vl(layers: int, width: int, size: int, chat: bool) -> tuple[Any, Any]:
    place, start, end, video = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"
    told = tokenizer(template(place, start, end) if chat else None, [place, start, end, video])
    number = told.convert_tokens_to_ids
    sections = [width // 8, width // 16, width // 16]
    text = {**_text(layers, width), "rope_scaling": {"type": "mrope", "mrope_section": sections}}
    config = Qwen2VLConfig(
        text_config=text, image_token_id=number(place), video_token_id=number(video), vision_start_token_id=number(start),
        vision_end_token_id=number(end),
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": width, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4,
                       "spatial_merge_size": 2, "temporal_patch_size": 2})
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, temporal_patch_size=2, min_pixels=8 * 8,
                                      max_pixels=size * size)
    return config, (images, told, {"processor_class": "Qwen2VLProcessor"})


def gemma3(layers: int, width: int, size: int, chat: bool) -> tuple[Any, Any]:
    told = tokenizer(template("<start_of_image>") if chat else None, image_token="<image_soft_token>",
                     boi_token="<start_of_image>", eoi_token="<end_of_image>")
    number = told.convert_tokens_to_ids
    config = Gemma3Config(
        text_config={**_text(layers, width), "sliding_window": 64, "query_pre_attn_scalar": width // 2},
        vision_config=_vision(size), mm_tokens_per_image=4, image_token_index=number("<image_soft_token>"),
        boi_token_index=number("<start_of_image>"), eoi_token_index=number("<end_of_image>"))
    images = Gemma3ImageProcessorPil(size={"height": size, "width": size})
    return config, Gemma3Processor(images, told, image_seq_length=4, chat_template=told.chat_template)


def internvl(layers: int, width: int, size: int, chat: bool) -> tuple[Any, Any]:
    told = tokenizer(template("<IMG_CONTEXT>") if chat else None, start_image_token="<img>", end_image_token="</img>",
                     context_image_token="<IMG_CONTEXT>", video_token="<video>")
    text = _text(layers, width)
    text.pop("head_dim")
    config = InternVLConfig(
        text_config=Qwen2Config(**text), image_token_id=told.convert_tokens_to_ids("<IMG_CONTEXT>"), downsample_ratio=0.5,
        vision_config={**_vision(size), "image_size": [size, size], "patch_size": [8, 8]}, image_seq_length=(size // 16) ** 2)
    images = GotOcr2ImageProcessorPil(size={"height": size, "width": size}, crop_to_patches=False)
    return config, (images, told, {"image_seq_length": (size // 16) ** 2, "processor_class": "InternVLProcessor"})


def paligemma(layers: int, width: int, size: int, chat: bool) -> tuple[Any, Any]:
    told = tokenizer(None, ["<image>"])
    config = PaliGemmaConfig(
        text_config=GemmaConfig(**{**_text(layers, width), "vocab_size": 1500}),
        vision_config={**_vision(size), "vision_use_head": False},
        image_token_index=told.convert_tokens_to_ids("<image>"), projection_dim=width)
    images = SiglipImageProcessorPil(size={"height": size, "width": size})
    images.image_seq_length = (size // 8) ** 2
    return config, PaliGemmaProcessor(images, told)


Made = Callable[[int, int, int, bool], tuple[Any, Any]]
FAMILIES: Mapping[str, Made] = {"llava": llava, "llava_next": llava_next, "idefics3": idefics3, "smolvlm": smolvlm,
                                "qwen2_vl": qwen2_vl, "gemma3": gemma3, "internvl": internvl, "paligemma": paligemma}


def folder(
    path: Path, family: str = "llava", *, layers: int = 2, width: int = 32, size: int = 32, chat: bool = True, seed: int = 0
) -> str:
    torch.manual_seed(seed)
    config, processor = FAMILIES[family](layers, width, size, chat)
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    model.save_pretrained(path)
    if not isinstance(processor, tuple):
        processor.save_pretrained(path)
        return str(path)
    images, told, said = processor  # of a class that cannot be built without torchvision
    told.save_pretrained(path)
    images.save_pretrained(path)
    (path / "processor_config.json").write_text(json.dumps({**said, "image_processor": images.to_dict()}), encoding="utf-8")
    return str(path)


# --- data ---


def captioned(path: Path, count: int = 8, *, first: int = 0, each: int = 1, size: int = 16) -> str:
    """Pictures of squares with captions, a text each or lists of `each`."""
    rows = {"image": [{"bytes": picture(number, size), "path": None} for number in range(first, first + count)],
            "caption": [_said(number, each) for number in range(first, first + count)]}
    kind = Value("string") if each == 1 else List(Value("string"))
    Dataset.from_dict(rows, features=Features({"image": Image(), "caption": kind})).to_parquet(path)
    return str(path)


def _said(number: int, each: int) -> str | list[str]:
    name = NAMES[number % len(NAMES)]
    several = [f"a {name} square", f"{name} on grey", f"it is {name}"][:each]
    return several[0] if each == 1 else several


def asked(path: Path, count: int = 8) -> str:
    """With a question and an answer, as JSON lines that name files beside them."""
    (path / "photos").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        (path / "photos" / f"{number}.png").write_bytes(picture(number))
        lines.append({"image": f"photos/{number}.png", "question": "Which colour?", "answer": NAMES[number % len(NAMES)]})
    (path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(path / "train.jsonl")


def talked(path: Path, count: int = 6) -> str:
    """Conversations with one or two pictures, by names of files in a list."""
    (path / "photos").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        (path / "photos" / f"{number}.png").write_bytes(picture(number))
        names = [NAMES[number % len(NAMES)], NAMES[(number + 1) % len(NAMES)]][: 1 + number % 2]
        content: list[dict[str, str]] = [{"type": "image"} for _ in names] + [{"type": "text", "text": "Which?"}]
        lines.append({"images": [f"photos/{(number + one) % count}.png" for one in range(len(names))], "messages": [
            {"role": "user", "content": content},
            {"role": "assistant", "content": [{"type": "text", "text": " and ".join(names)}]},
            {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]})
    (path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(path / "train.jsonl")
