"""What more machines are worth follows from how many there are."""

from __future__ import annotations

import pytest
from benchmarks.scaling import WORKS, Machines, Work, cost


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_costs_follow_from_how_many_there_are(work: Work) -> None:
    alone, eight = Machines(1, 1), Machines(1, 8)
    one, many, parts = (cost(work, place, spread=spread, live=True)
                        for place, spread in ((alone, False), (eight, False), (eight, True)))
    assert (one.sent, one.waiting) == (0, 0)
    assert parts.sent == 0.75 * many.sent == pytest.approx(6 * work.student * 7 / 8)
    assert many.memory == one.memory
    assert one.memory - parts.memory == pytest.approx(16 * work.student * 7 / 8)
    assert many.speed <= 8 * one.speed
    slow = cost(work, Machines(8, 8, between=1e8), spread=False, live=True)
    assert slow.waiting == pytest.approx(8 * work.student * 7 / 8 / 1e8 - 2 / 3 * slow.student)


def test_a_cache_is_read_as_fast_as_tokens_are_learnt() -> None:
    work = WORKS[1]
    read = cost(work, Machines(), spread=False, live=False)
    assert read.reading == pytest.approx(142 * read.speed)
    assert read.teacher == 0
    assert read.memory == 16 * work.student
