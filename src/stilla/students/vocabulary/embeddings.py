"""A model with the rows of some tokens: embeddings, head, what is added to logits; found by what follows its vocab_size.

No layer is known by name. A model is built from a config that says another number of tokens, and what is shorter in it is
what has a row for each token; a tensor that has one and does not follow is found by comparing outputs (`starting.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stilla.models.configs import ConfigPath, config_sections, edited_config, skeleton
from stilla.students.copying import tensors
from stilla.students.vocabulary.numbers import renumbered, renumbered_generation
from stilla.students.vocabulary.refusal import refusal

_FIRST = "vocab_size_per_layer_input"
"""Of Gemma's tables with another vector for each layer, which may have only the first of the tokens."""
_SIZES = ("vocab_size", "decoder_vocab_size", "n_words", _FIRST)
"""What configs call the number of tokens."""


def with_rows(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """The model with the rows of these tokens alone, in this order; it says of a text what it said before.

    `model` is not needed any more: what has no row for each token is handed over, not copied. What was one tensor is one.

    Raises:
        CompatibilityError: no number of tokens in its config, two vocabularies, sizes that do not follow it.
    """
    order = {int(number): place for place, number in enumerate(kept)}
    sizes = {path: sum(number < count for number in order) if path[-1] == _FIRST else len(order)
             for path, count in _sizes(model).items()}
    changes: dict[ConfigPath, object] = {**renumbered(model.config, order), **sizes}
    try:
        made = skeleton(model, edited_config(model.config, changes))
    except Exception as error:  # each class refuses a config in its own way
        raise refusal(f"{type(model).__name__} cannot be built with {len(order):,} tokens: {error}") from error
    rows = torch.as_tensor(list(order), dtype=torch.int64)
    _fill(made, model, rows)
    if model.can_generate():
        made.generation_config = renumbered_generation(model.generation_config, order)
    made.config.dtype = made.dtype
    return made.train(model.training)


def size_of_a_token(model: PreTrainedModel) -> int:
    """Parameters of one token: of its embedding, and of a head of its own.

    Raises:
        CompatibilityError: as for `with_rows`.
    """
    more = {path: count + 1 for path, count in _sizes(model).items()}
    sizes = [sum(one.numel() for one in skeleton(model, edited_config(model.config, changes)).parameters())
             for changes in ({}, more)]
    return int(sizes[1] - sizes[0])


def _sizes(model: PreTrainedModel) -> dict[ConfigPath, int]:
    """Where its config says for how many tokens it has rows, and for how many."""
    found = {(*path, name): vars(section)[name] for path, section in config_sections(model.config) for name in _SIZES
             if isinstance(vars(section).get(name), int)}
    name, apart = type(model).__name__, vars(model.config).get("share_encoder_decoder_embeddings") is False
    if not found:
        raise refusal(f"the config of {name} does not say how many tokens there are (vocab_size)")
    if len({size for path, size in found.items() if path[-1] != _FIRST}) > 1 or apart:
        sizes = ", ".join(f"{'.'.join(path)} {size:,}" for path, size in found.items())
        raise refusal(f"{name} has a vocabulary for its encoder and another for its decoder ({sizes}), and one tokenizer is "
                      "cut")
    return found


def _fill(made: PreTrainedModel, model: PreTrainedModel, rows: Tensor) -> None:
    """Every tensor of `made` (on the meta device) from the model's of the same name."""
    theirs, filled = tensors(model), dict[int, Tensor]()
    for name, target in tensors(made).items():
        source = theirs.get(name)
        if source is None:
            raise refusal(f"{type(model).__name__} built with other sizes has `{name}`, which it does not have itself")
        if id(source) not in filled:
            filled[id(source)] = _rows(source, target, rows, name)
        owner, _, attribute = name.rpartition(".")
        setattr(made.get_submodule(owner), attribute, filled[id(source)])


def _rows(source: Tensor, target: Tensor, rows: Tensor, name: str) -> Tensor:
    if source.shape == target.shape:
        return source
    along = [axis for axis, (old, new) in enumerate(zip(source.shape, target.shape)) if old != new]
    if len(along) == 1 and target.shape[along[0]] < len(rows):
        rows = rows[rows < source.shape[along[0]]]
    if source.ndim != target.ndim or len(along) != 1 or target.shape[along[0]] != len(rows):
        shapes = f"{tuple(target.shape)} where it is {tuple(source.shape)}"
        raise refusal(f"`{name}` would be {shapes}, and these are not rows of tokens")
    chosen = source.detach().index_select(along[0], rows.to(source.device))
    return nn.Parameter(chosen, source.requires_grad) if isinstance(source, nn.Parameter) else chosen
