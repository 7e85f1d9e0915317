"""Objectives over pictures and texts of a step, or queries and what answers them, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Affinities, Contrastive, Embedding, Interactive
from stilla.objectives.base import StepTableObjective
from stilla.signals import NOBODYS, UNSAID, Dims, Pairs, Signals
from stilla.training.reduction import Step

SAME, NARROW = Dims(0, embedding=6), Dims(0, embedding=4)


def said(
    seed: int, width: int = 6, *, pictures: int = 4, bias: float | None = None, scale: float = 7.0, **pairs: Any
) -> Signals:
    """Pictures 10, 11, ... with a text each, numbered from 0."""
    draw = torch.Generator().manual_seed(seed)
    vectors = {name: torch.randn(pictures, width, generator=draw, dtype=torch.float64) for name in ("image", "text")}
    vectors = {name: torch.nn.functional.normalize(one, dim=-1).requires_grad_() for name, one in vectors.items()}
    keys = torch.arange(10, 10 + pictures)
    known = {"first": keys, "second": torch.arange(pictures), "belongs_to": keys, **pairs}
    return Signals(embeddings=vectors, pairs=Pairs(
        **known, scale=torch.tensor(scale, dtype=torch.float64, requires_grad=True),
        bias=None if bias is None else torch.tensor(bias, dtype=torch.float64, requires_grad=True)))


def loss(
    objective: StepTableObjective, student: Signals, teacher: Signals | None, dims: tuple[Dims, Dims] = (SAME, SAME)
) -> Any:
    torch.manual_seed(0)
    assert not objective.problems(*dims, {})
    objective.setup(*dims, {})
    return objective.loss(objective.entries(student, teacher, 0.0), 0.0)


def softmax(x: NDArray[Any]) -> NDArray[Any]:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def arrays(one: Signals) -> tuple[NDArray[Any], NDArray[Any], float]:
    assert one.pairs is not None
    return (*(one.embeddings[name].detach().numpy() for name in ("image", "text")), one.pairs.scale.item())


def infonce(z: NDArray[Any]) -> float:
    return -0.5 * float(np.log(np.diag(softmax(z))).mean() + np.log(np.diag(softmax(z.T))).mean())


def test_contrastive_is_clips_loss() -> None:
    one = said(0)
    image, text, scale = arrays(one)
    assert loss(Contrastive(), one, None).item() == pytest.approx(infonce(scale * image @ text.T), rel=1e-6)


def test_contrastive_of_a_model_with_a_bias_is_siglips_loss() -> None:
    one = said(0, bias=-3.0)
    image, text, scale = arrays(one)
    signs = 2 * np.eye(4) - 1
    z = scale * image @ text.T - 3.0
    expected = np.log1p(np.exp(-signs * z)).sum() / 4
    assert loss(Contrastive(), one, None).item() == pytest.approx(expected, rel=1e-6)
    assert loss(Contrastive(compare="softmax"), one, None).item() == pytest.approx(infonce(z), rel=1e-6)


def test_pictures_with_equal_texts_are_not_told_apart() -> None:
    """Pictures 0 and 2 are of one class: their texts are the same, and both are right for both."""
    one = said(0, second=torch.tensor([5, 1, 5, 3]))
    image, text, scale = arrays(one)
    right = np.eye(4)
    right[0, 2] = right[2, 0] = 1
    z = scale * image @ text.T
    expected = [-(t / t.sum(1, keepdims=True) * np.log(softmax(logits))).sum(1).mean()
                for logits, t in ((z, right), (z.T, right.T))]
    assert loss(Contrastive(), one, None).item() == pytest.approx(0.5 * sum(expected), rel=1e-6)


def test_a_picture_without_a_text_and_a_text_without_a_picture_take_no_part_in_what_labels_say() -> None:
    whole = said(0, pictures=3)
    some = said(0, pictures=3)
    more = torch.randn(1, 6, dtype=torch.float64)
    pairs = some.pairs
    assert pairs is not None
    keys, texts = torch.tensor([10, 11, 12, 13]), torch.tensor([0, 1, 2, 9])
    written = torch.tensor([10, 11, 12, -1])
    larger = Signals(embeddings={name: torch.cat([one, more]) for name, one in some.embeddings.items()},
                     pairs=Pairs(keys, texts, written, pairs.scale))
    assert loss(Contrastive(), larger, None).item() == pytest.approx(loss(Contrastive(), whole, None).item(), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_affinities_are_the_kl_of_both_directions(temperature: float) -> None:
    ours, theirs = said(0, 4, scale=3.0), said(1)
    z, t = (scale * image @ text.T / temperature for image, text, scale in (arrays(ours), arrays(theirs)))

    def kl(told: NDArray[Any], own: NDArray[Any]) -> float:
        p, q = softmax(told), softmax(own)
        return float((p * np.log(p / q)).sum(1).mean())

    expected = 0.5 * temperature**2 * (kl(t, z) + kl(t.T, z.T))
    found = loss(Affinities(temperature=temperature), ours, theirs, (NARROW, SAME))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_of_a_student_that_is_its_teacher_distance_and_gradient_are_zero_and_interactive_is_the_teachers_own() -> None:
    one, same = said(0), said(0)
    image, text, scale = arrays(one)
    assert loss(Interactive(), one, same).item() == pytest.approx(infonce(scale * image @ text.T), rel=1e-6)
    near = Embedding(distance="l2").total(one, same, 0.0)
    assert near.item() == 0
    for gradient in torch.autograd.grad(near, list(one.embeddings.values())):
        assert float(gradient.abs().max()) == 0
    kl = loss(Affinities(), one, same)
    assert kl.item() == pytest.approx(0, abs=1e-6)


def test_interactive_compares_with_what_does_not_move() -> None:
    ours, theirs = said(0, scale=2.0), said(1)
    (image, text, _), (told_image, told_text, scale) = arrays(ours), arrays(theirs)
    expected = 0.5 * (infonce(scale * image @ told_text.T) + infonce(scale * told_image @ text.T))
    found = loss(Interactive(), ours, theirs)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    found.backward()
    assert all(one.grad is None or not one.grad.any() for one in theirs.embeddings.values())


def test_narrower_vectors_are_turned_into_the_teachers_space() -> None:
    objective = Interactive()
    found = loss(objective, said(0, 4), said(1), (NARROW, SAME))
    found.backward()
    (turn,) = objective.parameters()
    assert turn.shape == (6, 4)
    assert turn.grad is not None
    assert turn.grad.any()
    assert Interactive().problems(SAME, NARROW, {}) == [
        "`interactive`: the student's vectors have 6 numbers, the teacher's 4; expected as many or fewer. Use `affinities`"]


@pytest.mark.parametrize("make", [Contrastive, Interactive, Affinities])
@pytest.mark.parametrize("sizes", [(2, 2), (1, 1, 1, 1), (3, 1)])
def test_parts_of_a_step_add_up_to_the_step(make: type[StepTableObjective], sizes: tuple[int, ...]) -> None:
    whole, told = said(0), said(1)
    objective = make()
    loss_of_all = loss(objective, whole, told)
    wanted = torch.autograd.grad(loss_of_all, [*whole.embeddings.values(), whole.pairs.scale], allow_unused=True)  # type: ignore[union-attr]
    parts, start = list[torch.Tensor](), 0
    step = Step({"examples": 8.0}, micro_batches=len(sizes))
    for size in sizes:
        rows = objective.entries(_some(whole, start // 2, size), _some(told, start // 2, size), 0.0)
        parts.append(step.placed(rows, start))
        start += 2 * size
    total = torch.stack(parts).sum(0).detach()
    step = Step({"examples": 8.0}, micro_batches=len(sizes), whole=lambda name, part: total)
    values = [step.of_sums("x", part, lambda sums: objective.loss(sums, 0.0)) for part in parts]
    assert torch.stack(values).sum().item() == pytest.approx(loss_of_all.item(), rel=1e-6)
    got = torch.autograd.grad(sum(values), [*whole.embeddings.values(), whole.pairs.scale], allow_unused=True)  # type: ignore[union-attr, arg-type]
    for one, other in zip(wanted, got, strict=True):
        assert (one is None and not (other is not None and other.any())) or torch.allclose(one, other, rtol=1e-5, atol=1e-7)  # type: ignore[arg-type]


def _some(said: Signals, start: int, size: int) -> Signals:
    rows, pairs = slice(start, start + size), said.pairs
    assert pairs is not None
    return Signals(embeddings={name: one[rows] for name, one in said.embeddings.items()}, pairs=Pairs(
        pairs.first[rows], pairs.second[rows], pairs.belongs_to[rows], pairs.scale, pairs.bias))


def test_a_void_part_adds_nothing_wherever_it_stands() -> None:
    step = Step({"examples": 2.0})
    entries = torch.ones(8, 3, requires_grad=True)
    placed = step.placed(entries, 6, void=True)
    assert placed.shape == (2, 3)
    assert not placed.any()
    placed.sum().backward()
    assert entries.grad is not None
    assert not entries.grad.any()


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(RecipeError, match="expected numbers above 0"):
        Affinities(temperature=0.0)
    with pytest.raises(CompatibilityError, match="does not say which belong together"):
        Contrastive().entries(Signals(embeddings=said(0).embeddings), None, 0.0)
    for one in (Contrastive(), Interactive(), Affinities()):
        assert one.unpaired(pairs=False)
        assert not one.unpaired(pairs=True)


def asked(
    seed: int, *, first: list[int], second: list[int], belongs_to: list[int], angle: bool = True,
    answers: list[list[int]] | None = None,
) -> Signals:
    """Queries, and texts that may answer them."""
    draw = torch.Generator().manual_seed(seed)
    queries, texts = (torch.randn(count, 6, generator=draw, dtype=torch.float64).requires_grad_()
                      for count in (len(first), len(second)))
    return Signals(embeddings={"query": queries, "positive": texts}, pairs=Pairs(
        torch.tensor(first), torch.tensor(second), torch.tensor(belongs_to), torch.tensor(5.0, dtype=torch.float64),
        alike=True, angle=angle, answers=None if answers is None else torch.tensor(answers)))


def scores(one: Signals) -> NDArray[Any]:
    assert one.pairs is not None
    queries, texts = (vectors.detach().numpy() for vectors in one.embeddings.values())
    if one.pairs.angle:
        queries, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, texts))
    return np.asarray(5.0 * queries @ texts.T)


@pytest.mark.parametrize("angle", [True, False])
def test_queries_are_told_apart_by_answers_and_by_what_answers_none(angle: bool) -> None:
    """Three queries with an answer each, and a text beside each that answers nothing: six candidates of each query."""
    one = asked(0, first=[0, 1, 2], second=[10, 11, 12, 20, 21, 22], belongs_to=[0, 1, 2, NOBODYS, NOBODYS, NOBODYS],
                angle=angle)
    z = scores(one)
    there = -float(np.log(softmax(z)[range(3), range(3)]).mean())
    back = -float(np.log(softmax(z[:, :3].T)[range(3), range(3)]).mean())
    assert loss(Contrastive(), one, None).item() == pytest.approx(there, rel=1e-5)
    assert loss(Contrastive(symmetric=True), one, None).item() == pytest.approx(0.5 * (there + back), rel=1e-5)


def test_it_is_what_sentence_transformers_learns_from_the_same_texts() -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    one = asked(3, first=[0, 1, 2, 3], second=[10, 11, 12, 13, 20, 21, 22, 23], belongs_to=[0, 1, 2, 3, *[NOBODYS] * 4])
    queries, texts = one.embeddings.values()
    known = losses.MultipleNegativesRankingLoss(None, scale=5.0)
    expected = known.compute_loss_from_embeddings([queries, texts[:4], texts[4:]], None)
    found = loss(Contrastive(), one, None)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(torch.autograd.grad(found, [queries, texts]), torch.autograd.grad(expected, [queries, texts])):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_no_query_is_told_apart_from_its_answer_in_another_row_nor_from_itself() -> None:
    """The first and the third ask the same; the second is the text that answers the fourth."""
    one = asked(1, first=[0, 1, 0, 3], second=[10, 11, 12, 1], belongs_to=[0, 1, 0, 3])
    z = scores(one)
    right = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
    z[1, 3] = -np.inf
    told = np.log(softmax(z), where=np.isfinite(z), out=np.zeros_like(z))
    expected = -float(((right * told).sum(1) / right.sum(1)).mean())
    found = loss(Contrastive(), one, None)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert all(vectors.grad is not None and vectors.grad.isfinite().all() for vectors in one.embeddings.values())


def test_what_nobody_has_labelled_is_no_candidate() -> None:
    whole = asked(2, first=[0, 1], second=[10, 11, 20, 21], belongs_to=[0, 1, NOBODYS, NOBODYS])
    draw = torch.Generator().manual_seed(9)
    queries, texts = whole.embeddings.values()
    more = [torch.randn(1, 6, generator=draw, dtype=torch.float64) for _ in range(3)]
    larger = Signals(
        embeddings={"query": torch.cat([queries, more[0]]),
                    "positive": torch.cat([texts[:2], more[1], texts[2:], more[2]])},
        pairs=Pairs(torch.tensor([0, 1, 2]), torch.tensor([10, 11, 12, 20, 21, 22]),
                    torch.tensor([0, 1, UNSAID, NOBODYS, NOBODYS, UNSAID]), torch.tensor(5.0), alike=True))
    assert loss(Contrastive(), larger, None).item() == pytest.approx(loss(Contrastive(), whole, None).item(), rel=1e-5)
    nothing = Signals(embeddings=larger.embeddings, pairs=Pairs(
        torch.tensor([0, 1, 2]), torch.tensor([10, 11, 12, 20, 21, 22]), torch.full((6,), UNSAID), torch.tensor(5.0),
        alike=True))
    assert loss(Contrastive(), nothing, None).item() == 0


def test_an_answer_that_another_row_knows_is_right_though_that_row_is_not_in_the_step() -> None:
    """Of the first query the data have 10 and 11 as answers, of which 11 stands here beside the second; of the second 11."""
    known = asked(4, first=[0, 1], second=[10, 11], belongs_to=[0, 1], answers=[[10, 11], [11, UNSAID]])
    told = np.log(softmax(scores(known)))
    expected = -0.5 * ((told[0, 0] + told[0, 1]) / 2 + told[1, 1])
    assert loss(Contrastive(), known, None).item() == pytest.approx(expected, rel=1e-5)
    teacher = asked(5, first=[0, 1], second=[10, 11], belongs_to=[0, 1], answers=[[10, 11], [11, UNSAID]])
    for objective in (Affinities(), Interactive()):  # the teacher's vectors stand behind the answers
        same = loss(type(objective)(), asked(4, first=[0, 1], second=[10, 11], belongs_to=[0, 1]),
                    asked(5, first=[0, 1], second=[10, 11], belongs_to=[0, 1]))
        if isinstance(objective, Affinities):
            assert loss(objective, known, teacher).item() == pytest.approx(same.item(), rel=1e-6)
        else:
            assert loss(objective, known, teacher).item() != pytest.approx(same.item(), rel=1e-3)


def test_affinities_say_nothing_of_a_text_beside_itself() -> None:
    ours, theirs = (asked(seed, first=[0, 1], second=[10, 11, 0], belongs_to=[0, 1, NOBODYS]) for seed in (6, 7))
    z, t = scores(ours), scores(theirs)
    z[0, 2] = t[0, 2] = -1e30

    def kl(told: NDArray[Any], own: NDArray[Any]) -> float:
        p, q = softmax(told), softmax(own)
        there = p > 0
        return float((p[there] * np.log(p[there] / q[there])).sum() / len(p))

    assert loss(Affinities(), ours, theirs).item() == pytest.approx(0.5 * (kl(t, z) + kl(t.T, z.T)), rel=1e-4)


def test_halves_are_of_softmax_and_vectors_have_a_width() -> None:
    with pytest.raises(RecipeError, match="symmetric: says which halves of `softmax`"):
        Contrastive(compare="sigmoid", symmetric=True)
    one = said(0, bias=-3.0)  # sigmoid by itself
    assert loss(Contrastive(symmetric=True), one, None).item() == loss(Contrastive(compare="softmax"), one, None).item()
    assert Contrastive().problems(Dims(3), None, {}) == ["`contrastive` compares vectors, and the student gives none"]
