"""How a model reads pictures and texts: an image processor by PIL, a tokenizer, and how texts are padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from stilla.errors import CompatibilityError
from stilla.models.fingerprint import of_processor
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.vision.pixels import settings

_SAME = 1e-3
"""Difference of two numbers of a vector of length 1 that padding which is masked may make."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A model's processor. `fixed`: every text is padded to the longest that the model reads, and nothing is masked (SigLIP);
    else to the longest of a batch. `whole`: transformers' processor class for the model."""

    tokenizer: PreTrainedTokenizerBase
    images: Any
    fixed: bool
    whole: Any

    def reads_alike(self, other: Reader) -> bool:
        return self.fixed == other.fixed and _tokens.same(self.tokenizer, other.tokenizer)

    def inputs(self, tokens: _tokens.Tokens, texts: Sequence[int]) -> dict[str, Tensor]:
        """Of some texts, as the model takes them."""
        made = tokens.batch(texts)
        if not self.fixed:
            return made
        length = int(self.tokenizer.model_max_length)
        missing = length - made["input_ids"].shape[1]
        ids = nn.functional.pad(made["input_ids"], (missing, 0) if tokens.left else (0, missing),
                                value=tokens.padding["input_ids"])
        return {"input_ids": ids}

    def save_pretrained(self, folder: Any) -> None:
        self.whole(image_processor=self.images, tokenizer=self.tokenizer).save_pretrained(folder)

    def to_dict(self) -> dict[str, Any]:
        """What its reading depends on."""
        return {"tokenizer": of_processor(self.tokenizer), "images": settings(self.images), "fixed": self.fixed,
                "longest": int(self.tokenizer.model_max_length)}


def reader_for(model: Any, tokenizer: PreTrainedTokenizerBase, images: Any) -> Reader:
    """Raises:
        CompatibilityError: transformers has no processor of pictures and texts for this model.
    """
    whole = PROCESSOR_MAPPING.get(type(model.config), None)
    if whole is None:
        raise CompatibilityError(f"{type(model).__name__}: transformers has no processor of pictures and texts for it")
    masked = "attention_mask" in tokenizer.model_input_names
    return Reader(tokenizer, images, not masked or _moved_by_padding(model, tokenizer), whole)


@torch.no_grad()
def _moved_by_padding(model: Any, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the vector of a text changes with what is masked behind it."""
    ids = torch.tensor([tokenizer("a", truncation=True, max_length=tokenizer.model_max_length)["input_ids"]])
    room = min(4, int(tokenizer.model_max_length) - ids.shape[1])
    if room <= 0:
        return False
    left = tokenizer.padding_side == "left"
    side = (room, 0) if left else (0, room)
    inputs = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)},
              {"input_ids": nn.functional.pad(ids, side, value=int(tokenizer.pad_token_id or 0)),
               "attention_mask": nn.functional.pad(torch.ones_like(ids), side)}]
    alone, padded = (model(**{name: one.to(next(model.parameters()).device) for name, one in some.items()}).text_embeds
                     for some in inputs)
    return bool((alone - padded).abs().max() > _SAME)


def has_files(folder: Path) -> bool:
    """Whether an image processor lies there."""
    names = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")
    return any((folder / name).is_file() for name in names)
