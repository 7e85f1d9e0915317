from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stilla.errors import RecipeError
from stilla.objectives import Weights, find, problems
from stilla.recipe import ObjectiveSpec, Pull
from stilla.training.pulling import Anchored, Pulling, pairs

RATE = 0.3


def models() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double(), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_it_is_half_of_the_squared_differences(reduction: str) -> None:
    student, teacher = models()
    found = pairs(student, Anchored(student, teacher).to(None, "all").found)
    ours, theirs = (np.concatenate([one.detach().numpy().ravel() for one in model.parameters()])
                    for model in (student, teacher))
    expected = 0.5 * ((ours - theirs) ** 2).sum() / (1 if reduction == "sum" else ours.size)
    assert Weights(reduction=reduction).total(found).item() == pytest.approx(expected, rel=1e-12)


def test_a_gradient_step_of_it_goes_the_share_of_the_way_that_the_rate_is() -> None:
    student, teacher = models()
    before, theirs = ([one.detach().clone() for one in model.parameters()] for model in (student, teacher))
    Weights().total(pairs(student, Anchored(student, teacher).to(None, "all").found)).backward()
    torch.optim.SGD(student.parameters(), lr=RATE).step()
    for now, own, other in zip(student.parameters(), before, theirs, strict=True):
        torch.testing.assert_close(now.detach(), own + RATE * (other - own), rtol=0, atol=1e-15)
    assert all(one.grad is None for one in teacher.parameters())


def test_a_pull_is_that_step_to_the_last_bit_every_so_many_steps() -> None:
    student, teacher = models()
    before = [one.detach().clone() for one in student.parameters()]
    pull = Pull(share=RATE, every=2)
    pulling = Pulling(student, Anchored(student, teacher).of_pull(pull)["pull"], pull)
    moved = []
    for step in (1, 2, 3):
        pulling.on_step_end(None, type("State", (), {"global_step": step}), None)  # type: ignore[arg-type]
        moved.append([one.detach().clone() for one in student.parameters()])
    for own, first, second, third, other in zip(before, *moved, teacher.parameters(), strict=True):
        assert torch.equal(first, own)
        assert torch.equal(second, own + RATE * (other.detach() - own))
        assert torch.equal(third, second)


def test_equal_weights_are_no_distance() -> None:
    student, _ = models()
    assert Weights().total(pairs(student, Anchored(student, student).to(None, "all").found)).item() == 0


def test_it_is_known_by_its_name_and_asks_a_teacher_nothing() -> None:
    assert find("weights") is Weights
    assert Weights.needs_teacher
    assert not Weights().asks
    wrong = problems(ObjectiveSpec(kind="weights", reduction="max"))
    assert wrong[0].startswith("reduction: got 'max'; expected sum or mean")


def test_no_parts_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"parts: got an empty list; expected parts of the student"):
        Weights(parts=[])
