"""Which form of cache a recipe gets, what of the teacher it holds, how large it will be, and why one cannot serve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from stilla.cache import DenseCoder, HiddenCoder, Place, SamplesCoder, Store, TopKCoder, exists, name_of
from stilla.errors import all_of, counted
from stilla.objectives import term
from stilla.objectives.base import LayerMap, LogitObjective, Term
from stilla.recipe import Cache, Recipe, Stage
from stilla.runtime.processes import processes
from stilla.signals import Dense, Headed, Pooling, Samples, TopK
from stilla.stages.defaults import objectives_of
from stilla.stages.folder import RunFolder
from stilla.tasks.base import Prepared, Task
from stilla.training.arguments import precision_of

SMALL = 1000
"""Classes up to which all logits are stored by default: 4 kB per example at most, as much as a short text's tokens."""
LARGEST = 2e9
"""Bytes up to which what enters a vocabulary's head is stored by default: minutes of reading, no surprise on a laptop."""


@dataclass(frozen=True)
class States:
    """What of the teacher's hidden states the objectives compare.

    layers: which by stack; [0] enters the first layer. pooling: how all of them are pooled first, so that one vector per
    example is enough to store; None: they compare position by position, or each in another way.
    """

    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    pooling: Pooling | None = None


_FORMS = {"dense": Dense, "hidden": Headed, "top_k": TopK, "samples": Samples}


def resolved(
    recipe: Recipe, task: Task, teacher: nn.Module, prepared: Prepared, share: float, *, beforehand: bool = False,
    of_many: bool = False,
) -> Cache:
    """The section with its form and temperatures chosen.

    prepared: some training examples, of which all are `share` times as many. beforehand: for a capture before any training,
    which is to store something also where a run would not by default. of_many: other runs will ask the same.
    """
    section, prepared = recipe.cache, met(recipe, prepared, share)
    adapted = any(stage.adapt is not None for stage in recipe.distill)  # what it says changes from step to step
    if section.form is None and (recipe.teacher.is_stored or recipe.teacher.api is not None or adapted):
        return section.model_copy(update={"form": "none"})  # or lies on disk already
    if section.form is None or (beforehand and section.form == "none"):
        section = _stored(recipe, task) or section.model_copy(
            update={"form": _chosen(recipe, task, teacher, prepared, share, beforehand=beforehand, of_many=of_many)})
    if section.form == "top_k" and section.temperatures is None:
        asked = {one for stage in recipe.distill for one in temperatures_of(terms_of(recipe, stage, task))}
        section = section.model_copy(update={"temperatures": tuple(sorted(asked)) or (1.0,)})
    return section


def met(recipe: Recipe, prepared: Prepared, share: float) -> Prepared:
    """Training examples as the recipe's stages meet them, each of which begins at the first pass: where none passes over them
    so often that any is changed, as examples that never are. `prepared`: some, of which all are `share` times as many."""
    examples = share * len(prepared)
    return prepared.within(max(stage.at_most * passes_of(stage, examples) for stage in recipe.distill))


def problems(
    recipe: Recipe, section: Cache, task: Task, prepared: Prepared, layer_map: LayerMap | None = None, share: float = 1.0
) -> list[str]:
    """Why the recipe's cache cannot serve its objectives, in words that say what to do.

    section: with its form chosen. layer_map: between the models, once they are there. share: as of `resolved`.
    """
    prepared = met(recipe, prepared, share)
    if section.form == "none":
        return [f"data.parts.{name}.cache: got {place!r}, and nothing is stored (cache.form is none, by default also where "
                "every example is asked about once); use cache.form: dense, or leave it out"
                for name, place in recipe.data.stores.items()]
    found = []
    if prepared.changes and prepared.views is None:
        found.append("cache: it finds the teacher's answers by what it was asked, and these examples change at random in "
                     "every epoch, so nothing would ever be found. Use data.views: 8, which draws eight forms of each once, "
                     "data.augment: none (for masked-lm data.fresh_masks: false), or cache: none"
                     + (f". The first {counted(prepared.untouched, 'pass')} would change nothing (data.clean_passes)"
                        if prepared.untouched else ""))
    if section.form == "hidden" and not task.vocabulary:
        found.append(f"cache.form: hidden stores what enters the head of a language model, and `{task.kind}` has none; use "
                     "dense, which is exact too and smaller")
    if section.form in ("top_k", "samples") and recipe.data.each:
        found.append(f"cache.form: {section.form} stores the likeliest classes of a row, and every task's rows are of other "
                     "classes; use dense")
    elif section.form in ("top_k", "samples") and (task.row_classes() < 2 or not task.distributions):
        what = "a number" if task.distributions else "a vector"
        found.append(f"cache.form: {section.form} stores a part of a distribution, and {what} is none; use dense")
    elif section.form in ("top_k", "samples") and task.places:
        found.append(f"cache.form: {section.form} stores the likeliest classes, and a short text may have fewer places than "
                     "these; use dense")
    if any(one.objective.needs_grids for one in all_terms(recipe, task)):
        found.append("cache: it holds no feature maps, which `maps` compares at every place; use cache: none, or `hidden` "
                     "with `pooling: mean`")
    if any(one.objective.needs_inputs for one in all_terms(recipe, task)):
        found.append("cache: it holds answers, and not what they rest on, which `saliency` compares; use cache: none")
    if layer_map is not None and len(stacks := states_of(recipe, task, layer_map).layers) > 1:
        found.append(f"cache: it holds the hidden states of one stack of layers, and the objectives compare those of "
                     f"{all_of(list(stacks))}. Use cache: none, or compare one of them (`layer_map` of the objective)")
    for number, stage in enumerate(recipe.distill):
        place = "distill" if len(recipe.distill) == 1 else f"distill[{number}]"
        found += [f"{place}: {problem}" for problem in _misfits(section, terms_of(recipe, stage, task))]
    return found


def unasked(recipe: Recipe, task: Task) -> list[str]:
    """Why there is nothing to capture beforehand."""
    if any(stage.adapt is not None for stage in recipe.distill):
        return ["capture: the teacher is adapted to its student (distill.adapt), and says something else at every step; "
                "`stilla run` is all that is needed, or leave adapt out"]
    if any(one.objective.asks for one in all_terms(recipe, task)):
        return []
    why = "The texts that it writes are kept with the run" if recipe.all_written else "The student learns from the data alone"
    return [f"capture: no objective of this recipe asks the teacher anything. {why}; `stilla run` is all that is needed, or "
            "add an objective: logits or hidden"]


def bytes_of(recipe: Recipe, section: Cache, task: Task, teacher: nn.Module, prepared: Prepared, share: float) -> float:
    """About how many bytes the answers to all training examples take. `prepared`: some, of which all are `share` times."""
    if section.form == "none":
        return 0.0
    looked_at = min(32, len(prepared))
    batch = prepared.collate([prepared.examples[len(prepared) * number // looked_at] for number in range(looked_at)])
    counts = task.counts(batch)
    scale = len(prepared) / looked_at * share
    classes, head = task.teacher_classes(), 0.0
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
    prepared = met(recipe, prepared, share)
    rows = counts["rows"] if task.distributions else sum(one.rows.stop - one.rows.start for one in task.segments(batch))
    total: float = scale * (prepared.views or 1) * (rows * coder.row_bytes() + 32.0 * counts["examples"]) + head
    return total


# --- what of the teacher is read ---


def places_of(recipe: Recipe, *, states: bool = False) -> dict[str, str]:
    """Where the answers lie, by the names of the tasks that are learnt, of which a single one has none. `states`: those with
    hidden states, which have a cache of their own beside."""
    whole = recipe.cache.path or str(RunFolder(Path(recipe.output)).cache)
    places = {name: recipe.data.stores.get(name) or (f"{whole}/{name}" if name else whole) for name in recipe.data.by_name}
    return {name: states_place(place) if states else place for name, place in places.items()}


def among_states(recipe: Recipe, *, stacks: bool) -> bool:
    """Whether the answers are read from where hidden states lie with them: where these are compared (`stacks`), or where
    nothing else is stored, and what is there is exact."""
    section = recipe.cache
    answers, states = places_of(recipe).values(), places_of(recipe, states=True).values()
    if stacks or section.form not in ("dense", "hidden") or any(map(exists, answers)) or not all(map(exists, states)):
        return stacks
    manifests = [Store(place).manifest for place in states]
    return all(one.logits is not None and one.logits.plain()["kind"] == section.form
               and one.logits.plain()["dtype"] == (section.precision or (one.head["product"] if one.head else "float32"))
               for one in manifests)


def states_place(path: str | Path) -> str:
    return f"{path}/states"


def terms_of(recipe: Recipe, stage: Stage, task: Task) -> list[Term]:
    """The stage's objectives, those that it would get by default included."""
    return [term(spec) for spec in (objectives_of(recipe, task) if stage.objectives is None else stage.objectives)]


def all_terms(recipe: Recipe, task: Task) -> list[Term]:
    """Of all stages: one cache serves them all."""
    return [one for stage in recipe.distill for one in terms_of(recipe, stage, task)]


def temperatures_of(terms: Sequence[Term]) -> list[float]:
    return sorted({temperature for one in terms if isinstance(one.objective, LogitObjective)
                   for temperature in one.objective.temperatures})


def states_of(recipe: Recipe, task: Task, layer_map: LayerMap) -> States:
    """The hidden states that the objectives compare, of all stages: one cache serves them all."""
    wanted: dict[str, set[int]] = {}
    hows: set[Pooling | None] = set()
    for stage in recipe.distill:
        for one in terms_of(recipe, stage, task):
            if one.objective.needs_stacks:
                hows.add(one.objective.pooling)
            for stack, layers in one.objective.reads(layer_map).items():
                wanted.setdefault(stack, set()).update(layer + 1 for layer in layers)
    # over a vocabulary a piece is a document, of which an example of the batch may hold several
    how = next(iter(hows)) if len(hows) == 1 and not task.vocabulary else None
    return States({stack: tuple(sorted(states)) for stack, states in wanted.items()}, how)


def reads(recipe: Recipe, task: Task) -> list[bool]:
    """What the stages ask a cache for: answers alone (False), answers with hidden states (True), or one after the other."""
    helped = [[one for one in terms_of(recipe, stage, task) if one.objective.asks] for stage in recipe.distill]
    asked = {any(one.objective.needs_stacks for one in terms) for terms in helped if terms}
    return sorted(asked) or [False]


# --- choosing ---


def _stored(recipe: Recipe, task: Task) -> Cache | None:
    """The section as what was captured beforehand says it; None where the recipe's stages would find nothing."""
    places = [Place(one) for states in reads(recipe, task) for one in places_of(recipe, states=states).values()]
    place = next((place for place in places if exists(place)), None)
    manifest = None if place is None else Store(place).manifest
    if manifest is None or manifest.logits is None:
        return None
    described = manifest.logits.plain()
    exact = manifest.head["product"] if manifest.head else "float32"  # what no `precision` stands for
    named = {"k": "k", "samples": "samples", "temperatures": "temperatures"}
    precision = described.get("dtype")
    return recipe.cache.model_copy(update={
        "form": described["kind"], "precision": None if precision == exact else precision,
        **{ours: described[theirs] for theirs, ours in named.items() if theirs in described}})


def _chosen(
    recipe: Recipe, task: Task, teacher: nn.Module, prepared: Prepared, share: float, *, beforehand: bool, of_many: bool
) -> str:
    """Something exact, so that the loss stays what it is, where the same is asked more than once and it is small."""
    if not (beforehand or _asks_again(recipe, task, prepared, share, of_many=of_many)):
        return "none"
    otherwise = "top_k" if beforehand else "none"
    if not task.vocabulary:
        small = task.places or not task.distributions or task.row_classes() <= SMALL
        return "dense" if small else otherwise
    exact = recipe.cache.model_copy(update={"form": "hidden"})
    return "hidden" if bytes_of(recipe, exact, task, teacher, prepared, share) <= LARGEST else otherwise


def _asks_again(recipe: Recipe, task: Task, prepared: Prepared, share: float, *, of_many: bool) -> bool:
    """Whether the teacher would be asked the same more than once, in one precision, and for answers alone."""
    terms, number = all_terms(recipe, task), share * len(prepared)
    passes = recipe.evaluate.seeds * sum(stage.at_most * passes_of(stage, number) + looks_of(stage, prepared, number)
                                         for stage in recipe.distill)
    forms = prepared.views or math.inf if prepared.changes else 1
    again = passes > forms or (of_many and forms < math.inf)
    return (again and len({precision_of(stage) for stage in recipe.distill}) == 1
            and any(one.objective.asks for one in terms)
            and not any(one.objective.needs_stacks or one.objective.needs_inputs for one in terms))


def passes_of(stage: Stage, examples: float) -> float:
    """Over so many training examples; of a stage that may go on, those of its first part."""
    if stage.max_steps is None:
        return stage.passes
    return stage.max_steps * stage.batch_size * stage.accumulate * int(processes().num_processes) / examples


def looks_of(stage: Stage, prepared: Prepared, examples: float, *, goes_on: bool = True) -> float:
    """Over so many training examples both models go beside the training, to choose the hardest forms (`hardest`). `goes_on`:
    whether one that may go on does, up to its limit."""
    if stage.hardest is None or not prepared.turns:
        return 0.0
    passes = (stage.at_most if goes_on else 1) * passes_of(stage, examples)
    return stage.hardest * max(0.0, math.ceil(passes) - prepared.turns[0].untouched)


def _misfits(section: Cache, terms: Sequence[Term]) -> list[str]:
    form, found = _FORMS[section.form or "dense"], []
    for one in terms:
        objective = one.objective
        if not isinstance(objective, LogitObjective) or not objective.needs_teacher:
            continue
        if form in (TopK, Samples) and form not in objective.accepts:
            otherwise = f", or {objective.instead}" if objective.instead else ""
            found.append(f"`{one.name}` cannot use cache.form: {section.form}, which holds a part of a distribution; use "
                         f"dense or hidden{otherwise}")
        if form is TopK and section.k < objective.likeliest:
            found.append(f"`{one.name}` needs the {objective.likeliest} likeliest classes, and cache.k is {section.k}; store "
                         "as many, or compare fewer")
    asked = temperatures_of(terms)
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
