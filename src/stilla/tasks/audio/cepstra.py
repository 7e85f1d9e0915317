"""How far what is spoken is from what should have been, at whatever pace: the mel-cepstral distance along a warping."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int8
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.spatial.distance import cdist

COEFFICIENTS = 13
_DECIBELS = 10 * math.sqrt(2) / math.log(10)


def mel_cepstra(frames: Float[NDArray[np.floating], "frames bins"]) -> Float[NDArray[np.float64], "frames coefficients"]:
    """c_m = 2/B Σ_b ln S_b cos(π m (b + 1/2) / B), m = 1 to 13, of log10 S in B mel bins: without c_0, the loudness."""
    logs = np.asarray(frames, np.float64) * math.log(10)
    found: NDArray[np.float64] = dct(logs, type=2, axis=1)[:, 1 : COEFFICIENTS + 1] / logs.shape[1]
    return found


def mel_cepstral_distance(
    said: Float[NDArray[np.floating], "frames bins"], right: Float[NDArray[np.floating], "others bins"]
) -> float:
    """(10 √2 / ln 10) |c - c'| in decibels, mean over the warping of one to the other for which the sum is least (Kubichek
    1993, doi:10.1109/PACRIM.1993.407206; Sakoe and Chiba 1978, doi:10.1109/TASSP.1978.1163055)."""
    total, steps = warped(cdist(mel_cepstra(said), mel_cepstra(right)))
    return _DECIBELS * total / steps


def warped(apart: Float[NDArray[np.float64], "frames others"]) -> tuple[float, int]:
    """The least sum of distances from both beginnings to both ends, a step forward in one or in both at a time, and of how
    many pairs it is; of equal sums the one that goes on in both."""
    total, ways = _sums(apart)
    return total, len(_back(ways)[0])


def path(apart: Float[NDArray[np.float64], "frames others"]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of that warping, from the beginning."""
    rows, columns = _back(_sums(apart)[1])
    return np.array(rows[::-1]), np.array(columns[::-1])


def _sums(apart: Float[NDArray[np.float64], "frames others"]) -> tuple[float, Int8[NDArray[np.int8], "frames others"]]:
    """The least sum, and of every pair how it is best reached: 0 by a step in both, 1 in the first, 2 in the second."""
    rows, columns = apart.shape
    sums = np.full((rows + 1, columns + 1), np.inf)
    ways = np.zeros((rows, columns), np.int8)
    sums[0, 0] = 0
    for diagonal in range(rows + columns - 1):  # whose pairs do not depend on each other
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        column = diagonal - row
        reached = np.stack([sums[row, column], sums[row, column + 1], sums[row + 1, column]])
        best = ways[row, column] = reached.argmin(0)
        sums[row + 1, column + 1] = apart[row, column] + reached[best, np.arange(len(row))]
    return float(sums[-1, -1]), ways


def _back(ways: Int8[NDArray[np.int8], "frames others"]) -> tuple[list[int], list[int]]:
    row, column = (size - 1 for size in ways.shape)
    rows, columns = [row], [column]
    while row or column:
        way = ways[row, column]
        row, column = row - (way != 2), column - (way != 1)
        rows.append(int(row))
        columns.append(int(column))
    return rows, columns
