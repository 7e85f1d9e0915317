"""The teacher's vectors of texts that are measured by themselves: asked for when they are needed, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stilla.tasks.base import Loaded
from stilla.tasks.retrieval.layout import Kind
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.text import tokens as _tokens

_AT_ONCE = 32


class Told(Sequence[Any]):
    """(texts, 1, width), as an array where one is asked for."""

    def __init__(
        self, teacher: Loaded, texts: Sequence[str], kinds: Sequence[Kind | None], section: EmbeddingData | None
    ) -> None:
        self._asked = teacher, texts, kinds, section
        self._count = len(texts)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        return self.vectors[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.vectors)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.vectors, dtype)

    @cached_property
    def vectors(self) -> NDArray[np.float64]:
        teacher, texts, kinds, section = self._asked
        return embed(teacher, texts, kinds, None if section is None else section.max_length)[:, None]


def embed(
    model: Loaded, texts: Sequence[str], kinds: Sequence[Kind | None], max_length: int | None = None
) -> NDArray[np.float64]:
    """(texts, width): a model's vectors, with the prompts of its folder; in eval mode, the mode is restored."""
    reader = model.processor
    tokens, _ = reader.tokens(texts, kinds, _tokens.longest([reader], max_length))
    return answered(model.model, tokens, lambda outputs: outputs["sentence_embedding"])


def answered(module: nn.Module, tokens: _tokens.Tokens, of: Callable[[Any], Tensor]) -> NDArray[np.float64]:
    """(texts, ...): what a model says of each, `of` its outputs; in eval mode, the mode is restored."""
    order = np.argsort(-tokens.lengths, kind="stable")
    device, before = next(module.parameters()).device, module.training
    found: list[NDArray[np.float64]] = []
    module.eval()
    with torch.no_grad():
        for start in range(0, len(order), _AT_ONCE):
            inputs = {name: one.to(device) for name, one in tokens.batch(order[start : start + _AT_ONCE].tolist()).items()}
            found.append(of(module(**inputs)).double().cpu().numpy())
    module.train(before)
    return np.concatenate(found)[np.argsort(order, kind="stable")]
