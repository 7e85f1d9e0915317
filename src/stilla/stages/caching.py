"""What a recipe's `cache` section means for a run: a teacher that remembers, and a capture beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from stilla.cache import exists
from stilla.models.fingerprint import of_model, of_processor
from stilla.objectives.base import LayerMap, Term
from stilla.recipe import Cache, Data, Recipe, Stage
from stilla.runtime.narrate import progress
from stilla.runtime.processes import processes
from stilla.stages.cache_choice import States, among_states, places_of, reads, states_of, temperatures_of, terms_of
from stilla.stages.clocks import timed
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.teachers import Keep, LiveTeacher, Teacher, capture, capturing
from stilla.teachers.spread import capture_with_ray
from stilla.training.arguments import precision_of, runs_on_cpu
from stilla.training.operations import operations_of_teacher

WHERE = ("train", "validation", "test", "unlabelled", "shifted", "config", "revision", "header", "limit")
"""Of the recipe's data section: where the data come from. What was found there counts by its content."""


def settings(section: Cache) -> dict[str, Any]:
    """What of the section a training depends on."""
    if section.form == "none":
        return {}
    named = {"dense": ("precision",), "hidden": ("precision",), "top_k": ("k", "temperatures"), "samples": ("samples",)}
    return {"cache": {name: getattr(section, name) for name in ("form", *named[section.form or "dense"])}}


Asked = Mapping[str, Mapping[str, Any]]
"""By the name of a task, all that its teacher's answers depend on beside what it is asked."""


def asked(recipe: Recipe, task: Task, teacher: Loaded) -> Asked:
    """Of every task that is learnt, what a run of it alone would ask: either reads what the other has stored."""
    return {name: fingerprint(own, task.by_name[name], task.part(teacher, name)) for name, own in recipe.by_name.items()}


def fingerprint(recipe: Recipe, task: Task, teacher: Loaded) -> dict[str, Any]:
    """Of a single task."""
    return {
        "teacher": of_model(teacher.model), "processor": of_processor(teacher.processor), "task": task.kind,
        "preparation": reading(recipe, task),
        "precision": precision_of(recipe.distill[0]),
        # nothing else is drawn: another run's seed asks the teacher the same
        **({"seed": recipe.seed} if recipe.cache.form == "samples" else {}),
        **task.kept_beside,
    }


def reading(recipe: Recipe, task: Task) -> dict[str, Any]:
    """How the data are read, wherever they come from."""
    resolved: Data = task.resolved(recipe.data)
    # of several tasks the data lie elsewhere each, and their teachers count by their weights
    parts: Any = {name: {"data": set(WHERE), "teacher": True, "cache": True,
                         **({} if name in resolved.told else {"teacher_data": True})} for name in resolved.each}
    return resolved.model_dump(mode="json", exclude={**dict.fromkeys(WHERE, True), **({"parts": parts} if parts else {})})


def as_read(prepared: Prepared, recipe: Recipe, task: Task) -> Prepared:
    """Training examples as both models read them: a teacher in the tokens that it has and its student has not, unless
    a term compares the two position by position."""
    terms = [one for stage in recipe.distill for one in terms_of(recipe, stage, task)]
    by_position = any(one.objective.misfits(aligned=False, packed=prepared.packed, framed=prepared.framed) for one in terms)
    return prepared if by_position else prepared.read_apart()


def refuse_unfit(recipe: Recipe, task: Task, teacher: Loaded, layer_map: LayerMap) -> None:
    """What lies at the cache's place against the recipe, before anything is begun; no cache there fits everything.

    Raises:
        CacheError: what another teacher or preparation said, another form, damaged files.
    """
    states = states_of(recipe, task, layer_map)
    for stage in recipe.distill:
        terms = terms_of(recipe, stage, task)
        stacks = any(one.objective.needs_stacks for one in terms)
        helped = any(one.objective.asks for one in terms)
        if recipe.cache.form != "none" and helped and any(
                map(exists, places_of(recipe, states=among_states(recipe, stacks=stacks)).values())):
            with remembering(teacher.model, task, terms, recipe, asked(recipe, task, teacher), states):
                pass


@contextmanager
def remembering(
    teacher: nn.Module,
    task: Task,
    terms: Sequence[Term],
    recipe: Recipe,
    made_from: Asked,
    states: States,
    *,
    trusted: bool = False,
) -> Iterator[nn.Module | Teacher]:
    """The teacher for one training: the model itself where nothing is stored.

    states: what all trainings of the run compare. trusted: not to be held against the labels.
    """
    section = recipe.cache
    if section.form == "none" or not any(one.objective.asks for one in terms):
        yield teacher
        return
    stacks = any(one.objective.needs_stacks for one in terms)
    states = states if stacks else States()
    stacks = among_states(recipe, stacks=stacks)
    # where nothing is asked at a temperature, any that is stored will do
    temperature = next(iter((*temperatures_of(terms), *(section.temperatures or ()))), 1.0)
    remembers = capturing(
        LiveTeacher(teacher, task, stacks=stacks), task, places_of(recipe, states=stacks),
        keep(section, recipe.seed, states), made_from,
        temperature=temperature, part=str(processes().process_index), shared=True,
        check_alignment=not trusted)
    try:
        yield remembers
    finally:
        remembers.close()


def capture_all(
    teacher: nn.Module, task: Task, prepared: Prepared, recipe: Recipe, made_from: Asked, layer_map: LayerMap, *,
    workers: int = 0, log: Callable[[dict[str, Any]], None] | None = None,
) -> list[str]:
    """Everything that the objectives need to know of the teacher about the training data, into caches; gives their places.

    With several processes, a part each. workers: let so many Ray workers do it. log: takes what it took, of one process.

    Raises:
        CacheError: a place holds another cache, or another capture is writing there.
    """
    stage, state, found = recipe.distill[0], processes(), list[str]()
    device = torch.device("cpu") if runs_on_cpu(stage) else state.device
    halved = precision_of(stage) == "bfloat16"
    for stacks in reads(recipe, task):
        kept = keep(recipe.cache, recipe.seed, states_of(recipe, task, layer_map) if stacks else States())
        recorded = among_states(recipe, stacks=stacks)
        places = places_of(recipe, states=recorded)
        found += places.values()
        if workers:
            done = capture_with_ray(teacher, task, prepared, places, kept, made_from, workers=workers,
                                    batch_size=stage.batch_size, halved=halved, gpus=device.type == "cuda")
            _counted(done, prepared)
            continue
        live = LiveTeacher(teacher, task, stacks=recorded)
        remembers = capturing(
            live, task, places, kept, made_from,
            temperature=(recipe.cache.temperatures or (1.0,))[0], part=str(state.process_index))
        try:
            with (torch.autocast(device.type, torch.bfloat16, enabled=halved),
                  nullcontext() if log is None else
                  timed(log, "capture.states" if stacks else "capture", partial(_asked, live, prepared, stage, device))):
                _counted(capture(remembers, prepared, batch_size=stage.batch_size, device=device,
                                 share=(state.process_index, state.num_processes)), prepared)
        finally:
            remembers.close()
        state.wait_for_everyone()
    return found


def _asked(live: LiveTeacher, prepared: Prepared, stage: Stage, device: torch.device) -> dict[str, Any]:
    """What a log says of a capture beside its time, as of a training: it is a cost of the students that read it."""
    if not live.entered:
        return {"asked": 0}
    batch = prepared.collate([prepared.examples[one] for one in range(min(stage.batch_size, len(prepared)))]).to(device)
    each = operations_of_teacher(live, batch)
    return {"asked": live.entered, **({} if each is None else {"operations": {"student": 0.0, "teacher": each}})}


def _counted(done: Iterable[int], prepared: Prepared) -> None:
    with progress("capture", len(prepared) * (prepared.views or 1)) as advance:
        for one in done:
            advance(one)


def keep(section: Cache, seed: int, states: States) -> Keep:
    assert section.form not in (None, "none")
    return Keep(section.form, section.k, section.samples, section.temperatures or (1.0,), section.precision,  # type: ignore[arg-type]
                seed if section.form == "samples" else 0, states.layers, pooling=states.pooling)
