"""What models of masks are asked where pictures are parted into segments: things and stuff at the size of the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch
from stilla.tasks.answers import NO_ANSWER, Answers, Metric
from stilla.tasks.exam import ClassValues, any_of, array
from stilla.tasks.shared.metrics import by_sums
from stilla.tasks.vision import panoptic_quality
from stilla.tasks.vision.boxes import Beside
from stilla.tasks.vision.masks import Packed
from stilla.tasks.vision.object_exam import HALF, ObjectExam
from stilla.tasks.vision.parted import Parted, shared
from stilla.tasks.vision.segment_exam import Shown, called, said_by
from stilla.tasks.vision.segment_models import unpacked
from stilla.tasks.vision.segmentation_models import on_grid
from stilla.views import Overlays


@dataclass(frozen=True)
class PanopticExam(ObjectExam):
    """An answer is `Parted` with scores, the surest first; what it is held against is one with crowds.

    `stuff`: its classes in the models' order. `threshold` and `overlap`: see `parts`.
    """

    shown: Shown
    stuff: frozenset[int]
    threshold: float
    overlap: float

    units: ClassVar[str] = "segments"
    class_metric: ClassVar[str] = "panoptic quality"

    def outputs(self, outputs: Any) -> Tensor:
        return said_by(outputs, len(self.names))

    def given(self, said: Tensor, batch: Batch, teacher: Any | None) -> list[Parted]:
        return [parts(one, (int(height), int(width)), classes=len(self.names), stuff=self.stuff, threshold=self.threshold,
                      overlap=self.overlap) for one, (height, width) in zip(said, batch["sizes"].tolist())]

    def metrics(self) -> tuple[Metric, ...]:
        """Of all classes, and, where there are both, of things and of stuff."""
        kinds: dict[str, Sequence[int]] = {"": range(len(self.names))}
        if self.stuff and len(self.stuff) < len(self.names):
            kinds |= {"_things": [one for one in kinds[""] if one not in self.stuff], "_stuff": sorted(self.stuff)}
        counts = partial(panoptic_quality.counted, classes=len(self.names))
        return tuple(by_sums(f"{part}{kind}", counts, partial(panoptic_quality.mean, part=part, classes=classes))
                     for kind, classes in kinds.items() for part in get_args(panoptic_quality.Part))

    def by_class(self, answers: Answers) -> ClassValues:
        """Of the classes that are said or there."""
        sums = panoptic_quality.counted(answers.given, answers.references, classes=len(self.names)).sum(0)
        values = panoptic_quality.by_class(sums)
        seen = np.flatnonzero(~np.isnan(values))
        _, found, _, missed = sums.reshape(4, -1)
        return ClassValues(tuple(self.names[one] for one in seen), (found + missed)[seen].astype(np.int64), values[seen])

    def held(self, found: Parted, there: Parted) -> Beside:
        both = shared(found, there)
        shares = np.zeros((len(found["numbers"]), 0)) if both is None else both.iou
        return Beside(found["numbers"][:, 0].astype(np.int64), found["numbers"][:, 1],
                      there["numbers"][:, 0].astype(np.int64), there["numbers"][:, 1] > 0, shares)

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Overlays:
        """The picture with the segments of the data and of every model, each as the one that it has most in common with; one
        that is none of them in a colour of its own."""
        one = any_of(answers)
        there: Parted = one.references[example]
        truth = there["places"].whole()
        drawn = {"": _numbered(truth, np.arange(1, len(there["numbers"]) + 1))}
        for subject, said in answers.items():
            found: Parted = said.given[example]
            shares = self.held(found, there).shares
            whose = np.where(shares.max(1, initial=0) >= HALF, shares.argmax(1) + 1, 0)
            drawn[subject] = _numbered(found["places"].whole(), whose)
        rows, columns = np.nonzero(truth == place)
        middle = len(rows) // 2
        return self.shown(split, int(one.keys[example]), drawn, called(self.names, there["numbers"]),
                          (int(rows[middle]), int(columns[middle])))


def _numbered(places: NDArray[np.int16], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """(height, width) the number of each pixel's segment; NO_ANSWER where it belongs to none."""
    found: NDArray[np.int64] = np.append(numbers, NO_ANSWER)[places.clip(-1)]
    return found


def parts(
    numbers: Float[Tensor, "queries lines columns"], size: tuple[int, int], *, classes: int, stuff: frozenset[int],
    threshold: float, overlap: float,
) -> Parted:
    """The segments of a picture of this size, the surest first, as Mask2Former's authors find them, and EoMT's.

    A guess counts whose likeliest class is surer than `threshold`, and than that it is nothing. Every pixel goes to the guess
    of the largest score times probability of its mask, masks brought to the size first (bilinear). A guess of which fewer
    than `overlap` of its own pixels (a probability of a half) are left so is none; of others a segment is what is left of
    their own pixels. Guesses of one class of stuff are one segment.
    """
    found = unpacked(numbers[None].float(), classes)
    chances, masks = found.logits[0].sigmoid(), found.masks
    if not (chances.isfinite().all() and masks.isfinite().all()):  # it stays, to be noticed
        return {"numbers": np.array([[0.0, np.nan]]), "places": Packed.of(np.full(size, NO_ANSWER))}
    scores, kinds = chances.max(-1)
    kept = (scores > threshold) & (scores > 1 - chances.sum(-1))
    order = scores.masked_fill(~kept, -1).sort(descending=True, stable=True).indices[: int(kept.sum())]
    best = torch.full(size, -1.0, device=numbers.device)
    whose = torch.zeros(size, dtype=torch.int64, device=numbers.device)
    own, areas = torch.zeros_like(best, dtype=torch.bool), list[int]()
    for place, one in enumerate(order.tolist()):  # all masks of a large picture at once are gigabytes
        mask = on_grid(masks[:, one : one + 1], size)[0, 0].sigmoid()
        better = scores[one] * mask > best
        best, whose = torch.where(better, scores[one] * mask, best), torch.where(better, place, whose)
        own = torch.where(better, mask >= HALF, own)
        areas.append(int((mask >= HALF).sum()))
    won, left = (np.bincount(array(some), minlength=len(order)) for some in (whose.flatten(), whose[own]))
    segments, places = list[tuple[int, float]](), np.full(len(order) + 1, NO_ANSWER)
    fused = dict[int, int]()
    for place, one in enumerate(order.tolist()):
        kind = int(kinds[one])
        if not left[place] or won[place] < overlap * areas[place]:
            continue
        if kind not in fused:
            segments.append((kind, float(scores[one])))
        places[place] = fused.get(kind, len(segments) - 1)
        if kind in stuff:
            fused[kind] = int(places[place])
    named = np.array(segments, np.float64).reshape(-1, 2)
    return {"numbers": named, "places": Packed.of(places[array(torch.where(own, whose, len(order)))])}
