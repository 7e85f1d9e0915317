"""Loading of models with a head over a vocabulary, and what has to be true of them before they are trained."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from stilla.errors import CompatibilityError, all_of
from stilla.models.configs import config_sections
from stilla.models.modes import in_eval_mode
from stilla.recipe import ModelSource
from stilla.runtime.imports import is_import_path
from stilla.tasks.shared import loading
from stilla.tasks.shared.int8 import quantise

logger = logging.getLogger(__name__)


def language_model(source: ModelSource, auto: Any, *, labelled: bool) -> PreTrainedModel:
    """The model that a recipe names, in the recipe's precision if it only answers, else in float32.

    Args:
        auto: the `AutoModelFor...` of the task.
        labelled: see `Task.load`; a model that is to be trained may come without a trained head.

    Raises:
        CompatibilityError: no Hugging Face model, no weights, a pickle, weights that do not fit the config, a precision
            that this machine does not have.
    """
    if is_import_path(source.model) or source.weights is not None:
        raise CompatibilityError(f"{source.model!r}: a task over a vocabulary needs a Hugging Face model, whose head can be "
                                 "read; expected a folder that `save_pretrained` wrote, or a name.")
    config = loading.read_config(source)
    model, info = loading.from_pretrained(source, config, auto, **_precision(source if labelled else None))
    fresh = sorted(info["missing_keys"])
    loading.refuse_lost_body(model, fresh, source)
    if fresh and labelled:
        raise CompatibilityError(f"{source.model!r} has no trained head for this task: its checkpoint lacks "
                                 f"{all_of(fresh[:5])}{' ...' if len(fresh) > 5 else ''}. Train it first: teacher: "
                                 f"{{model: {source.model}, train: {{}}}}.")
    if fresh:
        logger.info("%s: new weights: %s", source.model, all_of(fresh[:6]))
    if labelled and source.precision == "int8":
        quantise(model, but=model.get_output_embeddings())
    for _, section in config_sections(model.config):
        if "use_cache" in vars(section):
            # a cache of keys and values is of no use to a whole forward, and packed pieces would see each other through it
            section.use_cache = False
    return model.eval()


def _precision(source: ModelSource | None) -> dict[str, Any]:
    """What `from_pretrained` is told; None for a model that is to be trained."""
    if source is None or source.precision in ("float32", "int8"):
        return {"dtype": torch.float32}
    if source.precision == "bfloat16":
        return {"dtype": torch.bfloat16}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise CompatibilityError("precision: 4bit needs bitsandbytes, which is not installed: pip install "
                                 '"stilla[4bit]"; or take precision: int8, which needs nothing.')
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return {"dtype": torch.bfloat16, "quantization_config": config}


def refuse_looking_ahead(model: PreTrainedModel, name: str) -> None:
    """Raise if the model sees the token that it has to predict, which no loss and no score would show.

    Raises:
        CompatibilityError: a logit changes with what comes after it (BERT and its like with a head for the next token).
    """
    ids = torch.randint(0, _inputs(model), (1, 12), generator=torch.Generator().manual_seed(0)).to(model.device)
    other = ids.clone()
    other[:, 6:] = ids[:, 6:].flip(1)
    with in_eval_mode(model), torch.no_grad():  # without positions: not every model takes them
        one, two = (model(input_ids=given).logits[:, :6].float() for given in (ids, other))
    seen = float((one - two).abs().max() / one.abs().max().clamp_min(1e-9))
    if seen > 0.05:  # what half precision and 4 bits leave is a hundredth of that
        raise CompatibilityError(f"{name!r} sees the tokens that it has to predict: its logits differ by {seen:.2g} with "
                                 "what comes after them. Take a model that reads from left to right, or task: masked-lm.")


def refuse_leaks(model: PreTrainedModel, name: str) -> None:
    """Raise unless packed pieces do not see each other: what they are answered alone is what they are answered packed.

    Raises:
        CompatibilityError: the model has no positions, or attends over borders all the same.
    """
    way_out = "Set data.pack: false; every document is then a row of its own."
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise CompatibilityError(f"data.pack: {name!r} takes no position_ids, by which packed documents are kept apart. "
                                 f"{way_out}")
    apart, leaked = leak(model)
    if apart > 0.2 * leaked + 1e-4:
        raise CompatibilityError(f"data.pack: packed documents see each other in {name!r}: the logits of one differ by "
                                 f"{apart:.2g} when another stands before it. {way_out}")


def leak(model: PreTrainedModel) -> tuple[float, float]:
    """How much a piece's logits change, relative to their largest, behind another piece: packed, and simply appended."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, _inputs(model), (2, 12), generator=generator).to(model.device)
    alone = torch.arange(6, device=model.device).expand(2, 6)
    with in_eval_mode(model):
        expected = _logits(model, ids[:, 6:], alone)
        packed = _logits(model, ids, torch.cat([alone, alone], 1))[:, 6:]
        appended = _logits(model, ids, torch.arange(12, device=model.device).expand(2, 12))[:, 6:]
    scale = float(expected.abs().max()) or 1.0
    return float((packed - expected).abs().max()) / scale, float((appended - expected).abs().max()) / scale


@torch.no_grad()
def _logits(
    model: nn.Module, ids: Int[Tensor, "batch positions"], positions: Int[Tensor, "batch positions"]
) -> Float[Tensor, "batch positions classes"]:
    logits: Tensor = model(input_ids=ids, position_ids=positions).logits
    return logits.float()


def _inputs(model: PreTrainedModel) -> int:
    """Tokens that the model has an embedding for."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])
