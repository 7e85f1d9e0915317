from __future__ import annotations

import numpy as np
import pytest
import torch

from stilla.errors import CompatibilityError
from stilla.objectives import Hidden
from stilla.signals import Dims, Signals, Stack

MASK = torch.tensor([[True, True, False], [True, False, False]])


def signals(layers: int, width: int, mask: torch.Tensor | None = MASK) -> Signals:
    states = [torch.randn(2, 3, width, dtype=torch.float64) for _ in range(layers + 1)]
    return Signals(stacks={"layers": Stack(states, mask)})


def dims(layers: int, width: int) -> Dims:
    return Dims(2, {"layers": (width,) * (layers + 1)})


def ready(student: Dims, teacher: Dims, automatic: dict[str, tuple[int, ...]], **options: object) -> Hidden:
    objective = Hidden(**options).double()
    objective.setup(student, teacher, automatic)
    return objective.double()


def oracle(kind: str, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    return {
        "mse": ((s - t) ** 2).mean(-1),
        "relative_mse": ((s - t) ** 2).sum(-1) / (t**2).sum(-1),
        "cosine": 1 - (s * t).sum(-1) / np.linalg.norm(s, axis=-1) / np.linalg.norm(t, axis=-1),
    }[kind]


@pytest.mark.parametrize("distance", ["mse", "relative_mse", "cosine"])
def test_sum_over_valid_tokens_equals_the_textbook(distance: str) -> None:
    student, teacher = signals(2, 4), signals(6, 4)
    objective = ready(dims(2, 4), dims(6, 4), {"layers": (1, 5)}, distance=distance)
    pairs = [(1, 2), (2, 6)]  # states, not layers: state 0 enters the first layer
    expected = np.mean([
        oracle(distance, student.stacks["layers"].hidden_states[ours].numpy(),
               teacher.stacks["layers"].hidden_states[theirs].numpy())[MASK.numpy()].sum()
        for ours, theirs in pairs])
    assert objective.total(student, teacher, 0.0).item() == pytest.approx(expected, rel=1e-12)


def test_padding_has_no_influence() -> None:
    student, teacher = signals(1, 4), signals(1, 4)
    state = student.stacks["layers"].hidden_states[1].requires_grad_()
    objective = ready(dims(1, 4), dims(1, 4), {"layers": (0,)})
    before = objective.total(student, teacher, 0.0)
    before.backward()
    assert state.grad[~MASK].abs().max() == 0
    with torch.no_grad():
        state[~MASK] = 1e6
        teacher.stacks["layers"].hidden_states[1][~MASK] = 0
    assert objective.total(student, teacher, 0.0).item() == before.item()


def test_projection_is_made_where_widths_differ_and_is_trained() -> None:
    objective = ready(dims(1, 3), dims(2, 5), {"layers": (1,)})
    (projection,) = objective.projections.values()
    assert projection.weight.shape == (5, 3)
    objective.total(signals(1, 3), signals(2, 5), 0.0).backward()
    assert projection.weight.grad.abs().sum() > 0
    assert not ready(dims(1, 5), dims(2, 5), {"layers": (1,)}).projections


def test_without_padding_an_example_counts_once() -> None:
    student, teacher = signals(1, 4, None), signals(1, 4, None)
    objective = ready(dims(1, 4), dims(1, 4), {"layers": (0,)}, distance="mse")
    expected = oracle("mse", *(one.stacks["layers"].hidden_states[1].numpy() for one in (student, teacher))).mean(-1).sum()
    assert objective.total(student, teacher, 0.0).item() == pytest.approx(expected)


LEFT = MASK.flip(1)


@pytest.mark.parametrize("mask", [MASK, LEFT, None], ids=["right", "left", "none"])
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("distance", ["mse", "relative_mse", "cosine"])
def test_pooled_examples_equal_the_textbook(distance: str, pooling: str, mask: torch.Tensor | None) -> None:
    student, teacher = signals(2, 4, mask), signals(6, 4, mask)
    objective = ready(dims(2, 4), dims(6, 4), {"layers": (1, 5)}, distance=distance, pooling=pooling)

    def vectors(said: Signals, index: int) -> np.ndarray:
        state = said.stacks["layers"].hidden_states[index].numpy()
        valid = [row if mask is None else row[one.numpy()] for row, one in zip(state, MASK if mask is None else mask)]
        return np.stack([{"mean": rows.mean(0), "first": rows[0], "last": rows[-1]}[pooling] for rows in valid])

    expected = np.mean([oracle(distance, vectors(student, ours), vectors(teacher, theirs)).sum()
                        for ours, theirs in [(1, 2), (2, 6)]])
    assert objective.total(student, teacher, 0.0).item() == pytest.approx(expected, rel=1e-12)
    assert objective.count == "examples"
    assert Hidden().count == "tokens"


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_padding_has_no_influence_on_a_pooled_example(pooling: str) -> None:
    student, teacher = signals(1, 4), signals(1, 4)
    states = student.stacks["layers"].hidden_states
    objective = ready(dims(1, 4), dims(1, 4), {"layers": (0,)}, pooling=pooling)
    before = objective.total(student, teacher, 0.0).item()
    with torch.no_grad():
        states[1][~MASK] = torch.nan
        teacher.stacks["layers"].hidden_states[1][~MASK] = torch.inf
    state = states[1].requires_grad_()
    after = objective.total(student, teacher, 0.0)
    after.backward()
    assert after.item() == before
    assert state.grad is not None
    assert state.grad[~MASK].abs().max() == 0
    assert torch.isfinite(state.grad).all()


def test_pooled_examples_may_be_cut_into_other_positions_and_widths() -> None:
    student = signals(1, 3)
    teacher = Signals(stacks={"layers": Stack([torch.randn(2, 5, 4).double()] * 2, None)})
    objective = ready(dims(1, 3), dims(1, 4), {"layers": (0,)}, pooling="mean")
    (projection,) = objective.projections.values()
    pooled = student.stacks["layers"].pooled(1, "mean")
    target = teacher.stacks["layers"].hidden_states[1].mean(1)
    expected = oracle("relative_mse", projection(pooled).detach().numpy(), target.numpy()).sum()
    assert objective.total(student, teacher, 0.0).item() == pytest.approx(expected, rel=1e-12)


def test_an_example_without_a_valid_position_is_zero_and_finite() -> None:
    stack = Stack([torch.randn(2, 3, 4)], torch.tensor([[True, True, False], [False, False, False]]))
    for how in ("mean", "first", "last"):
        pooled = stack.pooled(0, how)
        assert pooled[0].abs().sum() > 0
        assert pooled[1].abs().max() == 0


def test_last_compares_one_layer_and_a_given_map_is_used() -> None:
    student, teacher = signals(2, 4), signals(6, 4)
    objective = ready(dims(2, 4), dims(6, 4), {"layers": (1, 5)}, layers="last", layer_map=[0, 3])
    assert objective.pairs == (("layers", 1, 3),)
    assert torch.isfinite(objective.total(student, teacher, 0.0))


@pytest.mark.parametrize(("layer_map", "said"), [([0], "expected 2 numbers"), ([0, 6], "from 0 to 5"),
                                                 ({"encoder": [0, 1]}, "encoder")])
def test_a_map_that_does_not_fit_is_refused(layer_map: object, said: str) -> None:
    with pytest.raises(CompatibilityError, match=said):
        ready(dims(2, 4), dims(6, 4), {}, layer_map=layer_map)


def test_an_unknown_correspondence_is_refused() -> None:
    (problem,) = Hidden().problems(dims(2, 4), dims(6, 4), {})
    assert "layer_map" in problem


def test_different_positions_are_refused() -> None:
    student = signals(1, 4)
    teacher = Signals(stacks={"layers": Stack([torch.randn(2, 5, 4).double()] * 2, None)})
    with pytest.raises(CompatibilityError, match="3 positions, the teacher 5"):
        ready(dims(1, 4), dims(1, 4), {"layers": (0,)}).total(student, teacher, 0.0)


def test_positions_that_differ_are_known_before_a_training() -> None:
    student, teacher = (Dims(2).with_states({"layers": sizes}) for sizes in (((3, 4), (3, 4), (5, 4)), ((3, 4),) * 4))
    (problem,) = Hidden().problems(student, teacher, {"layers": (0, 2)})
    assert "the student has 5 positions, the teacher 3" in problem
    assert not Hidden(pooling="mean").problems(student, teacher, {"layers": (0, 2)})
    assert not Hidden().problems(student, dims(3, 4), {"layers": (0, 2)})  # of a cache it is not known
