"""What models that give every pixel a class are asked, and how it is judged: at the resolution of the pictures themselves.

An answer is the class of every pixel, and at some pixels, evenly spread, how sure the model is and how far from its teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, NotRequired, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch
from stilla.tasks.answers import NO_ANSWER, Answers, Decisions, Given, Metric
from stilla.tasks.exam import ClassValues, ForwardExam, any_of, array
from stilla.tasks.shared.metrics import by_sums
from stilla.tasks.vision.masks import Packed
from stilla.tasks.vision.segmentation_models import on_grid, scores
from stilla.views import Overlays

POINTS: Final = 32
"""Down and across, at most: the pixels of a picture by which agreement, flips and calibration are measured."""
_NEAR: Final = 0.02
"""Of a picture's diagonal: how far from its boundary a pixel may lie to count for `boundary_iou`, as in the paper."""
_AT_ONCE = 2**24
"""Numbers of a picture's logits that are made at its own resolution at a time: 64 MB."""


class Segmented(TypedDict):
    """`classes`: of every pixel. `sure`: (points,) the probability of the likeliest. `divergence`: (points,) KL(teacher ||
    model) in nats, where the teacher was asked too."""

    classes: Packed
    sure: NDArray[np.float32]
    divergence: NotRequired[NDArray[np.float32]]


@dataclass(frozen=True)
class SegmentationExam(ForwardExam):
    """`names`: the classes in the models' order. `shown`: a picture of a split with masks of it, by subject, and a point."""

    names: tuple[str, ...]
    shown: Callable[[Dataset, int, Mapping[str, NDArray[Any]], tuple[int, int]], Overlays]

    units: ClassVar[str] = "pixels"
    class_metric: ClassVar[str] = "iou"
    beside: ClassVar[bool] = True

    def outputs(self, outputs: Any) -> Tensor:
        return scores(outputs)

    def given(self, said: Tensor, batch: Batch, teacher: Tensor | None) -> list[Segmented]:
        sizes = _sizes(batch)
        return [_answer(said[one], size, None if teacher is None else teacher[one].to(said.device))
                for one, size in enumerate(sizes)]

    def metrics(self) -> tuple[Metric, ...]:
        counts = partial(areas, classes=len(self.names))
        return (by_sums("mean_iou", counts, mean_iou), by_sums("pixel_accuracy", counts, pixel_accuracy),
                by_sums("mean_accuracy", counts, mean_accuracy),
                by_sums("boundary_iou", partial(areas, classes=len(self.names), near=_NEAR), mean_iou))

    def decisions(self, answers: Answers) -> Decisions:
        """The points with a label."""
        parts = [_decided(one, truth.whole()) for one, truth in zip(answers.given, answers.references)]
        sizes = [len(one[0]) for one in parts]
        decided, right, place, sure = (np.concatenate(one) for one in zip(*parts))
        return Decisions(decided, right, np.repeat(np.arange(len(sizes)), sizes), place, sure.astype(np.float64))

    def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64] | None:
        """Of every point with a label, as it was measured beside the teacher."""
        parts = [one["divergence"][points_with_label(truth.whole())] for one, truth in zip(answers.given, answers.references)
                 if "divergence" in one]
        return np.concatenate(parts).astype(np.float64) if len(parts) == len(answers) else None

    def by_class(self, answers: Answers) -> ClassValues:
        """Of the classes that occur."""
        hits, said, there = areas(answers.given, answers.references, classes=len(self.names)).sum(0).reshape(3, -1)
        seen = np.flatnonzero(there)
        values = hits[seen] / (said + there - hits)[seen]
        return ClassValues(tuple(self.names[one] for one in seen), there[seen].astype(np.int64), values)

    def constant(self, answers: Answers) -> list[Segmented]:
        """Every pixel as the most frequent class."""
        there = areas(answers.given, answers.references, classes=len(self.names)).sum(0).reshape(3, -1)[2]
        often, share = int(there.argmax()), there.max() / max(1.0, there.sum())
        return [{"classes": Packed.of(np.full(one["classes"].shape, often)),
                 "sure": np.full(len(one["sure"]), share, np.float32)} for one in answers.given]

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> None:
        """Another picture has another size."""

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Overlays:
        """The picture with the classes of the data and of every model, and where the pixel is."""
        one = any_of(answers)
        masks = {"": one.references[example].whole()}
        masks |= {name: of.given[example]["classes"].whole() for name, of in answers.items()}
        rows, columns = _points(masks[""].shape)
        return self.shown(split, int(one.keys[example]), masks,
                          (int(rows[place // len(columns)]), int(columns[place % len(columns)])))

    def named(self, decision: Any) -> str:
        return self.names[int(decision)]


def _sizes(batch: Batch) -> list[tuple[int, int]]:
    """Height and width of the pictures; of batches that a person makes, of the labels."""
    if "sizes" in batch:
        return [(int(height), int(width)) for height, width in batch["sizes"].tolist()]
    labels: Any = batch.labels
    height, width = labels.shape[-2:]
    return [(height, width)] * len(labels)


def _answer(
    logits: Float[Tensor, "classes rows columns"], size: tuple[int, int],
    teacher: Float[Tensor, "classes below across"] | None,
) -> Segmented:
    logs = _at_points(logits, size).log_softmax(0)
    # what is no number has no class: `sure` says it, and whoever reads answers looks there
    answer: Segmented = {"classes": Packed.of(array(likeliest(logits, size))), "sure": array(logs.amax(0).exp().float())}
    if teacher is not None:
        theirs = _at_points(teacher, size).log_softmax(0)
        answer["divergence"] = array((theirs.exp() * (theirs - logs)).sum(0).clamp_min(0).float())
    return answer


def likeliest(logits: Float[Tensor, "classes rows columns"], size: tuple[int, int]) -> Int[Tensor, "height width"]:
    """The class of every pixel of a picture of this size, as transformers' `post_process_semantic_segmentation` finds it:
    logits are brought to the size first (bilinear). Some classes at a time, as all of a large picture are gigabytes."""
    height, width = size
    some = max(1, _AT_ONCE // max(1, height * width))
    best: Tensor | None = None
    chosen = torch.zeros(size, dtype=torch.int16, device=logits.device)
    for first in range(0, len(logits), some):
        value, which = on_grid(logits[None, first : first + some], size)[0].max(0)
        if best is None:
            best, chosen = value, which.to(torch.int16)
        else:
            better = value > best
            best, chosen = torch.where(better, value, best), torch.where(better, which.to(torch.int16) + first, chosen)
    return chosen


def _points(size: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows and the columns, whose crossings are the points."""
    rows, columns = (((np.arange(min(POINTS, side)) + 0.5) * side / min(POINTS, side)).astype(np.int64) for side in size)
    return rows, columns


def _at_points(logits: Float[Tensor, "classes rows columns"], size: tuple[int, int]) -> Float[Tensor, "classes points"]:
    """What bilinear resizing gives there."""
    rows, columns = (2 * (torch.from_numpy(one).to(logits.device) + 0.5) / side - 1 for one, side in zip(_points(size), size))
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1).to(torch.float32)
    found = F.grid_sample(logits[None].float(), grid[None], mode="bilinear", padding_mode="border", align_corners=False)
    return found[0].flatten(1).double()


def _of_points(classes: NDArray[Any]) -> NDArray[np.int64]:
    return classes[np.ix_(*_points(classes.shape))].reshape(-1).astype(np.int64)


def points_with_label(truth: NDArray[Any]) -> NDArray[np.int64]:
    """Which of a picture's points have one."""
    return np.flatnonzero(_of_points(truth) != NO_ANSWER) if truth.size else np.zeros(0, np.int64)


def _decided(answer: Segmented, truth: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Decided, right, place and sureness of the points with a label."""
    place = points_with_label(truth)
    if not len(place):
        return place, place, place, np.zeros(0, np.float32)
    return _of_points(answer["classes"].whole())[place], _of_points(truth)[place], place, answer["sure"][place]


# --- metrics: of every picture, how much of each class is right, is said, and is there ---


def areas(given: Given, references: Given, *, classes: int, near: float | None = None) -> NDArray[np.float64]:
    """(pictures, 3 * classes) pixels that are right, that are said and that are there, of each class: the diagonal and the
    margins of a picture's confusion matrix. Pixels without a label count nowhere, whatever is said of them.

    near: of what is said and of what is there, count only what lies within this share of the diagonal from a boundary of its
    own (Boundary IoU: Cheng et al. 2021, arXiv:2103.16562, eq. 1); what has no label is outside, as all beyond the picture.
    """
    found = np.zeros((len(given), 3, classes))
    for row, (one, packed) in enumerate(zip(given, references)):
        truth = packed.whole()
        if not truth.size:
            continue
        known, said = truth != NO_ANSWER, one["classes"].whole()
        if near is not None:
            truth, said = (_bounds(np.where(known, some.astype(np.int32), NO_ANSWER), near) for some in (truth, said))
        truth, said = truth[known], said[known]
        for column, some in enumerate((truth[truth == said], said, truth)):
            found[row, column] = np.bincount(some[some != NO_ANSWER], minlength=classes)
    return found.reshape(len(given), -1)


def _bounds(classes: NDArray[Any], near: float) -> NDArray[Any]:
    """The same with NO_ANSWER where all pixels around are of the same class."""
    from scipy.ndimage import maximum_filter, minimum_filter

    width = 2 * max(1, round(near * float(np.hypot(*classes.shape)))) + 1
    low, high = (every(classes, width, mode="constant", cval=NO_ANSWER) for every in (minimum_filter, maximum_filter))
    inside: NDArray[Any] = np.where(low == high, NO_ANSWER, classes)
    return inside


def mean_iou(sums: NDArray[Any]) -> float:
    """Of all pictures together, hits / (said + there - hits) of each class, and of these the mean over classes that are said
    or there; so a class that is neither in these pictures nor in the answers counts nothing."""
    hits, said, there = sums.reshape(3, -1)
    seen = said + there > 0
    return float((hits[seen] / (said + there - hits)[seen]).mean()) if seen.any() else float("nan")


def pixel_accuracy(sums: NDArray[Any]) -> float:
    hits, _, there = sums.reshape(3, -1)
    return float(hits.sum() / there.sum()) if there.any() else float("nan")


def mean_accuracy(sums: NDArray[Any]) -> float:
    """The mean over the classes that are there of the share of their pixels that are right."""
    hits, _, there = sums.reshape(3, -1)
    seen = there > 0
    return float((hits[seen] / there[seen]).mean()) if seen.any() else float("nan")
