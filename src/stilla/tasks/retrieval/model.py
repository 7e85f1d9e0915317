"""Encoders that give one vector per text: any encoder of transformers, how its positions become a vector, and what follows.

An embedding model is the encoder's own class with that added: the same weights by the same names, so that it is cut, made
anew, given adapters and exported as the encoder is. What is added lies beside the encoder in a folder, as
sentence-transformers has it (`layout.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from stilla.errors import CompatibilityError
from stilla.signals import Pooling, Stack

Activation = Literal["identity", "tanh"]
_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {"identity": lambda one: one, "tanh": torch.tanh}
_LAYERS = "projections"


@dataclass(frozen=True)
class Layer:
    """A linear layer after the pooling. `narrow` goes in, `wide` comes out."""

    narrow: int
    wide: int
    bias: bool = False
    activation: Activation = "identity"


@dataclass(frozen=True)
class Shape:
    """How an encoder's positions become a vector: pooled, through layers, made of length 1.

    similarity: by what vectors are compared. width: of the vectors; an encoder of other width whose layers do not say so gets
    one more layer. None: the encoder's own.
    """

    pooling: Pooling
    normalised: bool
    similarity: Literal["cosine", "dot"] = "cosine"
    layers: tuple[Layer, ...] = ()
    width: int | None = None

    def fitted(self, hidden: int) -> tuple[Layer, ...]:
        """The layers behind an encoder of this width."""
        layers = self.layers
        if layers and layers[0].narrow != hidden:
            layers = (replace(layers[0], narrow=hidden), *layers[1:])
        last = layers[-1].wide if layers else hidden
        return layers if self.width is None or self.width == last else (*layers, Layer(last, self.width))


@dataclass
class EmbeddingOutput(ModelOutput):
    """`sentence_embedding`: one vector per text. `last_hidden_state`: what it was made of."""

    sentence_embedding: Tensor | None = None
    last_hidden_state: Tensor | None = None


class Projection(nn.Module):
    """y = f(W x + b)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.linear = nn.Linear(layer.narrow, layer.wide, bias=layer.bias)
        self.layer = layer
        if not self.linear.weight.is_meta:
            nn.init.orthogonal_(self.linear.weight)  # what is near stays near from the start

    def forward(self, vectors: Tensor) -> Tensor:
        return _ACTIVATIONS[self.layer.activation](self.linear(vectors))


class Embedder(nn.Module):
    """What is added to an encoder's class; made by `class_for`, never by itself."""

    shape: ClassVar[Shape]
    encoder_class: ClassVar[type[PreTrainedModel]]
    config: Any
    new_layers: int
    """How many of the layers after the encoder begin at random."""

    def __init__(self, config: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.attach()

    def attach(self) -> None:
        """The layers after the encoder; nothing of an encoder's own head is trained."""
        layers = self.shape.fitted(int(self.config.get_text_config().hidden_size))
        first = next(self.parameters())
        self.new_layers = 0
        self.projections = nn.ModuleList(Projection(layer) for layer in layers).to(first.device, first.dtype)
        for name, parameter in self.named_parameters():
            if name.startswith("pooler."):
                parameter.requires_grad_(False)  # made for another task, and not used

    @property
    def width(self) -> int:
        """Of its vectors."""
        layers = self.shape.fitted(int(self.config.get_text_config().hidden_size))
        return layers[-1].wide if layers else int(self.config.get_text_config().hidden_size)

    def embedded(self, hidden: Float[Tensor, "batch positions width"], mask: Tensor | None) -> Float[Tensor, "batch wide"]:
        """One vector per text, in at least float32. Padding has no influence."""
        vectors = Stack([hidden], None if mask is None else mask.bool()).pooled(0, self.shape.pooling)
        for projection in self.projections:
            vectors = projection(vectors.to(next(projection.parameters()).dtype))
        vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        return F.normalize(vectors, dim=-1) if self.shape.normalised else vectors

    def save_pretrained(self, save_directory: Any, *arguments: Any, state_dict: Any = None, **options: Any) -> None:
        """A folder that sentence-transformers loads: the encoder as its own class writes it, and beside it the rest."""
        from stilla.tasks.retrieval.layout import write_modules

        state = dict(self.state_dict() if state_dict is None else state_dict)
        own = {name: state.pop(name) for name in list(state) if name.startswith(f"{_LAYERS}.")}
        super().save_pretrained(save_directory, *arguments, state_dict=state, **options)  # type: ignore[misc]
        hidden = int(self.config.get_text_config().hidden_size)
        layers = self.shape.fitted(hidden)
        weights = [{name.removeprefix(f"{_LAYERS}.{place}."): value for name, value in own.items()
                    if name.startswith(f"{_LAYERS}.{place}.")} for place in range(len(layers))]
        write_modules(Path(save_directory), self.shape, hidden, list(zip(layers, weights, strict=True)))

    @classmethod
    def from_pretrained(cls, folder: Any, *arguments: Any, output_loading_info: bool = False, **options: Any) -> Any:
        """What `save_pretrained` wrote."""
        from stilla.tasks.retrieval.layout import layer_weights

        model, info = super().from_pretrained(  # type: ignore[misc]
            folder, *arguments, output_loading_info=True, **options)
        model.fill(layer_weights(Path(folder), model.shape.fitted(int(model.config.get_text_config().hidden_size))))
        info["missing_keys"] = type(info["missing_keys"])(
            name for name in info["missing_keys"] if not name.startswith(f"{_LAYERS}."))
        return (model, info) if output_loading_info else model

    def fill(self, weights: Sequence[Mapping[str, Tensor]]) -> None:
        """The weights of the layers after the encoder."""
        for projection, state in zip(self.projections, weights, strict=True):
            projection.load_state_dict(state)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Classes made here are found again by what they are made of: copies, and other processes."""
        return _empty, (self.encoder_class, self.shape), self.__dict__


def _empty(encoder: type[PreTrainedModel], shape: Shape) -> Any:
    made = class_for(cast(Any, encoder), shape)
    return made.__new__(made)


@functools.cache
def class_for(encoder: Any, shape: Shape) -> Any:
    """The encoder's class, whose models give vectors of this shape."""

    @functools.wraps(encoder.forward)
    def forward(self: Any, *arguments: Any, **inputs: Any) -> EmbeddingOutput:
        hidden = encoder.forward(self, *arguments, **inputs).last_hidden_state
        return EmbeddingOutput(self.embedded(hidden, inputs.get("attention_mask")), hidden)

    # under the encoder's own name, which is written into config.json
    return type(encoder.__name__, (Embedder, encoder), {
        "shape": shape, "encoder_class": encoder, "forward": forward, "__module__": __name__, "__doc__": encoder.__doc__})


def as_embedder(model: PreTrainedModel, shape: Shape, weights: Sequence[Mapping[str, Tensor]] = ()) -> Any:
    """A loaded encoder, or an embedding model, as one of this shape, in place; layers without weights begin at random.

    Raises:
        CompatibilityError: an encoder-decoder: which of its states are the text's is not said.
    """
    encoder = type(model).encoder_class if isinstance(model, Embedder) else type(model)
    if model.config.is_encoder_decoder and not encoder.__name__.endswith("EncoderModel"):
        raise CompatibilityError(f"{encoder.__name__} has an encoder and a decoder; expected an encoder, or a model that "
                                 "reads its text once")
    before = list(model.projections) if isinstance(model, Embedder) else []
    model.__class__ = class_for(cast(Any, encoder), shape)
    made = cast(Any, model)
    made.attach()
    same = takewhile(lambda pair: pair[0].layer == pair[1].layer, zip(before, made.projections))
    kept = [old.state_dict() for old, _ in same]
    known = weights or kept
    for projection, state in zip(made.projections, known):
        projection.load_state_dict(state)
    made.new_layers = max(0, len(made.projections) - len(known))
    return made.eval()
