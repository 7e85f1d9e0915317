"""Where a run's trainings happen: each is skipped if it is finished with the same inputs, refused if it was begun with
others, kept when it is done. And the first of them, the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import set_seed

from stilla import data
from stilla.data import TEACHER
from stilla.errors import all_of
from stilla.evaluate import Asked, examine
from stilla.export import save_student
from stilla.models.fingerprint import of_model
from stilla.objectives import term
from stilla.objectives.base import Term
from stilla.recipe import Recipe, Training
from stilla.recipe import Teacher as TeacherSource
from stilla.recipe.written import dump
from stilla.runtime.environment import describe
from stilla.runtime.files import signed
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main
from stilla.stages import (
    caching,
    learnt,
    steps,
)
from stilla.stages.folder import RunFolder
from stilla.stages.measuring import check_teacher
from stilla.stages.origin import Origin
from stilla.stages.starting import own_model, trained
from stilla.stages.training import train
from stilla.stages.unlabelled import Pool
from stilla.students import Student
from stilla.tasks.base import Loaded, Task
from stilla.teachers import Teacher


@dataclass(frozen=True)
class Place:
    """Where a run's trainings happen, and what all of them depend on. `splits`: labelled examples, whose fingerprint is
    `content`. `pool`: the unlabelled ones, on which only the student depends."""

    recipe: Recipe
    folder: RunFolder
    splits: Mapping[str, Dataset]
    content: str
    task: Task
    pool: Pool | None = None

    @cached_property
    def reading(self) -> dict[str, Any]:
        """How the data are read."""
        return caching.reading(self.recipe, self.task)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What a training depends on of its data: their content, and how they are read, by its teacher too."""
        return {"data": self.content, "task": self.task.kind, "reading": self.reading, **self.recipe.teacher.told}

    def to_do(
        self, stage: str, inputs: Mapping[str, Any], made: Path, *, can_begin: Callable[[], None] = lambda: None,
        by_parts: bool = False, beside: str | None = None,
    ) -> bool:
        """Whether the stage has to be done; if so, it is begun. `made`: the folder of what it makes. `can_begin`: raises
        where it cannot be; a stage that was refused has not begun. `by_parts`: only files that are lost are made again.
        `beside`: what is known of further files that it makes.

        Raises:
            RecipeError: it was begun or finished with other inputs.
        """
        if on_main(lambda: self.folder.finished(stage, inputs)):
            wrong = on_main(lambda: self._wrong_with(stage, made) or (self.folder.damage(beside) if beside else []))
            if not wrong:
                say(f"{stage}: finished before, skipped")
                return False
            say(f"{stage}: finished before, but {all_of(wrong)}; done again")
            on_main(lambda: self.folder.clear(stage, made, by_parts=by_parts))  # what is left there would be in the way
        if steps.sizes(inputs, 1):
            on_main(lambda: self.folder.refuse_other_steps(self.recipe.model_dump(mode="json")))
        on_main(can_begin)
        on_main(lambda: self._begin(stage, inputs))
        return True

    def _wrong_with(self, stage: str, made: Path) -> list[str]:
        """What is wrong with what a finished stage made."""
        if not any(any(made.glob(kind)) for kind in ("*.safetensors", "*.parquet")):
            return [f"{made} holds nothing of it any more"]
        return self.folder.damage(stage)

    def train(
        self, stage: str, model: nn.Module | Student, teacher: nn.Module | Teacher | None, terms: Sequence[Term],
        training: Training, processors: tuple[Any, Any], seed: int, *, examples: Dataset | None = None,
    ) -> None:
        """`processors`: the student's and the teacher's. `examples`: by default the training split."""
        split = self.splits["train"] if examples is None else examples
        prepared, marks = self.task.prepare(split, *processors, training=True, seed=seed), data.are_unlabelled(split)
        prepared = caching.as_read(prepared, self.recipe, self.task)
        if marks.any() and prepared.unlabelled is None:
            prepared = replace(prepared, unlabelled=marks[prepared.keys])
        done = train(stage, model, teacher, terms, training, task=self.task, folder=self.folder, seed=seed,
                     train_data=prepared,
                     validation_data=self.task.prepare(self.splits["validation"], *processors, training=False))
        if done is not None and self.pool is not None and marks.any():
            found, pool = learnt.examples_in(prepared, marks, done), self.pool
            on_main(lambda: learnt.note(self.folder, stage, found, pool))

    def keep(
        self, stage: str, inputs: Mapping[str, Any], made: Loaded, path: Path, beside: Any | None = None
    ) -> None:
        """Write a trained model down, and the stage as finished. `beside`: its teacher's processor, if it had a teacher."""
        some = data.from_all_over(self.splits["validation"], 64)  # the first may be left out as broken
        one = self.task.prepare(some, made.processor, None, training=False)
        batch = one.collate([one.examples[0]]).to(next(made.model.parameters()).device)
        on_main(lambda: self._settle(made, beside))
        on_main(lambda: save_student(made.model, made.processor, path, example=batch.student))
        on_main(lambda: self.folder.finish(stage, inputs, path))

    def _settle(self, made: Loaded, beside: Any | None) -> None:
        """How it is asked, and what is chosen of its answers to validation data, in the place of what was of those of a model
        that it began as."""
        self.task.forget(made.model)
        self.task.inscribe(made.model, made.processor, beside)
        if not self.task.settles:
            return
        whole = self.task.prepare(self.splits["validation"], made.processor, None, training=False)
        said = examine(self.task.exam(), {"student": Asked(made.model)}, whole, title="choosing on validation data",
                       batch_size=self.recipe.evaluate.batch_size)
        self.task.settle(made.model, said["student"])

    def write_down(self) -> None:
        """Write down what is being made. Not before it is known to fit: a refused recipe leaves the old one in place."""
        self.folder.write(self.folder.recipe, signed(dump(self.recipe)))
        self.folder.write(self.folder.environment,
                          {**describe(self.recipe.seed), "places": Origin.here(self.folder).plain()})

    def _begin(self, stage: str, inputs: Mapping[str, Any]) -> None:
        self.write_down()
        self.folder.begin(stage, inputs)


def teacher_of(place: Place) -> Loaded:
    """Given, or trained on the labels first. Of a teacher behind an address there is no model here: in its place stands the
    student's own before training, by which data are read and which is asked nothing."""
    source, task, seed = place.recipe.teacher, place.task, place.recipe.seed
    if source.api is not None:
        set_seed(seed)
        return own_model(place.recipe.student, task)
    place = replace(place, task=task.of_teacher())
    if source.train is None:
        return task.load(source, labelled=True)
    _train_teacher(place, "teacher", seed, place.folder.teacher)
    return task.load(trained(source, place.folder.teacher), labelled=True)


def teacher_again(place: Place) -> None:
    """The same teacher trained with another seed, where the recipe trains it and asks how far two of them agree."""
    if place.recipe.asks_for_a_ceiling:
        place = replace(place, task=place.task.of_teacher())
        _train_teacher(place, "teacher-1", place.recipe.seed + 1, place.folder.model("teacher", 1))


def _train_teacher(place: Place, stage: str, seed: int, path: Path) -> None:
    source, task = place.recipe.teacher, place.task
    assert source.train is not None  # the caller knows
    inputs = {**place.inputs, "teacher": _named(source), "seed": seed}
    if place.to_do(stage, inputs, path):
        set_seed(seed)
        start = task.load(source, labelled=False)
        labels = [term(task.labels_by())]
        place.train(stage, start.model, None, labels, source.train, (start.processor, None), seed,
                    examples=place.splits.get(TEACHER))
        place.keep(stage, inputs, start, path)


def refuse_weak(place: Place, teacher: Loaded) -> None:
    """A teacher that is no better than chance would teach nothing, without a sign.

    Raises:
        CompatibilityError: it is not, and the recipe does not allow it.
    """
    if place.recipe.teacher.api is not None or place.task.unmeasured(teacher) is not None:
        return
    inputs = {"data": place.content, "teacher": of_model(teacher.model), **place.recipe.teacher.told}
    if place.recipe.allow_weak_teacher or on_main(lambda: place.folder.fits("teacher-check", inputs)):
        return
    on_main(lambda: check_teacher(place.task, teacher, place.splits["validation"], place.recipe))
    on_main(lambda: place.folder.finish("teacher-check", inputs))


def _named(source: TeacherSource) -> dict[str, Any]:
    """What the training of a teacher depends on of its section; without what it leaves open, as runs of before knew of
    none."""
    absent: dict[str, Any] = {name: True for name, value in (("config", source.config), ("data", source.data),
                                                            ("api", source.api)) if not value}
    if source.train is not None and source.train.extend is None:
        absent["train"] = {"extend"}
    return source.model_dump(mode="json", exclude=absent)
