"""How large a student would be: what stays below the recipe's limits, and what a smaller vocabulary costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from stilla import data
from stilla.check.found import Found
from stilla.evaluate.flops import count_parameters
from stilla.recipe import Recipe, Width
from stilla.stages import unlabelled
from stilla.stages.surveying import chosen_before, in_words, surveyed, with_choice
from stilla.stages.unlabelled import Pool
from stilla.stages.vocabulary import Counting, Smaller, cost_of
from stilla.stages.words import narrowed
from stilla.students.candidates import finalists
from stilla.tasks.base import Loaded, Task

SAMPLE = 64
"""Examples of which the median is what latency is measured on."""
COUNTED, READ = 20_000, 2_000
"""Examples of a split whose tokens are counted for a smaller vocabulary, and in which it is seen what that costs."""


def settled(
    recipe: Recipe, task: Task, teacher: Loaded, splits: Mapping[str, Dataset], pool: Pool | None, found: Found
) -> Recipe:
    """The recipe with a student that stays below its limits: the first that a run would try, without trying any."""
    if not recipe.student.limited:
        return recipe
    before = chosen_before(Path(recipe.output), recipe.student)
    if before is not None:  # what is chosen stays, however busy the machine is now
        found.notes.append(f"student: {in_words(before)}, chosen before below the limits")
        return recipe.model_copy(update={"student": with_choice(recipe.student, before)})
    some = unlabelled.to_look_at(task, splits, pool)
    prepared = task.prepare(data.from_all_over(some, SAMPLE), teacher.processor, teacher.processor, training=True)
    counting = Counting(task, (data.from_all_over(some, COUNTED),))
    chosen = finalists(surveyed(recipe.student, task, task.pattern(teacher), counting, prepared),
                       in_tokens=task.vocabulary)
    lines = "; ".join(f"{in_words(one.spec)} ({one.parameters:,} parameters, {one.kept:.1%} of the texts' tokens)"
                      for one in chosen)
    decides = "; a short training of each decides, and the first is looked at here" if len(chosen) > 1 else ""
    found.notes.append(f"student: below the limits, {lines}{decides}")
    return recipe.model_copy(update={"student": with_choice(recipe.student, chosen[0].spec)})


def smaller(recipe: Recipe, task: Task, splits: Mapping[str, Dataset], pool: Pool | None) -> Smaller | None:
    """The vocabulary that a student would get, counted in at most so many of the examples that there are already."""
    spec = recipe.student.vocabulary
    if spec is None:
        return None
    return Smaller.counted_in(spec, task, (data.from_all_over(unlabelled.to_look_at(task, splits, pool), COUNTED),))


def note_the_vocabulary(
    task: Task, teacher: Loaded, student: Loaded, splits: Mapping[str, Dataset], examples: int, found: Found
) -> None:
    """`examples`: how many there are to learn from."""
    cost = cost_of(task, teacher.processor, student.processor, data.from_all_over(splits["validation"], READ))
    if cost is not None:
        sizes = " to ".join(f"{count_parameters(one.model):,}" for one in (teacher, student))
        sampled = f"; a run counts in all {examples:,} examples, and will keep a few more" if examples > COUNTED else ""
        found.notes.append(f"vocabulary: {cost} of the validation data; from {sizes} parameters{sampled}")


def note_the_width(width: Width, teacher: Loaded, student: Loaded, found: Found) -> None:
    sizes = " to ".join(f"{count_parameters(one.model):,}" for one in (teacher, student))
    found.notes.append(f"width: {narrowed(width, teacher.model, student.model)}; from {sizes} parameters. Here any units "
                       "were taken: what matters, the run measures")
