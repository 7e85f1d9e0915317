"""Vectors of fewer numbers than the teacher's: all that a recipe asks for, and beginnings that serve by themselves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from stilla.errors import CompatibilityError, all_of
from stilla.objectives.base import Term
from stilla.objectives.embedding import Embedding
from stilla.objectives.interactive import Interactive
from stilla.objectives.similarities import Similarities
from stilla.recipe import ObjectiveSpec
from stilla.tasks.retrieval.model import Embedder, as_embedder
from stilla.tasks.retrieval.sections import EmbeddingData

_NO_TEXTS = ("texts by themselves are measured by how near a vector is to the teacher's, which has other numbers. Give "
             "pairs, or a folder for search, as validation and test data")


def refuse_unfit(section: EmbeddingData, width: int, measured: Collection[str], *, keeps_the_index: bool) -> None:
    """`width`: of the teacher's vectors. `measured`: what the splits are.

    Raises:
        CompatibilityError: more numbers than there are, or what is measured needs the teacher's own.
    """
    wanted, sizes = section.dimensions, section.matryoshka
    if wanted is not None and wanted > width:
        raise CompatibilityError(f"data.dimensions: got {wanted}; expected at most the teacher's, {width}")
    if sizes and sizes[-1] >= (wanted or width):
        raise CompatibilityError(f"data.matryoshka: got {sizes[-1]}, and the student's vectors have {wanted or width} "
                                 "numbers; expected fewer")
    said = {"dimensions": None if wanted == width else wanted, "matryoshka": list(sizes) or None}
    for name, fewer in said.items():
        if fewer is not None and keeps_the_index:
            raise CompatibilityError(f"data.{name}: got {fewer}, and data.documents: teacher keeps vectors of {width} "
                                     "numbers, among which the student's are searched; leave one out")
        if fewer is not None and {*measured} == {"texts"}:
            raise CompatibilityError(f"data.{name}: {_NO_TEXTS}")


def refuse_more(wanted: int, student: nn.Module) -> None:
    """Of a teacher without vectors: it is the student's own numbers that are made fewer.

    Raises:
        CompatibilityError: it has not as many.
    """
    if isinstance(student, Embedder) and wanted > student.width:
        raise CompatibilityError(f"data.dimensions: got {wanted}; expected at most {student.width}, as many as the student's "
                                 "vectors have by themselves")


def widened(model: nn.Module, width: int | None, *, adapters: bool) -> nn.Module:
    """An encoder with a layer to so many numbers, where it has others by itself.

    Raises:
        CompatibilityError: that layer would be new, and adapters alone are to be trained.
    """
    made: Any = model
    if isinstance(model, Embedder) and width not in (None, model.width):
        made = as_embedder(made, replace(model.shape, width=width))
    if adapters and isinstance(made, Embedder) and made.new_layers:
        raise CompatibilityError(f"student.lora: a layer to {made.width} numbers comes after the encoder, and nothing "
                                 "that adapters could build on stands in it yet. Leave lora out, or data.dimensions; a "
                                 "student of the teacher's width needs none")
    return made  # type: ignore[no-any-return]


def undrawn(terms: Sequence[Term]) -> bool:
    """Whether a teacher teaches, and none of these terms draws the student's vectors into its space."""
    drawn = [isinstance(term.objective, Embedding | Interactive) for term in terms if term.objective.needs_teacher]
    return bool(drawn) and not any(drawn)


def learnt_by(sizes: Sequence[int]) -> tuple[ObjectiveSpec, ...]:
    """What students learn by where a recipe names nothing. The teacher's own vectors would say which numbers come first."""
    return (ObjectiveSpec(kind="similarities", first=list(sizes)),) if sizes else (ObjectiveSpec(kind="embedding"),)


def unlearnt(sizes: Sequence[int], terms: Sequence[Term]) -> list[str]:
    """Which beginnings none of these terms teaches, in words."""
    told = [term.objective for term in terms if term.objective.needs_teacher]
    known = {size for one in told if isinstance(one, Similarities) for size in one.first}
    missing = [str(size) for size in sizes if size not in known]
    if not told or not missing:
        return []
    return [f"data.matryoshka: no objective teaches what the first {all_of(missing)} numbers of a vector say by themselves. "
            f"Add {{kind: similarities, first: {list(sizes)}}}, or name no objectives"]
