"""How long and how fast a run would learn: what it takes where the recipe leaves it open, and where that is little."""

from __future__ import annotations

import math

from stilla.check import places
from stilla.check.found import Found
from stilla.errors import all_of
from stilla.recipe import Recipe, Training
from stilla.stages import effort
from stilla.tasks.base import Loaded
from stilla.training.arguments import precision_of
from stilla.training.converging import FEWEST

SLOW, FEW = 3e-4, 15
"""Learning rate and epochs below which random weights stay undertrained on data of the size that distillation has."""
_LEVEL = ("constant", "constant_with_warmup", "reduce_lr_on_plateau", "greedy")
"""Schedulers of the learning rate that do not depend on when the training will end."""


def settled(recipe: Recipe, teacher: Loaded, examples: float, found: Found) -> Recipe:
    """The recipe with lengths and rates, of which those are noted that it leaves open."""
    made = effort.settled(recipe, teacher.model, examples)
    for number, (said, stage) in enumerate(zip(recipe.distill, made.distill, strict=True)):
        chosen = [*([f"{stage.passes:g} epochs ({stage.effort})"] if said.epochs is None and said.max_steps is None else []),
                  *([f"a learning rate of {stage.rate:g}"] if said.learning_rate is None else [])]
        if chosen:
            found.notes.append(f"{places.stage_place(recipe, number)}: {all_of(chosen)}, as the recipe does not say")
    return made


def note(recipe: Recipe, found: Found) -> None:
    """How long and how fast the student learns, and where that is little; of stages of which it is known."""
    for place, training in places.trainings(recipe):
        if training.epochs is not None or training.max_steps is not None:
            _note_patience(place, training, found)
            _note_extension(place, training, found)
    known = [stage for stage in recipe.distill if stage.learning_rate is not None]
    rate, epochs = max((stage.rate for stage in known), default=SLOW), sum(stage.passes for stage in recipe.distill)
    counted = all(stage.max_steps is None and stage.epochs is not None for stage in recipe.distill)
    if recipe.student.config is not None and (rate < SLOW or (counted and epochs < FEW)):
        length = f"{epochs:g} epochs" if counted else "its steps"
        found.notes.append(f"student: random weights learn slowly. This recipe has {length} at a learning rate of "
                           f"{rate:g}; where it was measured, on a few thousand texts, 10 epochs at 5e-4 were too few and 20 "
                           "at 1e-3 enough for distillation to help (docs/defaults.md)")


def note_choices(recipe: Recipe, found: Found) -> None:
    """What the recipe left open, and what it asks for that costs much."""
    precisions = {precision_of(training) for _, training in places.trainings(recipe) if training.precision == "auto"}
    found.notes += [f"precision: auto, which is {precision} on this machine" for precision in precisions]
    if any(spec.kind == "saliency" for _, spec in places.objectives(recipe)):
        found.notes.append("saliency: a step is derived twice, and takes about twice as long as what is estimated here")
    if recipe.asks_for_a_ceiling:
        found.notes.append("evaluate.saliency: the teacher is trained once more, as the ceiling; ceiling: false leaves it "
                           "out")
    seeds = recipe.evaluate.seeds
    if recipe.evaluate.baseline:
        again = f"; both {seeds} times" if seeds > 1 else ""
        found.notes.append(f"baseline: the same student is trained once more, on labels alone{again}")
    else:
        found.notes.append("baseline: off, so the run cannot say what distillation gained (evaluate.baseline=true)")


def _note_extension(place: str, training: Training, found: Found) -> None:
    """How long a training may become, and what of it cannot be judged."""
    if training.extend is None:
        return
    length = f"{training.passes:g} epochs" if training.max_steps is None else f"{training.max_steps:,} steps"
    longest = (f"{training.extend * training.passes:g} epochs" if training.max_steps is None
               else f"{training.extend * training.max_steps:,} steps")
    baseline = ", its baseline by itself" if place != "teacher.train" else ""
    found.notes.append(f"{place}.extend: {length}, and up to {longest} while it has not converged{baseline}; the most that "
                       "is estimated here is for all of them")
    often = training.trainer.get("eval_strategy")
    if often == "epoch" and training.max_steps is None and training.passes < FEWEST:
        found.notes.append(f"{place}.extend: {training.passes:g} epochs have fewer than {FEWEST} evaluations, by which "
                           "nobody can say whether it has converged, so it does not go on. Leave eval_strategy out, or "
                           "evaluate more often: trainer: {eval_strategy: steps, eval_steps: 0.1}")


def _note_patience(place: str, training: Training, found: Found) -> None:
    """What an early end has against a schedule for the whole, and where it cannot come."""
    if training.patience is None:
        return
    scheduler = training.trainer.get("lr_scheduler_type", "linear")
    if scheduler not in _LEVEL:
        found.notes.append(f"{place}.patience: the learning rate falls for as long as the training could be ({scheduler}), "
                           "so one that stops early has not seen its low end, where much is gained. Let it stay level: "
                           "trainer: {lr_scheduler_type: constant_with_warmup}")
    each = training.trainer.get("eval_strategy", "epoch")
    if each == "epoch" and training.max_steps is None and math.ceil(training.passes) <= training.patience:
        found.notes.append(f"{place}.patience: {training.patience} evaluations, and {training.passes:g} epochs have no more: "
                           "it never stops early, and only keeps the best. Give more epochs, or evaluate more often: "
                           "trainer: {eval_strategy: steps, eval_steps: 0.02}")
