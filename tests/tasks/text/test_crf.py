"""Marginals of a CRF against all sequences written out."""

from __future__ import annotations

from itertools import pairwise, product

import torch

from stilla.tasks.text.crf import log_marginals


def test_marginals_are_those_of_all_sequences() -> None:
    generator = torch.Generator().manual_seed(0)
    tags, words = 4, 6
    emissions = torch.randn(2, words, tags, generator=generator, dtype=torch.float64)
    transitions = torch.randn(tags, tags, generator=generator, dtype=torch.float64)
    start, end = torch.randn(2, tags, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * 6, [False, True, True, False, True, False]])
    found = log_marginals(emissions, transitions, start, end, mask).exp()
    for row, there in zip(range(2), mask):
        places = there.nonzero().squeeze(1).tolist()
        sums = torch.zeros(len(places), tags, dtype=torch.float64)
        for sequence in product(range(tags), repeat=len(places)):
            score = start[sequence[0]] + end[sequence[-1]] + sum(emissions[row, at, tag] for at, tag in zip(places, sequence))
            score = score + sum(transitions[one, other] for one, other in pairwise(sequence))
            for place, tag in enumerate(sequence):
                sums[place, tag] += score.exp()
        torch.testing.assert_close(found[row, places], sums / sums.sum(-1, keepdim=True), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found[row, places].sum(-1), torch.ones(len(places), dtype=torch.float64))
        assert (found[row, ~there] == 1).all()
