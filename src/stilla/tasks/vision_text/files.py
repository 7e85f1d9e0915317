"""Models that write about pictures as exported files: which cannot be, which axes vary, and how files are asked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.errors import all_of
from stilla.tasks.text import tokens
from stilla.tasks.vision_text.looker import TYPES, Looker
from stilla.tasks.vision_text.questions import Layout

_AXES = {**dict.fromkeys(tokens.INPUTS, ("batch", "tokens")), "pixel_values": ("pictures",)}
_ROWS = dict.fromkeys(("pixel_values", "pixel_attention_mask"), ("batch", "pictures"))
"""Of models that are given the pictures of each example side by side."""

_ASKING = """\
import numpy as np
from PIL import Image
from transformers import AutoProcessor

processor = AutoProcessor.from_pretrained("."){needs}
tokenizer = processor.tokenizer
{asked}
pictures = [[Image.open("picture.png").convert("RGB")]]
inputs = processor(images=pictures, text=[asked],{special} return_tensors="np")
text = inputs["input_ids"]
"""
_TALK = """\
talk = [{{"role": "user", "content": [{{"type": "image"}}{question}]}}]
asked = processor.apply_chat_template(talk, add_generation_prompt=True)"""
_QUESTION = "What is in the picture?"


def unwritten(model: nn.Module, formats: Sequence[str]) -> list[str]:
    """Why its parts cannot be files of their own, in words."""
    why = _why(model)
    return [f"{all_of(list(formats))}: a {type(model).__name__} cannot be written: {why}. Leave export out and deploy the "
            "folder `student/`, or take a student of another family (docs/captions.md)"] if why and formats else []


def _why(model: nn.Module) -> str | None:
    inside: Any = dict(model.named_children()).get("model")
    if not isinstance(model, PreTrainedModel) or inside is None or "get_image_features" not in dir(type(inside)) \
            or not isinstance(getattr(model.config, "image_token_id", None), int):
        return "it does not say what it makes of a picture by itself, and in the places of which token that stands"
    told = [one for one in TYPES if one in inspect.signature(model.forward).parameters]
    if told:
        return (f"`{told[0]}` tell it which tokens stand for pictures, and it reads those otherwise than words (in rows and "
                "columns, or both ways), which a file that goes on from keys and values does not know")
    wanted = [name for name, one in inspect.signature(inside.get_image_features).parameters.items()
              if one.default is inspect.Parameter.empty and one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if more := [name for name in wanted if name != "pixel_values"]:
        return (f"how many tokens a picture gets, and which, depends on its own size ({all_of(more)}), and the graph of one "
                "picture would be another's")
    return None


def axes_of(inputs: Mapping[str, Tensor]) -> Mapping[str, tuple[str, ...]]:
    return {**_AXES, **_ROWS} if inputs["pixel_values"].dim() > 4 else _AXES


def asking(looker: Looker, layout: Layout) -> str:
    """As the data ask; of questions an example."""
    question = layout.instruction if layout.source == "captions" else _QUESTION
    needs = "  # needs torchvision, for videos" if looker.sees_videos else ""
    if looker.tokenizer.chat_template:
        part = f', {{"type": "text", "text": {question!r}}}' if question else ""
        return _ASKING.format(needs=needs, asked=_TALK.format(question=part), special=" add_special_tokens=False,")
    return _ASKING.format(needs=needs, asked=f"asked = {looker.place + question!r}", special="")
