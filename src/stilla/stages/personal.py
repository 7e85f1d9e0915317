"""The trainings behind the student's: a part for every group that has enough examples, each from the finished student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Int
from numpy.typing import NDArray
from transformers import set_seed

from stilla.evaluate.slices import by_value
from stilla.models.fingerprint import of_model
from stilla.objectives import term
from stilla.objectives.base import Term
from stilla.recipe import ObjectiveSpec, Personal, Recipe
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main
from stilla.stages.completions import Completed
from stilla.stages.groups import Parts, with_a_part
from stilla.stages.place import Place
from stilla.stages.stages import Stages
from stilla.stages.starting import saved_student
from stilla.students import Cut, LayerMap, part_of, write_part
from stilla.tasks.base import Loaded


def follow(stages: Stages, seed: int, written: Completed | None, cut: Cut | None) -> None:
    """Train the parts of the student of this seed, where the recipe asks for some."""
    section = stages.recipe.personal
    if section is None:
        return
    shared = saved_student(stages.recipe, stages.place.folder, stages.place.task, "student", seed)
    place = stages.place_of(shared)
    terms = [term(spec) for spec in terms_of(stages.recipe, section)]
    learnt_of, measured_on = _used(place, shared)
    groups = with_a_part(place.splits["train"], section, learnt_of)
    if seed == 0:
        say(_said(section, groups, place.splits["train"]))
    stacks = any(one.objective.needs_stacks for one in terms)
    layer_map: LayerMap = stages.start(seed, written, cut)[0].layer_map if stacks else {}
    where, learnt = place.folder.model("personal", seed), {value: len(rows) for value, rows in groups.items()}
    for number, (value, rows) in enumerate(groups.items()):
        name = f"personal{f'-{seed}' if seed else ''}.{number}"
        own = _of_group(place, section, value, rows, measured_on)
        _train(stages, own, shared, name, value, where / str(number), terms, layer_map, seed)
    parts = Parts(section.by, {value: where / str(number) for number, value in enumerate(groups)}, learnt)
    on_main(lambda: parts.write(where))


def terms_of(recipe: Recipe, section: Personal) -> tuple[ObjectiveSpec, ...]:
    """What its parts learn by."""
    return section.objectives or recipe.distill[-1].objectives or ()


def _train(
    stages: Stages, place: Place, shared: Loaded, name: str, value: str, path: Path, terms: Sequence[Term],
    layer_map: LayerMap, seed: int,
) -> None:
    section, teacher = stages.recipe.personal, stages.teacher
    assert section is not None
    helped = any(one.objective.needs_teacher for one in terms)
    inputs: dict[str, Any] = {
        **stages.place.inputs, "student": of_model(shared.model), "seed": stages.recipe.seed + seed, "group": value,
        "personal": section.model_dump(mode="json", exclude={"most", "at_least", "objectives",
                                                             *(["extend"] if section.extend is None else [])}),
        "objectives": [spec.model_dump(mode="json") for spec in terms_of(stages.recipe, section)],
        **({"teacher": of_model(teacher.model)} if helped else {})}
    if not place.to_do(name, inputs, path):
        return
    set_seed(stages.recipe.seed + seed)
    part = part_of(shared.model, section.lora, layer_map)
    # the whole run's cache knows examples by their places among all
    place.train(name, part, teacher.model if helped else None, terms, section,
                (shared.processor, teacher.processor if helped else None), stages.recipe.seed + seed)
    on_main(lambda: write_part(part.model, section.lora, path))
    on_main(lambda: place.folder.finish(name, inputs, path))


def _used(place: Place, shared: Loaded) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of training and validation data of which something is learnt and measured: a history of one item says
    nothing."""
    train, validation = (np.unique(place.task.prepare(place.splits[split], shared.processor, None, training=split == "train",
                                                      seed=place.recipe.seed).keys) for split in ("train", "validation"))
    return train, validation


def _of_group(
    place: Place, section: Personal, value: str, rows: Int[NDArray[np.int64], "rows"],
    measured_on: Int[NDArray[np.int64], "some"],
) -> Place:
    """The group's own examples; where it has none that could be validated on, all of those."""
    validation = place.splits["validation"]
    found = by_value(validation, section.by) if section.by in validation.column_names else {}
    own = np.intersect1d(found.get(value, np.zeros(0, np.int64)), measured_on)
    splits = {**place.splits, "train": place.splits["train"].select(rows),
              "validation": validation.select(own) if len(own) else validation}
    return replace(place, splits=splits, pool=None)


def _said(section: Personal, groups: Mapping[str, NDArray[np.int64]], train: Dataset) -> str:
    some = sum(map(len, groups.values()))
    return (f"personal: {len(groups)} values of {section.by} have {section.at_least} training examples and more, {some:,} of "
            f"{len(train):,} in all: each gets a part")


