"""Two towers, one for pictures and one for texts, whose vectors are compared: any of transformers' that has
`get_image_features` and `get_text_features`.

The model is its own class with another forward: the same weights by the same names, so that it is cut, made anew, given
adapters and saved as that class is.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from stilla.errors import CompatibilityError

SCALE, BIAS = 2.302585092994046, -10.0
"""What SigLIP begins with: log of 10, and -10 (arXiv:2303.15343, sec. 3)."""


@dataclass
class Vectors(ModelOutput):
    """`image_embeds`, `text_embeds`: (batch, width) of length 1, None of what was not given. `scale`, `bias`: how the model
    compares them; `bias` None where it has none."""

    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    scale: Tensor | None = None
    bias: Tensor | None = None


class DualEncoder(nn.Module):
    """What is added to a model's class; made by `class_for`, never by itself."""

    dual_class: ClassVar[Any]
    config: Any

    def forward(
        self, pixel_values: Tensor | None = None, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Vectors:
        """Of pictures, of texts, or of both, of which there may be more or fewer; in at least float32."""
        images = texts = None
        if pixel_values is not None:
            images = _unit(self.get_image_features(pixel_values=pixel_values))  # type: ignore[operator]
        if input_ids is not None:
            more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            texts = _unit(self.get_text_features(  # type: ignore[operator]
                input_ids=input_ids, attention_mask=attention_mask, **more))
        bias = cast(Any, dict(self.named_parameters(recurse=False)).get("logit_bias"))
        scale = cast(Tensor, self.logit_scale).float().exp().reshape(())
        return Vectors(images, texts, scale, None if bias is None else bias.float().reshape(()))

    def get_input_embeddings(self) -> nn.Module:
        """The text tower's."""
        tower: Any = self.text_model
        embeddings: nn.Module = tower.get_input_embeddings()
        return embeddings

    @property
    def width(self) -> int:
        """Of its vectors."""
        return self._width

    @functools.cached_property
    def _width(self) -> int:
        """As one forward of a text shows it: configs name it in several ways."""
        device = next(self.parameters()).device
        before = self.training
        self.eval()
        with torch.no_grad():
            ids = torch.zeros(1, 1, dtype=torch.int64, device=device) + _end(self.config)
            found = self(input_ids=ids, attention_mask=torch.ones_like(ids)).text_embeds
        self.train(before)
        return int(found.shape[-1])

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Classes made here are found again by what they are made of: copies, and other processes."""
        return _empty, (self.dual_class,), self.__dict__


def _end(config: Any) -> int:
    """A token that ends a text, where the config says one."""
    text = config.get_text_config()
    found = text.eos_token_id
    return int(found) if isinstance(found, int) and 0 <= found < text.vocab_size else text.vocab_size - 1


def _unit(features: Any) -> Tensor:
    vectors: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def _empty(dual: type[PreTrainedModel]) -> Any:
    made = class_for(cast(Any, dual))
    return made.__new__(made)


@functools.cache
def class_for(dual: Any) -> Any:
    """A model's class whose models give vectors; under its own name, which is written into config.json."""
    return type(dual.__name__, (DualEncoder, dual), {
        "dual_class": dual, "__module__": __name__, "__doc__": dual.__doc__})


def as_dual(model: PreTrainedModel) -> Any:
    """A loaded model as one that gives vectors, in place.

    Raises:
        CompatibilityError: it has no two towers whose vectors are compared.
    """
    if isinstance(model, DualEncoder):
        return model
    members = {name for one in type(model).__mro__ for name in vars(one)}
    if not {"get_image_features", "get_text_features"} <= members or "logit_scale" not in dict(model.named_parameters()):
        raise CompatibilityError(f"{type(model).__name__} does not compare the vector of a picture with that of a text; "
                                 "expected a model such as CLIP or SigLIP")
    model.__class__ = class_for(cast(Any, type(model)))
    made = cast(Any, model)
    return made.eval()


def begin(model: Any) -> None:
    """Scale and bias that nobody has trained, as SigLIP begins; transformers makes both 0."""
    if "logit_bias" in dict(model.named_parameters(recurse=False)):
        with torch.no_grad():
            if float(model.logit_scale) == 0 and float(model.logit_bias) == 0:
                model.logit_scale.fill_(SCALE)
                model.logit_bias.fill_(BIAS)
