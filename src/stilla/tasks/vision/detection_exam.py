"""What detectors are asked, and the boxes that they find in pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from stilla.signals import Batch, Detections
from stilla.tasks.answers import Answers
from stilla.tasks.exam import array
from stilla.tasks.vision import boxes
from stilla.tasks.vision.boxes import Beside
from stilla.tasks.vision.detectors import detections
from stilla.tasks.vision.object_exam import MOST, PrecisionExam
from stilla.views import Box, Boxed

_SHOWN = 0.3
"""How sure a detection has to be that a person is shown."""
_NEAR = 0.3
"""By how much it has to overlap the object in question that it is named."""
_BOXES = 40

Shown = Callable[[Dataset, int], tuple[str, int, int]]
"""A split and a key -> the picture as a `data:` URI, and its own width and height."""


def packed(found: Detections) -> Float[Tensor, "batch queries numbers"]:
    """All that a model finds in one tensor: log-odds of each class by itself, then centre x, y, width, height in shares."""
    logits = found.independent()
    return torch.cat([logits, found.boxes.to(logits.dtype)], -1)


def unpacked(numbers: Float[Tensor, "batch queries numbers"]) -> Detections:
    return Detections(numbers[..., :-4], numbers[..., -4:])


@dataclass(frozen=True)
class DetectionExam(PrecisionExam):
    """An answer is (found, 6): left, top, right, bottom in pixels of the picture as it was given, class and score, the surest
    first. What it is held against is (there, 6): the same with, in the place of a score, whether it is a crowd."""

    shown: Shown

    def outputs(self, outputs: Any) -> Tensor:
        if isinstance(outputs, Tensor):
            return outputs
        return packed(detections(outputs, len(self.names)))

    def given(self, said: Tensor, batch: Batch, teacher: Any | None) -> list[NDArray[np.float64]]:
        return [self._of_picture(array(one).astype(np.float64), size)
                for one, size in zip(said, array(batch["sizes"]).astype(np.float64))]

    def _of_picture(self, numbers: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float64]:
        logits = numbers[:, :-4]
        best = np.argsort(-logits, axis=None, kind="stable")[:MOST]
        guesses, kinds = np.unravel_index(best, logits.shape)
        centre, half = numbers[guesses, -4:-2], numbers[guesses, -2:] / 2
        scores = 1 / (1 + np.exp(-logits[guesses, kinds].clip(-500, 500)))
        return np.column_stack([(centre - half) * size, (centre + half) * size, kinds, scores])

    def held(self, found: Any, there: Any) -> Beside:
        return boxes.beside(found, there)

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Boxed:
        """The picture with all objects, the one in question named, and what each model is sure to find; named where it
        overlaps that one."""
        any_one = next(iter(answers.values()))
        uri, width, height = self.shown(split, int(any_one.keys[example]))
        there = any_one.references[example]
        found = [_box(one, f"{self.names[int(one[4])]}?" if row == place else "", "", width, height)
                 for row, one in enumerate(there[:_BOXES])]
        for name, said in answers.items():
            sure = said.given[example]
            sure = sure[sure[:, 5] >= _SHOWN][:_BOXES]
            near = boxes.overlaps(sure[:, :4], there[place : place + 1, :4])[:, 0] >= _NEAR
            found += [_box(one, f"{self.names[int(one[4])]} {one[5]:.2f}" if close else "", name, width, height)
                      for one, close in zip(sure, near)]
        return Boxed(uri, width / height, tuple(found))


def _box(one: NDArray[Any], label: str, by: str, width: int, height: int) -> Box:
    left, top, right, bottom = (float(np.clip(value / span, 0, 1)) for value, span in zip(one[:4], (width, height) * 2))
    return Box(left, top, right, bottom, label, by)
