"""What the other efforts would take, where an effort has chosen how long a student learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stilla.recipe import Recipe, Stage
from stilla.report.numbers import duration
from stilla.stages.effort import BUDGETS, at_once


@dataclass(frozen=True)
class Effort:
    """`passes` over the examples of its first stage; `seconds`, at most, of student and baseline together."""

    passes: int
    seconds: float
    chosen: bool


def by_effort(recipe: Recipe, examples: int, longer: float) -> Mapping[str, Recipe]:
    """The recipe at each effort; none where it says itself how long every stage takes. `examples`: all that are learnt
    from. `longer`: so many times the steps, as its student is narrow."""
    if not any(_is_chosen(stage, examples, longer) for stage in recipe.distill):
        return {}
    return {name: recipe.model_copy(update={"distill": tuple(_at(stage, name, examples, longer) for stage in recipe.distill)})
            for name in BUDGETS}


def _at(stage: Stage, effort: str, examples: int, longer: float) -> Stage:
    if not _is_chosen(stage, examples, longer):
        return stage
    passes = float(BUDGETS[effort].passes(examples, at_once(stage), longer))
    return stage.model_copy(update={"effort": effort, "epochs": passes})


def _is_chosen(stage: Stage, examples: int, longer: float) -> bool:
    """Whether its length is its effort's, but for rounding; a recipe may say another beside it, which then counts."""
    if stage.effort is None or stage.epochs is None:
        return False
    return abs(stage.epochs - BUDGETS[stage.effort].passes(examples, at_once(stage), longer)) <= 1


def in_words(efforts: Mapping[str, Effort]) -> str:
    """`quick, 3 passes: 4 min; standard, 9 (chosen): 11 min`."""
    said: list[str] = []
    for name, one in efforts.items():
        unit = " passes" if not said else ""
        said.append(f"{name}, {one.passes}{unit}{' (chosen)' if one.chosen else ''}: {duration(one.seconds)}")
    return "; ".join(said)
