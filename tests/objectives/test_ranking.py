"""What compares a query's candidates, held against NumPy."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Labels, Margins, Ranking
from stilla.signals import Dense, Dims, Signals

COMPARED: Any = ("kl", "margin_mse", "ranknet")
SIZES = (3, 1, 5, 2)
QUERIES = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))


def scores(seed: int, number: int = sum(SIZES)) -> Tensor:
    return 3 * torch.randn(number, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def said(logits: Tensor, queries: Tensor = QUERIES) -> Signals:
    return Signals(logits=Dense(logits), queries=queries)


def total(compare: Any, student: Tensor, teacher: Tensor, queries: Tensor = QUERIES) -> Tensor:
    return Ranking(compare=compare).total(said(student, queries), said(teacher, queries), 0.0)


def oracle(compare: str, s: np.ndarray, t: np.ndarray) -> float:
    if len(s) < 2:
        return 0.0
    if compare == "kl":
        p, q = (np.exp(one) / np.exp(one).sum() for one in (t, s))
        return float((p * np.log(p / q)).sum())
    both = list(combinations(range(len(s)), 2))
    if compare == "margin_mse":
        return float(np.mean([((s[i] - s[j]) - (t[i] - t[j])) ** 2 for i, j in both]))
    ordered = [(i, j) if t[i] > t[j] else (j, i) for i, j in both]
    return float(np.mean([np.log1p(np.exp(s[j] - s[i])) for i, j in ordered]))


@pytest.mark.parametrize("compare", COMPARED)
def test_lists_of_any_length_give_what_each_gives_by_itself(compare: str) -> None:
    student, teacher = scores(1), scores(2)
    borders = np.cumsum([0, *SIZES])
    expected = sum(oracle(compare, student[a:b, 0].numpy(), teacher[a:b, 0].numpy()) for a, b in pairwise(borders))
    assert total(compare, student, teacher).item() == pytest.approx(expected, rel=1e-9)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: total(compare, one, teacher), student)


@pytest.mark.parametrize("compare", COMPARED)
def test_a_constant_for_a_query_changes_nothing_and_a_scale_does(compare: str) -> None:
    student, teacher = scores(1), scores(2)
    moved = teacher + torch.tensor([7.0, -3.0, 0.5, 11.0], dtype=torch.float64)[QUERIES, None]
    plain = total(compare, student, teacher).item()
    assert total(compare, student, moved).item() == pytest.approx(plain, rel=1e-9)
    scaled = total(compare, student, 2 * teacher).item()
    assert (scaled == pytest.approx(plain, rel=1e-9)) == (compare == "ranknet")  # which looks at the order alone


@pytest.mark.parametrize("compare", COMPARED)
def test_one_candidate_teaches_nothing(compare: str) -> None:
    student = scores(1, 3).requires_grad_()
    loss = total(compare, student, scores(2, 3), torch.arange(3))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, student)[0].any()


@pytest.mark.parametrize("compare", COMPARED)
def test_the_order_of_candidates_changes_nothing(compare: str) -> None:
    student, teacher, other = scores(1, 5), scores(2, 5), torch.tensor([3, 0, 4, 1, 2])
    one = torch.zeros(5, dtype=torch.int64)
    assert total(compare, student[other], teacher[other], one).item() == pytest.approx(
        total(compare, student, teacher, one).item(), rel=1e-12)


def test_of_two_candidates_it_is_margin_mse() -> None:
    student, teacher = scores(1, 8), scores(2, 8)
    queries = torch.arange(4).repeat_interleave(2)
    rows = Margins().losses(student.view(4, 2), Dense(teacher.view(4, 2)), None, 0.0)
    assert total("margin_mse", student, teacher, queries).item() == pytest.approx(rows.sum().item(), rel=1e-12)


def test_a_student_that_is_its_teacher_loses_nothing_but_by_order() -> None:
    teacher = scores(3)
    for compare in ("kl", "margin_mse"):
        assert total(compare, teacher, teacher).item() == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_compared_is_said() -> None:
    assert "needs a teacher" in Ranking().problems(Dims(1), None, {})[0]
    assert "task: reranking" in Ranking().problems(Dims(2), Dims(2), {})[0]
    assert not Ranking().problems(Dims(1), Dims(1), {})
    assert "number of queries" in Ranking().uncounted(("rows", "examples"))[0]
    with pytest.raises(CompatibilityError, match="which query it belongs to"):
        Ranking().total(Signals(logits=Dense(scores(1))), Signals(logits=Dense(scores(1))), 0.0)
    with pytest.raises(RecipeError, match="softens nothing"):
        Ranking(compare="ranknet", temperature=2.0)
    with pytest.raises(RecipeError, match="above 0"):
        Ranking(temperature=0.0)


def test_labels_of_one_output_are_those_of_its_sigmoid() -> None:
    logits, labels = scores(4, 6), torch.tensor([0, 1, 1, 0, -100, 1])
    found = Labels().losses(logits, None, labels, 0.0)
    known = labels != -100
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[known, 0], labels[known].double(), reduction="none")
    torch.testing.assert_close(found[known], expected)
    assert found[~known].item() == 0
