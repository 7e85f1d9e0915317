"""What `distill.adapt` means for a run: where a teacher cannot be adapted, what it takes, and the teacher that it leaves,
which is kept with how good it was before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from stilla.errors import counted
from stilla.evaluate import Asked, examine
from stilla.export import save_student
from stilla.recipe import Adapt, Recipe
from stilla.runtime.files import sealed, unsealed, write_whole
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main
from stilla.scores import Adapted, Scores, metric_title
from stilla.stages import cache_choice
from stilla.stages.defaults import are_labelled
from stilla.stages.folder import RunFolder
from stilla.stages.measuring import place as move
from stilla.tasks.base import Loaded, Task
from stilla.training.quiz import adapting_problems

if TYPE_CHECKING:  # a check reads here what there is, and imports nothing that trains
    from stilla.stages.place import Place

FILE = "adapted.json"


def problems(recipe: Recipe, task: Task) -> list[str]:
    """Why a recipe cannot have its teacher adapted, in words."""
    asked = [number for number, stage in enumerate(recipe.distill) if stage.adapt is not None]
    if not asked:
        return []
    last, source, cache = len(recipe.distill) - 1, recipe.teacher, recipe.cache
    where = "distill" if last == 0 else f"distill[{asked[0]}]"
    found = []
    if asked != [last]:
        found.append("what the teacher becomes for one stage is no teacher for the next; expected it in the last stage alone")
    if source.api is not None or source.is_stored:
        what = "is behind an address" if source.api is not None else "is a file of what a model has said"
        found.append(f"the teacher {what}, where nobody can change it; leave adapt out, or give the model itself")
    if source.precision != "float32":
        found.append(f"teacher.precision is {source.precision}, in which no small step can be seen; use float32")
    if recipe.data.redrawn:
        found.append("the quiz is set apart from what is learnt, and here an epoch has other examples than the one before; "
                     "use data.temperature: 1")
    if cache.form not in (None, "none") or cache.path is not None:
        found.append("the teacher says something else at every step, and what is stored stays what it was; use cache: none")
    if not are_labelled(recipe, task):
        found.append("the quiz has labels, and there are no labelled training data (data.train); leave adapt out")
    return [*(f"{where}.adapt: {problem}" for problem in found),
            *(f"{where}.{problem}" for problem in
              adapting_problems(cache_choice.terms_of(recipe, recipe.distill[asked[0]], task), task))]


def unmeasured(recipe: Recipe, task: Task, teacher: Loaded) -> list[str]:
    """Why it could not be seen what becomes of this teacher, in words."""
    why = task.unmeasured(teacher)
    if why is None or recipe.distill[-1].adapt is None:
        return []
    return [f"distill.adapt: what becomes of the teacher is measured, and this one cannot be: {why}. Leave adapt out"]


def in_words(how: Adapt, labelled: int) -> str:
    """What it takes, in a sentence."""
    return (f"distill.adapt: {counted(round(how.quiz * labelled), 'labelled example')} are the quiz, and not learnt from; a "
            "step takes 4 to 5 times as long as with a teacher that is only asked, and a second teacher is trained in memory")


def keep(place: Place, before: Loaded, after: nn.Module, inputs: Mapping[str, Any], seed: int) -> None:
    """Write the adapted teacher down, and how good both were on the validation data, by the headline metric."""
    path = place.folder.model("adapted", seed)
    found = on_main(lambda: _measured(place, before, after))
    on_main(lambda: save_student(after, before.processor, path))
    on_main(lambda: write_whole(path / FILE, sealed(asdict(found))))
    on_main(lambda: place.folder.finish(stage_of(seed), inputs, path))
    say(_sentence(found))


def _measured(place: Place, before: Loaded, after: nn.Module) -> Adapted:
    task, split = place.task.of_teacher(), place.splits["validation"]
    move([before, replace(before, model=after)])
    exam = task.exam()
    said = examine(exam, {"before": Asked(before.model), "after": Asked(after)},
                   task.prepare(split, before.processor, None, training=False),
                   batch_size=place.recipe.evaluate.batch_size, title="the teacher, before and after")
    metric = next((one for one in exam.metrics() if one.name == place.recipe.evaluate.metric), exam.metrics()[0])
    was, now = (float(metric.compute(said[name].given, said[name].references)) for name in ("before", "after"))
    return Adapted(metric.name, len(split), was, now)


def stage_of(seed: int) -> str:
    """Under which name `stages.json` knows what was kept."""
    return "adapted" if seed == 0 else f"adapted-{seed}"


def of(folder: RunFolder, recipe: Recipe) -> Adapted | None:
    """What the first student made of its teacher; None where it had to leave it as it was, or nobody can read it."""
    if recipe.distill[-1].adapt is None:
        return None
    try:
        return Adapted(**unsealed((folder.model("adapted", 0) / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, json.JSONDecodeError):
        return None


def said_in(scores: Scores, found: Adapted | None) -> Scores:
    """The scores with what has become of the teacher, in numbers and in a sentence."""
    return scores if found is None else replace(scores, adapted=found, notes=(*scores.notes, _sentence(found)))


def _sentence(found: Adapted) -> str:
    return (f"adapted: the teacher was changed along with the student (distill.adapt); its {metric_title(found.metric)} on "
            f"the {found.examples:,} validation examples was {found.before:.4g} before and is {found.after:.4g} after. It is "
            "kept in adapted/; what else is said of the teacher is of the one before")
