from __future__ import annotations

import numpy as np
import pytest
import torch

from stilla.errors import CompatibilityError
from stilla.objectives import Saliency, find
from stilla.signals import Dims, Signals


def said(*rows: list[float]) -> Signals:
    return Signals(saliency=torch.tensor(rows, dtype=torch.float64))


def drawn(seed: int) -> Signals:
    return Signals(saliency=torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def test_it_is_one_minus_the_cosine_of_each_example() -> None:
    ours, theirs = drawn(1), drawn(2)
    assert ours.saliency is not None
    assert theirs.saliency is not None
    s, t = ours.saliency.numpy(), theirs.saliency.numpy()
    expected = (1 - (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)).sum()
    assert Saliency().total(ours, theirs, 0.0).item() == pytest.approx(expected, rel=1e-12)


def test_the_same_at_another_scale_is_no_distance() -> None:
    ours = drawn(1)
    assert Saliency().total(ours, Signals(saliency=3.0 * ours.saliency), 0.0).item() == pytest.approx(0, abs=1e-12)


def test_padding_has_no_influence() -> None:
    short = Saliency().total(said([1.0, -2.0]), said([0.5, 1.0]), 0.0)
    assert Saliency().total(said([1.0, -2.0, 0.0, 0.0]), said([0.5, 1.0, 0.0, 0.0]), 0.0).item() == short.item()


def test_where_the_teachers_answer_rests_on_nothing_nothing_is_learnt() -> None:
    ours = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    theirs = said([0.0, 0.0, 0.0], [1.0, 2.0, 3.0])
    Saliency().total(Signals(saliency=ours), theirs, 0.0).backward()
    assert ours.grad is not None
    assert ours.grad[0].abs().max() == 0
    assert ours.grad[1].abs().max() > 0


def test_it_is_refused_where_it_cannot_be_meant() -> None:
    one = Saliency()
    assert find("saliency") is Saliency
    assert "two tokenizers, or two image sizes" in one.misfits(aligned=False, packed=False)[0]
    assert "here every token is one" in one.unseen(vocabulary=True)[0]
    assert one.unmade(Dims(0))
    assert not one.misfits(aligned=True, packed=False) + one.unmade(Dims(3))


def test_without_gradients_or_with_other_positions_it_says_why() -> None:
    with pytest.raises(CompatibilityError, match="asked anew"):
        Saliency().total(drawn(1), Signals(), 0.0)
    with pytest.raises(CompatibilityError, match="cut the examples differently"):
        Saliency().total(drawn(1), said([1.0, 2.0]), 0.0)
