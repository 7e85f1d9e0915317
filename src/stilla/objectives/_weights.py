"""What the parts of an objective may count."""

from __future__ import annotations

from stilla.errors import RecipeError, all_of
from stilla.recipe.section import WEIGHT


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
