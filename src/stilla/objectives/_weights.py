"""What the parts of an objective may count, and how far it may soften."""

from __future__ import annotations

from stilla.errors import RecipeError, all_of
from stilla.recipe.schedule import Schedule, schedule
from stilla.recipe.section import TEMPERATURE, WEIGHT


def weighed(**weights: float) -> None:
    """Raises:
        RecipeError: one of them is no weight.
    """
    for name, value in weights.items():
        if not 0 <= value <= WEIGHT:
            raise RecipeError(f"{name}: got {value}; expected a number from 0 to {WEIGHT:,.0f}")


def some(**weights: float) -> None:
    """Of weights one of which has to be above 0.

    Raises:
        RecipeError: none is, so that nothing would be learnt.
    """
    if any(weights.values()):
        return
    first, *others = weights
    raise RecipeError(f"{first}: got 0, and {all_of(others)} {'is' if len(others) == 1 else 'are'} 0 too, so that nothing "
                      "would be learnt; give one of them a weight")


def softening(temperature: float | Schedule) -> None:
    """Raises:
        RecipeError: it is no temperature, or not one throughout.
    """
    over = schedule(temperature)
    if min(over.values()) <= 0 or max(over.values()) > TEMPERATURE:
        raise RecipeError(f"temperature: got {over.plain()}; expected numbers above 0, up to {TEMPERATURE:g}")
