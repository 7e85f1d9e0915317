"""What a recipe's `cache` section means for a run: which form fits, what it costs, and a teacher that remembers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stilla.cache import DenseCoder, HiddenCoder, Place, SamplesCoder, Store, TopKCoder, exists, name_of
from stilla.defaults import objectives_for
from stilla.errors import all_of
from stilla.fingerprints import of_model, of_processor
from stilla.narrate import progress
from stilla.objectives import term
from stilla.objectives.base import LayerMap, RowObjective, Term
from stilla.processes import processes
from stilla.recipe import Cache, Recipe, Stage
from stilla.run_folder import RunFolder
from stilla.signals import Dense, Headed, Samples, TopK
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.teachers import CapturingTeacher, Keep, LiveTeacher, Teacher, capture
from stilla.teachers.capture import KeepUp
from stilla.teachers.spread import capture_with_ray
from stilla.training_arguments import precision_of, runs_on_cpu

SMALL = 1000
"""Classes up to which all logits are stored by default: 4 kB per example at most, as much as a short text's tokens."""
LARGEST = 2e9
"""Bytes up to which what enters a vocabulary's head is stored by default: minutes of reading, no surprise on a laptop."""

WHERE = ("train", "validation", "test", "config", "revision", "limit")
"""Of the recipe's data section: where the data come from. What was found there counts by its content."""

_FORMS = {"dense": Dense, "hidden": Headed, "top_k": TopK, "samples": Samples}


def resolved(recipe: Recipe, task: Task, teacher: nn.Module, prepared: Prepared, examples: int) -> Cache:
    """The section with its form and temperatures chosen. `prepared`: some of the so many training examples."""
    section = recipe.cache
    if section.form is None:
        section = _stored(recipe) or section.model_copy(
            update={"form": _by_default(recipe, task, teacher, prepared, examples)})
    if section.form == "top_k" and section.temperatures is None:
        asked = {one for stage in recipe.distill for one in _temperatures(_terms(recipe, stage, task))}
        section = section.model_copy(update={"temperatures": tuple(sorted(asked)) or (1.0,)})
    return section


def for_capture(recipe: Recipe, task: Task, teacher: nn.Module, prepared: Prepared, examples: int) -> Recipe:
    """The recipe for a capture beforehand, which is to store something also where a run would not by default."""
    form = resolved(recipe, task, teacher, prepared, examples).form
    if form == "none":
        form = "dense" if task.row_classes() <= SMALL else "top_k"
    return recipe.model_copy(update={"cache": recipe.cache.model_copy(update={"form": form})})


def problems(recipe: Recipe, section: Cache, task: Task, prepared: Prepared) -> list[str]:
    """Why the recipe's cache cannot serve its objectives, in words that say what to do. `section`: with its form chosen."""
    if section.form == "none":
        return []
    found = []
    if prepared.on_epoch is not None:
        found.append("cache: it finds the teacher's answers by what it was asked, and these examples change at random in "
                     "every epoch, so nothing would ever be found. Use data.augment: none (for masked-lm "
                     "data.fresh_masks: false), or cache: none")
    if section.form == "hidden" and not task.vocabulary:
        found.append(f"cache.form: hidden stores what enters the head of a language model, and `{task.kind}` has none; use "
                     "dense, which is exact too and smaller")
    if section.form in ("top_k", "samples") and task.row_classes() < 2:
        found.append(f"cache.form: {section.form} stores a part of a distribution, and a number is none; use dense")
    for number, stage in enumerate(recipe.distill):
        place = "distill" if len(recipe.distill) == 1 else f"distill[{number}]"
        found += [f"{place}: {problem}" for problem in _misfits(section, _terms(recipe, stage, task))]
    return found


def settings(section: Cache) -> dict[str, Any]:
    """What of the section a training depends on."""
    if section.form == "none":
        return {}
    named = {"dense": ("precision",), "hidden": ("precision",), "top_k": ("k", "temperatures"), "samples": ("samples",)}
    return {"cache": {name: getattr(section, name) for name in ("form", *named[section.form or "dense"])}}


def fingerprint(recipe: Recipe, task: Task, teacher: Loaded, reading: Mapping[str, Any]) -> dict[str, Any]:
    """All that the teacher's answers depend on beside what it is asked. `reading`: how the data are read."""
    return {
        "teacher": of_model(teacher.model), "processor": of_processor(teacher.processor), "task": task.kind,
        "preparation": dict(reading), "precision": precision_of(recipe.distill[0]),
        # nothing else is drawn: another run's seed asks the teacher the same
        **({"seed": recipe.seed} if recipe.cache.form == "samples" else {}),
    }


def reading(recipe: Recipe, task: Task) -> dict[str, Any]:
    """How the data are read, wherever they come from."""
    return task.resolved(recipe.data).model_dump(mode="json", exclude=set(WHERE))


def refuse_unfit(recipe: Recipe, task: Task, teacher: Loaded, layer_map: LayerMap) -> None:
    """What lies at the cache's place against the recipe, before anything is begun; no cache there fits everything.

    Raises:
        CacheError: what another teacher or preparation said, another form, damaged files.
    """
    folder = RunFolder(Path(recipe.output))
    path = place_of(recipe.cache, folder)
    for stage in recipe.distill:
        terms = _terms(recipe, stage, task)
        stacks = any(one.objective.needs_stacks for one in terms)
        helped = any(one.objective.needs_teacher for one in terms)
        if recipe.cache.form != "none" and helped and exists(f"{path}/states" if stacks else path):
            made_from = fingerprint(recipe, task, teacher, reading(recipe, task))
            with remembering(teacher.model, task, terms, recipe.cache, path, made_from, layer_map):
                pass


def place_of(section: Cache, folder: RunFolder) -> str:
    return section.path or str(folder.cache)


@contextmanager
def remembering(
    teacher: nn.Module,
    task: Task,
    terms: Sequence[Term],
    section: Cache,
    path: str | Path,
    made_from: Mapping[str, Any],
    layer_map: LayerMap,
    *,
    trusted: bool = False,
) -> Iterator[tuple[nn.Module | Teacher, list[KeepUp]]]:
    """The teacher for one training, and what keeps its cache up with it: the model itself where nothing is stored.

    trusted: not to be held against the labels. layer_map: which of the teacher's layers, by stack, the student's answer to.
    """
    if section.form == "none":
        yield teacher, []
        return
    stacks = any(one.objective.needs_stacks for one in terms)
    remembers = CapturingTeacher(
        LiveTeacher(teacher, task, stacks=stacks), task, f"{path}/states" if stacks else path,
        keep(section, made_from, _states(terms, layer_map)), made_from,
        temperature=next(iter(_temperatures(terms)), 1.0), part=str(processes().process_index), shared=True,
        check_alignment=not trusted)
    try:
        yield remembers, [KeepUp(remembers)]
    finally:
        remembers.close()


def capture_all(
    teacher: nn.Module, task: Task, prepared: Prepared, recipe: Recipe, path: str, made_from: Mapping[str, Any],
    layer_map: LayerMap, *, workers: int = 0,
) -> list[str]:
    """Everything that the objectives need to know of the teacher about the training data, into caches; gives their places.

    With several processes, a part each. workers: let so many Ray workers do it.

    Raises:
        CacheError: a place holds another cache, or another capture is writing there.
    """
    stage, state, places = recipe.distill[0], processes(), []
    device = torch.device("cpu") if runs_on_cpu(stage) else state.device
    halved = precision_of(stage) == "bfloat16"
    for states in _asked_for(recipe, task, layer_map):
        kept = keep(recipe.cache, made_from, states)
        places.append(f"{path}/states" if states else path)
        if workers:
            done = capture_with_ray(teacher, task, prepared, places[-1], kept, made_from, workers=workers,
                                    batch_size=stage.batch_size, halved=halved, gpus=device.type == "cuda")
            _counted(done, len(prepared))
            continue
        remembers = CapturingTeacher(
            LiveTeacher(teacher, task, stacks=bool(states)), task, places[-1], kept, made_from,
            temperature=(recipe.cache.temperatures or (1.0,))[0], part=str(state.process_index))
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=halved):
                _counted(capture(remembers, prepared, batch_size=stage.batch_size, device=device,
                                 share=(state.process_index, state.num_processes)), len(prepared))
        finally:
            remembers.close()
    return places


def _counted(done: Iterable[int], examples: int) -> None:
    with progress("capture", examples) as advance:
        for one in done:
            advance(one)


def _asked_for(recipe: Recipe, task: Task, layer_map: LayerMap) -> list[dict[str, tuple[int, ...]]]:
    """What the stages of a training ask a cache for: the hidden states by stack, none where answers are enough."""
    asked: list[dict[str, tuple[int, ...]]] = []
    for stage in recipe.distill:
        terms = _terms(recipe, stage, task)
        states = _states(terms, layer_map)
        if states not in asked and any(one.objective.needs_teacher for one in terms):
            asked.append(states)
    return asked or [{}]


def _states(terms: Sequence[Term], layer_map: LayerMap) -> dict[str, tuple[int, ...]]:
    """Which of the teacher's hidden states are compared; [0] enters the first layer."""
    wanted: dict[str, set[int]] = {}
    for one in terms:
        for stack, layers in one.objective.reads(layer_map).items():
            wanted.setdefault(stack, set()).update(layer + 1 for layer in layers)
    return {stack: tuple(sorted(states)) for stack, states in wanted.items()}


def keep(section: Cache, made_from: Mapping[str, Any], states: Mapping[str, tuple[int, ...]] | None = None) -> Keep:
    assert section.form not in (None, "none")
    return Keep(section.form, section.k, section.samples, section.temperatures or (1.0,), section.precision,  # type: ignore[arg-type]
                made_from.get("seed", 0), states or {})


def bytes_of(recipe: Recipe, section: Cache, task: Task, teacher: nn.Module, prepared: Prepared, examples: int) -> float:
    """About how many bytes the answers to all training examples take. `prepared`: some of them."""
    if section.form == "none":
        return 0.0
    counts = task.counts(prepared.collate([prepared.examples[index] for index in range(min(32, len(prepared)))]))
    rows = counts["rows"] / counts["examples"] * examples
    classes, head = task.row_classes(), 0.0
    if section.form == "hidden":
        weight: Any = teacher.get_output_embeddings().weight  # type: ignore[operator]
        halved = precision_of(recipe.distill[0]) == "bfloat16"
        coder: Any = HiddenCoder(weight.shape[1], section.precision or ("bfloat16" if halved else name_of(weight.dtype)))
        head = weight.numel() * weight.element_size()
    elif section.form == "top_k":
        coder = TopKCoder(classes, min(section.k, classes), section.temperatures or (1.0,))
    elif section.form == "samples":
        coder = SamplesCoder(classes, section.samples)
    else:
        coder = DenseCoder(classes, section.precision or "float32")
    total: float = rows * coder.row_bytes() + 32.0 * examples + head
    return total


def _stored(recipe: Recipe) -> Cache | None:
    """The section as what was captured beforehand says it; None where nothing was."""
    path = place_of(recipe.cache, RunFolder(Path(recipe.output)))
    place = next((place for place in (Place(path), Place(f"{path}/states")) if exists(place)), None)
    logits = Store(place).manifest.logits if place is not None else None
    if logits is None:
        return None
    described = logits.plain()
    named = {"k": "k", "samples": "samples", "temperatures": "temperatures", "dtype": "precision"}
    return recipe.cache.model_copy(update={
        "form": described["kind"], **{ours: described[theirs] for theirs, ours in named.items() if theirs in described}})


def _by_default(recipe: Recipe, task: Task, teacher: nn.Module, prepared: Prepared, examples: int) -> str:
    """Something exact, so that the loss stays what it is, where the same is asked more than once and it is small."""
    terms = [one for stage in recipe.distill for one in _terms(recipe, stage, task)]
    passes = recipe.evaluate.seeds * sum(stage.epochs for stage in recipe.distill)
    if (prepared.on_epoch is not None or passes <= 1 or not any(one.objective.needs_teacher for one in terms)
            or any(one.objective.needs_stacks for one in terms)):
        return "none"
    if not task.vocabulary:
        return "dense" if task.row_classes() <= SMALL else "none"
    exact = recipe.cache.model_copy(update={"form": "hidden"})
    return "hidden" if bytes_of(recipe, exact, task, teacher, prepared, examples) <= LARGEST else "none"


def _terms(recipe: Recipe, stage: Stage, task: Task) -> list[Term]:
    chosen = objectives_for(task.row_classes(), written=recipe.completions is not None)
    return [term(spec) for spec in (chosen if stage.objectives is None else stage.objectives)]


def _temperatures(terms: Sequence[Term]) -> list[float]:
    return sorted({one for each in terms if isinstance(each.objective, RowObjective) for one in each.objective.temperatures})


def _misfits(section: Cache, terms: Sequence[Term]) -> list[str]:
    form, found = _FORMS[section.form or "dense"], []
    for one in terms:
        objective = one.objective
        if isinstance(objective, RowObjective) and objective.needs_teacher and form in (TopK, Samples) \
                and form not in objective.accepts:
            found.append(f"`{one.name}` cannot use cache.form: {section.form}, which holds a part of a distribution; use "
                         "dense or hidden")
    asked = _temperatures(terms)
    if section.form == "samples" and any(one != 1 for one in asked):
        found.append(f"cache.form: samples are drawn at temperature 1, and the objectives ask for "
                     f"{all_of([f'{one:g}' for one in asked])}. Use temperature: 1.0, or cache.form: hidden or top_k")
    if section.form == "top_k":
        lacking = [f"{one:g}" for one in asked if one not in (section.temperatures or asked)]
        if lacking:
            held = all_of([f"{one:g}" for one in section.temperatures or ()])
            found.append(f"the objectives ask for temperature {all_of(lacking)}, and the cache holds {held} "
                         "(cache.temperatures, or what was captured). Ask for that, or capture anew: another cache.path, "
                         "with all the temperatures")
        if len(asked) > 1:
            found.append(f"cache.form: top_k answers at one temperature per stage, and its objectives ask for "
                         f"{all_of([f'{one:g}' for one in asked])}. Use one temperature, or cache.form: hidden")
    return found
