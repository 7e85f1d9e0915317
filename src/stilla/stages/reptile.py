"""The start of a student that other tasks have made quick to adapt: read, learnt step by step, kept with the run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from transformers import set_seed

from stilla import tasks
from stilla.data import fingerprint, sources
from stilla.errors import DataError, all_at_once, one_of
from stilla.export import save_student
from stilla.models import parts
from stilla.models.fingerprint import of_model
from stilla.recipe import Data, ModelSource, Recipe, Reptile
from stilla.runtime.files import write_whole
from stilla.runtime.narrate import progress, say
from stilla.runtime.processes import on_main, processes
from stilla.stages.caching import WHERE
from stilla.stages.clocks import Clocks
from stilla.stages.starting import trained
from stilla.tasks.base import Loaded, Task
from stilla.training.reptile import Body, Learning, Source, body_of, put

if TYPE_CHECKING:  # a check reads here what there is, and imports nothing that trains
    from stilla.stages.place import Place

KINDS = ("text-classification", "token-classification", "image-classification", "audio-classification",
         "question-answering")
"""Tasks whose models are a body with a head that is easily another one."""
FILE, STEP = "body.safetensors", "step"
SAVED = 10
"""After so many steps the body is saved: what a stop can lose."""
_OF_THE_DATA = {*WHERE, "labels", "label_weights", "label_scale", "thresholds", "augment", "views", "clean_passes"}
"""Of `data`, what is said of these examples and labels, and not of how such examples are read."""


def problems(recipe: Recipe) -> list[str]:
    """Why a recipe cannot have such a start, in words."""
    if recipe.student.reptile is None or recipe.task in KINDS:
        return []
    return [f"student.reptile: other tasks share the student's body and have heads of their own, and of `{recipe.task}` it "
            f"is not known which is which; expected task: {one_of(KINDS)}, or leave it out"]


def read(recipe: Recipe, how: Reptile) -> dict[str, tuple[Task, Dataset]]:
    """The other tasks by the path of each, bound to their examples.

    Raises:
        DataError: all that is wrong with any of them.
    """
    found: dict[str, tuple[Task, Dataset]] = {}
    wrong: list[str] = []
    for number, path in enumerate(how.tasks):
        section = _section(recipe.data, path)
        try:
            splits = sources.read(path, hub=False, document=section.text_unit)
            if len(splits) > 1 and "train" not in splits:
                raise DataError(f"{path!r} holds {one_of(sorted(splits))}; name the file that is meant")
            split = splits["train"] if "train" in splits else next(iter(splits.values()))
            found[path] = tasks.find(recipe.task).understand(section, {"train": split}), split
        except DataError as error:
            wrong += [f"student.reptile.tasks[{number}]: {problem.removeprefix('data.')}" for problem in error.problems]
    if len({*how.tasks}) < len(how.tasks):
        wrong.append("student.reptile.tasks: names a file twice; expected each of the tasks once")
    if wrong:
        raise all_at_once(wrong, DataError)
    return found


def begun(place: Place, student: Loaded, seed: int) -> dict[str, Any]:
    """Give the student the body that the other tasks have made of its own, learnt here or before; gives what a training of it
    depends on. Nothing where the recipe asks for no such start.

    Raises:
        DataError, CompatibilityError: see `read` and `body_of`.
        TrainingError: a loss that is not finite.
    """
    recipe, how = place.recipe, place.recipe.student.reptile
    if how is None:
        return {}
    with processes().main_process_first():
        others = read(recipe, how)
    content = fingerprint.of_splits({str(number): split for number, (_, split) in enumerate(others.values())})
    rate = recipe.distill[0].rate if how.learning_rate is None else how.learning_rate
    body = body_of(student.model)
    said = how.model_dump(mode="json", exclude={"tasks", "learning_rate"})
    dropout, drawn = recipe.distill[0].dropout, recipe.seed + seed
    inputs = {"tasks": content, "task": recipe.task, "reading": _reading(recipe.data), "start": of_model(student.model),
              "reptile": said, "learning_rate": rate, "dropout": dropout, "seed": drawn}
    stage, made = "reptile" if seed == 0 else f"reptile-{seed}", place.folder.model("reptile", seed)
    if place.to_do(stage, inputs, made):
        learning = Learning(_sources(place, stage, others, student, drawn), how, shared=body, learning_rate=rate, seed=drawn,
                            dropout=None if dropout == "model" else dropout)
        body = _learn(place, stage, learning, body)
        on_main(lambda: _write(made / FILE, body, how.steps))
        on_main(lambda: place.folder.finish(stage, inputs, made))
    put(load_file(made / FILE), student.model)
    return {"reptile": {**said, "learning_rate": rate, "tasks": content}}


def in_words(recipe: Recipe, how: Reptile, others: Mapping[str, tuple[Task, Dataset]]) -> str:
    """What the start is made of and costs, in a sentence."""
    steps, number = how.steps * how.tasks_per_step * how.inner_steps, sum(len(split) for _, split in others.values())
    return (f"student.reptile: {len(others)} other tasks with {number:,} examples; {steps:,} optimiser steps of "
            f"{how.batch_size} examples before the student's own"
            f"{f', {recipe.evaluate.seeds} times' if recipe.evaluate.seeds > 1 else ''}")


def _section(section: Data, path: str) -> Data:
    """How another task's examples are read: as the recipe's own."""
    plain = section.model_dump(exclude=_OF_THE_DATA, exclude_defaults=True)
    usual = {"augment": "none"} if "augment" in type(section).model_fields else {}
    return type(section).model_validate({**plain, **usual, "train": path})


def _reading(section: Data) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude=_OF_THE_DATA)


def _sources(
    place: Place, stage: str, others: Mapping[str, tuple[Task, Dataset]], student: Loaded, seed: int
) -> list[Source]:
    """A model for each: the student's, with a new head."""
    recipe, where = place.recipe, place.folder.checkpoints(stage) / "start"
    on_main(lambda: save_student(student.model, student.processor, where))
    ours, theirs = recipe.student, recipe.teacher
    source = trained(ModelSource(model=ours.model or theirs.model, processor=ours.processor or theirs.processor,
                                 trust_remote_code=ours.trust_remote_code or theirs.trust_remote_code), where)
    still = {name for name, one in student.model.named_parameters() if not one.requires_grad}
    still -= {*parts.chosen(student.model, ["head"], "student.reptile")}  # a new head learns, even if the student's does not
    found = []
    for path, (task, split) in others.items():
        set_seed(seed)
        loaded = task.load(source, labelled=False)
        for name, one in loaded.model.named_parameters():
            one.requires_grad = name not in still
        prepared = task.prepare(split, loaded.processor, None, training=False, seed=recipe.seed)
        found.append(Source(Path(path).stem, task, loaded.model.to(processes().device), prepared))
    return found


def _learn(place: Place, stage: str, learning: Learning, body: Body) -> dict[str, torch.Tensor]:
    """All steps, from the last that was saved on."""
    folder, steps, saved = place.folder, learning.how.steps, place.folder.checkpoints(stage) / FILE
    done, last = on_main(lambda: _last(stage, saved)) or (0, body)
    body = {name: value.to(processes().device) for name, value in last.items()}
    on_main(lambda: folder.drop_log_after(stage, done))
    say(f"{stage}: {f'continues after step {done} of {steps}' if done else f'{steps} steps'}, "
        f"{learning.how.tasks_per_step} of {len(learning.sources)} tasks in each")
    clocks = Clocks(processes().device)
    if done:
        on_main(lambda: folder.append_log({"stage": stage, "step": done, **clocks.nothing()}))
    with progress(stage, steps, show=processes().is_main_process) as advance:
        advance(done)
        for number in range(done, steps):
            body, loss = learning.step(number, body)
            advance(1, f"loss {loss:.4f}")
            if (number + 1) % SAVED == 0 or number + 1 == steps:
                entry = {"stage": stage, "step": number + 1, "progress": (number + 1) / steps, "loss": loss,
                         "learning_rate": learning.rate_of(number), "terms": {"labels": loss}, "gradient_norm": None,
                         **clocks.read()}
                on_main(partial(_write, saved, body, number + 1))
                on_main(partial(folder.append_log, entry))
    return body


def _write(path: Path, body: Body, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save({name: one.detach().cpu().contiguous() for name, one in body.items()}, {STEP: str(step)}))


def _last(stage: str, path: Path) -> tuple[int, dict[str, torch.Tensor]] | None:
    """The step that was saved last, and the body after it; a file that cannot be read is said, and no start."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            return int(file.metadata()[STEP]), {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, KeyError, ValueError) as error:
        say(f"{stage}: {path.name} is left out, as it cannot be read ({error}); it begins again")
        return None
