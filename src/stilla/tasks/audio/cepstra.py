"""How far what is spoken is from what should have been, at whatever pace: the mel-cepstral distance along a warping."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
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
    rows, columns = apart.shape
    sums = np.full((rows + 1, columns + 1), np.inf)
    steps = np.zeros((rows + 1, columns + 1), np.int64)
    sums[0, 0] = 0
    for diagonal in range(rows + columns - 1):  # whose pairs do not depend on each other
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        column = diagonal - row
        ways = np.stack([sums[row, column], sums[row, column + 1], sums[row + 1, column]])
        best, each = ways.argmin(0), np.arange(len(row))
        counts = np.stack([steps[row, column], steps[row, column + 1], steps[row + 1, column]])
        sums[row + 1, column + 1] = apart[row, column] + ways[best, each]
        steps[row + 1, column + 1] = counts[best, each] + 1
    return float(sums[-1, -1]), int(steps[-1, -1])
