"""What models that find objects with masks are asked: masks at the size of the pictures themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from stilla.signals import Batch
from stilla.tasks.answers import NO_ANSWER, Answers
from stilla.tasks.exam import array
from stilla.tasks.vision.boxes import Beside
from stilla.tasks.vision.object_exam import HALF, MOST, ObjectExam
from stilla.tasks.vision.object_masks import MaskSet, packed, unpacked
from stilla.tasks.vision.segment_models import packed as together
from stilla.tasks.vision.segment_models import segments
from stilla.tasks.vision.segment_models import unpacked as apart
from stilla.tasks.vision.segmentation_models import on_grid
from stilla.views import Overlays

_SHOWN: Final = 0.3
"""How sure an answer has to be that a person is shown."""

Shown = Callable[[Dataset, int, Mapping[str, NDArray[Any]], tuple[str, ...], tuple[int, int]], Overlays]
"""A split, a key, whose pixels are whose by subject (as numbers), their names and a point -> the picture with them."""


@dataclass(frozen=True)
class SegmentExam(ObjectExam):
    """An answer is a `MaskSet` with scores, the surest first; what it is held against is one with crowds.

    A score is the probability of the class times the mean probability of the mask's own pixels, as Mask2Former has it; pixels
    are a guess's own whose probability is over a half, once its mask is brought to the picture's size (bilinear).
    """

    shown: Shown

    def outputs(self, outputs: Any) -> Tensor:
        return outputs if isinstance(outputs, Tensor) else together(segments(outputs, len(self.names)))

    def given(self, said: Tensor, batch: Batch, teacher: Any | None) -> list[MaskSet]:
        return [_answer(one, (int(height), int(width)), len(self.names))
                for one, (height, width) in zip(said, batch["sizes"].tolist())]

    def beside(self, found: MaskSet, there: MaskSet) -> Beside:
        crowd = there["numbers"][:, 1] > 0
        kinds, scores = found["numbers"][:, 0].astype(np.int64), found["numbers"][:, 1]
        shares = overlaps(unpacked(found), unpacked(there), crowd) if there["size"] == found["size"] else \
            np.zeros((len(kinds), 0))
        return Beside(kinds, scores, there["numbers"][:, 0].astype(np.int64), crowd, shares)

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Overlays:
        """The picture with the masks of the data and of every model, each as the object that it has most in common with; one
        that is none of them in a colour of its own."""
        any_one = next(iter(answers.values()))
        there: MaskSet = any_one.references[example]
        truth = unpacked(there)
        names = (NONE, *(f"{self.names[int(kind)]} {number}" for number, kind in enumerate(there["numbers"][:, 0], 1)))
        drawn = {"": _numbered(truth, np.arange(1, len(truth) + 1))}
        for subject, said in answers.items():
            one: MaskSet = said.given[example]
            sure = one["numbers"][:, 1] >= _SHOWN
            masks = unpacked(one)[sure][::-1]  # the surest on top
            shares = overlaps(masks, truth, np.zeros(len(truth), bool))
            whose = np.where(shares.max(1) >= HALF, shares.argmax(1) + 1, 0) if len(truth) else np.zeros(len(masks), int)
            drawn[subject] = _numbered(masks, whose)
        rows, columns = np.nonzero(truth[place])
        middle = len(rows) // 2
        return self.shown(split, int(any_one.keys[example]), drawn, names, (int(rows[middle]), int(columns[middle])))


NONE = "none of the objects"


def _answer(numbers: Tensor, size: tuple[int, int], classes: int) -> MaskSet:
    found = apart(numbers[None].float(), classes)
    probability = found.logits[0].sigmoid()
    best = probability.flatten().sort(descending=True, stable=True).indices[:MOST]
    guesses, kinds = best // classes, best % classes
    some, of = guesses.unique(return_inverse=True)
    masks = on_grid(found.masks[:, some], size)[0]
    own = masks > 0
    inside = torch.where(own, masks.sigmoid(), 0).sum((1, 2)) / own.sum((1, 2)).clamp_min(1)
    scores = probability[guesses, kinds] * inside[of]
    order = scores.sort(descending=True, stable=True).indices
    # a guess that has no pixel is none; what is no number stays, to be noticed
    order = order[~(inside[of][order] == 0)]
    named = torch.stack([kinds.to(scores.dtype), scores], 1)[order]
    return packed(array(named).astype(np.float64), array(own[of][order]))


def overlaps(
    found: NDArray[np.bool_], there: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(found, there) IoU of masks; with a crowd, the share of what was found that lies in it."""
    own, theirs = (sparse.csr_matrix(one.reshape(len(one), one.shape[1] * one.shape[2]).astype(np.float32))
                   for one in (found, there))
    shared = np.asarray((own @ theirs.T).todense(), np.float64)
    sizes, others = (np.asarray(one.sum(1), np.float64).reshape(-1) for one in (own, theirs))
    whole = np.where(crowd[None], sizes[:, None], sizes[:, None] + others[None] - shared)
    shares: NDArray[np.float64] = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return shares


def _numbered(masks: NDArray[np.bool_], numbers: NDArray[Any]) -> NDArray[np.int64]:
    """(height, width) the number of the last mask that has each pixel; NO_ANSWER where none has."""
    found = np.full(masks.shape[1:], NO_ANSWER, np.int64)
    for mask, number in zip(masks, numbers):
        found[mask] = number
    return found
