"""Vectors of texts: what the two objectives over them say in NumPy, and that a step's cut changes nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Embedding, Margins, Similarities
from stilla.signals import Dense, Dims, Signals
from stilla.training.reduction import Step
from tests.tasks.retrieval.setting import rotation


def vectors(number: int = 9, width: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(number, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def said(text: Tensor, **more: Tensor) -> Signals:
    return Signals(embeddings={"text": text, **more})


def set_up(objective: Embedding | Similarities, narrow: int, wide: int) -> None:
    objective.setup(Dims(0, embedding=narrow), Dims(0, embedding=wide), {})
    objective.double()


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_the_sum_over_texts_of_the_distance_to_the_teachers_vector(distance: str) -> None:
    student, teacher = vectors(seed=1), vectors(seed=2)
    objective = Embedding(distance=distance)  # type: ignore[arg-type]
    set_up(objective, 6, 6)
    s, t = student.numpy(), teacher.numpy()
    expected = ((s - t) ** 2).sum(-1) if distance == "l2" else \
        1 - (s * t).sum(-1) / np.linalg.norm(s, axis=-1) / np.linalg.norm(t, axis=-1)
    assert objective.total(said(student), said(teacher), 0.0).item() == pytest.approx(expected.sum(), rel=1e-9)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: objective.total(said(one), said(teacher), 0.0), student)


def test_all_that_stands_together_is_compared() -> None:
    texts = [vectors(seed=seed) for seed in range(4)]
    objective = Embedding()
    set_up(objective, 6, 6)
    both = objective.total(said(texts[0], positive=texts[1]), said(texts[2], positive=texts[3]), 0.0)
    each = [objective.total(said(one), said(other), 0.0) for one, other in ((texts[0], texts[2]), (texts[1], texts[3]))]
    assert both.item() == pytest.approx(sum(one.item() for one in each), rel=1e-12)


def test_a_student_that_is_its_teacher_loses_nothing() -> None:
    teacher = vectors()
    for objective in (Embedding(), Embedding(distance="l2")):
        set_up(objective, 6, 6)
        assert objective.total(said(teacher), said(teacher), 0.0).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_narrower_vectors_are_turned_into_the_teachers_space_and_keep_their_angles() -> None:
    torch.manual_seed(0)
    objective = Embedding()
    set_up(objective, 3, 6)
    assert objective.turn is not None
    short = vectors(width=3)
    turned = objective.turn(short)
    np.testing.assert_allclose((turned @ turned.T).detach(), short @ short.T, atol=1e-5)  # W was made in float32
    # what lies in a plane of the teacher's space is reached
    teacher, student = short @ torch.linalg.qr(vectors(6, 3, seed=5))[0].T, short.clone()
    optimiser = torch.optim.Adam(objective.parameters(), 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        loss = objective.total(said(student), said(teacher), 0.0)
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-3


def similarity_oracle(s: np.ndarray, t: np.ndarray) -> float:
    unit = [one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (s, t)]
    difference = unit[0] @ unit[0].T - unit[1] @ unit[1].T
    n = len(s)
    return float((difference**2).sum() / (n * (n - 1)))


def test_the_mean_squared_difference_of_all_cosines() -> None:
    student, teacher = vectors(width=4, seed=1), vectors(seed=2)
    objective = Similarities()
    set_up(objective, 4, 6)
    value = objective.loss(objective.sums(said(student), said(teacher), 0.0), 0.0)
    assert value.item() == pytest.approx(similarity_oracle(student.numpy(), teacher.numpy()), rel=1e-9)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: objective.loss(objective.sums(said(one), said(teacher), 0.0), 0.0), student)


def test_beginnings_are_compared_with_the_teachers_whole_vectors() -> None:
    student, teacher = vectors(width=4, seed=1), vectors(seed=2)
    objective = Similarities(first=[1, 3])
    set_up(objective, 4, 6)
    value = objective.loss(objective.sums(said(student), said(teacher), 0.0), 0.0)
    expected = np.mean([similarity_oracle(student.numpy()[:, :size], teacher.numpy()) for size in (4, 1, 3)])
    assert value.item() == pytest.approx(expected, rel=1e-9)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: objective.loss(objective.sums(said(one), said(teacher), 0.0), 0.0), student)
    assert "got 4, and the student's vectors have 4 numbers" in Similarities(first=[2, 4]).problems(
        Dims(0, embedding=4), Dims(0, embedding=6), {})[0]
    for sizes in ([], [0], [2, 2]):
        with pytest.raises(RecipeError, match="expected whole numbers above 0, each once"):
            Similarities(first=sizes)


def test_a_turned_teacher_is_as_good_as_the_teacher() -> None:
    teacher = vectors()
    objective = Similarities()
    set_up(objective, 6, 6)
    turned = teacher @ rotation(6)
    assert objective.loss(objective.sums(said(turned), said(teacher), 0.0), 0.0).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("first", [None, [2, 3]])
def test_what_a_step_is_cut_into_changes_nothing(first: list[int] | None) -> None:
    student, teacher = vectors(11, 4, 1), vectors(11, 6, 2)
    objective = Similarities(first=first)
    set_up(objective, 4, 6)
    whole = student.clone().requires_grad_()
    expected = objective.loss(objective.sums(said(whole), said(teacher), 0.0), 0.0)
    (gradient,) = torch.autograd.grad(expected, whole)
    for borders in ([0, 4, 11], [0, 1, 2, 2, 11], [0, 0, 11]):
        parts = list(pairwise(borders))
        told = [(said(student[a:b]), said(teacher[a:b])) for a, b in parts]
        total = torch.stack([objective.sums(*one, 0.0) for one in told]).sum(0)
        cut, losses, gradients = student.clone().requires_grad_(), [], []
        for a, b in parts:
            own = objective.sums(said(cut[a:b]), said(teacher[a:b]), 0.0)
            step = Step({}, micro_batches=len(parts), whole=lambda _, __, total=total: total)
            loss = step.of_sums("similarities", own, lambda sums: objective.loss(sums, 0.0))
            losses.append(loss.item())
            gradients.append(torch.autograd.grad(loss, cut)[0])
        assert sum(losses) == pytest.approx(expected.item(), rel=1e-12)
        np.testing.assert_allclose(torch.stack(gradients).sum(0), gradient, atol=1e-13)


def test_one_text_alone_has_nothing_beside_it() -> None:
    objective = Similarities()
    set_up(objective, 6, 6)
    one = vectors(1)
    assert objective.loss(objective.sums(said(one), said(vectors(1, seed=3)), 0.0), 0.0).item() == pytest.approx(0, abs=1e-12)


def test_margins_are_those_of_the_first_candidate_to_each_other() -> None:
    student, teacher = vectors(5, 4, 1), vectors(5, 4, 2)
    s, t = student.numpy(), teacher.numpy()
    expected = [np.mean([((a[0] - a[j]) - (b[0] - b[j])) ** 2 for j in range(1, 4)]) for a, b in zip(s, t)]
    found = Margins().losses(student, Dense(teacher), None, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    moved = Margins().losses(student, Dense(teacher + 7.0), None, 0.0)
    np.testing.assert_allclose(moved, expected, rtol=1e-9)
    assert not np.allclose(Margins().losses(student, Dense(2 * teacher), None, 0.0), expected)


def test_what_cannot_be_compared_is_said() -> None:
    none, some, wide = Dims(3), Dims(0, embedding=4), Dims(0, embedding=8)
    for objective in (Embedding(), Similarities()):
        assert "give none" in objective.problems(none, none, {})[0]
        assert "needs a teacher" in objective.problems(some, None, {})[0]
        assert not objective.problems(some, wide, {})
    assert "expected as many or fewer" in Embedding().problems(wide, some, {})[0]
    assert "has one" in Margins().problems(Dims(1), Dims(1), {})[0]
    assert "have none" in Margins().unmade(Dims(0))[0]
    assert not Margins().unmade(Dims(2))
    with pytest.raises(CompatibilityError, match="expected the same of both"):
        Embedding().total(said(vectors()), Signals(embeddings={"other": vectors()}), 0.0)
