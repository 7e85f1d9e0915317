"""Tags as models number them: whether a teacher's can say the entities of the data, and the numbers of words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stilla.errors import CompatibilityError, DataError, all_of, quoted
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.shared.labels import Problem
from stilla.tasks.text import schemes
from stilla.tasks.text.schemes import Scheme
from stilla.tasks.text.tag_data import Found
from stilla.tasks.text.tagged import Tagged


def refuse_other(found: Found, theirs: tuple[str, ...], scheme: Scheme | None, source: str) -> None:
    """Raises:
        CompatibilityError: a teacher with these tags, of this scheme, cannot say the entities of the data.
    """
    listed = f"{all_of([quoted(name) for name in theirs[:8]])}{' ...' if len(theirs) > 8 else ''}"
    train = "Take another teacher, or train this one first (teacher: {train: {}})."
    if scheme is None:
        raise CompatibilityError(f"{source} answers with {listed}, which say no entities; the data hold some. {train}")
    if scheme == "iob1":
        raise CompatibilityError(f"{source} has labels of IOB1 ({listed}: a type that goes on and never begins). What it "
                                 "says of a word depends there on the words beside it, so that its answers cannot be "
                                 f"brought to IOB2 exactly. {train}")
    known = {schemes.kinded(name) for name in theirs}
    needed = {kind for name in found.types for kind in _kinds(found, name, scheme)}
    lacking = sorted("-".join(kind) for kind in needed - known)
    if lacking:
        raise CompatibilityError(f"{source} does not know {all_of(lacking[:8])}{' ...' if len(lacking) > 8 else ''} of "
                                 f"the data; its labels are {listed}. {train}")


def _kinds(found: Found, name: str, scheme: Scheme) -> list[tuple[str, str]]:
    """The tags that entities of a type need."""
    letters = {"io": "I", "iob2": "B", "bioes": "S"}[scheme] + (
        {"io": "I", "iob2": "I", "bioes": "BIE"}[scheme] if name in found.several else "")
    return [(letter, name) for letter in letters]


def numbered(one: Tagged, problem: Problem, scheme: Scheme | None) -> NDArray[np.int64]:
    """(words,) the models' number of every word's tag; NO_ANSWER where nobody has labelled it.

    Raises:
        DataError: entities that the models' tags cannot part.
    """
    if one.tags is None and one.entities is None:
        return np.full(len(one.words), NO_ANSWER, np.int64)
    if scheme is None or one.entities is None:
        index = {name: number for number, name in enumerate(problem.raw)}
        return np.array([index[tag] for tag in one.tags or ()], np.int64)
    if scheme == "io" and schemes.touch(one.entities):
        raise DataError(f"data: two entities of one type stand side by side in {quoted(one.words.text)}, and the models' "
                        "labels (IO) cannot part them. Set data.scheme: io, which takes such for one, or give a teacher "
                        "with B- and I-.")
    assert scheme != "iob1"  # such teachers are refused
    kinds = {schemes.kinded(name): number for number, name in enumerate(problem.names)}
    return np.array([kinds[kind] for kind in schemes.tags(one.entities, len(one.words), scheme)], np.int64)
