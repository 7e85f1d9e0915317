"""What check takes for a task, held against what `tasks/offered.py` says: asked within a run's own check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from stilla import objectives
from stilla.check import terms, way
from stilla.check.found import Found
from stilla.errors import CompatibilityError
from stilla.export import KINDS as FORMATS
from stilla.recipe import ObjectiveSpec, Recipe
from stilla.signals import Dims
from stilla.students import Student
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.offered import OFFERED
from stilla.tasks.several.several import Several
from stilla.training.plain import dims_of
from stilla.training.pulling import Anchored

WHOLE: Mapping[str, frozenset[str]] = {
    **{task: frozenset() for task in OFFERED},
    "object-detection": frozenset({"maps", "edges"}),  # of YOLOS, which has one stack, and of D-FINE
    "embedding": frozenset({"contrastive", "affinities", "interactive"}),  # of queries with what answers them
    "image-text-to-text": frozenset({"hidden"}),  # Qwen2-VL's pictures have no batch
    "speech-recognition": frozenset({"labels", "dkd"}),  # of those that write, which the next is
    "distil-whisper": frozenset({"ctc", "dist"}),
    "sequence-kd-translation": frozenset(),
}
"""The recipes that what is offered is held against, nothing left out but this."""

FEWER: Mapping[str, tuple[str, ...]] = {"object-detection": ("onnx",), "image-segmentation": ("onnx",),
                                         "image-text-to-text": ()}
"""Recipes whose models (RT-DETR, Mask2Former, Qwen2-VL) are among those of their task that are written in fewer formats."""

MORE_CLASSES = frozenset({"token-classification", "semantic-segmentation", "embedding"})
"""Whose tiny data have one or two classes, and others more."""


class Seen:
    """In the place of `fit` in `stilla.check.way`: the objectives and formats that it would take for this task and models."""

    def __init__(self) -> None:
        self.taken: frozenset[str] = frozenset()
        self.formats: tuple[str, ...] = ()
        self.chosen: tuple[str, ...] = ()
        self.fit = self._watching(way.fit)

    def _watching(self, fit: Callable[..., None]) -> Callable[..., None]:
        def watched(recipe: Recipe, chosen: tuple[ObjectiveSpec, ...], task: Task, teacher: Loaded, student: Student,
                    prepared: Prepared, found: Found) -> None:
            self.chosen = tuple(dict.fromkeys(spec.kind for spec in chosen))
            self.formats = tuple(kind for kind in FORMATS if not task.unwritten(student.model, [kind]))
            dims, anchored = _dims(task, teacher, student, prepared), Anchored(student, teacher.model, prepared.aligned)
            specs = [*chosen, *(ObjectiveSpec(kind=kind, part=part) for kind in objectives.KINDS
                                for part in (None, *(task.parts if isinstance(task, Several) else ())))]
            self.taken = frozenset(
                spec.kind for spec in specs for sizes in dims
                if not (terms._misfits(spec, task, sizes, student, prepared, labelled=True)
                        or terms._apart(spec, task, anchored)))
            fit(recipe, chosen, task, teacher, student, prepared, found)
        return watched


def _dims(task: Task, teacher: Loaded, student: Student, prepared: Prepared) -> list[tuple[Dims, Dims]]:
    batch = prepared.collate([prepared.examples[0]])
    try:
        sizes = dims_of(student.model, task, batch.student), dims_of(teacher.model, task, batch.teacher)
    except CompatibilityError:  # no hidden states to compare
        sizes = dims_of(student.model, task, None), dims_of(teacher.model, task, None)
    more = [(replace(sizes[0], classes=3), replace(sizes[1], classes=3))] if task.kind in MORE_CLASSES else []
    return [sizes, *more]


def hold(recipe: str, task: str, seen: Seen) -> None:
    """Nothing is taken that is not offered; and by a whole recipe everything, by default what is said."""
    offered = OFFERED[task]
    assert seen.taken <= {*offered.by_default, *offered.others}
    assert set(seen.chosen) <= {*offered.by_default, *offered.others}
    assert seen.formats == FEWER.get(recipe, offered.formats)
    if recipe in WHOLE:
        assert seen.taken == {*offered.by_default, *offered.others} - WHOLE[recipe]
    if recipe == task:
        assert seen.chosen == offered.by_default
