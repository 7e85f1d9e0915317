from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_the_textbook(smoothing: float) -> None:
    logits, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2, 0])
    target = (1 - smoothing) * np.eye(4)[labels.numpy()] + smoothing / 4
    expected = -(target * log_softmax(logits.numpy(), -1)).sum(-1)
    losses = Labels(label_smoothing=smoothing).losses(logits, None, labels, 0.0)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-12)


def test_rows_without_a_label_are_zero_and_get_no_gradient() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    losses = Labels(label_smoothing=0.1).losses(logits, None, torch.tensor([1, -100, 2]), 0.0)
    losses.sum().backward()
    assert losses[1] == 0
    assert logits.grad[1].abs().max() == 0


def test_numbers_give_the_squared_error() -> None:
    logits, labels = torch.tensor([[1.0], [2.0], [5.0]], requires_grad=True), torch.tensor([0.5, 4.0, math.nan])
    losses = Labels().losses(logits, None, labels, 0.0)
    losses.sum().backward()
    torch.testing.assert_close(losses.detach(), torch.tensor([0.25, 4.0, 0.0]))
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0], [-4.0], [0.0]]))


def test_bernoulli_rows_equal_binary_cross_entropy() -> None:
    z, labels = torch.randn(8, dtype=torch.float64), torch.randint(0, 2, (8,))
    losses = Labels().losses(torch.stack([torch.zeros_like(z), z], -1), None, labels, 0.0)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, labels.double(), reduction="none")
    torch.testing.assert_close(losses, expected)


def test_smoothing_numbers_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="numbers"):
        Labels(label_smoothing=0.1).losses(torch.randn(2, 1), None, torch.randn(2), 0.0)
    with pytest.raises(RecipeError, match="below 1"):
        Labels(label_smoothing=1.0)


def test_without_labels_it_says_so() -> None:
    with pytest.raises(CompatibilityError, match="needs labels"):
        Labels().losses(torch.randn(2, 3), None, None, 0.0)
