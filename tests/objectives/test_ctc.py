"""CTC against a sum over all alignments, and against torch's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stilla.errors import CompatibilityError
from stilla.objectives.ctc import CTC
from stilla.signals import Signals, Spoken

BLANK = 2


def spoken(frames: int = 5, classes: int = 4, blank: int = BLANK) -> Spoken:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, frames, classes, generator=generator, dtype=torch.float64)
    targets = torch.tensor([[0, 1, -100], [3, 3, 0], [-100, -100, -100]])
    return Spoken(logits, torch.tensor([4, 5, 5]), targets, blank)


def by_hand(logits: np.ndarray, target: list[int], blank: int) -> float:
    """-log of the sum over every path that spells the target."""
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        spelled = [one for one, _ in itertools.groupby(path) if one != blank]
        if spelled == target:
            total += float(np.prod([probabilities[frame, one] for frame, one in enumerate(path)]))
    return -np.log(total)


def test_it_is_the_sum_over_all_alignments() -> None:
    said = spoken()
    expected = by_hand(said.logits[0, :4].numpy(), [0, 1], BLANK) + by_hand(said.logits[1].numpy(), [3, 3, 0], BLANK)
    got = CTC().total(Signals(spoken=said), Signals(), 0.0)
    assert float(got) == pytest.approx(expected, abs=1e-10)


def test_it_is_torchs_and_so_is_its_gradient() -> None:
    said = spoken()
    ours, theirs = (said.logits.clone().requires_grad_() for _ in range(2))
    CTC().total(Signals(spoken=Spoken(ours, said.lengths, said.targets, BLANK)), Signals(), 0.0).backward()
    for row, target in ((0, [0, 1]), (1, [3, 3, 0])):
        length = int(said.lengths[row])
        F.ctc_loss(theirs[row, :length].log_softmax(-1)[:, None], torch.tensor([target]), torch.tensor([length]),
                   torch.tensor([len(target)]), blank=BLANK, reduction="sum").backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert not ours.grad[2].any()
    assert not ours.grad[0, 4:].any()


def test_utterances_without_labels_cost_nothing() -> None:
    said = spoken()
    free = Spoken(said.logits.requires_grad_(), said.lengths, torch.full_like(said.targets, -100), BLANK)
    loss = CTC().total(Signals(spoken=free), Signals(), 0.0)
    assert float(loss.detach()) == 0
    loss.backward()
    assert not free.logits.grad.any()


def test_labels_that_no_alignment_spells_are_infinite_and_never_zero() -> None:
    said = spoken(frames=2)
    short = Spoken(said.logits, torch.tensor([2, 2, 2]), said.targets, BLANK)
    assert torch.isinf(CTC().total(Signals(spoken=short), Signals(), 0.0))


def test_what_has_no_frames_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="needs frames of utterances"):
        CTC().total(Signals(), Signals(), 0.0)
