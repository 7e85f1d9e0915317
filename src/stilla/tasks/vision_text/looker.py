"""How a model that writes about pictures reads them: at tokens of a text, as many for each as transformers' own processor
puts there, with pixels prepared by PIL.

transformers builds the processors of models that also see videos (Qwen2-VL, SmolVLM, InternVL) only where torchvision is
there. Pictures do not need it: such a processor is built here without its part for videos.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from stilla.errors import CompatibilityError
from stilla.models.fingerprint import of_processor
from stilla.recipe import ModelSource
from stilla.tasks.shared.loading import explained, where_processor
from stilla.tasks.text import tokens
from stilla.tasks.vision.image_classification import processor_for

logger = logging.getLogger(__name__)

_VIDEOS = "video_processor"
TYPES = ("mm_token_type_ids", "token_type_ids")
"""By which of its inputs a model is told where pictures stand."""


@dataclass(frozen=True, eq=False)
class Looker:
    """`whole`: transformers' processor of pictures and texts. `types`: the input that tells a model which tokens stand for
    pictures, if it takes one. `videos`: what the processor's folder says of videos, which is handed on as it is."""

    whole: Any
    types: str | None
    videos: Mapping[str, Any] | None = None
    written: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict, repr=False)
    """What stands in a text for a picture, and how many of its tokens are the picture's, by the picture's size."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        found: PreTrainedTokenizerBase = self.whole.tokenizer
        return found

    @property
    def sees_videos(self) -> bool:
        """Whether transformers builds the processor with a part for videos."""
        kinds: Sequence[Any] = [one for one in type(self.whole).__mro__ if issubclass(one, ProcessorMixin)]
        return any(_VIDEOS in one.get_attributes() for one in kinds)

    @property
    def place(self) -> str:
        """What a chat template writes where a picture stands."""
        return str(self.whole.image_token)

    def stands_for(self, size: tuple[int, int]) -> str:
        """What a text has in that place in the end: the tokens of a picture of this size, and what the family puts around
        them. Nothing of it depends on what the picture shows."""
        if size not in self.written:
            said = self._read([[PIL.Image.new("RGB", size)]], return_text_replacement_offsets=True)
            if not said.get("text_replacement_offsets"):
                raise CompatibilityError(f"{type(self.whole).__name__} does not say what stands in a text for a picture: its "
                                         "models take pictures otherwise than at tokens of a text")
            ((one,),) = said["text_replacement_offsets"]
            ids = self.tokenizer(str(one["replacement"]), add_special_tokens=False)["input_ids"]
            self.written[size] = str(one["replacement"]), int(self.marks(np.array(ids, np.int32)).sum())
        return self.written[size][0]

    def number(self, size: tuple[int, int]) -> int:
        """How many tokens of that stand for the picture itself."""
        self.stands_for(size)
        return self.written[size][1]

    def pixels(self, pictures: Sequence[Sequence[PIL.Image.Image]]) -> dict[str, Tensor]:
        """What the model sees of the pictures of each example: of all in one, as its family has them."""
        made = self._read(pictures, return_tensors="pt", padding=True)
        return {name: value for name, value in made.items() if name not in (*tokens.INPUTS, *TYPES, "labels")}

    def marks(self, ids: NDArray[np.int32]) -> NDArray[np.int8]:
        """Of each token, 1 where it stands for (a part of) a picture."""
        return np.isin(ids, self.numbers).astype(np.int8)

    @functools.cached_property
    def numbers(self) -> tuple[int, ...]:
        """The tokens that stand for pictures."""
        return tuple(int(one) for one in self.whole.image_token_ids)

    def _read(self, pictures: Sequence[Sequence[PIL.Image.Image]], **options: Any) -> Mapping[str, Any]:
        said: Mapping[str, Any] = self.whole(images=[list(some) for some in pictures], add_special_tokens=False,
                                             text=[self.place * len(some) for some in pictures], **options)
        return said

    def reads_alike(self, other: Looker) -> bool:
        return self is other or self.to_dict() == other.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """What decides which tokens and values a model reads."""
        said = json.loads(self.whole.to_json_string())
        said.pop("processor_class", None)
        return {"tokenizer": of_processor(self.tokenizer), "longest": int(self.tokenizer.model_max_length),
                "types": self.types, "whole": said}

    def save_pretrained(self, folder: str | Path) -> None:
        self.whole.save_pretrained(folder)
        if self.videos is not None:
            path = Path(folder) / "processor_config.json"
            said = {**json.loads(path.read_text(encoding="utf-8")), _VIDEOS: self.videos}
            path.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def looker_for(source: ModelSource, model: PreTrainedModel) -> Looker:
    """Raises:
        CompatibilityError: no processor, one that needs more than PIL, or none whose pictures stand at tokens of a text.
    """
    kind = PROCESSOR_MAPPING.get(type(model.config), None)
    if kind is None:
        raise CompatibilityError(f"{source.model!r}: transformers has no processor of pictures and texts for a "
                                 f"{type(model).__name__}")
    tokenizer = tokens.tokenizer_for(source, model)
    positions = model.config.get_text_config().max_position_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    images = processor_for(source)
    place, options = where_processor(source)
    with explained(place, "processor"):
        said, _ = kind.get_processor_dict(place, **options)
        template = tokenizer.chat_template or said.get("chat_template")
        tokenizer.chat_template = template
        own = {**said, "chat_template": template, "image_processor": None, "tokenizer": None}
        whole = _without_videos(kind).from_args_and_dict([images, tokenizer], own)
    _refuse_other_places(whole, source.model, model)
    takes = inspect.signature(model.forward).parameters
    return Looker(whole, next((one for one in TYPES if one in takes), None), said.get(_VIDEOS))


def _without_videos(kind: Any) -> Any:
    """The class of a processor, of the same name, for pictures and texts alone."""
    parts = kind.get_attributes()
    if _VIDEOS not in parts:
        return kind
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: [one for one in parts if one != _VIDEOS])})


def _refuse_other_places(whole: Any, name: str, model: nn.Module) -> None:
    """Pictures have to stand at tokens of a text: only there can what comes after them be compared."""
    if not vars(whole).get("image_token") or None in whole.image_token_ids:
        raise CompatibilityError(f"{name!r}: a {type(model).__name__} takes pictures otherwise than at tokens of a text (it "
                                 "has no image token). Known are LLaVA, Qwen-VL, Idefics3, SmolVLM, Gemma 3, InternVL and "
                                 "others whose chat templates write a place for a picture")


@torch.no_grad()
def look(model: PreTrainedModel, looker: Looker, name: str) -> None:
    """A picture and a text, as both will be read; what comes later in the text must not be seen.

    Raises:
        CompatibilityError: the model does not take what its processor makes, or sees the tokens that it has to predict.
    """
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    try:
        before = looker.tokenizer(looker.stands_for(picture.size), add_special_tokens=False)["input_ids"]
        seen = looker.pixels([[picture]])
        known = sorted({*looker.tokenizer.get_vocab().values()} - {*looker.tokenizer.all_special_ids, *before})
        one, other = ([*before, *known[:4], *after] for after in (known[:8], known[8:16]))
        apart = [_logits(model, looker, ids, seen)[: len(before) + 4].float() for ids in (one, other)]
    except CompatibilityError:
        raise
    except Exception as error:  # each class complains in its own way
        said = (str(error) or repr(error)).splitlines()[0]
        raise CompatibilityError(f"{name!r}: the model does not take what its processor makes of a picture ({said}); it is "
                                 "another model's, or of another size. Name its own (processor:)") from error
    far = float((apart[0] - apart[1]).abs().max() / apart[0].abs().max().clamp_min(1e-9))
    if far > 0.05:  # as for `refuse_looking_ahead`
        raise CompatibilityError(f"{name!r} sees the tokens that it has to predict: its logits differ by {far:.2g} with what "
                                 "comes after them (a prefix that is read both ways, as PaliGemma's, is not told apart "
                                 "here). Take a model that reads from left to right")


def _logits(model: PreTrainedModel, looker: Looker, ids: Sequence[int], seen: Mapping[str, Tensor]) -> Tensor:
    weights = next(one for one in model.parameters() if one.is_floating_point())
    inputs = {"input_ids": torch.tensor([list(ids)]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long), **seen}
    if looker.types is not None:
        inputs[looker.types] = torch.from_numpy(looker.marks(np.array(ids, np.int32)).astype(np.int64))[None]
    placed = {one: value.to(weights.device, weights.dtype if value.is_floating_point() else value.dtype)
              for one, value in inputs.items()}
    found: Tensor = model.eval()(**placed)["logits"][0]
    return found
