"""The trainings of a run, each in its place: skipped if it is finished with the same inputs, refused if it was begun with
others, kept when it is done.

Teacher, student and baseline are the same training with other terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from textwrap import indent
from typing import Any

from datasets import Dataset
from torch import nn
from transformers import set_seed

from stilla import data
from stilla.data import TEACHER, from_all_over
from stilla.errors import RecipeError, all_at_once, all_of
from stilla.evaluate import Asked, examine
from stilla.export import restore, save_student
from stilla.models.fingerprint import of_model, of_processor
from stilla.objectives import term
from stilla.objectives.base import Term
from stilla.recipe import ModelSource, Recipe, Stage, Training, Width
from stilla.recipe import Teacher as TeacherSource
from stilla.recipe.written import brief, dump
from stilla.runtime.environment import describe
from stilla.runtime.files import signed
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main
from stilla.stages import (
    cache_choice,
    caching,
    completions,
    effort,
    learnt,
    narrowing,
    opinions,
    steps,
    unlabelled,
)
from stilla.stages.completions import Completed
from stilla.stages.defaults import objectives_of, resolved_writing, without_labels
from stilla.stages.folder import RunFolder
from stilla.stages.measuring import check_teacher
from stilla.stages.origin import Origin
from stilla.stages.starting import labels_alone, start_student, trained, transformer, whole_width
from stilla.stages.training import train
from stilla.stages.unlabelled import Pool
from stilla.stages.vocabulary import Counting, Smaller
from stilla.students import Cut, Plan, Student
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.teachers import Teacher

SAMPLE = 64
"""Training examples that are looked at to choose what the recipe leaves open."""


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
        """What a training depends on of its data: their content, and how they are read."""
        return {"data": self.content, "task": self.task.kind, "reading": self.reading}

    def to_do(
        self, stage: str, inputs: Mapping[str, Any], made: Path, *, can_begin: Callable[[], None] = lambda: None,
        by_parts: bool = False,
    ) -> bool:
        """Whether the stage has to be done; if so, it is begun. `made`: the folder of what it makes. `can_begin`: raises
        where it cannot be; a stage that was refused has not begun. `by_parts`: only files that are lost are made again.

        Raises:
            RecipeError: it was begun or finished with other inputs.
        """
        if on_main(lambda: self.folder.finished(stage, inputs)):
            wrong = on_main(lambda: self._wrong_with(stage, made))
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
        if marks.any():
            prepared = replace(prepared, unlabelled=marks[prepared.keys])
        done = train(stage, model, teacher, terms, training, task=self.task, folder=self.folder, seed=seed,
                     train_data=prepared,
                     validation_data=self.task.prepare(self.splits["validation"], *processors, training=False))
        if done is not None and self.pool is not None:
            found, left_out = learnt.examples_in(prepared, marks, done), self.pool.left_out
            on_main(lambda: learnt.note(self.folder, stage, found, left_out))

    def keep(self, stage: str, inputs: Mapping[str, Any], made: Loaded, path: Path) -> None:
        """Write a trained model down, and the stage as finished."""
        some = self.splits["validation"]  # the first may be left out as broken
        one = self.task.prepare(some.select(range(min(64, len(some)))), made.processor, None, training=False)
        batch = one.collate([one.examples[0]]).to(next(made.model.parameters()).device)
        if self.task.settles:
            on_main(lambda: self._settle(made))
        on_main(lambda: save_student(made.model, made.processor, path, example=batch.student))
        on_main(lambda: self.folder.finish(stage, inputs, path))

    def _settle(self, made: Loaded) -> None:
        """What is chosen of its answers to validation data."""
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
    """Given, or trained on the labels first."""
    source, task, seed = place.recipe.teacher, place.task, place.recipe.seed
    place = replace(place, task=task.of_teacher())
    if source.train is None:
        return task.load(source, labelled=True)
    inputs = {**place.inputs, "teacher": _named(source), "seed": seed}
    if place.to_do("teacher", inputs, place.folder.teacher):
        set_seed(seed)
        start = task.load(source, labelled=False)
        labels = [term(task.labels_by())]
        place.train("teacher", start.model, None, labels, source.train, (start.processor, None), seed,
                    examples=place.splits.get(TEACHER))
        place.keep("teacher", inputs, start, place.folder.teacher)
    return task.load(trained(source, place.folder.teacher), labelled=True)


def refuse_weak(place: Place, teacher: Loaded) -> None:
    """A teacher that is no better than chance would teach nothing, without a sign.

    Raises:
        CompatibilityError: it is not, and the recipe does not allow it.
    """
    inputs = {"data": place.content, "teacher": of_model(teacher.model)}
    if place.recipe.allow_weak_teacher or on_main(lambda: place.folder.fits("teacher-check", inputs)):
        return
    on_main(lambda: check_teacher(place.task, teacher, place.splits["validation"], place.recipe))
    on_main(lambda: place.folder.finish("teacher-check", inputs))


@dataclass(frozen=True)
class Stages:
    """What comes after the teacher, to which the place's task is adapted."""

    place: Place
    teacher: Loaded
    counted: dict[tuple[Any, ...], Counting] = field(default_factory=dict)
    """Of tokens, by the texts."""

    @property
    def recipe(self) -> Recipe:
        return self.place.recipe

    def sample(self) -> tuple[Prepared, float]:
        """A few training examples as a training would get them, from all over, and how many times as many there are."""
        place, processor = self.place, self.teacher.processor
        some = from_all_over(unlabelled.to_look_at(place.task, place.splits, place.pool), SAMPLE)
        prepared = place.task.prepare(some, processor, processor, training=True, seed=self.recipe.seed)
        return prepared, unlabelled.number_of(place.splits, place.pool) / len(some)

    def with_recipe(self, recipe: Recipe) -> Stages:
        return replace(self, place=replace(self.place, recipe=recipe))

    def resolved(self, *, beforehand: bool = False, of_many: bool = False) -> Stages:
        """The same with the recipe's open defaults chosen, and printed. `beforehand`: for a capture before any training.
        `of_many`: of one of many runs that ask the teacher the same, whose answers are then worth keeping; not printed.

        Raises:
            RecipeError: a section that cannot serve the others.
        """
        task, (prepared, share) = self.place.task, self.sample()
        recipe = effort.settled(self.recipe, self.teacher.model, share * len(prepared))
        cache = cache_choice.resolved(recipe, task, self.teacher.model, prepared, share, beforehand=beforehand,
                                      of_many=of_many)
        if wrong := [*completions.problems(recipe, task), *opinions.problems(recipe.data.unlabelled, task),
                     *cache_choice.problems(recipe, cache, task, prepared), *without_labels(recipe, task),
                     *(cache_choice.unasked(recipe, task) if beforehand else [])]:
            raise all_at_once(wrong, RecipeError)
        chosen = objectives_of(recipe, task)
        stages = tuple(stage if stage.objectives is not None else stage.model_copy(update={"objectives": chosen})
                       for stage in recipe.distill)
        recipe = recipe.model_copy(update={
            "distill": stages, "data": task.resolved(recipe.data), "cache": cache,
            "evaluate": resolved_writing(recipe.evaluate, task)})
        if not of_many:
            say(f"the recipe with every default, also in {self.place.folder.recipe}:\n{indent(brief(recipe), '  ')}")
        return self.with_recipe(recipe)

    def chosen(self) -> Stages:
        """The same with those unlabelled examples that the recipe keeps by what the teacher thinks of them."""
        section, place = self.recipe.data.unlabelled, self.place
        if section is None or place.pool is None or not opinions.wanted(section):
            return self
        pool, folder = place.pool, place.folder.unlabelled
        inputs = {"task": place.task.kind, "reading": place.reading, "unlabelled": pool.fingerprint,
                  "teacher": of_model(self.teacher.model), "processor": of_processor(self.teacher.processor),
                  **({} if section.near is None else {"near to": place.content})}
        if place.to_do("unlabelled", inputs, folder, by_parts=True):
            opinions.ask(section, place.task, self.teacher, pool, place.splits.get("train"), folder, inputs,
                         self.recipe.evaluate.batch_size)
            on_main(lambda: place.folder.finish("unlabelled", inputs, folder))
        return replace(self, place=replace(place, pool=opinions.kept(section, place.task, pool, folder)))

    def completions(self) -> Completed | None:
        """Texts that the teacher wrote for the student to learn, where the recipe asks for them."""
        section, place = self.recipe.completions, self.place
        if section is None:
            return None
        pool, folder = place.pool, place.folder.completions
        if section.of == "unlabelled" and pool is not None:
            examples = data.joined(None, pool.data)
        else:
            examples = unlabelled.together(place.task, place.splits, pool)
        inputs = {**place.inputs, **completions.settings(section, place.task, self.teacher),
                  **({} if pool is None else {"unlabelled": pool.fingerprint, "of": section.of})}
        if place.to_do("completions", inputs, folder, by_parts=True):
            completions.write(section, place.task, self.teacher, examples, folder, inputs)
            on_main(lambda: place.folder.finish("completions", inputs, folder))
        return completions.read(section, place.task, examples, folder)

    def examples(self, written: Completed | None) -> Dataset:
        """What the student learns from."""
        place = self.place
        if written is None:
            return unlabelled.together(place.task, place.splits, place.pool)
        return written.data if self.recipe.all_written else data.joined(self._labelled(), written.data)

    def _labelled(self) -> Dataset | None:
        train = self.place.splits.get("train")
        return None if train is None else self.place.task.beside(train)

    def narrowed(self, written: Completed | None) -> Cut | None:
        """Which units of the teacher's layers the student keeps, where the recipe asks for narrower ones: measured once."""
        spec, place = self.recipe.student, self.place
        width, folder = spec.width, place.folder.width
        if width is None:
            return None
        inputs = {**place.inputs, "teacher": of_model(self.teacher.model), "processor": of_processor(self.teacher.processor),
                  "student": spec.model_dump(mode="json", include={"layers", "width"}), "seed": self.recipe.seed,
                  **({} if written is None else {"completions": written.fingerprint})}
        plans = list[Plan]()  # the main process's, and gone at the end: it holds a model as large as the teacher
        if place.to_do("width", inputs, folder, can_begin=lambda: plans.append(self._plan(width))):
            examples = place.splits["train"] if written is None else self.examples(written)
            some = place.task.prepare(from_all_over(examples, width.examples), self.teacher.processor, None, training=False,
                                      seed=self.recipe.seed)
            on_main(lambda: narrowing.write(narrowing.measure(plans[0], place.task, some), folder))
            on_main(lambda: place.folder.finish("width", inputs, folder))
        return on_main(lambda: narrowing.read(folder))

    def _plan(self, width: Width) -> Plan:
        whole = whole_width(self.recipe.student, self.place.task, self.teacher, self._origin())
        return Plan(transformer(whole), width)

    def student(self, role: str, seed: int, written: Completed | None, cut: Cut | None) -> None:
        """The student, or (`baseline`) the same from the same start, for the same steps, on the data's labels alone."""
        student, loaded = self.start(seed, written, cut)
        place = self.place_of(loaded)
        helped, examples = role == "student", self.examples(written)
        stages = self.recipe.distill if helped else self._baselines(written, examples)
        texts, pool = (written, place.pool) if helped else (None, None)
        inputs: dict[str, Any] = {
            **place.inputs, "teacher": of_model(self.teacher.model), "seed": self.recipe.seed + seed,
            "student": self.recipe.student.model_dump(mode="json"), "distill": [],
            "processors": [of_processor(one.processor) for one in (loaded, self.teacher)],
            **({} if texts is None else {"completions": texts.fingerprint}),
            **({} if pool is None else {"unlabelled": pool.fingerprint}),
            **(caching.settings(self.recipe.cache) if helped else {})}

        def fits() -> None:
            if helped:
                caching.refuse_unfit(self.recipe, place.task, self.teacher, student.layer_map)

        for number, stage in enumerate(stages):
            last = number == len(stages) - 1
            name = (role if seed == 0 else f"{role}-{seed}") + ("" if len(stages) == 1 else f".{number}")
            path = place.folder.model(role, seed) if last else place.folder.path / "stages" / name
            inputs = {**inputs, "distill": [*inputs["distill"], _said(stage)]}
            if place.to_do(name, inputs, path, can_begin=fits):
                self._train(place, name, stage, student, loaded, seed, examples if helped else place.splits["train"])
                place.keep(name, inputs, loaded, path)
            if not last:  # also where it was just trained: what begins again is then the same as what goes on
                restore(student.model, path)

    def _baselines(self, written: Completed | None, examples: Dataset) -> tuple[Stage, ...]:
        """The stages on labels alone, for as many steps as the student, of whose texts some were left out, or which has
        `examples` that nobody has labelled."""
        stages, labels = self.recipe.distill, self.place.task.labels_by()
        if self.place.pool is None:
            return tuple(labels_alone(stage, written.share if written else 1.0, by=labels) for stage in stages)
        share = len(examples) / len(self.place.splits["train"])
        done = on_main(lambda: learnt.of(self.place.folder, self.recipe))
        # what may end early ends by itself: a student's steps are no measure for its baseline
        return tuple(labels_alone(stage, share, None if one is None or stage.patience is not None else one["steps"],
                                  by=labels, passes=cache_choice.passes_of(stage, len(examples)))
                     for stage, one in zip(stages, done, strict=True))

    def capture(self, written: Completed | None, workers: int) -> list[str]:
        """What the teacher says of the training data into caches, before any training; gives their places."""
        on_main(self.place.write_down)
        student, loaded = self.start(0, written)  # which units it keeps is nothing to the teacher
        place = self.place_of(loaded)
        prepared = place.task.prepare(self.examples(written), loaded.processor, self.teacher.processor, training=True,
                                      seed=self.recipe.seed)
        return caching.capture_all(
            self.teacher.model, place.task, prepared, self.recipe, cache_choice.place_of(self.recipe), self.asked(),
            student.layer_map, workers=workers)

    def start(self, seed: int, written: Completed | None, cut: Cut | None = None) -> tuple[Student, Loaded]:
        """The student before training."""
        set_seed(self.recipe.seed + seed)
        smaller = self._smaller(written)
        student, loaded = start_student(self.recipe.student, self.place.task, self.teacher, self._origin(), smaller, cut=cut)
        if smaller is not None:
            smaller.tell()
        return student, loaded

    def _origin(self) -> ModelSource:
        source = self.recipe.teacher
        return source if source.train is None else trained(source, self.place.folder.teacher)

    def _smaller(self, written: Completed | None) -> Smaller | None:
        """The vocabulary of all students of the run: the baseline's too, which learns from the data's own texts."""
        spec = self.recipe.student.vocabulary
        if spec is None:
            return None
        key = "" if written is None else written.fingerprint
        if key not in self._vocabularies:
            self._vocabularies[key] = Smaller(spec, self.counting(written, data=spec.data, languages=spec.languages or ()))
        return self._vocabularies[key]

    def counting(self, written: Completed | None, *, data: bool = True, languages: Sequence[str] = ()) -> Counting:
        """Of the tokens of all that students and their baselines learn from; done once."""
        key = ("" if written is None else written.fingerprint, data, tuple(languages))
        if key not in self.counted:
            learnt, splits = self.examples(written), self.place.splits
            baselines = [splits["train"]] if "train" in splits and learnt is not splits["train"] else []
            self.counted[key] = Counting(self.place.task, (learnt, *baselines), data, tuple(languages))
        return self.counted[key]

    @cached_property
    def _vocabularies(self) -> dict[str, Smaller]:
        """By what was written."""
        return {}

    def place_of(self, student: Loaded) -> Place:
        """Its tokens may be others than the teacher's: some of them, or any if it learns from written texts."""
        return replace(self.place, task=self.place.task.between(student, self.teacher))

    def _train(
        self, place: Place, name: str, stage: Stage, student: Student, loaded: Loaded, seed: int, examples: Dataset
    ) -> None:
        terms = [term(spec) for spec in stage.objectives or ()]
        helped = any(one.objective.needs_teacher for one in terms)
        with self._teaching(place.task, student, terms) if helped else nullcontext() as teacher:
            place.train(name, student, teacher, terms, stage, (loaded.processor, self.teacher.processor if helped else None),
                        self.recipe.seed + seed, examples=examples)

    def _teaching(
        self, task: Task, student: Student, terms: Sequence[Term]
    ) -> AbstractContextManager[nn.Module | Teacher | None]:
        """The teacher for one training: as it is, or with what it says stored and read again."""
        return caching.remembering(
            self.teacher.model, task, terms, self.recipe.cache, cache_choice.place_of(self.recipe), self.asked(),
            cache_choice.states_of(self.recipe, task, student.layer_map), trusted=self.recipe.allow_weak_teacher)

    def asked(self) -> dict[str, Any]:
        """What the teacher's answers depend on."""
        return caching.fingerprint(self.recipe, self.place.task, self.teacher, self.place.reading)


def _named(source: TeacherSource) -> dict[str, Any]:
    """What the training of a teacher depends on of its section; no config, where it says none, as runs of before knew of
    none."""
    return source.model_dump(mode="json", exclude={"config"} if source.config is None else set())


def _said(stage: Stage) -> dict[str, Any]:
    """What a training depends on of its section; no share, where it says none, as stages of before knew of none. What its
    effort stands for, other fields say."""
    unsaid = {"unlabelled": stage.unlabelled is None, "batch_norm": stage.batch_norm == "model"}
    return stage.model_dump(mode="json", exclude={"effort"} | {name for name, is_unsaid in unsaid.items() if is_unsaid})
