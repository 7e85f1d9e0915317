"""What models that find objects are judged by, boxes or masks: every object that is there, and COCO's average precision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stilla.tasks.answers import Answers, Decisions, Given, Metric
from stilla.tasks.exam import ClassValues, ForwardExam
from stilla.tasks.vision import boxes
from stilla.tasks.vision.boxes import Beside

NOTHING = "nothing"
MOST = 100
"""Detections of a picture that are kept, as COCO's rules have it."""
HALF = 0.5
"""How much an answer has to share with an object to be one to it."""


@dataclass(frozen=True)
class ObjectExam(ForwardExam):
    """Base of the exams below. `names`: the classes in the models' order."""

    names: tuple[str, ...]

    units: ClassVar[str] = "objects"

    @abstractmethod
    def held(self, found: Any, there: Any) -> Beside:
        """An answer, the surest first, beside what it is held against."""

    def decisions(self, answers: Answers) -> Decisions:
        """Of every object, what the surest detection says that overlaps it by half."""
        decided, truth, where = list[str](), list[str](), list[tuple[int, int]]()
        for example, both in enumerate(map(self.held, answers.given, answers.references)):
            for place, best in enumerate(surest(both.shares)):
                if both.crowd[place]:
                    continue
                decided.append(NOTHING if best is None else self.names[both.classes[best]])
                truth.append(self.names[both.theirs[place]])
                where.append((example, place))
        example_of, places = np.array(where, np.int64).reshape(-1, 2).T
        return Decisions(np.array(decided, np.str_), np.array(truth, np.str_), example_of, places)

    def shuffled(self, answers: Answers, generator: np.random.Generator) -> Given | None:
        return [answers.given[place] for place in generator.permutation(len(answers))]


@dataclass(frozen=True)
class PrecisionExam(ObjectExam):
    """Of those whose answers overlap and are ranked by how sure a model is."""

    class_metric: ClassVar[str] = "average precision"

    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("map", self._matched, from_list=boxes.mean_precision),
                Metric("map_50", self._matched, from_list=partial(boxes.mean_precision, thresholds=[0])),
                Metric("map_75", self._matched, from_list=partial(boxes.mean_precision, thresholds=[5])))

    def by_class(self, answers: Answers) -> ClassValues:
        pictures = self._matched(answers.given, answers.references)
        support = pictures.objects.sum(0) if len(pictures) else np.zeros(len(self.names), np.int64)
        values = boxes.precisions(pictures, np.ones(len(pictures), np.int64))
        return ClassValues(self.names, support, np.nan_to_num(values))

    def _matched(self, given: Given, references: Given) -> boxes.Pictures:
        return boxes.Pictures(boxes.matched(self.held(found, there), len(self.names))
                              for found, there in zip(given, references, strict=True))


def surest(shares: NDArray[np.float64]) -> Sequence[int | None]:
    """Of every object the first detection that overlaps it by half; the surest come first."""
    return [int(column.argmax()) if column.any() else None for column in (shares >= HALF).T]
