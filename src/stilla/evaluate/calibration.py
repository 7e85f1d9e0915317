"""Whether a model is as often right as it says it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float

from stilla.scores import Bin, Calibration

BINS = 15
"""As in Guo et al. 2017."""


def calibration(
    confidence: Float[npt.NDArray[np.float64], "decisions"],
    right: Bool[npt.NDArray[np.bool_], "decisions"],
    bins: int = BINS,
) -> Calibration:
    """ECE = Σ_b (n_b / n) |accuracy_b - confidence_b| over bins (b/B, (b+1)/B] of confidence.

    Empty bins are left out. Of several labels every label is a decision, with the confidence max(p, 1 - p).
    Guo et al. 2017, arXiv:1706.04599.
    """
    where = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    sure = np.bincount(where, weights=confidence, minlength=bins)
    hits = np.bincount(where, weights=right, minlength=bins)
    bars = tuple(Bin(float(sure[one] / counts[one]), float(hits[one] / counts[one]), int(counts[one]))
                 for one in np.flatnonzero(counts))
    return Calibration(ece=float(np.abs(hits - sure).sum() / len(confidence)), bins=bars)
