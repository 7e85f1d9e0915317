"""What is kept of a row: the likeliest classes and draws, on every way to find them."""

from __future__ import annotations

import pytest
import torch

from stilla.teachers import keeping
from stilla.teachers.keeping import drawn, largest, ranked


def logits(rows: int = 6, classes: int = 3000) -> torch.Tensor:
    made = 3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))
    made[0, 1000:2500] = -torch.inf  # whole blocks without mass
    made[1, classes - 40 :] = -torch.inf
    made[2] = -torch.inf
    made[2, 77] = 0.0
    return made


def uniforms(rows: int = 6, draws: int = 40) -> torch.Tensor:
    made = torch.rand(rows, draws, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made[:, -1] = 1 - 2**-53  # the last that there is
    made[:, 0] = 0.0
    return made


def test_draws_in_blocks_are_those_of_the_running_sum_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    some = uniforms()[:, :-1]  # at the very end a rounding error may choose the class before
    whole = drawn(logits(), some)
    monkeypatch.setattr(keeping, "_MANY", 0)
    blocked = drawn(logits(), some)
    assert torch.equal(whole.ids, blocked.ids)
    assert torch.equal(whole.counts, blocked.counts)


def test_what_has_no_mass_is_never_drawn() -> None:
    said = drawn(logits(), uniforms())
    for row in range(3):
        ids = said.ids[row][said.counts[row] > 0]
        assert torch.isfinite(logits()[row][ids]).all(), row
    assert said.counts.sum(-1).eq(40).all()
    assert said.counts[2, 0] == 40


def test_draws_and_ranks_do_not_depend_on_how_many_rows_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    many, some = logits(100, 400), uniforms(100)
    whole, top = drawn(many, some), ranked(many, 7, (1.0, 2.0))
    monkeypatch.setattr(keeping, "_NUMBERS", 1)
    pieces, again = drawn(many, some), ranked(many, 7, (1.0, 2.0))
    assert torch.equal(whole.ids, pieces.ids)
    assert torch.equal(whole.entropy, pieces.entropy)
    assert torch.equal(top.ids, again.ids)
    assert torch.equal(top.odds, again.odds)


@pytest.mark.parametrize("k", [1, 5, 11])
def test_the_largest_in_blocks_are_the_largest(k: int) -> None:
    for classes in (3000, 3007):  # 93 blocks and a rest; more than 8 to each of the k, or fewer
        some = logits(classes=classes)
        values, ids = largest(some, k)
        assert torch.equal(values.sort(descending=True).values, some.topk(k).values)
        assert torch.equal(some.gather(-1, ids), values)
        assert all(len(set(row.tolist())) == k for row in ids)
