"""Models that see pictures at tokens of a text, as files, in the layout that transformers.js knows:

- `vision_encoder.onnx` reads pictures once: pixels -> `image_features`, a row for every token that stands for a part of one;
- `embed_tokens.onnx` has the table of tokens: `input_ids` -> `inputs_embeds`;
- `decoder_model_merged.onnx` makes every step of rows from either, with keys and values of length 0 at first.

Whoever runs them puts the rows of pictures in the places of the tokens that stand for them, whose number the first says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stilla.export import EMBED, MERGED, VISION, graphs
from stilla.export.keys import TOKENS, Inputs, export
from stilla.export.steps import write_steps
from stilla.export.writers import PLACE

READ = ("input_ids", "attention_mask")
"""What a model is given of a text; all else is of pictures."""


def write_seeing(model: Any, batch: Inputs, axes: Mapping[str, tuple[str, ...]], folder: Path) -> Path:
    """The three files, of which the decoder's stands for all. `axes`: of all inputs."""
    pixels = {name: _of_several(value, len(axes[name])) for name, value in batch.items() if name not in READ}
    place = int(model.config.image_token_id)
    vision = _Vision(model, pixels).eval()
    export(vision, pixels, {name: dict(enumerate(axes[name])) for name in pixels}, ["image_features"], folder / VISION, model)
    embed = _Embed(model, place).eval()
    export(embed, {"input_ids": batch["input_ids"]}, {"input_ids": TOKENS}, ["inputs_embeds"], folder / EMBED, model)
    graphs.note(folder / VISION, {PLACE: str(place)})
    with torch.no_grad():
        rows = embed(batch["input_ids"])
    return write_steps(model, "inputs_embeds", rows, folder / MERGED)


def _of_several(value: Tensor, free: int) -> Tensor:
    """So that no axis that may have any size has one by chance of this batch, which the exporter would take for its only."""
    for axis in range(free):
        value = torch.cat([value, value], dim=axis) if value.shape[axis] < 2 else value
    return value


class _Vision(nn.Module):
    """What of pictures stands in the places of their tokens, (tokens of all pictures, width)."""

    def __init__(self, model: Any, pixels: Inputs) -> None:
        super().__init__()
        self.inside: Any = model.model
        self.names = tuple(pixels)
        self.in_one = False
        self.in_one = self._same_in_one(pixels)

    def forward(self, *values: Tensor) -> Tensor:
        with _AllInOne():
            return self._features(dict(zip(self.names, values)))

    @torch.no_grad()
    def _same_in_one(self, pixels: Inputs) -> bool:
        """Whether pictures of several examples may come as those of one, where each has a row of them (Idefics3, SmolVLM):
        they are parted by how many each has, which a graph for any number of examples cannot."""
        if any(value.dim() < 4 for value in pixels.values()) or pixels["pixel_values"].dim() < 5:
            return False
        several, one = self._features(pixels), self._features(_joined(pixels))
        return several.shape == one.shape and torch.allclose(several, one, atol=1e-5)

    def _features(self, pixels: Inputs) -> Tensor:
        given = _joined(pixels) if self.in_one else pixels
        said = self.inside.get_image_features(**given, return_dict=True).pooler_output
        return (said if isinstance(said, Tensor) else torch.cat(list(said))).flatten(0, -2)


class _AllInOne(TorchFunctionMode):
    """Where a model makes a list of pictures, one each, and a graph does not know how many there will be (LLaVA): a list of
    one thing, all of them. Put together again, both are the same."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.unbind, torch.Tensor.__len__) and isinstance(args[0].shape[0], torch.SymInt):
            if func is torch.Tensor.__len__:
                raise TypeError("a graph does not know how many there will be")  # `list` asks, and goes on without
            return (args[0],)
        return func(*args, **(kwargs or {}))


def _joined(pixels: Inputs) -> Inputs:
    return {name: value.flatten(0, 1)[None] for name, value in pixels.items()}


class _Embed(nn.Module):
    """Tokens as rows; where the picture's own number is beyond the table, another's stands in its place until the picture
    does."""

    def __init__(self, model: Any, place: int) -> None:
        super().__init__()
        self.table = model.get_input_embeddings()
        self.beyond = place if place >= self.table.num_embeddings else None

    def forward(self, *values: Tensor) -> Tensor:
        (ids,) = values
        rows: Tensor = self.table(ids if self.beyond is None else torch.where(ids == self.beyond, 0, ids))
        return rows
