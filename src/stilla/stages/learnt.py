"""From how many labelled and unlabelled examples a student learnt, and in how many steps: kept with the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stilla.recipe import Recipe
from stilla.runtime.files import sealed, unsealed, write_whole
from stilla.scores import Scores
from stilla.stages.folder import RunFolder
from stilla.stages.training import Learnt
from stilla.stages.unlabelled import Pool
from stilla.tasks.base import Prepared

LABELLED, UNLABELLED, GENERATED = "labelled", "unlabelled", "generated"


def examples_in(prepared: Prepared, marks: NDArray[np.bool_], learnt: Learnt) -> dict[str, int]:
    """How many examples of the split were seen, of what was seen of the prepared ones. `marks`: of the split's examples,
    which are unlabelled.

    Exact where all were seen, or each example is a prepared one; documents that share blocks, or are cut into several
    pieces, are counted by their share of those.
    """
    assert prepared.unlabelled is not None
    found = {"steps": learnt.steps}
    for name, wanted, seen in ((LABELLED, False, learnt.labelled), (UNLABELLED, True, learnt.unlabelled)):
        here = prepared.unlabelled == wanted
        if prepared.seen is not None:
            share = seen / max(1, int(here.sum()))
            found[name] = prepared.seen(share if share < 1 else max(1.0, learnt.epochs), wanted)
            continue
        there = int((marks == wanted).sum()) if prepared.packed else len(np.unique(prepared.keys[here]))
        found[name] = round(there * seen / max(1, int(here.sum())))
    return found


def note(folder: RunFolder, stage: str, found: Mapping[str, int], pool: Pool) -> None:
    """Write down what a stage learnt from, how many of the unlabelled examples a model wrote, and how many were left out."""
    known = _read(folder)
    known[stage] = {**found, **({GENERATED: pool.generated} if pool.generated else {}), "left out": dict(pool.left_out)}
    folder.unlabelled.mkdir(parents=True, exist_ok=True)
    write_whole(_file(folder), sealed(known))


def of(folder: RunFolder, recipe: Recipe) -> list[Mapping[str, Any] | None]:
    """What each stage of the first student learnt from; None where nobody wrote it down, or it was changed."""
    known, number = _read(folder), len(recipe.distill)
    names = ["student"] if number == 1 else [f"student.{stage}" for stage in range(number)]
    return [known.get(name) for name in names]


def said_in(scores: Scores, found: Sequence[Mapping[str, Any] | None]) -> Scores:
    """The scores with what the student learnt from, in numbers and in a sentence, where some of it is unlabelled.

    found: by stage, of which the one that saw most of a kind counts.
    """
    stages = [one for one in found if one is not None]
    if not stages:
        return scores
    numbers = {**{kind: max(one[kind] for one in stages) for kind in (LABELLED, UNLABELLED)},
               **({GENERATED: stages[-1][GENERATED]} if GENERATED in stages[-1] else {}),
               **{f"left out: {why}": count for why, count in stages[-1]["left out"].items()}}
    return replace(scores, learnt=numbers, notes=(*scores.notes, _sentence(numbers)))


def _sentence(numbers: Mapping[str, int]) -> str:
    labelled = f"{numbers[LABELLED]:,} labelled and " if numbers[LABELLED] else ""
    said = f"learnt from: {labelled}{numbers[UNLABELLED]:,} unlabelled examples"
    if GENERATED in numbers:
        said += f" ({numbers[GENERATED]:,} of those that there are were generated)"
    left_out = [f"{count:,} ({why.partition(': ')[2]})" for why, count in numbers.items() if ":" in why]
    return f"{said}; unlabelled ones left out: {', '.join(left_out)}" if left_out else said


def _file(folder: RunFolder) -> Any:
    return folder.unlabelled / "learnt.json"


def _read(folder: RunFolder) -> dict[str, Any]:
    try:
        found: dict[str, Any] = unsealed(_file(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError, json.JSONDecodeError):
        return {}
    return found
