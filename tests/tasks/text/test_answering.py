"""From logits to answers, against all pieces and all thresholds one by one."""

from __future__ import annotations

import numpy as np
import pytest

from stilla.tasks.text import answering
from stilla.tasks.text.answering import ABSENT, BEST, confidence, margins, of_window, of_windows, piece, threshold


def window(size: int, before: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random logits; CLS first, a question, then `size` tokens of two characters each, with a space between."""
    logits = np.random.default_rng(seed).normal(size=(2, before + size + 1))
    characters = np.full((before + size + 1, 2), -1)
    characters[0] = 0
    for token in range(size):
        characters[before + token] = 3 * token, 3 * token + 2
    return logits, characters


@pytest.mark.parametrize("size", [1, 2, 5, 40])
@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_pieces_are_those_of_all_pieces(size: int, longest: int) -> None:
    logits, characters = window(size)
    every = [(logits[0, 3 + first] + logits[1, 3 + last], 3 * first, 3 * last + 2)
             for first in range(size) for last in range(first, min(size, first + longest))]
    every.sort(key=lambda one: -one[0])
    found = of_window(logits, characters, longest, divergence=0.5)
    np.testing.assert_allclose(found[1 : 1 + len(every)], every[:BEST])
    assert (found[1 + len(every) :, 0] == ABSENT).all()
    assert found[0].tolist() == [logits[0, 0] + logits[1, 0], 0.5, 0]


def test_the_answer_of_a_question_is_the_best_of_all_its_windows() -> None:
    parts = np.stack([of_window(*window(6, seed=seed), 2, divergence=seed) for seed in range(3)])
    found = of_windows(parts)
    assert found[0].tolist() == [parts[:, 0, 0].min(), 1.0, 0]
    every: dict[tuple[float, float], float] = {}
    for score, start, end in parts[:, 1:].reshape(-1, 3):
        if score > ABSENT:
            every[start, end] = max(score, every.get((start, end), score))
    assert len({tuple(one) for one in found[1:, 1:] if one[1]}) == min(BEST, len(every))
    assert found[1, 0] == max(every.values())
    np.testing.assert_allclose(found[1 : 1 + len(every), 0], sorted(every.values(), reverse=True)[:BEST])
    assert of_windows(parts[:1]) is not None
    np.testing.assert_array_equal(of_windows(parts[:1]), parts[0])


def test_a_window_with_nothing_of_the_passage_answers_nothing() -> None:
    logits, characters = window(0)
    found = of_window(logits, characters, 5)
    assert piece(found, maybe_none=False) == (0, 0)


def test_none_is_answered_where_it_scores_higher_and_only_if_it_may_be() -> None:
    answer = np.array([[3.0, 0, 0], [2.0, 4, 9]])
    assert piece(answer, maybe_none=True) == (0, 0)
    assert piece(answer, maybe_none=False) == (4, 9)
    assert margins([answer]).tolist() == [1.0]
    assert confidence(answer, maybe_none=True) == pytest.approx(1 / (1 + np.exp(-1)))
    assert confidence(answer, maybe_none=False) == 1


@pytest.mark.parametrize("seed", range(8))
def test_the_threshold_is_the_best_of_all(seed: int) -> None:
    draw = np.random.default_rng(seed)
    margin = draw.normal(size=30).round(1)  # with equal ones
    with_piece, with_none = draw.random(30), draw.integers(0, 2, 30).astype(float)

    def worth(at: float) -> float:
        return float(np.where(margin > at, with_none, with_piece).sum())

    chosen = threshold(margin, with_piece, with_none)
    assert worth(chosen) == pytest.approx(max(map(worth, np.arange(-6, 6, 0.05))))


def test_of_equally_good_thresholds_it_is_the_one_nearest_to_0() -> None:
    assert threshold(np.array([-2.0, 4.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 0
    assert threshold(np.array([2.0, 4.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 3


def test_divergence_is_the_mean_of_starts_and_ends_and_floors_count_for_nothing() -> None:
    teacher, student = np.log([[[0.5, 0.5], [0.9, 0.1]]]), np.log([[[0.25, 0.75], [0.9, 0.1]]])
    by_hand = (0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)) / 2
    assert answering.divergences(teacher, student) == pytest.approx([by_hand])
    floors = np.full((1, 2, 3), -29952.0)
    longer = [np.concatenate([one, floors], -1) for one in (teacher, student)]
    assert answering.divergences(*longer) == pytest.approx([by_hand])
