"""From start and end logits to answers: the best pieces of a window, of all windows of a question, and when there is none.

An answer is an array (1 + BEST, 3). Row 0: the score of no answer, the divergence from the teacher, 0. Each other row: the
score of a piece of the passage, its first character, and the one behind its last; the best first, ABSENT where there are no
more. A score is the start's logit and the end's: scores of two windows can be compared, probabilities of two cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

BEST = 20
"""Pieces that are kept of a question."""
ABSENT = -1e9
"""The score in rows that hold nothing."""


def of_window(
    logits: NDArray[np.float64], characters: NDArray[np.int64], longest: int, divergence: float = 0.0
) -> NDArray[np.float64]:
    """logits: (2, places) of starts and ends. characters: (places, 2) as `Passages` has them. `longest`: in tokens."""
    real = np.flatnonzero(characters[:, 1] > 0)
    (nothing,) = np.flatnonzero(characters[:, 1] == 0)
    found = np.full((1 + BEST, 3), (ABSENT, 0.0, 0.0))
    found[0] = logits[:, nothing].sum(), divergence, 0
    if not len(real):
        return found
    starts, ends = logits[0, real], logits[1, real]
    # (first token, tokens more): all pieces that are not too long
    last = np.arange(len(real))[:, None] + np.arange(min(longest, len(real)))
    scores = np.where(last < len(real), starts[:, None] + ends[last.clip(max=len(real) - 1)], -np.inf)
    chosen = np.argsort(-scores, axis=None, kind="stable")[: min(BEST, int((last < len(real)).sum()))]
    first, more = np.unravel_index(chosen, scores.shape)
    rows = np.arange(1, 1 + len(chosen))
    found[rows, 0] = scores[first, more]
    found[rows, 1] = characters[real[first], 0]
    found[rows, 2] = characters[real[first + more], 1]
    return found


def of_windows(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(windows, 1 + BEST, 3) of one question -> its answer: each piece as the window has it that scores it highest; that
    there is none, as the window that thinks so least."""
    if len(parts) == 1:
        return np.asarray(parts[0])
    found = np.full(parts.shape[1:], (ABSENT, 0.0, 0.0))
    found[0] = parts[:, 0, 0].min(), parts[:, 0, 1].mean(), 0
    pieces = parts[:, 1:].reshape(-1, 3)
    pieces = pieces[np.argsort(-pieces[:, 0], kind="stable")]
    _, first = np.unique(pieces[:, 1:], axis=0, return_index=True)  # of equal pieces the first, which is the best
    kept = pieces[np.sort(first)][:BEST]
    found[1 : 1 + len(kept)] = kept
    return found


def divergences(teacher: NDArray[np.float64], student: NDArray[np.float64]) -> NDArray[np.float64]:
    """(windows, 2, places) -> (windows,) KL(teacher, student) in nats, the mean of starts and ends."""
    theirs, ours = log_softmax(teacher, -1), log_softmax(student, -1)
    return np.asarray((np.exp(theirs) * (theirs - ours)).sum(-1).mean(-1))


def margins(given: Sequence[NDArray[np.float64]] | NDArray[np.float64]) -> NDArray[np.float64]:
    """(questions,) by how much no answer is better than the best piece."""
    whole = np.asarray(given)
    return np.asarray(whole[:, 0, 0] - whole[:, 1, 0])


def piece(answer: NDArray[np.float64], *, maybe_none: bool) -> tuple[int, int]:
    """The characters that are the answer; (0, 0) where there is none."""
    if answer[1, 0] <= ABSENT or (maybe_none and answer[0, 0] > answer[1, 0]):
        return 0, 0
    return int(answer[1, 1]), int(answer[1, 2])


def confidence(answer: NDArray[np.float64], *, maybe_none: bool) -> float:
    """The probability of what is answered, among the pieces that are kept and no answer."""
    scores = answer[:, 0] if maybe_none else answer[1:, 0]
    return float(softmax(scores).max())


def threshold(margin: NDArray[np.float64], with_piece: NDArray[np.float64], with_none: NDArray[np.float64]) -> float:
    """The number above which a margin means no answer, so that most is right. `with_piece`, `with_none`: (questions,) what
    either answer is worth. Halfway between two margins; of equally good ones that nearest to 0."""
    order = np.argsort(margin, kind="stable")
    ordered = margin[order]
    # with the first n questions answered by a piece, and the others by none
    worth = np.concatenate([[0.0], np.cumsum(with_piece[order])]) + np.concatenate(
        [np.cumsum(with_none[order][::-1])[::-1], [0.0]])
    places = np.concatenate([[ordered[0] - 1], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1]])
    parted = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])  # equal margins are decided alike
    # 0 itself is a choice like any other
    inside = int(np.searchsorted(ordered, 0, side="right"))
    worth, places = np.append(worth[parted], worth[inside]), np.append(places[parted], 0.0)
    good = places[worth >= worth.max() - 1e-9]
    return float(good[np.abs(good).argmin()])
