"""What compares the places of pictures, held against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Channels, Pairwise
from stilla.signals import Dense, Dims, Signals, TopK

GRID, CLASSES, PICTURES = (4, 6), 5, 3


def logits(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(PICTURES * GRID[0] * GRID[1], CLASSES, generator=generator, dtype=torch.float64)


def said(one: Tensor, grid: tuple[int, int] | None = GRID) -> Signals:
    return Signals(logits=Dense(one), grid=grid)


def maps(one: Tensor) -> NDArray[Any]:
    return one.numpy().reshape(PICTURES, *GRID, CLASSES)


def softmax(values: NDArray[Any], axis: Any) -> NDArray[Any]:
    powers = np.exp(values - values.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_channels_are_distributions_over_the_places_of_each_picture(temperature: float) -> None:
    student, teacher = logits(1), logits(2)
    p, q = (softmax(maps(one) / temperature, (1, 2)) for one in (teacher, student))
    np.testing.assert_allclose(p.sum((1, 2)), 1)
    expected = temperature**2 * (p * np.log(p / q)).sum((1, 2)).mean(-1).sum()
    objective = Channels(temperature=temperature)
    assert objective.total(said(student), said(teacher), 0.0).item() == pytest.approx(expected, rel=1e-9)
    places = GRID[0] * GRID[1]
    leaf = student[:places].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda one: objective.total(said(one), said(teacher[:places]), 0.0), leaf)


def test_what_is_added_to_a_whole_channel_changes_nothing_and_to_a_place_does() -> None:
    student, teacher = logits(1), logits(2)
    before = Channels().total(said(student), said(teacher), 0.0)
    moved = student + torch.tensor([5.0, -1.0, 0.0, 2.0, 9.0], dtype=torch.float64)
    torch.testing.assert_close(Channels().total(said(moved), said(teacher), 0.0), before)
    placed = student.clone()
    placed[3] += 1  # all classes of one place: what a softmax over classes would not see
    assert abs(Channels().total(said(placed), said(teacher), 0.0) - before) > 1e-3


def test_classes_and_places_in_each_others_place_are_another_loss() -> None:
    """A picture of as many places as classes, its maps transposed: only the right axis gives the oracle's value."""
    student, teacher = logits(1)[:CLASSES], logits(2)[:CLASSES]
    right = Channels().total(said(student, (1, CLASSES)), said(teacher, (1, CLASSES)), 0.0)
    turned = Channels().total(said(student.T, (1, CLASSES)), said(teacher.T, (1, CLASSES)), 0.0)
    assert abs(right - turned) > 1e-2


@pytest.mark.parametrize(("nodes", "parts"), [(2, (2, 2)), (64, GRID)])
def test_pairwise_compares_all_pairs_of_parts(nodes: int, parts: tuple[int, int]) -> None:
    student, teacher = logits(1), logits(2)

    def alike(one: Tensor) -> NDArray[Any]:
        classes = softmax(maps(one), -1)
        high, wide = GRID[0] // parts[0], GRID[1] // parts[1]
        means = classes.reshape(PICTURES, parts[0], high, parts[1], wide, CLASSES).mean((2, 4)).reshape(PICTURES, -1, CLASSES)
        unit = means / np.linalg.norm(means, axis=-1, keepdims=True)
        return np.asarray(unit @ unit.transpose(0, 2, 1))

    expected = ((alike(student) - alike(teacher)) ** 2).mean((1, 2)).sum()
    objective = Pairwise(nodes=nodes)
    assert objective.total(said(student), said(teacher), 0.0).item() == pytest.approx(expected, rel=1e-9)


def test_gradients_of_pairwise_are_those_of_their_formula() -> None:
    places = GRID[0] * GRID[1]
    student, teacher = logits(1)[:places].requires_grad_(), logits(2)[:places]
    assert torch.autograd.gradcheck(lambda one: Pairwise(nodes=2).total(said(one), said(teacher), 0.0), student)


@pytest.mark.parametrize("objective", [Channels(), Pairwise()])
def test_a_student_that_says_what_its_teacher_says_has_no_loss_and_half_the_pictures_half_of_it(objective: Any) -> None:
    student, teacher = logits(1), logits(2)
    assert objective.total(said(teacher), said(teacher), 0.0).item() == pytest.approx(0, abs=1e-12)
    places = GRID[0] * GRID[1]
    parts = [objective.total(said(student[a : a + places]), said(teacher[a : a + places]), 0.0)
             for a in range(0, len(student), places)]
    torch.testing.assert_close(sum(parts), objective.total(said(student), said(teacher), 0.0))


@pytest.mark.parametrize("objective", [Channels(), Pairwise()])
def test_what_is_no_map_or_only_a_part_of_a_distribution_is_refused(objective: Any) -> None:
    with pytest.raises(CompatibilityError, match="compares the places of pictures"):
        objective.total(said(logits(1), None), said(logits(2)), 0.0)
    part = TopK(torch.zeros(72, 1, dtype=torch.int64), torch.zeros(72, 1), torch.zeros(72))
    with pytest.raises(CompatibilityError, match="only TopK, a part of its distribution"):
        objective.total(said(logits(1)), Signals(logits=part), 0.0)
    assert objective.accepts == (Dense,)
    assert objective.problems(Dims(3), Dims(4), {}) == [
        f"the student has 3 outputs, the teacher 4: {objective.described} compares class by class. Give both the same labels "
        "in the same order"]
    assert "does not count" in objective.uncounted(("rows", "examples"))[0]


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(RecipeError, match="temperature: got 0"):
        Channels(temperature=0.0)
    with pytest.raises(RecipeError, match="nodes: got 100; expected a whole number from 2 to 64"):
        Pairwise(nodes=100)
