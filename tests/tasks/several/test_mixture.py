"""Which task's examples an epoch takes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stilla.tasks.base import Prepared
from stilla.tasks.several.mixture import Drawn, Mixture, quotas
from stilla.training.batches import StepBatches

SIZES = (15_000, 12_500, 300)


def drawn(mixture: Mixture, epochs: int, **cut: int) -> list[list[int]]:
    """The examples of every step, as a training takes them."""
    sizes = {"batch_size": 8, "accumulate": 1, "processes": 1, **cut}
    batches = [StepBatches(len(mixture), **sizes, process=process, seed=3, on_epoch=mixture.set_epoch)
               for process in range(sizes["processes"])]
    steps: list[list[int]] = []
    for epoch in range(epochs):
        for one in batches:
            one.set_epoch(epoch)
        micro = [[list(batch) for batch in one] for one in batches]
        for start in range(0, len(micro[0]), sizes["accumulate"]):
            places = sorted(place for own in micro for batch in own[start : start + sizes["accumulate"]] for place in batch)
            steps.append(sorted(int(mixture.chosen[place]) for place in places if place >= 0))
    return steps


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0, 1000.0])
def test_shares_are_those_of_the_formula(temperature: float) -> None:
    mixture = Mixture(SIZES, temperature, seed=0)
    ends = np.cumsum(SIZES)
    counts = Counter(int(np.searchsorted(ends, one, side="right")) for one in mixture.chosen)
    wanted = np.array(SIZES, float) ** (1 / temperature)
    for part, share in enumerate(wanted / wanted.sum()):
        assert counts[part] / len(mixture) == pytest.approx(share, abs=1e-4)


def test_ten_thousand_draws_are_within_a_percent_of_the_formula() -> None:
    sizes = (700, 90)
    mixture = Mixture(sizes, 2.0, seed=1)
    steps = drawn(mixture, epochs=13)
    counts = Counter(one >= sizes[0] for step in steps for one in step)
    assert sum(counts.values()) > 10_000
    assert counts[True] / sum(counts.values()) == pytest.approx(90**0.5 / (90**0.5 + 700**0.5), abs=0.01)


def test_every_example_of_a_task_comes_equally_often() -> None:
    sizes = (40, 8)
    mixture = Mixture(sizes, 3.0, seed=1)
    counts: Counter[int] = Counter()
    for epoch in range(50):
        mixture.set_epoch(epoch)
        counts.update(int(one) for one in mixture.chosen)
    of_each = [{counts[one] for one in range(start, end)} for start, end in ((0, 40), (40, 48))]
    assert all(max(times) - min(times) <= 1 for times in of_each)
    assert min(of_each[1]) > max(of_each[0])


def test_the_same_steps_however_they_are_cut() -> None:
    sizes = (37, 11)
    whole = drawn(Mixture(sizes, 2.0, seed=5), 3)
    assert drawn(Mixture(sizes, 2.0, seed=5), 3, batch_size=2, accumulate=4) == whole
    assert drawn(Mixture(sizes, 2.0, seed=5), 3, batch_size=2, accumulate=2, processes=2) == whole
    assert drawn(Mixture(sizes, 2.0, seed=6), 3) != whole


def test_an_epoch_follows_from_its_number_alone() -> None:
    one, other = (Mixture((37, 11), 2.0, seed=5) for _ in range(2))
    for epoch in range(4):
        one.set_epoch(epoch)
    other.set_epoch(3)
    assert np.array_equal(one.chosen, other.chosen)


def test_a_single_task_is_passed_over_in_its_own_order() -> None:
    mixture = Mixture((9,), 4.0, seed=0)
    assert not mixture.redraws
    assert mixture.chosen.tolist() == list(range(9))


@pytest.mark.parametrize("sizes", [(1, 1), (1000, 1), (3, 1, 1, 1), (10**6, 5, 5)])
@pytest.mark.parametrize("temperature", [1.0, 7.0])
def test_an_epoch_has_as_many_as_there_are_and_some_of_every_task(sizes: tuple[int, ...], temperature: float) -> None:
    found = quotas(sizes, temperature)
    assert sum(found) == sum(sizes)
    assert min(found) >= 1


def test_lengths_are_those_of_the_epochs_examples() -> None:
    mixture = Mixture((6, 2), 3.0, seed=0)
    lengths = Drawn(list(range(100, 108)), mixture)
    for epoch in (0, 4):
        mixture.set_epoch(epoch)
        assert list(lengths) == [100 + int(one) for one in mixture.chosen]
    assert lengths[1:3] == list(lengths)[1:3]


def test_what_is_only_drawn_anew_does_not_change() -> None:
    common = {"examples": [], "collate": list, "keys": np.arange(0)}
    assert not Prepared(**common, on_epoch=print, redrawn=True).changes  # type: ignore[arg-type]
    assert Prepared(**common, on_epoch=print).changes  # type: ignore[arg-type]
