"""How many unlabelled examples a step has, and which."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stilla.errors import CompatibilityError
from stilla.recipe.schedule import schedule
from stilla.training.batches import GROUPED_STEPS, StepBatches
from stilla.training.mixing import Mixing

KINDS = np.arange(70) % 7 > 1  # 20 labelled, 50 unlabelled


def mixing(share: object, *, size: int = 8, steps: int = 27, seed: int = 3) -> Mixing:
    return Mixing.of(KINDS, schedule(share), size=size, steps=steps, seed=seed)  # type: ignore[arg-type]


def steps_of(one: Mixing, epochs: int = 3, **cut: int) -> list[list[int]]:
    """The examples of every optimiser step, over several epochs."""
    cut = {"batch_size": one.size, **cut}
    found = []
    for epoch in range(epochs):
        batches = StepBatches(len(KINDS), seed=one.seed, mixing=one, **cut)
        batches.set_epoch(epoch)
        found += batches._steps()
    return found


def numbers(steps: list[list[int]]) -> list[int]:
    return [int(KINDS[step].sum()) for step in steps]


def test_an_epoch_is_as_long_as_without_a_share() -> None:
    assert [len(step) for step in steps_of(mixing(0.5), epochs=1)] == [8] * 8 + [6]
    assert len(StepBatches(70, batch_size=8, mixing=mixing(0.5))) == len(StepBatches(70, batch_size=8)) == 9


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8, 1.0])
def test_every_step_has_its_share_to_the_nearest_example(share: float) -> None:
    steps = steps_of(mixing(share))
    taken = np.cumsum(numbers(steps))
    wanted = np.cumsum([share * len(step) for step in steps])
    assert np.abs(taken - wanted).max() <= 0.5
    assert all(abs(found - share * len(step)) < 1 for found, step in zip(numbers(steps), steps))


def test_a_share_may_change_over_all_of_the_training() -> None:
    steps = steps_of(mixing({"linear": [0.0, 1.0]}))
    for number, (found, step) in enumerate(zip(numbers(steps), steps)):
        assert abs(found - number / 27 * len(step)) <= 1
    late = steps_of(mixing({"steps": [[0.0, 0.0], [0.5, 1.0]]}))
    assert numbers(late)[:14] == [0] * 14
    assert numbers(late)[14:] == [len(step) for step in late[14:]]


def test_each_kind_is_passed_over_evenly_and_anew_in_every_pass() -> None:
    steps = [index for step in steps_of(mixing(0.8), epochs=5) for index in step]
    for kind in (False, True):
        drawn = [index for index in steps if KINDS[index] == kind]
        members = np.flatnonzero(KINDS if kind else ~KINDS)
        counts = Counter(drawn)
        assert set(counts) == set(members.tolist())
        assert max(counts.values()) - min(counts.values()) <= 1
        first, second = drawn[: len(members)], drawn[len(members) : 2 * len(members)]
        assert sorted(first) == sorted(second) == members.tolist() or len(second) < len(members)
        assert first != second


def test_a_step_is_the_same_however_it_is_cut() -> None:
    one = mixing(0.7)
    whole = steps_of(one)
    for cut in ({"batch_size": 2, "accumulate": 4}, {"batch_size": 2, "accumulate": 2, "processes": 2}):
        assert steps_of(one, **cut) == whole
        pieces = [list(StepBatches(70, seed=3, mixing=one, process=process, **cut))
                  for process in range(cut.get("processes", 1))]
        together = sorted(index for part in pieces for batch in part for index in batch if index >= 0)
        assert together == sorted(index for step in whole[:9] for index in step)


def test_steps_of_an_epoch_do_not_depend_on_those_before() -> None:
    one, again = mixing(0.6), mixing(0.6)
    for epoch in (2, 0, 1):
        assert one.drawn(epoch) == steps_pairs(again, epoch)
    assert mixing(0.6, seed=4).drawn(0) != one.drawn(0)


def steps_pairs(one: Mixing, epoch: int) -> list[tuple[list[int], list[int]]]:
    for before in range(epoch):
        one.drawn(before)
    return one.drawn(epoch)


def test_examples_of_similar_length_share_a_step() -> None:
    kinds = np.arange(4000) % 2 == 0
    lengths = np.random.default_rng(0).integers(1, 100, 4000).tolist()
    one = Mixing.of(kinds, schedule(0.5), size=8, steps=500, seed=0)
    batches = StepBatches(4000, batch_size=8, mixing=one, lengths=lengths, seed=0)
    steps = batches._steps()
    spread = np.mean([max(lengths[index] for index in step) - min(lengths[index] for index in step) for step in steps])
    assert spread < 15  # of about 80 where nobody sorts
    assert all(int(kinds[step].sum()) == 4 for step in steps)
    assert sorted(index for step in steps for index in step) == list(range(4000))
    longest = [max(lengths[index] for index in step) for step in steps[:GROUPED_STEPS]]
    assert longest != sorted(longest, reverse=True)  # long and short steps in a random order


@pytest.mark.parametrize("steps", [1, 5, 9, 20, 27])
def test_what_was_seen_is_counted(steps: int) -> None:
    one = mixing({"linear": [0.2, 1.0]})
    assert StepBatches(70, batch_size=8, mixing=one).seen(steps, KINDS) == distinct(steps_of(one)[:steps])
    plain = StepBatches(70, batch_size=8, seed=3)
    assert plain.seen(steps, KINDS) == distinct(plain._steps()[:steps])


def distinct(steps: list[list[int]]) -> tuple[int, int]:
    seen = sorted({index for step in steps for index in step})
    return int((~KINDS[seen]).sum()), int(KINDS[seen].sum())


@pytest.mark.parametrize("kinds", [None, np.zeros(4, np.bool_), np.ones(4, np.bool_)])
def test_a_share_needs_both_kinds(kinds: np.ndarray | None) -> None:
    with pytest.raises(CompatibilityError, match=r"all examples are (un)?labelled; leave it out"):
        Mixing.of(kinds, schedule(0.5), size=2, steps=2, seed=0)
