"""Tiny models of two towers, and pictures of squares with what is said of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from stilla.recipe import ModelSource
from stilla.tasks.base import Loaded
from stilla.tasks.vision_text.image_text import ImageText

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (128, 128, 128)}
NAMES = tuple(COLOURS)
_LENGTH, _FIXED = 32, 64


def clip_tokenizer(merges: int = 0) -> CLIPTokenizer:
    """Letters, and some pairs of them."""
    letters = "abcdefghijklmnopqrstuvwxyz,."
    tokens = [*letters, *(f"{one}</w>" for one in letters)]
    pairs = [(one, other) for one in "rgbaeiou" for other in "aeioulnrt"][:merges]
    tokens += ["".join(pair) for pair in pairs]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=_LENGTH)


def siglip_tokenizer() -> PreTrainedTokenizerFast:
    """Characters, with an end and no mask."""
    vocabulary = {token: number for number, token in enumerate(["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz ,.:"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
                                   model_max_length=_FIXED, model_input_names=["input_ids"])


def clip_folder(
    path: Path, *, layers: int = 3, width: int = 32, vectors: int = 24, seed: int = 0, size: int = 16, merges: int = 0,
    **pixels: Any,
) -> str:
    tokenizer = clip_tokenizer(merges)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 2 * width}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(
        projection_dim=vectors, text_config={**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": _LENGTH,
                                             "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
                                             "pad_token_id": tokenizer.pad_token_id},
        vision_config={**sizes, "image_size": size, "patch_size": 8}))
    _louder(model)
    model.save_pretrained(path)
    images = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **pixels)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(path)
    return str(path)


def siglip_folder(path: Path, *, layers: int = 2, width: int = 32, seed: int = 0, trained: bool = True) -> str:
    tokenizer = siglip_tokenizer()
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 2 * width}
    torch.manual_seed(seed)
    model = SiglipModel(SiglipConfig(
        text_config={**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": _FIXED, "pad_token_id": 0,
                     "eos_token_id": 1, "bos_token_id": 1, "projection_size": width},
        vision_config={**sizes, "image_size": 16, "patch_size": 8}))
    _louder(model)
    if trained:
        torch.nn.init.constant_(model.logit_scale, 2.0)
        torch.nn.init.constant_(model.logit_bias, -3.0)
    model.save_pretrained(path)
    images = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    SiglipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(path)
    return str(path)


def _louder(model: Any) -> None:
    """Fresh weights are so small that all texts have one vector."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0 if "embedding" in name else 4.0)


def loaded(path: str | Path) -> Loaded:
    return ImageText().load(ModelSource(model=str(path)), labelled=True)


def picture(number: int, size: int = 16) -> bytes:
    """A square of one colour on a ground of another shade, smaller or larger by its number."""
    colour = COLOURS[NAMES[number % len(NAMES)]]
    made = PIL.Image.new("RGB", (size, size + 4), (10 * (number % 23),) * 3)
    edge = 4 + number % 7
    made.paste(colour, (1, 1, 1 + edge, 1 + edge))
    written = BytesIO()
    made.save(written, "PNG")
    return written.getvalue()


def captioned(
    path: Path, count: int = 12, first: int = 0, *, each: int = 1, beside: Sequence[str] | None = None
) -> str:
    """Parquet: a picture and its caption, or a list of as many (one fewer for some). `beside`: in columns of these names."""
    rows = [[f"a {NAMES[number % 4]} square, number {'abcdefghijklmnopqrstuvwxyz'[number % 26]}{'xyz'[place % 3]}"
             for place in range(each - (each > 1 and number % 3 == 0))] for number in range(first, first + count)]
    pictures = [{"bytes": picture(number), "path": None} for number in range(first, first + count)]
    if beside:
        columns = {name: [several[place] if place < len(several) else None for several in rows]
                   for place, name in enumerate(beside)}
        kinds = dict.fromkeys(beside, Value("string"))
        Dataset.from_dict({"image": pictures, **columns}, Features({"image": Image(), **kinds})).to_parquet(path)
        return str(path)
    texts: list[Any] = [several[0] for several in rows] if each == 1 else rows
    kind = Value("string") if each == 1 else List(Value("string"))
    Dataset.from_dict({"image": pictures, "caption": texts}, Features({"image": Image(), "caption": kind})).to_parquet(path)
    return str(path)


def classed(path: Path, count: int = 12, first: int = 0, **more: list[Any]) -> str:
    """Parquet: a picture and its class."""
    pictures = [{"bytes": picture(number), "path": None} for number in range(first, first + count)]
    labels = [number % 4 for number in range(first, first + count)]
    features = Features({"image": Image(), "label": ClassLabel(names=list(NAMES)),
                         **{name: Value("string") for name in more}})
    Dataset.from_dict({"image": pictures, "label": labels, **more}, features).to_parquet(path)
    return str(path)


def folder_with_metadata(path: Path, count: int = 8, *, lines: bool = False) -> str:
    """Pictures with a metadata file that holds their captions."""
    path.mkdir(parents=True)
    rows = []
    for number in range(count):
        (path / f"{number}.png").write_bytes(picture(number))
        rows.append({"file_name": f"{number}.png", "text": f"a {NAMES[number % 4]} square, {number}"})
    if lines:
        (path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        quoted = ["file_name,text\n", *(f'{row["file_name"]},"{row["text"]}"\n' for row in rows)]
        (path / "metadata.csv").write_text("".join(quoted))
    return str(path)
