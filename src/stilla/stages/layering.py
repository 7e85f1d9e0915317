"""Which of its teacher's layers a student gets, where the recipe says how many: as far apart as possible, the lowest, those
that change most of what passes, or the best of these after a short training. Chosen once, and kept with the run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from stilla.data import from_all_over, part_of
from stilla.errors import CompatibilityError, counted
from stilla.models.features import Recorder
from stilla.models.fingerprint import of_model, of_processor
from stilla.models.stacks import LayerStack, find_stacks
from stilla.runtime.files import unsealed
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main, processes
from stilla.signals import Side
from stilla.stages import trials, unlabelled
from stilla.stages.completions import Completed
from stilla.stages.stages import Stages
from stilla.students.layers import spaced
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.forward import listen

STAGE, FILE = "layers", "layers.json"
LOOKED_AT = 256
"""Training examples, from all over, in which it is measured what a layer changes."""
Kept = Mapping[str, list[int]]
"""By the name of a stack, the layers that stay."""


def placed(stages: Stages, written: Completed | None) -> Stages:
    """The same with a student whose layers are named, where the recipe leaves it open which.

    Raises:
        CompatibilityError: the teacher's layers stand in stages, or there is no telling what one of them changes.
    """
    spec, place = stages.recipe.student, stages.place
    if spec.layers_by == "spaced" or spec.layers is None:
        return stages
    folder = place.folder.path / "plan"
    inputs = {**place.inputs, "layers": spec.model_dump(mode="json", include={"layers", "layers_by", "vocabulary"}),
              "teacher": of_model(stages.teacher.model), "processor": of_processor(stages.teacher.processor),
              "seed": stages.recipe.seed, "distill": stages.recipe.distill[0].model_dump(mode="json"),
              **({} if written is None else {"completions": written.fingerprint}),
              **({} if place.pool is None else {"unlabelled": place.pool.fingerprint})}

    def before() -> dict[str, Any] | None:
        if not place.folder.fits(STAGE, inputs) or place.folder.is_damaged(STAGE) or not (folder / FILE).is_file():
            return None
        found: dict[str, Any] = unsealed((folder / FILE).read_text(encoding="utf-8"))
        return found

    known = on_main(before)
    if known is None:
        known = _chosen(stages, written)
        on_main(lambda: place.folder.begin(STAGE, inputs))
        on_main(lambda: place.folder.write(folder / FILE, known))
        on_main(lambda: place.folder.finish(STAGE, inputs, folder))
    kept: Kept = known["chosen"]
    say(f"student: layers {_listed(kept)}, {WORDS[known['as']]}")
    named = spec.model_copy(update={"layers": as_said(stages.teacher.model, kept), "layers_by": "spaced"})
    return stages.with_recipe(stages.recipe.model_copy(update={"student": named}))


WORDS = {"spaced": "as far apart as possible", "lowest": "the lowest", "influence": "those that change most"}


def _chosen(stages: Stages, written: Completed | None) -> dict[str, Any]:
    """What is kept in the run folder: the layers, by which rule, and what all rules were found to be worth."""
    spec, place = stages.recipe.student, stages.place
    teacher = place.task.pattern(stages.teacher)
    counts = numbers(teacher.model, spec.layers)
    ways: dict[str, Kept] = {}
    measured: dict[str, list[float]] = {}
    if spec.layers_by == "auto":
        stacks = find_stacks(teacher.model)
        ways["spaced"] = {stack.name: list(spaced(counts[stack.name], stack.depth)) for stack in stacks}
    if spec.layers_by in ("lowest", "auto"):
        ways["lowest"] = {name: list(range(count)) for name, count in counts.items()}
    if spec.layers_by in ("influence", "auto"):
        some = from_all_over(unlabelled.to_look_at(place.task, place.splits, place.pool), LOOKED_AT)
        measured = on_main(lambda: influence_on_all(teacher, place.task, some, stages.recipe.evaluate.batch_size))
        ways["influence"] = {name: most(measured[name], count) for name, count in counts.items()}
    different = [name for number, (name, kept) in enumerate(ways.items()) if kept not in list(ways.values())[:number]]
    if len(different) == 1:
        return {"chosen": ways[different[0]], "as": different[0], "influence": measured, "reached": {}}
    prepared, share = stages.sample()
    by, steps = trials.judged_by(stages), trials.steps_of(stages.recipe.distill[0], share * len(prepared))
    say(f"student: {len(different)} choices of layers, each trained for {counted(steps, 'step')}; then compared by `{by}` on "
        "validation data")
    reached = {}
    for name in different:
        tried = spec.model_copy(update={"layers": as_said(teacher.model, ways[name]), "layers_by": "spaced"})
        reached[name] = trials.reached(stages, written, tried, f"layers-{name}", steps, by)
        say(f"student: layers {_listed(ways[name])}, {WORDS[name]}: {by} {reached[name]:.4g}")
    sign = -1.0 if trials.is_better_higher(place.task, by) else 1.0
    best = min(different, key=lambda name: sign * reached[name])
    return {"chosen": ways[best], "as": best, "influence": measured, "by": by, "reached": reached}


def numbers(teacher: nn.Module, layers: Any) -> dict[str, int]:
    """How many layers of each stack stay.

    Raises:
        CompatibilityError: layers in stages, which are spaced within theirs; the recipe names some by itself.
    """
    stacks = find_stacks(teacher)
    if not stacks or any(stack.staged for stack in stacks):
        raise CompatibilityError(f"student.layers_by: the layers of {type(teacher).__name__} stand in stages of other "
                                 "widths, within each of which they are spaced. Leave it out")
    said = layers if isinstance(layers, Mapping) else dict.fromkeys([stack.name for stack in stacks], layers)
    counts = {stack.name: said.get(stack.name, stack.depth) for stack in stacks}
    for stack in stacks:
        count = counts[stack.name]
        if not isinstance(count, int) or not 1 <= count <= stack.depth or not said.keys() <= counts.keys():
            raise CompatibilityError(f"student.layers_by: got layers {layers!r}; expected how many of {_depths(stacks)}, as "
                                     "it chooses which")
    return counts


def _depths(stacks: tuple[LayerStack, ...]) -> str:
    return " and ".join(f"{stack.name} (1 to {stack.depth})" for stack in stacks)


def as_said(teacher: nn.Module, kept: Kept) -> dict[str, Any]:
    """As a recipe names them."""
    return {"keep": next(iter(kept.values()))} if len(kept) == 1 else dict(kept)


def most(changes: list[float], count: int) -> list[int]:
    """So many layers that change most, in their order; of equals the lower."""
    return sorted(sorted(range(len(changes)), key=lambda layer: (-changes[layer], layer))[:count])


def influence_on_all(model: Loaded, task: Task, split: Dataset, batch_size: int) -> dict[str, list[float]]:
    """By stack, what each layer changes in the examples of every task that is learnt, as the mean over these."""
    found = list[list[list[float]]]()
    for name, own in task.by_name.items():
        theirs, some = own.of_teacher(), part_of(split, name)[0] if name else split
        if len(some):
            alone = task.part(model, name)
            examples = theirs.prepare(some, alone.processor, None, training=False)
            found.append(list(influence(alone.model, own, examples, batch_size).values()))
    means = [np.mean(changes, axis=0).tolist() for changes in zip(*found, strict=True)]
    return {stack.name: changes for stack, changes in zip(find_stacks(model.model), means, strict=True)}


@torch.no_grad()
def influence(model: nn.Module, task: Task, prepared: Prepared, batch_size: int) -> dict[str, list[float]]:
    """By stack, how much each layer turns what passes it: the mean over valid positions of 1 - cos(before, after)
    (block influence; Men et al. 2024, arXiv:2403.03853, eq. 1), in float64."""
    recorder, device = Recorder(model), processes().device
    model.to(device).eval()
    sums: dict[str, torch.Tensor] = {}
    seen: dict[str, int] = {}
    for start in range(0, len(prepared), batch_size):
        rows = range(start, min(len(prepared), start + batch_size))
        batch = prepared.collate([prepared.examples[row] for row in rows]).to(device)
        for name, stack in listen(model, task, batch, Side.STUDENT, recorder).stacks.items():
            states = [one.double() for one in stack.hidden_states]
            valid = torch.ones(states[0].shape[:2], dtype=torch.bool) if stack.mask is None else stack.mask.cpu()
            turned = torch.stack([(1 - torch.nn.functional.cosine_similarity(before, after, dim=-1)).cpu()[valid].sum()
                                  for before, after in pairwise(states)])
            sums[name] = sums.get(name, torch.zeros_like(turned)) + turned
            seen[name] = seen.get(name, 0) + int(valid.sum())
    return {name: (total / seen[name]).tolist() for name, total in sums.items()}


def _listed(kept: Kept) -> str:
    return "; ".join((f"{name} " if len(kept) > 1 else "") + ", ".join(map(str, layers)) for name, layers in kept.items())
