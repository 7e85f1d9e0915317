"""What models write for a split, in large batches with the key-value cache, and how texts come out of their tokens."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin

from stilla.errors import CompatibilityError, DataError
from stilla.evaluate.asking import evaluating
from stilla.runtime.narrate import progress
from stilla.tasks.answers import Answers
from stilla.tasks.forward import cast, dtype_of
from stilla.tasks.language.writing import Asked, Writes

logger = logging.getLogger(__name__)

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Decoding:
    """How texts are written. What a recipe does not say (length penalty, least length, words that are never written) is as
    the model's own generation_config.json has it; nothing is drawn at random."""

    max_new_tokens: int = 128
    num_beams: int = 1


@dataclass(frozen=True)
class Written:
    """One text's tokens; the last is its end, if it has one (`ended`) and was not cut at the limit."""

    ids: tuple[int, ...]
    ended: bool


Writer = Callable[[Inputs, Mapping[str, Any], Decoding], list[Written]]
"""(inputs, options of the task, decoding) -> a text per row. A model's is `writer(model)`; an exported file has its own."""


@dataclass(frozen=True, eq=False)
class Texts:
    """What one model wrote. `answers`: a text each, in the order of the split.

    `cut`: fraction of the texts that had no end at the length limit.
    """

    answers: Answers
    cut: float


def generate(
    write: Writer | nn.Module, task: Writes, asked: Asked, processor: Any, decoding: Decoding, *, batch_size: int = 32,
    title: str = "writing",
) -> Texts:
    """A text for everything that is asked, examples of similar length together.

    Raises:
        CompatibilityError: the model cannot write.
    """
    write = writer(write) if isinstance(write, nn.Module) else write
    texts: list[str] = [""] * len(asked)
    ended = np.zeros(len(asked), np.bool_)
    with progress(title, len(asked)) as advance:
        for rows in by_length(asked, batch_size):
            for row, written in zip(rows, write(asked.tokens.batch(rows), asked.options, decoding)):
                texts[row], ended[row] = task.text_of(processor, written.ids), written.ended
            advance(len(rows))
    return Texts(Answers(asked.keys, texts, asked.references), float(1 - ended.mean()))


def some(asked: Asked, limit: int | None) -> Asked:
    """So many of the examples, evenly spread."""
    if limit is None or limit >= len(asked):
        return asked
    return _these(asked, np.arange(limit) * len(asked) // limit)


def of_all(asked: Sequence[Asked]) -> list[Asked]:
    """Of what several models are asked, the examples that all of them are: what is too long for one is asked of none.

    Raises:
        DataError: there is none.
    """
    common = functools.reduce(np.intersect1d, [one.keys for one in asked])
    if not len(common):
        raise DataError("no example is asked of all models: each has room for others; raise data.max_length, and "
                        "teacher.data.max_length where the recipe says how much the teacher reads.")
    most = max(len(one) for one in asked)
    if len(common) < most:
        logger.warning("%d of %d examples are asked of no model: one of them has no room for what it would be given",
                       most - len(common), most)
    return [one if len(one) == len(common) else _these(one, np.flatnonzero(np.isin(one.keys, common))) for one in asked]


def _these(asked: Asked, rows: NDArray[np.int64]) -> Asked:
    seconds = None if asked.seconds is None else [asked.seconds[row] for row in rows.tolist()]
    return Asked(asked.tokens.select(rows), asked.keys[rows], [asked.references[row] for row in rows.tolist()], asked.options,
                 seconds)


def by_length(asked: Asked, batch_size: int) -> list[list[int]]:
    """Rows in batches, the longest first: what does not fit into memory then fails at once."""
    order = np.argsort(-asked.tokens.lengths, kind="stable")
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


def writer(model: nn.Module) -> Writer:
    """A Hugging Face model's own `generate`, on the device where the model is.

    Raises:
        CompatibilityError: it has none.
    """
    if not callable(getattr(model, "generate", None)):
        raise CompatibilityError(f"{type(model).__name__} cannot write texts: it has no `generate`. Expected a Hugging Face "
                                 "model with a decoder.")
    device = next(model.parameters()).device

    def write(inputs: Inputs, options: Mapping[str, Any], decoding: Decoding) -> list[Written]:
        placed = cast({name: value.to(device) for name, value in inputs.items()}, dtype_of(model))
        options = dict(options)
        rules = options.pop("logits_processor", None)
        before = read_before(model, placed)
        with evaluating(model, device, "float32"), torch.no_grad():
            config = effective(model, options, decoding, before)
            with writing_by(model, config):
                loop: Any = model.generate
                if "decoder_input_ids" in placed and isinstance(model, GenerationMixin):
                    # what Whisper's own does around transformers' loop makes a prompt, and takes the ends of texts off again
                    loop = partial(GenerationMixin.generate, model)
                ids: Tensor = loop(**placed, logits_processor=rules, generation_config=GenerationConfig())
        return list(split_at_ends(ids[:, before:].cpu(), ends(config)))

    return write


def read_before(model: nn.Module, inputs: Inputs) -> int:
    """Tokens that stand before the first new one of each text: a prompt, or what a decoder begins with."""
    if not model.config.is_encoder_decoder:  # type: ignore[union-attr]
        return inputs["input_ids"].shape[1]
    return inputs["decoder_input_ids"].shape[1] if "decoder_input_ids" in inputs else 1


@contextmanager
def writing_by(model: Any, config: GenerationConfig) -> Iterator[None]:
    """`generate` fills every None of the config it is given from the model's own: only there can a setting be unset."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def effective(model: nn.Module, options: Mapping[str, Any], decoding: Decoding, before: int = 1) -> GenerationConfig:
    """The generation config that texts are written with: what a run records.

    `before`: tokens that stand before the first new one, and take up positions.
    """
    most = min(decoding.max_new_tokens, room(model) - before)
    return with_settings(model.generation_config, options, replace(decoding, max_new_tokens=most))


def with_settings(own: GenerationConfig, options: Mapping[str, Any], decoding: Decoding) -> GenerationConfig:
    """A model's own settings with those of the recipe and the task put over them."""
    config = copy.deepcopy(own)
    beams = decoding.num_beams > 1
    config.update(
        max_new_tokens=decoding.max_new_tokens, max_length=None, num_beams=decoding.num_beams,
        do_sample=False, temperature=None, top_k=None, top_p=None, use_cache=True,
        # BART's would make an end of every cut
        forced_eos_token_id=None,
        **({} if beams else {"early_stopping": False, "length_penalty": 1.0}),
        **{name: value for name, value in options.items() if value is not None})
    return config


def room(model: nn.Module) -> int:
    """How many positions the decoder has; decoders of sounds name them apart from those of their encoders."""
    config = model.config.get_text_config(decoder=True)  # type: ignore[union-attr,operator]
    said = [getattr(config, name, None) for name in ("max_target_positions", "max_position_embeddings")]
    return next((one for one in said if isinstance(one, int) and one > 0), 2**31)


def ends(config: Any) -> tuple[int, ...]:
    """The tokens that end a text."""
    one_or_more = config.eos_token_id
    if one_or_more is None:
        return ()
    return (one_or_more,) if isinstance(one_or_more, int) else tuple(one_or_more)


def split_at_ends(ids: Int[Tensor, "batch positions"], end: Sequence[int]) -> Iterator[Written]:
    """Each row up to its first end of text; what stands behind it is padding. A row without one was cut."""
    for row in ids.tolist():
        place = next((index for index, token in enumerate(row) if token in end), None)
        yield Written(tuple(row), False) if place is None else Written(tuple(row[: place + 1]), True)

