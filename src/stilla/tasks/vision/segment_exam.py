"""What models that find objects with masks are asked: masks at the size of the pictures themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch
from stilla.tasks.answers import NO_ANSWER, Answers
from stilla.tasks.exam import array
from stilla.tasks.vision.boxes import Beside
from stilla.tasks.vision.mask_sets import MaskSet, bits_of, overlaps, unpacked
from stilla.tasks.vision.object_exam import HALF, MOST, PrecisionExam
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
class SegmentExam(PrecisionExam):
    """An answer is a `MaskSet` with scores, the surest first; what it is held against is one with crowds.

    A score is the probability of the class times the mean probability of the mask's own pixels, as Mask2Former has it; pixels
    are a guess's own whose probability is over a half, once its mask is brought to the picture's size (bilinear).
    """

    shown: Shown

    def outputs(self, outputs: Any) -> Tensor:
        return said_by(outputs, len(self.names))

    def given(self, said: Tensor, batch: Batch, teacher: Any | None) -> list[MaskSet]:
        return [_answer(one, (int(height), int(width)), len(self.names))
                for one, (height, width) in zip(said, batch["sizes"].tolist())]

    def held(self, found: MaskSet, there: MaskSet) -> Beside:
        crowd = there["numbers"][:, 1] > 0
        kinds, scores = found["numbers"][:, 0].astype(np.int64), found["numbers"][:, 1]
        return Beside(kinds, scores, there["numbers"][:, 0].astype(np.int64), crowd, overlaps(found, there))

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Overlays:
        """The picture with the masks of the data and of every model, each as the object that it has most in common with; one
        that is none of them in a colour of its own."""
        any_one = next(iter(answers.values()))
        there: MaskSet = any_one.references[example]
        truth = unpacked(there)
        drawn = {"": _numbered(truth, np.arange(1, len(truth) + 1))}
        for subject, said in answers.items():
            one: MaskSet = said.given[example]
            sure = np.flatnonzero(one["numbers"][:, 1] >= _SHOWN)[::-1]  # the surest on top
            shares = overlaps(one, there)[sure]
            whose = np.where(shares.max(1) >= HALF, shares.argmax(1) + 1, 0)
            drawn[subject] = _numbered(unpacked(one)[sure], whose)
        rows, columns = np.nonzero(truth[place])
        middle = len(rows) // 2
        return self.shown(split, int(any_one.keys[example]), drawn, called(self.names, there["numbers"]),
                          (int(rows[middle]), int(columns[middle])))


NONE = "none of the objects"


def called(names: Sequence[str], numbers: NDArray[np.float64]) -> tuple[str, ...]:
    """What is there by number, 0 for what is none of it. numbers: (there, 2), classes first."""
    return NONE, *(f"{names[int(kind)]} {number}" for number, kind in enumerate(numbers[:, 0], 1))


def said_by(outputs: Any, classes: int) -> Tensor:
    """All that a model finds in one tensor; an exported file gives it as it is."""
    return outputs if isinstance(outputs, Tensor) else together(segments(outputs, classes))


def _answer(numbers: Tensor, size: tuple[int, int], classes: int) -> MaskSet:
    found = apart(numbers[None].float(), classes)
    probability = found.logits[0].sigmoid()
    best = probability.flatten().sort(descending=True, stable=True).indices[:MOST]
    guesses, kinds = best // classes, best % classes
    some, of = guesses.unique(return_inverse=True)
    bits, means = list[bytes](), list[Tensor]()
    for one in some:  # all of a large picture's at once are gigabytes
        mask = on_grid(found.masks[:, one : one + 1], size)[0, 0]
        own = mask > 0
        bits.append(bits_of(array(own)))
        means.append(torch.where(own, mask.sigmoid(), 0).sum() / own.sum().clamp_min(1))
    inside = torch.stack(means)
    scores = probability[guesses, kinds] * inside[of]
    order = scores.sort(descending=True, stable=True).indices
    # a guess that has no pixel is none; what is no number stays, to be noticed
    order = order[~(inside[of][order] == 0)]
    named = torch.stack([kinds.to(scores.dtype), scores], 1)[order]
    return {"numbers": array(named).astype(np.float64), "masks": tuple(bits[one] for one in of[order].tolist()), "size": size}


def _numbered(masks: NDArray[np.bool_], numbers: NDArray[Any]) -> NDArray[np.int64]:
    """(height, width) the number of the last mask that has each pixel; NO_ANSWER where none has."""
    found = np.full(masks.shape[1:], NO_ANSWER, np.int64)
    for mask, number in zip(masks, numbers):
        found[mask] = number
    return found
