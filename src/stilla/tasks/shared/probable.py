"""How sure somebody is of each class who names one: from what else could have stood in the place of its name's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Token = tuple[str, Mapping[str, float]]
"""A token of an answer, and the log-probabilities of it and of the likeliest others at its place."""

CERTAIN = -30.0
"""The log-probability of a class that is out of the question: e^-30, and at a temperature of 4 still e^-7.5."""
_AROUND = " \n\t\"'`*([<“‘"


def probabilities(tokens: Sequence[Token], named: str, names: Sequence[str]) -> Float[NDArray[np.float64], " names"] | None:
    """(names,) of each class, of an answer that names one of them; None where the name is not found in its tokens, or begins
    within one (`:yes`), of whose others nobody knows what they would have named.

    Along the tokens of the name that was given, every other token at a place is counted for the class whose name it would go
    on to, in equal parts where it could be several. Classes that nothing was said of share what is left, up to the least
    that was said; what begins no name ("The", "Sure") says nothing of classes. Together they are 1.
    """
    found, plain = np.zeros(len(names)), [name.casefold() for name in names]
    place, begun = _place_of(tokens, named), ""
    if place is None:
        return None
    reached, least, first = 1.0, 1.0, True
    for token, likely in tokens[place:]:
        going_on, known = None, False
        least = min([least, *(reached * np.exp(one) for one in likely.values())])
        for other, log in likely.items():
            said = other.lstrip(_AROUND) if first else other
            fits = _beginning(begun + said.casefold(), plain) if said else []
            known |= other == token and bool(fits)
            if len(fits) > 1 and other == token:
                going_on = log
            elif fits:
                found[fits] += reached * float(np.exp(log)) / len(fits)
        if not known:
            return None
        if going_on is None:
            break
        begun += (token.lstrip(_AROUND) if first else token).casefold()
        reached, first = reached * float(np.exp(going_on)), False
    else:
        if begun in plain:  # it ends where another name would go on
            found[plain.index(begun)] += reached
    if not found.sum():
        return None
    unsaid = found == 0
    if unsaid.any():
        found[unsaid] = min(least, max(0.0, 1.0 - float(found.sum())) / unsaid.sum())
    shares: NDArray[np.float64] = found / found.sum()
    return shares


def logs(chances: Float[NDArray[np.float64], "*any names"]) -> Float[NDArray[np.float32], "*any names"]:
    """Their logarithms, never below `CERTAIN`."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(chances), CERTAIN).astype(np.float32)


def _place_of(tokens: Sequence[Token], named: str) -> int | None:
    """The token in which the name begins where it was said last."""
    text = "".join(token for token, _ in tokens).casefold()
    start, end = text.rfind(named.casefold()), 0
    for place, (token, _) in enumerate(tokens if start >= 0 else ()):
        end += len(token.casefold())
        if end > start:
            return place
    return None


def _beginning(said: str, names: Sequence[str]) -> list[int]:
    """The names that begin so; where none does, the longest that what was said begins with, and ends there as a word."""
    found = [place for place, name in enumerate(names) if name.startswith(said)]
    if found:
        return found
    whole = [place for place, name in enumerate(names)
             if said.startswith(name) and not said[len(name):][:1].isalnum()]
    return [max(whole, key=lambda place: len(names[place]))] if whole else []
