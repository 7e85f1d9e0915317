from __future__ import annotations

import math
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Logits
from stilla.objectives.base import Softened
from stilla.rows import fused_divergence, row_loss
from stilla.signals import Dense, Dims, TopK

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "tvd")
SKEWED = ("skew_kl", "skew_reverse_kl")
SKEW = 0.1  # unless a recipe says another


def oracle(
    divergence: str, student: np.ndarray, teacher: np.ndarray, temperature: float, skew: float = SKEW
) -> np.ndarray:
    """The textbook, in NumPy and float64."""
    p, q = (np.exp(log_softmax(z / temperature, -1)) for z in (teacher, student))
    m = (p + q) / 2
    return {
        "forward_kl": temperature**2 * _kl(p, q),
        "reverse_kl": temperature**2 * _kl(q, p),
        "jsd": temperature**2 * (_kl(p, m) + _kl(q, m)) / 2,
        "skew_kl": temperature**2 * _kl(p, skew * p + (1 - skew) * q),
        "skew_reverse_kl": temperature**2 * _kl(q, skew * q + (1 - skew) * p),
        "tvd": temperature * np.abs(p - q).sum(-1) / 2,
        "mse": ((student - teacher) ** 2).mean(-1),
    }[divergence]


def _kl(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * np.log(a / b)).sum(-1)


def gradient_oracle(
    divergence: str, student: np.ndarray, teacher: np.ndarray, temperature: float, skew: float = SKEW
) -> np.ndarray:
    """Derived by hand: independent of autograd."""
    p, q = (np.exp(log_softmax(z / temperature, -1)) for z in (teacher, student))
    m = (p + q) / 2
    student_side, teacher_side = (skew * a + (1 - skew) * b for a, b in ((q, p), (p, q)))

    def mean(u: np.ndarray) -> np.ndarray:
        return u - (q * u).sum(-1, keepdims=True)

    return {
        "forward_kl": temperature * (q - p),
        "reverse_kl": temperature * q * mean(np.log(q / p)),
        "jsd": temperature * q * mean(np.log(q / m)) / 2,
        "skew_kl": -temperature * (1 - skew) * q * mean(p / teacher_side),
        "skew_reverse_kl": temperature * q * mean(np.log(q / student_side) - skew * q / student_side),
        "tvd": q * mean(np.sign(q - p)) / 2,
        "mse": 2 * (student - teacher) / student.shape[-1],
    }[divergence]


def logits(rows: int = 7, classes: int = 5, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple((torch.randn(rows, classes, dtype=torch.float64) * scale) for _ in range(2))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("divergence", [*DIVERGENCES, "mse"])
def test_value_and_gradient_equal_the_textbook(divergence: str, temperature: float) -> None:
    student, teacher = logits()
    student.requires_grad_()
    objective = Logits(divergence=divergence, temperature=None if divergence == "mse" else temperature)
    losses = objective.losses(student, Dense(teacher), None, 0.0)
    losses.sum().backward()
    arrays = student.detach().numpy(), teacher.numpy(), temperature
    np.testing.assert_allclose(losses.detach().numpy(), oracle(divergence, *arrays), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(student.grad.numpy(), gradient_oracle(divergence, *arrays), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("skew", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("divergence", SKEWED)
def test_any_skew_equals_the_textbook(divergence: Any, skew: float) -> None:
    student, teacher = logits()
    student.requires_grad_()
    losses = Logits(divergence=divergence, temperature=3.0, skew=skew).losses(student, Dense(teacher), None, 0.0)
    losses.sum().backward()
    arrays = student.detach().numpy(), teacher.numpy(), 3.0, skew
    np.testing.assert_allclose(losses.detach().numpy(), oracle(divergence, *arrays), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(student.grad.numpy(), gradient_oracle(divergence, *arrays), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("divergence", [*DIVERGENCES, "mse"])
def test_zero_at_a_perfect_match(divergence: str) -> None:
    student, _ = logits()
    student.requires_grad_()
    losses = Logits(divergence=divergence).losses(student, Dense(student.detach().clone()), None, 0.0)
    losses.sum().backward()
    assert losses.abs().max() < 1e-14
    assert student.grad.abs().max() < 1e-14


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_constant_added_to_the_logits_changes_nothing(divergence: str) -> None:
    student, teacher = logits()
    objective = Logits(divergence=divergence)
    before = objective.losses(student, Dense(teacher), None, 0.0)
    after = objective.losses(student + 7.5, Dense(teacher - 3.25), None, 0.0)
    torch.testing.assert_close(before, after, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("divergence", [*DIVERGENCES, "mse"])
def test_the_order_of_the_classes_is_irrelevant(divergence: str) -> None:
    student, teacher = logits()
    order = torch.randperm(student.shape[-1])
    objective = Logits(divergence=divergence)
    torch.testing.assert_close(objective.losses(student, Dense(teacher), None, 0.0),
                               objective.losses(student[:, order], Dense(teacher[:, order]), None, 0.0))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients_pass_gradcheck(divergence: str) -> None:
    student, teacher = logits(3, 4)
    objective = Logits(divergence=divergence, temperature=2.0)
    assert torch.autograd.gradcheck(lambda z: objective.losses(z, Dense(teacher), None, 0.0), student.requires_grad_())


@pytest.mark.parametrize(("divergence", "factor"), [
    ("forward_kl", 1 / 2), ("reverse_kl", 1 / 2), ("jsd", 1 / 8),
    *((one, (1 - SKEW) ** 2 / 2) for one in SKEWED),  # the mixture stands so much nearer
])
def test_high_temperature_becomes_the_squared_error_of_centred_logits(divergence: Any, factor: float) -> None:
    student, teacher = logits()
    loss = Logits(divergence=divergence, temperature=1e4).losses(student, Dense(teacher), None, 0.0)
    gap = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    torch.testing.assert_close(loss, factor * gap.square().mean(-1), rtol=1e-3, atol=1e-6)


def test_bounds_hold() -> None:
    student, teacher = logits(200, 6, 10.0)
    at_one = {name: Logits(divergence=name, temperature=1.0).losses(student, Dense(teacher), None, 0.0)
              for name in DIVERGENCES}
    assert at_one["jsd"].max() <= math.log(2) + 1e-12
    assert at_one["tvd"].max() <= 1 + 1e-12
    assert (at_one["tvd"] ** 2 <= at_one["forward_kl"] / 2 + 1e-12).all()  # Pinsker


@pytest.mark.parametrize("skew", [0.01, 0.1, 0.7])
@pytest.mark.parametrize("divergence", SKEWED)
def test_a_skew_bounds_the_loss_where_the_sides_have_nothing_in_common(divergence: Any, skew: float) -> None:
    student, teacher = logits(200, 6, 10.0)
    student[0], teacher[0] = torch.tensor([[900.0, 0, 0, 0, 0, 0], [0, 900.0, 0, 0, 0, 0]], dtype=torch.float64)
    student.requires_grad_()
    losses = Logits(divergence=divergence, temperature=1.0, skew=skew).losses(student, Dense(teacher), None, 0.0)
    assert losses.min() >= 0
    assert losses.max() <= -math.log(skew) + 1e-12
    assert losses[0].item() == pytest.approx(-math.log(skew), rel=1e-12)
    losses.sum().backward()
    assert torch.isfinite(student.grad).all()


def test_jsd_does_not_care_who_is_who() -> None:
    student, teacher = logits()
    one, other = (Logits(divergence="jsd", temperature=1.5).losses(a, Dense(b), None, 0.0)
                  for a, b in ((student, teacher), (teacher, student)))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_without_a_skew_the_skewed_are_the_plain() -> None:
    """In the limit: a skew of exactly 0 is refused."""
    student, teacher = logits()
    for skewed, plain in (("skew_kl", "forward_kl"), ("skew_reverse_kl", "reverse_kl")):
        one = Logits(divergence=skewed, temperature=2.0, skew=1e-9).losses(student, Dense(teacher), None, 0.0)
        other = Logits(divergence=plain, temperature=2.0).losses(student, Dense(teacher), None, 0.0)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=0)


def test_classes_that_both_exclude_teach_nothing_and_stay_finite() -> None:
    student, teacher = logits(4, 5)
    student[:, 2] = teacher[:, 2] = -math.inf
    student.requires_grad_()
    loss = Logits(temperature=1.0).losses(student, Dense(teacher), None, 0.0).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad[:, [0, 1, 3, 4]]).all()


def test_bernoulli_rows_equal_the_binary_divergence() -> None:
    student, teacher = (torch.randn(9, dtype=torch.float64) for _ in range(2))
    rows = [torch.stack([torch.zeros_like(z), z], -1) for z in (student, teacher)]
    loss = Logits(temperature=1.0).losses(rows[0], Dense(rows[1]), None, 0.0)
    p, q = torch.sigmoid(teacher), torch.sigmoid(student)
    torch.testing.assert_close(loss, p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())


def test_a_scheduled_temperature_follows_progress() -> None:
    student, teacher = logits()
    scheduled = Logits(temperature={"linear": [4.0, 1.0]})
    for progress, temperature in ((0.0, 4.0), (0.5, 2.5), (1.0, 1.0)):
        torch.testing.assert_close(scheduled.losses(student, Dense(teacher), None, progress),
                                   Logits(temperature=temperature).losses(student, Dense(teacher), None, 0.0))


def test_bfloat16_logits_are_compared_in_float32() -> None:
    student, teacher = (z.to(torch.bfloat16) for z in logits(50, 200, 20.0))
    student.requires_grad_()
    total, _ = row_loss([(Logits(), 1.0)], Dense(student), Dense(teacher), None, 0.0)
    total.backward()
    assert total.dtype == torch.float32
    assert torch.isfinite(student.grad).all()
    exact = oracle("forward_kl", student.detach().double().numpy(), teacher.double().numpy(), 2.0).sum()
    assert total.item() == pytest.approx(exact, rel=1e-5)


def test_no_rows_give_a_zero_with_a_gradient_path() -> None:
    student = torch.randn(0, 4, requires_grad=True)
    total, _ = row_loss([(Logits(), 1.0)], Dense(student), Dense(torch.randn(0, 4)), None, 0.0)
    total.backward()
    assert total.item() == 0
    assert student.grad.shape == (0, 4)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_one_output_head_is_refused_with_the_way_out(divergence: str) -> None:
    (problem,) = Logits(divergence=divergence).problems(Dims(1), Dims(1), {})
    assert "divergence: mse" in problem
    assert Logits(divergence="mse").problems(Dims(1), Dims(1), {}) == []


def test_different_class_counts_are_refused() -> None:
    (problem,) = Logits().problems(Dims(3), Dims(4), {})
    assert "3" in problem
    assert "4" in problem


def test_options_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(RecipeError, match="takes none"):
        Logits(divergence="mse", temperature=2.0)
    with pytest.raises(RecipeError, match="above 0"):
        Logits(temperature={"linear": [2.0, 0.0]})


@pytest.mark.slow
def test_a_divergence_that_is_unknown_is_refused_from_python_too() -> None:
    """In a process of its own: in this one the types of all arguments are checked anyway."""
    code = "from stilla.objectives import Logits\nLogits(divergence='kl')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert re.search(r"RecipeError: divergence: got 'kl'; expected .* Did you mean forward_kl\?", done.stderr), done.stderr


def test_without_a_teacher_it_says_so() -> None:
    with pytest.raises(CompatibilityError, match="teacher's logits"):
        Logits().losses(torch.randn(2, 3), None, None, 0.0)


def hard_oracle(student: np.ndarray, teacher: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log q of the teacher's likeliest class, and its gradient q - onehot."""
    q = np.exp(student - student.max(-1, keepdims=True))
    q /= q.sum(-1, keepdims=True)
    onehot = np.eye(student.shape[1])[teacher.argmax(-1)]
    return -np.log((q * onehot).sum(-1)), q - onehot


@pytest.mark.parametrize("form", ["dense", "top_k"])
def test_the_teachers_likeliest_class_as_a_label_equals_the_textbook(form: str) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    told: Any = Dense(teacher)
    if form == "top_k":
        ids = teacher.topk(2, -1).indices.sort(-1).values
        told = TopK(ids, teacher.log_softmax(-1).gather(-1, ids), torch.zeros(6, dtype=torch.float64), 4.0)
    objective = Logits(divergence="hard")
    losses = objective.losses(student, told, None, 0.0)
    (automatic,) = torch.autograd.grad(losses.sum(), student)
    expected, slope = hard_oracle(student.detach().numpy(), teacher.numpy())
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(automatic.numpy(), slope, atol=1e-12)
    value, gradient = objective.losses_and_gradients(Softened(student.detach()), told, None, 0.0)
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12)
    whole = sum(part * factor for part, factor in gradient.parts)
    assert gradient.ids is not None
    assert gradient.values is not None
    np.testing.assert_allclose(whole.scatter_add(-1, gradient.ids, gradient.values).numpy(), slope, atol=1e-12)


def test_a_hard_label_takes_no_temperature_and_no_spread() -> None:
    for options in ({"temperature": 2.0}, {"standardise": True}):
        with pytest.raises(RecipeError, match="`hard` asks for the teacher's likeliest class alone"):
            Logits(divergence="hard", **options)
    assert Logits(divergence="hard").temperatures == ()
    assert len(Logits(divergence="hard").problems(Dims(1), Dims(1), {})) == 1


def test_a_hard_label_over_a_vocabulary_equals_the_textbook_in_chunks() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(7, 4, generator=generator, requires_grad=True), torch.randn(7, 5, generator=generator)
    small, large = torch.randn(50, 4, generator=generator), torch.randn(50, 5, generator=generator)
    loss = fused_divergence(ours, small, theirs, large, divergence="hard")
    expected, _ = hard_oracle((ours.detach() @ small.T).numpy(), (theirs @ large.T).numpy())
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-5)
