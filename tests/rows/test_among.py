"""A teacher's distribution among the classes that a student has, against the textbook in NumPy and float64."""

from __future__ import annotations

import gc
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from stilla.objectives import Labels, Logits
from stilla.rows import row_loss
from stilla.rows.among import Classes
from stilla.signals import Dense, Headed, Samples, TopK
from tests.objectives.test_logits import gradient_oracle, oracle
from tests.rows.setting import CLASSES, DIVERGENCES, HEADS, ROWS, sides

KEPT = torch.tensor([0, 3, 4, 7, 8, 11, 12, 13, 20, 21, 28, 30])
SOME = len(KEPT)
every_divergence = pytest.mark.parametrize("divergence", DIVERGENCES)


def setting(dtype: torch.dtype = torch.float64) -> tuple[Headed, torch.Tensor, Classes]:
    """A student with SOME classes, the teacher's logits over CLASSES, and where the student's are among them."""
    ours, theirs = sides(classes=SOME, dtype=dtype, seed=1), sides(dtype=dtype)
    return ours.student, theirs.teacher.dense().logits.detach(), Classes(KEPT, CLASSES)


def conditional(logits: np.ndarray, temperature: float) -> np.ndarray:
    """p(i) / P of the whole distribution, as it is defined."""
    whole = softmax(logits / temperature, -1)[:, KEPT.numpy()]
    found: np.ndarray = whole / whole.sum(-1, keepdims=True)
    return found


def top_k(logits: torch.Tensor, k: int, temperature: float) -> TopK:
    log_p = torch.log_softmax(logits / temperature, -1)
    ids = log_p.topk(k, -1).indices.sort(-1).values
    outside = log_p.scatter(-1, ids, -torch.inf).logsumexp(-1)
    return TopK(ids, log_p.gather(-1, ids), outside, temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_among_some_classes_a_distribution_is_what_it_is_given_that_it_is_one_of_them(temperature: float) -> None:
    _, logits, classes = setting()
    found = classes.among(Dense(logits))
    assert isinstance(found, Dense)
    np.testing.assert_allclose(softmax(found.logits.numpy() / temperature, -1), conditional(logits.numpy(), temperature),
                               rtol=1e-12)


def test_of_all_distributions_over_them_it_is_the_one_that_a_student_should_have() -> None:
    """The cross-entropy of the whole distribution with one over the kept classes is least there, whatever mass is gone."""
    _, logits, _ = setting()
    whole, best = softmax(logits.numpy(), -1)[:, KEPT.numpy()], conditional(logits.numpy(), 1.0)
    least = -(whole * np.log(best)).sum(-1)
    draw = np.random.default_rng(0)
    for _ in range(200):
        other = softmax(np.log(best) + draw.normal(0, draw.choice([1e-3, 0.1, 2.0]), best.shape), -1)
        assert (-(whole * np.log(other)).sum(-1) >= least - 1e-12).all()


@every_divergence
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_value_and_gradient_of_a_teacher_with_more_classes_are_the_textbooks(
    divergence: Any, temperature: float, head: str
) -> None:
    ours = sides(classes=SOME, seed=1).student
    teacher = sides(**{**HEADS[head], "used": None}).teacher  # type: ignore[arg-type]
    objective = Logits(divergence=divergence, temperature=temperature)
    loss, _ = row_loss([(objective, 1.0)], ours, Classes(KEPT, CLASSES).among(teacher), None, 0.0)
    loss.backward()
    student, told = ours.dense().logits.detach().numpy(), teacher.dense().logits.detach().numpy()[:, KEPT.numpy()]
    np.testing.assert_allclose(loss.item(), oracle(divergence, student, told, temperature).sum(), rtol=1e-9)
    wanted = gradient_oracle(divergence, student, told, temperature) @ ours.head.weight.detach().numpy()
    np.testing.assert_allclose(ours.hidden.grad, wanted, rtol=1e-7, atol=1e-10)


def test_logits_of_a_head_are_its_logits_of_these_classes() -> None:
    for head in HEADS.values():
        teacher = sides(**{**head, "used": None}).teacher  # type: ignore[arg-type]
        found = Classes(KEPT, CLASSES).among(teacher)
        assert isinstance(found, Headed)
        assert torch.allclose(found.dense().logits, teacher.dense().logits[:, KEPT], atol=1e-12)


def test_the_rows_of_a_head_are_copied_once_and_anew_for_another() -> None:
    classes, teacher = Classes(KEPT, CLASSES), sides().teacher
    one, again = (classes.among(replace(teacher)) for _ in range(2))
    assert isinstance(one, Headed)
    assert isinstance(again, Headed)
    assert one.head.weight is again.head.weight
    other = classes.among(sides(seed=5).teacher)
    assert isinstance(other, Headed)
    assert torch.equal(other.head.weight, sides(seed=5).teacher.head.weight[KEPT])


def test_a_head_that_nobody_has_any_more_is_not_kept_for_it() -> None:
    classes, teacher = Classes(KEPT, CLASSES), sides().teacher
    classes.among(teacher)
    seen = classes._head
    assert seen is not None
    del teacher
    gc.collect()
    assert seen[0]() is None


# --- the likeliest ---


@every_divergence
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_classes_as_top_k_are_the_whole_distribution_among_them(divergence: Any, temperature: float) -> None:
    student, logits, classes = setting()
    objective = Logits(divergence=divergence, temperature=temperature)
    found = []
    for said in (Dense(logits), top_k(logits, CLASSES, temperature)):
        student.hidden.grad = None
        loss, _ = row_loss([(objective, 1.0)], student, classes.among(said), None, 0.0)
        loss.backward()
        found.append((loss.detach(), student.hidden.grad))
    torch.testing.assert_close(*(loss for loss, _ in found), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*(gradient for _, gradient in found), rtol=1e-7, atol=1e-10)


@every_divergence
@pytest.mark.parametrize("k", [1, 5, 20])
def test_of_the_likeliest_those_that_are_kept_count_with_the_mass_of_the_others(divergence: Any, k: int) -> None:
    """By hand, class by class: what is gone is left out, the rest divided by what is left, the tail taken for kept ones."""
    student, logits, classes = setting()
    said = top_k(logits, k, 1.0)
    objective = Logits(divergence=divergence, temperature=1.0)
    mine = student.dense().logits.detach().clone().requires_grad_()
    total = mine.new_zeros(())
    for row in range(ROWS):
        inside = [int((number == KEPT).nonzero()) for number in said.ids[row] if number in KEPT]
        if not inside:
            continue
        p = [float(said.log_probs[row, place].exp()) for place, number in enumerate(said.ids[row]) if number in KEPT]
        tail = float(said.log_tail[row].exp()) if len(inside) < SOME else 0.0
        masses = torch.tensor([*p, tail], dtype=torch.float64) / (sum(p) + tail)
        q = mine[row].softmax(-1)
        rest = torch.tensor([place for place in range(SOME) if place not in inside], dtype=torch.long)
        cells = torch.cat([q[inside], q[rest].sum()[None]])
        there = slice(None) if len(inside) < SOME else slice(0, len(inside))
        # two distributions over these cells, as logits
        total = total + objective.losses(cells[there].log()[None], Dense(masses[there].log()[None]), None, 0.0).sum()
    total.backward()
    loss, _ = row_loss([(objective, 1.0)], student, classes.among(said), None, 0.0)
    loss.backward()
    torch.testing.assert_close(loss.detach(), total.detach(), rtol=1e-9, atol=1e-12)
    assert mine.grad is not None
    torch.testing.assert_close(student.hidden.grad, mine.grad @ student.head.weight.detach(), rtol=1e-7, atol=1e-10)
    dense = objective.losses(student.dense().logits.detach(), classes.among(said), None, 0.0).sum()
    torch.testing.assert_close(dense, total.detach(), rtol=1e-9, atol=1e-12)


@every_divergence
def test_a_row_whose_likeliest_classes_are_all_gone_says_nothing(divergence: Any) -> None:
    student, logits, classes = setting()
    gone = torch.tensor([number for number in range(CLASSES) if number not in KEPT])
    logits[:, gone] += 100
    said = classes.among(top_k(logits, 4, 1.0))
    assert isinstance(said, TopK)
    assert said.there is not None
    assert not said.there.any()
    loss, _ = row_loss([(Logits(divergence=divergence, temperature=1.0), 1.0)], student, said, None, 0.0)
    loss.backward()
    assert loss.item() == 0
    assert student.hidden.grad is not None
    assert student.hidden.grad.abs().max() == 0


def test_beside_another_term_the_likeliest_give_the_sum_of_both_gradients() -> None:
    """Places that are not there repeat another's class: what stands there already is not to be added twice."""
    student, logits, classes = setting()
    labels = torch.arange(ROWS) % SOME
    said = classes.among(top_k(logits, 6, 1.0))
    gradients = []
    for terms in ([Labels(), Logits(temperature=1.0)], [Labels()], [Logits(temperature=1.0)]):
        student.hidden.grad = None
        loss, _ = row_loss([(term, 1.0) for term in terms], student, said, labels, 0.0)
        loss.backward()
        assert student.hidden.grad is not None
        gradients.append(student.hidden.grad)
    torch.testing.assert_close(gradients[0], gradients[1] + gradients[2], rtol=1e-9, atol=1e-12)


# --- samples ---


def test_samples_among_them_are_unbiased_for_the_distribution_among_them() -> None:
    student, logits, classes = setting()
    logits = logits / 4  # so that some are drawn of every row
    generator = torch.Generator().manual_seed(0)
    drawn = torch.softmax(logits, -1).multinomial(40_000, replacement=True, generator=generator)
    said = classes.among(Samples(drawn, torch.ones_like(drawn, dtype=torch.float64), torch.zeros(ROWS, dtype=torch.float64)))
    loss, _ = row_loss([(Logits(temperature=1.0), 1.0)], student, said, None, 0.0)
    loss.backward()
    sampled = student.hidden.grad
    student.hidden.grad = None
    whole, _ = row_loss([(Logits(temperature=1.0), 1.0)], student, classes.among(Dense(logits)), None, 0.0)
    whole.backward()
    assert sampled is not None
    assert student.hidden.grad is not None
    assert (sampled - student.hidden.grad).abs().max() < 0.1 * student.hidden.grad.abs().max()
    told = conditional(logits.numpy(), 1.0)
    mine = log_softmax(student.dense().logits.detach().numpy(), -1)
    assert loss.item() == pytest.approx(-(told * mine).sum(), rel=0.02)  # the entropy was said to be 0


def test_rows_of_which_no_sample_is_left_say_nothing() -> None:
    student, _, classes = setting()
    gone = torch.full((ROWS, 3), 1)
    said = classes.among(Samples(gone, torch.ones(ROWS, 3, dtype=torch.float64), torch.ones(ROWS, dtype=torch.float64)))
    loss, _ = row_loss([(Logits(temperature=1.0), 1.0)], student, said, None, 0.0)
    loss.backward()
    assert loss.item() == 0
    assert student.hidden.grad is not None
    assert student.hidden.grad.abs().max() == 0


def test_other_processes_get_the_classes_without_a_head_of_this_one() -> None:
    classes = Classes(KEPT, CLASSES)
    classes.among(sides().teacher)
    again = pickle.loads(pickle.dumps(classes))
    assert torch.equal(again.numbers, KEPT)
    assert again._head is None
