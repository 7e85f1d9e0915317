"""The way that a run goes, up to its first step: data, teacher, student, objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from datasets import Dataset

from stilla import data, tasks
from stilla.check import generating, lengths, mining, padding, places, proposing, size
from stilla.check.answers import can_go_on
from stilla.check.found import Found, warnings_as
from stilla.check.mining import ToMine
from stilla.check.proposing import ToPropose
from stilla.check.spaces import out_of_reach
from stilla.check.terms import fit, is_usable, needs_the_teacher, wrong_terms
from stilla.errors import counted, did_you_mean, one_of
from stilla.evaluate.generate import writer
from stilla.evaluate.texts import number_asked
from stilla.export import graphs
from stilla.recipe import TEXT_METRICS, Recipe, Stage
from stilla.runtime.quiet import quiet_libraries
from stilla.signals import Side
from stilla.stages import (
    adapting,
    asking,
    cache_choice,
    caching,
    completions,
    generated,
    groups,
    hardest,
    narrowing,
    opinions,
    reptile,
    unlabelled,
)
from stilla.stages.defaults import objectives_of, resolved_writing, without_labels
from stilla.stages.generated import Writing
from stilla.stages.measuring import sliced_by
from stilla.stages.starting import own_model, start_student
from stilla.stages.unlabelled import Pool
from stilla.students import Student, part_of
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.shared.strings import find as find_metrics
from stilla.training.arguments import training_arguments
from stilla.training.distiller import compile_problems
from stilla.training.reptile import body_of
from stilla.training.validation import measures

SAMPLE = 256
"""Training examples that are prepared to see how they look to the models."""


@dataclass(frozen=True)
class Ready:
    """What a run would start from. `prepared`: a sample of the training data for both models; `per_example`: how many
    of its examples one of the data makes (packed documents share one, long ones make several). `recipe`: with what follows
    from its data. `pool`: unlabelled examples. `writing`: who writes some of them first. `to_propose`: who is asked for
    words. `to_mine`: what the teacher reads to find what does not answer queries."""

    splits: dict[str, Dataset]
    task: Task
    teacher: Loaded
    student: Loaded
    prepared: Prepared
    per_example: float
    recipe: Recipe
    pool: Pool | None = None
    writing: Writing | None = None
    to_propose: ToPropose | None = None
    to_mine: ToMine | None = None


def look(recipe: Recipe, found: Found) -> Ready | None:
    """Everything on the way; None where something on it is wrong, or not on this machine."""
    quiet_libraries(going_on=True)
    found.problems += wrong_terms(recipe)
    lengths.note_choices(recipe, found)
    ready = _ready(recipe, found)
    lengths.note(recipe if ready is None else ready.recipe, found)
    return ready


def _ready(recipe: Recipe, found: Found) -> Ready | None:
    """Data, models, and what a run would make of the recipe."""
    with warnings_as(found.notes):
        with found.attempt():
            splits, task = _data(recipe, found)
            pool = _unlabelled(recipe, splits, task, found)
            recipe = asking.settled(completions.settled(recipe, task))
            found.problems += asking.problems(recipe, task)
            _look_at_adapting(recipe, task, splits, found)
            if recipe.teacher.api is not None and not can_go_on(recipe, splits, task, pool, found):
                return None
            _measured_by(recipe, task, found)
            found.problems += out_of_reach(recipe, [metric for exam in task.exams(resolved_writing(recipe.evaluate, task))
                                                    for metric in exam.metrics()])
            if recipe.teacher.api is None and places.has_to_be_downloaded(recipe.teacher):
                found.notes.append(
                    f"teacher: {recipe.teacher.model} is not on this machine; the run downloads it, and only then "
                    "sees whether it fits"
                )
                return None
            task, to_propose = proposing.look(recipe, splits, task, pool, found)
            ready, writing = _models(recipe, splits, task, pool, found), generating.look(recipe, splits, task, pool, found)
            return None if ready is None else replace(ready, writing=writing, to_propose=to_propose)
        # without data no model can be loaded, but whether there is one can be seen
        found.problems += places.missing_folders(recipe)
    return None


def _data(recipe: Recipe, found: Found) -> tuple[dict[str, Dataset], Task]:
    splits = data.load(recipe.data, seed=recipe.seed, teachers=recipe.teacher.own_data)
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in splits.items())
    found.notes.append(f"data: {sizes} examples")
    task = tasks.of_recipe(recipe, splits)
    found.problems += without_labels(recipe, task)
    found.problems += narrowing.problems_of(recipe.student, task)
    with found.attempt():
        sliced_by(recipe, splits)
    names = task.class_names()
    if names:
        found.notes.append(f"labels: {len(names)}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}")
    return splits, task


def _unlabelled(recipe: Recipe, splits: Mapping[str, Dataset], task: Task, found: Found) -> Pool | None:
    found.problems += [*opinions.problems_of(recipe, task), *generated.problems(recipe, task)]
    pool = unlabelled.of_run(recipe, task, splits, data.load_all_unlabelled(recipe.data, seed=recipe.seed))
    pool = generated.expected(recipe, task, splits, pool)
    if pool is None:
        return None
    if recipe.teacher.api is not None:
        found.notes.append(f"unlabelled: {counted(len(pool), 'example')}; the teacher is asked about them")
        return pool
    answers = "writes a text for each" if unlabelled.is_written(task) else "alone answers for them"
    first = f", of which {pool.generated:,} are written first (some are then left out)" if pool.generated else ""
    found.notes.append(f"unlabelled: {counted(len(pool), 'example')}{first}; the teacher {answers}")
    if pool.parts:
        found.notes.append("unlabelled: " + ", ".join(f"{len(one):,} of {name}" for name, one in pool.parts.items()))
    labelled = len(splits.get("train", ()))
    for number, stage in enumerate(recipe.distill):
        if stage.unlabelled is None and labelled and labelled * stage.batch_size * stage.accumulate < len(pool) + labelled:
            share = len(pool) / (len(pool) + labelled)
            found.notes.append(
                f"{places.stage_place(recipe, number)}.unlabelled: no share is said, so {share:.1%} of the examples are "
                "unlabelled, and most steps have no labelled one; 0.8 would let those come around more often")
    return pool


def _measured_by(recipe: Recipe, task: Task, found: Found) -> None:
    """Metrics that are named, and combinations of a training's fields that transformers refuses."""
    metrics = measures(task, taught=False)
    wanted = recipe.evaluate.metric
    written: tuple[str, ...] = ()
    with found.attempt():
        generation = resolved_writing(recipe.evaluate, task).writing
        written = (generation.metrics if generation else None) or ()
    apart = task.apart() if recipe.student.vocabulary is not None else None
    known = [*metrics, *written, *([] if apart is None else [metric.name for metric in apart.metrics()])]
    if wanted is not None and wanted not in known:
        of_texts = task.vocabulary and (wanted in TEXT_METRICS or ":" in wanted)
        name_it = " Name it in evaluate.generation.metrics too." if of_texts else ""
        found.problems.append(f"evaluate.metric: got {wanted!r}; expected {one_of(known)}.{did_you_mean(wanted, known)}"
                              f"{name_it}")
    for place, training in places.trainings(recipe):
        if training.compile:
            found.problems += [f"{place}.{problem}" for problem in compile_problems(task)]
        # the other keys go together
        if training.trainer or training.patience is not None or training.extend or training.precision != "auto":
            taught = isinstance(training, Stage) and _is_taught(recipe, training, task)
            with found.attempt():
                training_arguments(training, output_dir=recipe.output, seed=recipe.seed, place=place,
                                   metrics=measures(task, taught=taught))


def _is_taught(recipe: Recipe, stage: Stage, task: Task) -> bool:
    """Whether the stage's terms, those that it would get by default included, ask a teacher."""
    if not all(is_usable(spec) for spec in stage.objectives or ()):
        return True  # what is wrong with them is said elsewhere
    return any(one.objective.needs_teacher for one in cache_choice.terms_of(recipe, stage, task))


def _models(recipe: Recipe, splits: dict[str, Dataset], task: Task, pool: Pool | None, found: Found) -> Ready | None:
    """The teacher, the student before training, and the objectives between them."""
    torch.manual_seed(recipe.seed)
    with found.attempt("teacher" if recipe.teacher.api is None else "student"):
        teacher = (own_model(recipe.student, task) if recipe.teacher.api is not None else
                   task.of_teacher().load(recipe.teacher, labelled=recipe.teacher.train is None))
        task = task.adapted_to(teacher).sketched()
        with found.attempt("evaluate"):
            task.exams(recipe.evaluate)
        found.problems += adapting.unmeasured(recipe, task, teacher)
        splits, task, to_mine = mining.look(recipe, splits, task, teacher, found)
        _look_at_writing(recipe, task, teacher, splits, pool, found)
        with found.attempt("student"):
            # what is to be trained was loaded in float32
            whole = {} if recipe.teacher.train is None else {"precision": "float32"}
            origin = recipe.teacher.model_copy(update=whole)
            recipe = size.settled(recipe, task, teacher, splits, pool, found)
            if recipe.student.layers_by != "spaced":
                found.notes.append("student: which layers stay, a run chooses (layers_by: "
                                   f"{recipe.student.layers_by}); here they are as far apart as possible")
            smaller = size.smaller(recipe, task, splits, pool)
            student, loaded = start_student(recipe.student, task, teacher, origin, smaller)
            if recipe.student.width is not None:
                size.note_the_width(recipe.student.width, task.pattern(teacher), loaded, found)
            if student.moved:
                found.notes.append(f"student.interpolate: {student.moved}")
            if smaller is not None:
                size.note_the_vocabulary(task, teacher, loaded, splits, unlabelled.number_of(splits, pool), found)
            why = [*task.unwritten(loaded.model, recipe.export), *graphs.unwritten(loaded.model, recipe.export)]
            found.problems += [f"export: {problem}" for problem in why]
            task = task.between(loaded, teacher)
            if all(is_usable(spec) for stage in recipe.distill for spec in stage.objectives or ()):
                task = task.remembering(cache_choice.all_terms(recipe, task))
            there = unlabelled.to_look_at(task, splits, pool, answered=recipe.teacher.api is not None)
            sample = data.from_all_over(there, SAMPLE)
            chosen = objectives_of(recipe, task)
            theirs = teacher.processor if needs_the_teacher(recipe, chosen) else None
            prepared = task.prepare(sample, loaded.processor, theirs, training=True)
            found.problems += groups.problems(recipe, splits, task, prepared)
            _look_at_the_other_tasks(recipe, student, found)
            _look_at_the_parts(recipe, splits, student, found)
            share = unlabelled.number_learnt(recipe, splits, pool) / len(sample)
            recipe = lengths.settled(recipe, teacher, len(prepared) * share, found)
            fit(recipe, chosen, task, teacher, student, prepared, found)
            if not found.problems:
                padding.look(task, loaded, prepared, Side.STUDENT, "student", found)
                if theirs is not None:
                    padding.look(task, teacher, prepared, Side.TEACHER, "teacher.model", found)
            _look_at_the_cache(recipe, task, teacher, student, prepared, share, found)
            return Ready(splits, task, teacher, loaded, prepared, len(prepared) / len(sample), recipe, pool,
                         to_mine=to_mine)
    return None


def _look_at_writing(
    recipe: Recipe, task: Task, teacher: Loaded, splits: Mapping[str, Dataset], pool: Pool | None, found: Found
) -> None:
    """Whether the models can write what the recipe asks for, and it can be measured."""
    found.problems += completions.problems(recipe, task)
    with found.attempt():
        generation = resolved_writing(recipe.evaluate, task).writing
        metrics = (generation.metrics if generation else None) or ()
        find_metrics(metrics)
        if metrics or (recipe.completions is not None and recipe.teacher.api is None):
            writer(teacher.model)
        texts = []
        if generation and metrics:
            asked = number_asked(generation, data.to_measure(splits))
            texts.append(f"every model writes {counted(asked, 'text')} of up to "
                         f"{counted(generation.max_new_tokens, 'token')} to be measured")
        if recipe.completions is not None and recipe.teacher.api is None:
            texts.append(f"the teacher writes {unlabelled.number_written(recipe, splits, pool):,} texts to be learnt")
        if texts:
            found.notes.append(f"writing: {'; '.join(texts)}")


def _look_at_the_cache(
    recipe: Recipe, task: Task, teacher: Loaded, student: Student, prepared: Prepared, share: float, found: Found
) -> None:
    """Whether what would be stored serves the objectives and a choice of forms, and whether what is stored already is of this
    teacher."""
    if not all(is_usable(spec) for stage in recipe.distill for spec in stage.objectives or ()):
        return
    with found.attempt("cache"):
        section = cache_choice.resolved(recipe, task, teacher.model, prepared, share)
        found.problems += cache_choice.problems(recipe, section, task, prepared, student.layer_map, share)
        found.problems += hardest.problems(recipe, section, task, prepared)
        if recipe.cache.form is None and section.form != "none":
            found.notes.append(f"cache: the teacher's answers are stored in the first epoch and read from then on (form: "
                               f"{section.form}); cache: none switches it off")
        if (recipe.cache.path is not None or recipe.data.stores) and recipe.teacher.train is None and not found.problems:
            caching.refuse_unfit(recipe.model_copy(update={"cache": section}), task, teacher, student.layer_map)


def _look_at_adapting(recipe: Recipe, task: Task, splits: Mapping[str, Dataset], found: Found) -> None:
    """Whether the teacher can be adapted, and what that takes; not where objectives are wrong, which is said elsewhere."""
    if not all(is_usable(spec) for stage in recipe.distill for spec in stage.objectives or ()):
        return
    found.problems += (wrong := adapting.problems(recipe, task))
    if recipe.distill[-1].adapt is not None and not wrong:
        found.notes.append(adapting.in_words(recipe.distill[-1].adapt, len(splits["train"])))


def _look_at_the_other_tasks(recipe: Recipe, student: Student, found: Found) -> None:
    """Whether the tasks can be read that a student's start is made of, and which part of the student they share."""
    found.problems += (wrong := reptile.problems(recipe))
    if recipe.student.reptile is None or wrong:
        return
    with found.attempt():
        others = reptile.read(recipe, recipe.student.reptile)
        body_of(student.model)
        found.notes.append(reptile.in_words(recipe, recipe.student.reptile, others))


def _look_at_the_parts(recipe: Recipe, splits: Mapping[str, Dataset], student: Student, found: Found) -> None:
    """Whether a student can have parts, and how many it gets; nothing where it gets none, which is said elsewhere."""
    if recipe.personal is None or found.problems:
        return
    with found.attempt():
        part_of(student.model, recipe.personal.lora, {})
    enough = groups.with_a_part(splits["train"], recipe.personal)
    examples = sum(map(len, enough.values()))
    found.notes.append(f"personal: {len(enough)} values of {recipe.personal.by} get a part of the student, learnt from "
                       f"{counted(examples, 'example')}; their training is not in the estimate")
