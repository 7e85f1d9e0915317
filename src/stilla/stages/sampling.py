"""Texts that a causal language model writes by chance of one's own: every text has its draws, whatever stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from stilla.errors import CompatibilityError
from stilla.evaluate.asking import evaluating
from stilla.evaluate.generate import Decoding, Written, effective, ends, split_at_ends, writing_by


@dataclass(frozen=True)
class Chance:
    """How a token is drawn: from softmax(logits / temperature), of which `top_p` leaves the likeliest tokens that have so
    much of it together (Holtzman et al. 2020, arXiv:1904.09751)."""

    temperature: float = 1.0
    top_p: float | None = None

    def tokens(self, logits: Tensor, draws: Tensor) -> Tensor:
        """(batch,) the token at which the sum of the probabilities, in the order of the vocabulary, passes the draw.

        logits: (batch, tokens). draws: (batch,) from 0 to 1, without it.
        """
        probabilities = (logits.double() / self.temperature).softmax(-1)
        if self.top_p is not None:
            likeliest, order = probabilities.sort(dim=-1, descending=True, stable=True)
            beyond = likeliest.cumsum(-1) - likeliest >= self.top_p  # of the first nothing stands before it
            probabilities = probabilities.scatter(-1, order, likeliest.masked_fill(beyond, 0.0))
        sums = probabilities.cumsum(-1)
        chosen = torch.searchsorted(sums, (draws.double() * sums[:, -1])[:, None], right=True)[:, 0]
        return chosen.clamp_max((probabilities > 0).long().cumsum(-1).argmax(-1))  # rounding may pass the last one


def sample(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Sequence[int]], draws: NDArray[np.float64], chance: Chance,
    is_whole: Any = None,
) -> list[Written]:
    """A text behind every prompt. The same for a prompt and its draws whatever else is in the batch, but for rounding.

    Args:
        draws: (batch, tokens) of numbers from 0 to 1: a row's, one a token; so many tokens are written at most.
        is_whole: whether a text, as far as it is written, has its end already, though the model goes on.

    Raises:
        CompatibilityError: there is no room for a text of this length behind a prompt.
    """
    device = next(model.parameters()).device
    longest, most = max(map(len, prompts)), draws.shape[1]
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    config = effective(model, {"pad_token_id": tokenizer.pad_token_id}, Decoding(most), longest)
    if config.max_new_tokens < most:
        raise CompatibilityError(f"a prompt has {longest} tokens, behind which there is no room for {most} new ones")
    drawn = _Drawn(torch.from_numpy(draws).to(device), chance, longest)
    stops = [] if is_whole is None else [_Whole(tokenizer, longest, is_whole)]
    with evaluating(model, device, "float32"), torch.no_grad(), writing_by(model, config):
        made: Tensor = model.generate(  # type: ignore[operator]
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=GenerationConfig(),
            logits_processor=LogitsProcessorList([drawn]), stopping_criteria=StoppingCriteriaList(stops))
    return list(split_at_ends(made[:, longest:].cpu(), ends(config)))


class _Drawn(LogitsProcessor):
    """Leaves of every row's tokens the one that is drawn, which greedy search then takes."""

    def __init__(self, draws: Tensor, chance: Chance, before: int) -> None:
        self.draws, self.chance, self.before = draws, chance, before

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = self.chance.tokens(scores, self.draws[:, input_ids.shape[1] - self.before])
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen[:, None], 0.0)


class _Whole(StoppingCriteria):
    """Ends rows whose text is whole."""

    def __init__(self, tokenizer: Any, before: int, is_whole: Any) -> None:
        self.tokenizer, self.before, self.is_whole = tokenizer, before, is_whole

    def __call__(self, input_ids: Tensor, scores: Tensor, **options: Any) -> Tensor:
        texts = self.tokenizer.batch_decode(input_ids[:, self.before :], skip_special_tokens=True)
        return torch.tensor([self.is_whole(text) for text in texts], device=input_ids.device)
