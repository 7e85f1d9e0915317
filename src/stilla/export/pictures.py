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

from stilla.export import EMBED, MERGED, VISION
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
    _note(folder / VISION, place)
    with torch.no_grad():
        rows = embed(batch["input_ids"])
    return write_steps(model, "inputs_embeds", rows, folder / MERGED)


def _of_several(value: Tensor, free: int) -> Tensor:
    """So that no axis that may have any size has one by chance of this batch, which the exporter would take for its only."""
    for axis in range(free):
        value = torch.cat([value, value], dim=axis) if value.shape[axis] < 2 else value
    return value


class _Vision(nn.Module):
    """What of pictures stands in the places of their tokens, (tokens of all pictures, width).

    Where it leaves one of the model's parts as it stays but for its shape, it is taken there, and what follows sees the first
    picture alone: LLaVA makes a list of it, a picture each, which a graph for any number of them cannot.
    """

    def __init__(self, model: Any, pixels: Inputs) -> None:
        super().__init__()
        self.inside: Any = model.model
        self.names = tuple(pixels)
        self.in_one = False
        self.in_one = self._same_in_one(pixels)
        self.last = self._found(pixels)

    def forward(self, *values: Tensor) -> Tensor:
        pixels = dict(zip(self.names, values))
        if self.last is None:
            return self._features(pixels)
        seen = list[Tensor]()

        def first(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            seen.append(out)
            return out[:1]

        hook = self._part(self.last).register_forward_hook(first)
        try:
            self._features(pixels)
        finally:
            hook.remove()
        return seen[0].flatten(0, -2)

    @torch.no_grad()
    def _found(self, pixels: Inputs) -> str | None:
        """The part that the features come out of."""
        seen = dict[str, Any]()
        names = [name for name, _ in self.inside.named_children()]
        hooks = [self._part(name).register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
                 for name in names]
        try:
            whole = self._features(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return next((name for name, out in seen.items() if isinstance(out, Tensor) and out.shape[-1] == whole.shape[-1]
                     and torch.equal(out.flatten(0, -2), whole)), None)

    @torch.no_grad()
    def _same_in_one(self, pixels: Inputs) -> bool:
        """Whether pictures of several examples may come as those of one, where each has a row of them (Idefics3, SmolVLM):
        they are parted by how many each has, which a graph for any number of examples cannot."""
        if any(value.dim() < 4 for value in pixels.values()) or pixels["pixel_values"].dim() < 5:
            return False
        several, one = self._features(pixels), self._features(_joined(pixels))
        return several.shape == one.shape and torch.allclose(several, one, atol=1e-5)

    def _part(self, name: str) -> nn.Module:
        found: nn.Module = self.inside.get_submodule(name)
        return found

    def _features(self, pixels: Inputs) -> Tensor:
        given = _joined(pixels) if self.in_one else pixels
        said = self.inside.get_image_features(**given, return_dict=True).pooler_output
        return (said if isinstance(said, Tensor) else torch.cat(list(said))).flatten(0, -2)


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


def _note(path: Path, place: int) -> None:
    """Which token stands for pictures, so that the files can be run without knowing whose they are."""
    import onnx

    graph = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(graph, {PLACE: str(place)})
    onnx.save(graph, path)
