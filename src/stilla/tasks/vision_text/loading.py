"""Models with two towers from folders and the hub, with their processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import AutoModel

from stilla.errors import CompatibilityError, all_of, counted
from stilla.recipe import ModelSource
from stilla.runtime.imports import is_import_path
from stilla.tasks.base import Loaded
from stilla.tasks.shared import loading
from stilla.tasks.shared.int8 import quantise
from stilla.tasks.text import tokens
from stilla.tasks.vision.image_classification import processor_for
from stilla.tasks.vision.pixels import Processor
from stilla.tasks.vision_text.model import DualEncoder, as_dual, begin
from stilla.tasks.vision_text.reading import Reader, reader_for


def load(source: ModelSource, *, trained: bool) -> Loaded:
    """A model whose forward gives vectors of pictures and texts, and how it reads.

    trained: it is used as it is, in the precision that the recipe asks for.

    Raises:
        CompatibilityError: no such model, no weights, no processor, or one that does not belong to it.
    """
    if is_import_path(source.model):
        raise CompatibilityError(f"model: {source.model!r} is a model by import path; expected a folder or a name of a model "
                                 "with a tower for pictures and one for texts, such as CLIP or SigLIP")
    config = loading.read_config(source)
    model, info = loading.from_pretrained(source, config, AutoModel)
    made = as_dual(model)
    lost = sorted(name for name in info["missing_keys"] if "position_ids" not in name)
    if lost:
        raise CompatibilityError(
            f"{source.model!r}: {counted(len(lost), 'weight', 'is')} missing from the checkpoint: {all_of(lost[:5])}"
            f"{' ...' if len(lost) > 5 else ''}. Its config.json does not describe its weights.")
    begin(made)
    images = processor_for(source)
    reader = reader_for(made, tokens.tokenizer_for(source, made.text_model), images)
    _look(made, reader, source.model)
    if trained and source.precision == "bfloat16":
        made.to(torch.bfloat16)
    if trained and source.precision == "int8":
        quantise(made)
    return Loaded(made, reader, source.model)


@torch.no_grad()
def _look(model: DualEncoder, reader: Reader, name: str) -> None:
    """A picture and a text, as both will be read."""
    blank = PIL.Image.new("RGB", (48, 64))
    try:
        pixels: Any = Processor(reader.images, blank)
        seen = torch.from_numpy(np.asarray(pixels.finish(pixels.geometry(blank)[None])))
        model(pixel_values=seen)
    except CompatibilityError:
        raise
    except Exception as error:  # each class complains in its own way
        said = (str(error) or repr(error)).splitlines()[0]
        raise CompatibilityError(f"{name!r}: what its image processor makes of a picture cannot be read by its tower for "
                                 f"pictures ({said}); expected pixel values of one size") from error
