"""The trainings of a run after the teacher's: student and baseline are the same training with other terms."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from textwrap import indent
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import set_seed

from stilla import data
from stilla.data import from_all_over
from stilla.errors import RecipeError, all_at_once
from stilla.export import restore
from stilla.models.fingerprint import of_model, of_processor
from stilla.objectives import term
from stilla.objectives.base import Term
from stilla.recipe import ModelSource, Recipe, Stage
from stilla.recipe.written import brief
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main
from stilla.stages import (
    adapting,
    answered,
    asking,
    beginning,
    cache_choice,
    caching,
    completions,
    effort,
    groups,
    hardest,
    narrowing,
    opinions,
    reptile,
    transfer,
    unlabelled,
)
from stilla.stages.baselines import baselines
from stilla.stages.clocks import timed
from stilla.stages.completions import Completed
from stilla.stages.defaults import objectives_of, resolved_writing, without_labels
from stilla.stages.inputs import of_stage, of_student
from stilla.stages.place import Place
from stilla.stages.starting import start_student, towards, trained, transformer, whole_width
from stilla.stages.unlabelled import Pool
from stilla.stages.vocabulary import Counting, Smaller
from stilla.students import Cut, Plan, Student, Towards
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.teachers import SaidTeacher, Teacher

SAMPLE = 64
"""Training examples that are looked at to choose what the recipe leaves open."""


@dataclass(frozen=True)
class Stages:
    """What comes after the teacher, to which the place's task is adapted. Of one behind an address, what stands in its place
    (see `teacher_of`)."""

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
        there = unlabelled.to_look_at(place.task, place.splits, place.pool, answered=self.recipe.teacher.api is not None)
        some = from_all_over(there, SAMPLE)
        prepared = place.task.prepare(some, processor, processor, training=True, seed=self.recipe.seed)
        return prepared, unlabelled.number_learnt(self.recipe, place.splits, place.pool) / len(some)

    def with_recipe(self, recipe: Recipe) -> Stages:
        return replace(self, place=replace(self.place, recipe=recipe))

    def resolved(self, *, beforehand: bool = False, of_many: bool = False) -> Stages:
        """The same with the recipe's open defaults chosen, and printed. `beforehand`: for a capture before any training.
        `of_many`: of one of many runs that ask the teacher the same, whose answers are then worth keeping; not printed.

        Raises:
            RecipeError: a section that cannot serve the others.
        """
        task, (prepared, share) = self.place.task, self.sample()
        beforehand = beforehand and self.recipe.teacher.api is None  # its answers are texts, which no cache of logits holds
        recipe = effort.settled(self.recipe, self.teacher.model, share * len(prepared))
        cache = cache_choice.resolved(recipe, task, self.teacher.model, prepared, share, beforehand=beforehand,
                                      of_many=of_many)
        if wrong := [*completions.problems(recipe, task), *asking.problems(recipe, task),
                     *opinions.problems_of(recipe, task),
                     *cache_choice.problems(recipe, cache, task, prepared, share=share), *without_labels(recipe, task),
                     *hardest.problems(recipe, cache, task, prepared),
                     *groups.problems(recipe, self.place.splits, task, prepared), *reptile.problems(recipe),
                     *adapting.problems(recipe, task), *adapting.unmeasured(recipe, task, self.teacher),
                     *(cache_choice.unasked(recipe, task) if beforehand else [])]:
            raise all_at_once(wrong, RecipeError)
        chosen = objectives_of(recipe, task)
        stages = tuple(stage if stage.objectives is not None else stage.model_copy(update={"objectives": chosen})
                       for stage in recipe.distill)
        section = recipe.personal
        if section is not None and section.objectives is None:
            section = section.model_copy(update={"objectives": stages[-1].objectives})
        recipe = recipe.model_copy(update={
            "distill": stages, "personal": section, "data": task.resolved(recipe.data), "cache": cache,
            "evaluate": resolved_writing(recipe.evaluate, task)})
        if not of_many:
            say(f"the recipe with every default, also in {self.place.folder.recipe}:\n{indent(brief(recipe), '  ')}")
        return self.with_recipe(recipe)

    def chosen(self) -> Stages:
        """The same with those unlabelled examples that the recipe keeps by what the teacher thinks of them."""
        pool = self.place.pool
        if pool is None:
            return self
        kept = {name: self._kept(name, one) for name, one in (pool.parts or {"": pool}).items()}
        return replace(self, place=replace(self.place, pool=Pool.of_parts(kept) if pool.parts else kept[""]))

    def _kept(self, name: str, pool: Pool) -> Pool:
        """Those of one of several tasks, or of the only one, which has no name."""
        place, recipe, task = self.place, self.recipe.by_name[name], self.place.task.by_name[name]
        section, teacher = recipe.data.unlabelled, place.task.part(self.teacher, name)
        if section is None or not opinions.wanted(section):
            return pool
        stage, folder = (f"unlabelled.{name}", place.folder.unlabelled / name) if name else ("unlabelled",
                                                                                           place.folder.unlabelled)
        inputs = {"task": task.kind, "reading": caching.reading(recipe, task), "unlabelled": pool.fingerprint,
                  "teacher": of_model(teacher.model), "processor": of_processor(teacher.processor),
                  **recipe.teacher.told, **({} if section.near is None else {"near to": place.content})}
        if place.to_do(stage, inputs, folder, by_parts=True):
            train = place.splits.get("train")
            labelled = None if train is None else opinions.one_of_all(train, name)
            with timed(place.folder.append_log, stage):
                opinions.ask(section, task, teacher, pool, labelled, folder, inputs, recipe.evaluate.batch_size)
            on_main(lambda: place.folder.finish(stage, inputs, folder))
        return opinions.kept(section, task, pool, folder, name)

    def completions(self) -> Completed | None:
        """Texts that the teacher wrote for the student to learn, where the recipe asks for them."""
        section, place = self.recipe.completions, self.place
        if section is None:
            return None
        pool, folder = place.pool, place.folder.completions
        if self.recipe.teacher.api is not None:
            on_main(lambda: answered.completed(self.recipe, place.task, place.splits, pool, processor=self.teacher.processor,
                                             folder=place.folder.path))
            return answered.learnt(self.recipe, place.task, place.splits, pool)
        if section.of == "unlabelled" and pool is not None:
            examples = data.joined(None, pool.data)
        else:
            examples = unlabelled.together(place.task, place.splits, pool)
        inputs = {**place.inputs, **completions.settings(section, place.task, self.teacher),
                  **({} if pool is None else {"unlabelled": pool.fingerprint, "of": section.of})}
        if place.to_do("completions", inputs, folder, by_parts=True):
            with timed(place.folder.append_log, "completions"):
                completions.write(section, place.task, self.teacher, examples, folder, inputs)
            on_main(lambda: place.folder.finish("completions", inputs, folder))
        return completions.read(section, place.task, examples, folder)

    def examples(self, written: Completed | None) -> Dataset:
        """What the student learns from."""
        place = self.place
        if written is None:
            return unlabelled.together(place.task, place.splits, place.pool)
        if self.recipe.all_written or self.recipe.teacher.api is not None:
            return written.data
        return data.joined(self._labelled(), written.data)

    def _labelled(self) -> Dataset | None:
        train = self.place.splits.get("train")
        return None if train is None else self.place.task.beside(train)

    def narrowed(self, written: Completed | None) -> Cut | None:
        """Which units of its teacher's a student has, where the recipe asks for those that matter: measured once."""
        spec, place = self.recipe.student, self.place
        folder = place.folder.width
        if not spec.by_importance:
            return None
        how = {"layers", "width"} if spec.width is not None else {"config", "model", "weights", "interpolate"}
        inputs = {**place.inputs, "teacher": of_model(self.teacher.model), "processor": of_processor(self.teacher.processor),
                  "student": spec.model_dump(mode="json", include=how), "seed": self.recipe.seed,
                  **({} if written is None else {"completions": written.fingerprint})}
        plans = list[Plan | Towards]()  # the main process's, and gone at the end: it holds a model as large as the teacher
        if place.to_do("width", inputs, folder, can_begin=lambda: plans.append(self._plan())):
            on_main(lambda: narrowing.write(self._matters(plans[0], written), folder))
            on_main(lambda: place.folder.finish("width", inputs, folder))
        return on_main(lambda: narrowing.read(folder))

    def measured(self, written: Completed | None) -> Cut | None:
        """As `narrowed`, of which nothing is kept in the run folder: for a student that may not be the one."""
        return on_main(lambda: self._matters(self._plan(), written)) if self.recipe.student.by_importance else None

    def _plan(self) -> Plan | Towards:
        spec = self.recipe.student
        if spec.width is None:
            return towards(spec, self.place.task, self.teacher, self._origin())
        return Plan(transformer(whole_width(spec, self.place.task, self.teacher, self._origin())), spec.width)

    def _matters(self, plan: Plan | Towards, written: Completed | None) -> Cut:
        examples = self.place.splits["train"] if written is None else self.examples(written)
        some = self.place.task.prepare(from_all_over(examples, self.recipe.student.examples_of_importance),
                                       self.teacher.processor, None, training=False, seed=self.recipe.seed)
        return narrowing.measure(plan, self.place.task, some)

    def student(self, role: str, seed: int, written: Completed | None, cut: Cut | None) -> None:
        """The student, or (`baseline`) the same from the same start, for the same steps, on the data's labels alone."""
        student, loaded = self.start(seed, written, cut)
        if student.moved and role == "student" and seed == 0:
            say(f"student: starts on the way to its teacher with {student.moved}")
        beside = reptile.begun(self.place, loaded, seed)
        place = self.place_of(loaded)
        helped, examples = role == "student", self.examples(written)
        stages = self.recipe.distill if helped else baselines(self.place, written, examples)
        texts, pool = (written, place.pool) if helped else (None, None)
        if self.recipe.teacher.api is not None:  # what was unlabelled has answers now, as texts
            place = replace(place, pool=None)
            pool = None
        inputs: dict[str, Any] = {
            **place.inputs, **self._taught_by, "seed": self.recipe.seed + seed,
            **transfer.inputs_of(self.recipe), **beside, "student": of_student(self.recipe.student), "distill": [],
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
            inputs = {**inputs, "distill": [*inputs["distill"], of_stage(stage)]}
            if place.to_do(name, inputs, path, can_begin=fits, beside=adapting.stage_of(seed) if stage.adapt else None):
                first = helped and not seed and not number and self.measured_teacher is not None
                if first and not on_main(place.folder.checkpoints(name).exists):
                    beginning.say_where(place, loaded, self.teacher, stage)
                self._train(place, name, stage, student, loaded, seed, examples if helped else place.splits["train"], texts,
                            inputs)
                kept = place.task.as_measured(loaded.processor, self.teacher.processor)
                place.keep(name, inputs, replace(loaded, processor=kept), path, beside=self.teacher.processor)
            if not last:  # also where it was just trained: what begins again is then the same as what goes on
                restore(student.model, path)

    def capture(self, written: Completed | None, workers: int) -> list[str]:
        """What the teacher says of the training data into caches, before any training; gives their places."""
        on_main(self.place.write_down)
        student, loaded = self.start(0, written)  # which units it keeps is nothing to the teacher
        place = self.place_of(loaded)
        prepared = place.task.prepare(self.examples(written), loaded.processor, self.teacher.processor, training=True,
                                      seed=self.recipe.seed)
        every = cache_choice.met(self.recipe, prepared.all_examples(), 1.0)
        read = caching.as_read(every, self.recipe, place.task)
        return caching.capture_all(self.teacher.model, place.task, read, self.recipe, self.asked(place.task),
                                   student.layer_map, workers=workers, log=self.place.folder.append_log)

    def start(self, seed: int, written: Completed | None, cut: Cut | None = None) -> tuple[Student, Loaded]:
        """The student before training."""
        set_seed(self.recipe.seed + seed)
        smaller = self._smaller(written)
        student, loaded = start_student(self.recipe.student, self.place.task, self.teacher, self._origin(), smaller, cut=cut)
        if smaller is not None:
            smaller.tell()
        return student, loaded

    @property
    def measured_teacher(self) -> Loaded | None:
        """None where it is behind an address."""
        return self.teacher if self.recipe.teacher.api is None else None

    @property
    def _taught_by(self) -> dict[str, Any]:
        """What a training depends on of its teacher."""
        source = self.recipe.teacher
        return {"teacher": of_model(self.teacher.model) if source.api is None else [source.api.url, source.model]}

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
        task = self.place.task.between(student, self.teacher)
        return replace(self.place, task=task.remembering(cache_choice.all_terms(self.recipe, task)))

    def _train(
        self, place: Place, name: str, stage: Stage, student: Student, loaded: Loaded, seed: int, examples: Dataset,
        written: Completed | None, inputs: Mapping[str, Any],
    ) -> None:
        terms = [term(spec) for spec in stage.objectives or ()]
        helped = stage.pull is not None or any(one.objective.needs_teacher for one in terms)
        with self._teaching(place.task, student, terms, written, stage) if helped else nullcontext() as teacher:
            place.train(name, student, teacher, terms, stage, (loaded.processor, self.teacher.processor if helped else None),
                        self.recipe.seed + seed, examples=examples)
        if stage.adapt is not None:
            assert isinstance(teacher, nn.Module)  # the copy
            adapting.keep(place, self.teacher, teacher, inputs, seed)

    def _teaching(
        self, task: Task, student: Student, terms: Sequence[Term], written: Completed | None, stage: Stage
    ) -> AbstractContextManager[nn.Module | Teacher | None]:
        """The teacher for one training: as it is, or with what it says stored and read again; of one behind an address what
        it has said; a copy to be adapted, where others learn from it as it was."""
        if stage.adapt is not None:
            return nullcontext(copy.deepcopy(self.teacher.model))
        if written is not None and written.said is not None:
            return nullcontext(SaidTeacher(torch.from_numpy(written.said)))
        return caching.remembering(
            self.teacher.model, task, terms, self.recipe, self.asked(task),
            cache_choice.states_of(self.recipe, task, student.layer_map), trusted=self.recipe.allow_weak_teacher)

    def asked(self, task: Task) -> caching.Asked:
        """What the teacher's answers depend on, by task. `task`: as a student has it."""
        return caching.asked(self.recipe, task, self.teacher)
