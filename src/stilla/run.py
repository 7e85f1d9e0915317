"""The straight line: from a recipe to a deployed student with honest numbers.

    recipe -> data -> teacher -> [completions] -> student (and baseline) -> export -> scores -> report

A training stage that is finished with the same inputs is skipped and named; one that was begun with others stops
the run. What is cheap (scores, report) is done again when anything it depends on has changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import TrainerCallback, set_seed

from stilla import caching, completions, data, tasks
from stilla.check import refuse_known_problems
from stilla.completions import Completed
from stilla.defaults import objectives_for, resolved_writing
from stilla.environment import describe
from stilla.errors import RecipeError, all_at_once
from stilla.export import restore, save_student
from stilla.fingerprints import of_model
from stilla.narrate import quiet_libraries, say
from stilla.objectives import Labels, term
from stilla.objectives.base import Term
from stilla.processes import on_main, processes
from stilla.recipe import ModelSource, Recipe, Training
from stilla.recipe_file import brief, dump, from_options, read
from stilla.report import write_report
from stilla.run_folder import RunFolder
from stilla.scores import Scores
from stilla.scoring import check_teacher, export_all, score
from stilla.starting import labels_alone, start_student, trained
from stilla.students import Student
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.teachers import Teacher
from stilla.training import train

WHERE = ("train", "validation", "test", "config", "revision", "limit")
"""Of the recipe's data section: where the data come from. What was found there counts by its content."""


@dataclass(frozen=True)
class Run:
    """A finished run: what was measured and where things lie."""

    folder: Path
    scores: Scores
    report: Path
    student: Path

    @classmethod
    def load(cls, path: Path) -> Run:
        folder = RunFolder(path)
        return cls(path, Scores.load(folder.scores), folder.report, folder.student)


def distill(recipe: str | Path | None = None, *overrides: str, overwrite: bool = False, **options: Any) -> Run:
    """The main job from Python: a recipe file, or its fields as keywords (`task=`, `teacher=`, `student=`, `data=`)."""
    return run(read(recipe, overrides) if recipe is not None else from_options(options, overrides), overwrite=overwrite)


def run(recipe: Recipe, *, overwrite: bool = False) -> Run:
    """The main job. Running it again continues or skips; with a launcher, every process calls it.

    Raises:
        StillaError: whatever a person has to put right, before anything is trained where it can be known.
        KeyboardInterrupt: a training was stopped; running again continues it.
    """
    line, task, teacher = _begun(recipe, overwrite=overwrite)
    line = line.resolved(task, teacher).completed(task, teacher)
    for seed in range(recipe.evaluate.seeds):
        line.student(task, teacher, "student", seed)
        if recipe.evaluate.baseline:
            line.student(task, teacher, "baseline", seed)
    return on_main(lambda: line.finish(task, teacher)) or Run.load(line.folder.path)


def capture(recipe: Recipe, *, workers: int = 0, overwrite: bool = False) -> str:
    """What the teacher says of the training data, onto disk; gives where it lies. Beginning again continues.

    `workers`: let so many Ray workers do it, here or on the cluster that RAY_ADDRESS names.

    Raises:
        StillaError: whatever a person has to put right; another cache lies there.
    """
    line, task, teacher = _begun(recipe, overwrite=overwrite)
    sample = line.sample(task, teacher)
    line = replace(line, recipe=caching.for_capture(line.recipe, task, sample))
    return line.resolved(task, teacher).completed(task, teacher).capture(task, teacher, workers)


def _begun(recipe: Recipe, *, overwrite: bool) -> tuple[Line, Task, Loaded]:
    quiet_libraries()
    on_main(lambda: refuse_known_problems(recipe))
    folder = RunFolder(Path(recipe.output))
    on_main(lambda: folder.open(overwrite=overwrite))
    with processes().main_process_first():
        splits = data.load(recipe.data, seed=recipe.seed)
    task = tasks.find(recipe.task).understand(recipe.data, splits).settled(recipe.teacher, recipe.student)
    line = Line(recipe, folder, splits, data.fingerprint(splits))
    teacher = line.teacher(task)
    task = task.adapted_to(teacher)
    line.refuse_weak(task, teacher)
    return line, task, teacher


@dataclass(frozen=True)
class Line:
    """What every stage of one run shares.

    `content`: the data's fingerprint. `written`: what the student learns from, where the teacher wrote it.
    """

    recipe: Recipe
    folder: RunFolder
    splits: Mapping[str, Dataset]
    content: str
    written: Completed | None = None

    def teacher(self, task: Task) -> Loaded:
        """Given, or trained on the labels first."""
        source = self.recipe.teacher
        if source.train is None:
            return task.load(self._origin(), labelled=True)
        inputs = {**self._data(task), "teacher": source.model_dump(mode="json"), "seed": self.recipe.seed}
        if self._to_do("teacher", inputs, self.folder.teacher):
            set_seed(self.recipe.seed)
            start = task.load(source, labelled=False)
            labels = [Term(Labels(), name="labels")]
            self._train("teacher", start.model, None, labels, source.train, task, (start.processor, None), self.recipe.seed)
            self._keep("teacher", inputs, start, task, self.folder.teacher)
        return task.load(self._origin(), labelled=True)

    def refuse_weak(self, task: Task, teacher: Loaded) -> None:
        """A teacher that is no better than chance would teach nothing, without a sign."""
        inputs = {"data": self.content, "teacher": of_model(teacher.model)}
        if self.recipe.allow_weak_teacher or on_main(lambda: self.folder.fits("teacher-check", inputs)):
            return
        on_main(lambda: check_teacher(task, teacher, self.splits["validation"], self.recipe))
        on_main(lambda: self.folder.finish("teacher-check", inputs))

    def sample(self, task: Task, teacher: Loaded) -> Prepared:
        """A few training examples as a training would get them."""
        some = self.splits["train"].select(range(min(64, len(self.splits["train"]))))
        return task.prepare(some, teacher.processor, teacher.processor, training=True, seed=self.recipe.seed)

    def resolved(self, task: Task, teacher: Loaded) -> Line:
        """The same with the recipe's open defaults chosen."""
        recipe, sample = self.recipe, self.sample(task, teacher)
        if wrong := [*completions.problems(recipe, task), *caching.problems(recipe, task, sample)]:
            raise all_at_once(wrong, RecipeError)
        chosen = objectives_for(task.row_classes(), written=recipe.completions is not None)
        stages = tuple(stage if stage.objectives is not None else stage.model_copy(update={"objectives": chosen})
                       for stage in recipe.distill)
        recipe = recipe.model_copy(update={
            "distill": stages, "data": task.resolved(recipe.data), "cache": caching.resolved(recipe, task, sample),
            "evaluate": resolved_writing(recipe.evaluate, task)})
        say(f"the recipe with every default, also in {self.folder.recipe}:\n{indent(brief(recipe), '  ')}")
        return replace(self, recipe=recipe)

    def write_down(self) -> None:
        """Write down what is being made. Not before it is known to fit: a refused recipe leaves the old one in place."""
        self.folder.write(self.folder.recipe, dump(self.recipe))
        self.folder.write(self.folder.environment, json.dumps(describe(self.recipe.seed), indent=1))

    def completed(self, task: Task, teacher: Loaded) -> Line:
        """The same with texts that the teacher wrote for the student to learn, where the recipe asks for them."""
        section = self.recipe.completions
        if section is None:
            return self
        inputs = {**self._data(task), **completions.settings(section, task, teacher)}
        folder = self.folder.completions
        if self._to_do("completions", inputs, folder):
            completions.write(section, task, teacher, self.splits["train"], folder, inputs)
            on_main(lambda: self.folder.finish("completions", inputs))
        return replace(self, written=completions.read(section, task, self.splits["train"], folder))

    def student(self, task: Task, teacher: Loaded, role: str, seed: int) -> None:
        """The student, or (`baseline`) the same from the same start, for the same steps, on the data's labels alone."""
        name = role if seed == 0 else f"{role}-{seed}"
        student, loaded = self._start(task, teacher, seed)
        if task.vocabulary and self.recipe.student.model is not None:
            task = task.adapted_to(loaded)  # its tokens may be others, if it learns from written texts
        stages, train_data = self.recipe.distill, self.splits["train"]
        written = self.written if role == "student" else None
        if written is not None:
            train_data = written.data
        if role == "baseline":
            # as many steps as the student, if texts were left out
            stages = tuple(labels_alone(stage, self.written.share if self.written else 1.0) for stage in stages)
        inputs: dict[str, Any] = {
            **self._data(task), "teacher": of_model(teacher.model), "seed": self.recipe.seed + seed,
            "student": self.recipe.student.model_dump(mode="json"), "distill": [],
            **({} if written is None else {"completions": written.fingerprint}),
            **(caching.settings(self.recipe.cache) if role == "student" else {})}
        for number, stage in enumerate(stages):
            last = number == len(stages) - 1
            stage_name = name if len(stages) == 1 else f"{name}.{number}"
            path = self.folder.model(role, seed) if last else self.folder.path / "stages" / stage_name
            inputs = {**inputs, "distill": [*inputs["distill"], stage.model_dump(mode="json")]}
            if self._to_do(stage_name, inputs, path):
                terms = [term(spec) for spec in stage.objectives or ()]
                helped = any(one.objective.needs_teacher for one in terms)
                with self._teaching(task, teacher, student, terms) if helped else nullcontext((None, ())) as (said, more):
                    self._train(stage_name, student, said, terms, stage, task,
                                (loaded.processor, teacher.processor if helped else None), self.recipe.seed + seed,
                                train_data, more)
                self._keep(stage_name, inputs, loaded, task, path)
            if not last:  # also where it was just trained: what begins again is then the same as what goes on
                restore(student.model, path)

    def capture(self, task: Task, teacher: Loaded, workers: int) -> str:
        """What the teacher says of the training data into the cache, before any training."""
        on_main(self.write_down)
        _, loaded = self._start(task, teacher, 0)
        data = self.written.data if self.written else self.splits["train"]
        prepared = task.prepare(data, loaded.processor, teacher.processor, training=True, seed=self.recipe.seed)
        path = caching.place_of(self.recipe.cache, self.folder)
        caching.capture_all(teacher.model, task, prepared, self.recipe, path, self._asked(task, teacher), workers=workers)
        return path

    def finish(self, task: Task, teacher: Loaded) -> Run:
        """Export, measure everything that was made, report."""
        self.write_down()
        exported = export_all(self.recipe, self.folder, task, self.splits)
        score(self.recipe, self.folder, task, self.splits, teacher, exported)
        write_report(self.folder.path)
        return Run.load(self.folder.path)

    def _data(self, task: Task) -> dict[str, Any]:
        """What a training depends on of its data: their content, and how they are read."""
        read = task.resolved(self.recipe.data).model_dump(mode="json", exclude=set(WHERE))
        return {"data": self.content, "task": task.kind, "reading": read}

    def _asked(self, task: Task, teacher: Loaded) -> dict[str, Any]:
        """What the teacher's answers depend on."""
        return caching.fingerprint(self.recipe, task, teacher, self._data(task)["reading"])

    def _teaching(
        self, task: Task, teacher: Loaded, student: Student, terms: Sequence[Term]
    ) -> AbstractContextManager[tuple[nn.Module | Teacher | None, Sequence[TrainerCallback]]]:
        """The teacher for one training: as it is, or with what it says stored and read again."""
        return caching.remembering(
            teacher.model, task, terms, self.recipe.cache, caching.place_of(self.recipe.cache, self.folder),
            self._asked(task, teacher), student.layer_map, trusted=self.recipe.allow_weak_teacher)

    def _start(self, task: Task, teacher: Loaded, seed: int) -> tuple[Student, Loaded]:
        set_seed(self.recipe.seed + seed)
        return start_student(self.recipe.student, task, teacher, self._origin())

    def _origin(self) -> ModelSource:
        """Where the teacher is loaded from: given, or trained here."""
        source = self.recipe.teacher
        return source if source.train is None else trained(source, self.folder.teacher)

    def _to_do(self, stage: str, inputs: Mapping[str, Any], made: Path) -> bool:
        if on_main(lambda: self.folder.finished(stage, inputs) and made.exists()):
            say(f"{stage}: finished before, skipped")
            return False
        on_main(lambda: self._begin(stage, inputs))
        return True

    def _begin(self, stage: str, inputs: Mapping[str, Any]) -> None:
        self.write_down()
        self.folder.begin(stage, inputs)

    def _train(self, stage: str, model: nn.Module | Student, teacher: nn.Module | Teacher | None, terms: Sequence[Term],
               training: Training, task: Task, processors: tuple[Any, Any], seed: int,
               train_data: Dataset | None = None, callbacks: Sequence[TrainerCallback] = ()) -> None:
        split = self.splits["train"] if train_data is None else train_data
        train(stage, model, teacher, terms, training, task=task, folder=self.folder, seed=seed,
              callbacks=callbacks,
              train_data=task.prepare(split, *processors, training=True, seed=seed),
              validation_data=task.prepare(self.splits["validation"], *processors, training=False))

    def _keep(self, stage: str, inputs: Mapping[str, Any], made: Loaded, task: Task, path: Path) -> None:
        some = self.splits["validation"]  # the first may be left out as broken
        one = task.prepare(some.select(range(min(64, len(some)))), made.processor, None, training=False)
        batch = one.collate([one.examples[0]]).to(next(made.model.parameters()).device)
        on_main(lambda: save_student(made.model, made.processor, path, example=batch.student))
        on_main(lambda: self.folder.finish(stage, inputs))
