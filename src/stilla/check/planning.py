"""What sizes of students there are of a teacher, how fast on this machine, and what the run ahead costs: before any training.

What is good enough nobody knows before it has learnt; where a run has tried candidates, what they reached is shown too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stilla import data
from stilla.check import look_by_itself
from stilla.check.estimate import Estimate, estimate
from stilla.check.found import Found
from stilla.check.size import COUNTED, SAMPLE
from stilla.check.way import Ready, look
from stilla.errors import RecipeError, counted
from stilla.evaluate.flops import count_parameters
from stilla.recipe import Cache, Recipe
from stilla.recipe.fitting import Latency
from stilla.runtime.files import unsealed
from stilla.stages import unlabelled
from stilla.stages.surveying import latency, latency_of, surveyed, vocabulary_of
from stilla.stages.vocabulary import Counting
from stilla.students.candidates import Candidate, candidates


@dataclass(frozen=True)
class Planned:
    """A student that could be made. `reached`: in a short training, if there was one."""

    candidate: Candidate
    milliseconds: float
    reached: float | None = None
    chosen: bool = False

    @property
    def megabytes(self) -> float:
        """Of its weights in float32."""
        return 4 * self.candidate.parameters / 1e6


@dataclass(frozen=True)
class Plan:
    """`teacher`: as if it were a candidate. `by`: what `reached` is. `uncached`: the run without a cache, if it has one."""

    teacher: Planned
    students: tuple[Planned, ...]
    by: str | None
    measured_on: str
    notes: tuple[str, ...]
    estimate: Estimate
    uncached: Estimate | None


def plan(recipe: Recipe) -> Plan:
    """Of a recipe that could be run.

    Raises:
        StillaError: it could not, all that is wrong at once; the teacher is not on this machine, or cannot be cut.
    """
    if recipe.teacher.api is not None:
        raise RecipeError("plan: shows what students could be cut from a teacher, and nothing can be cut from one behind an "
                          "address (teacher.api). `stilla check` says what its answers will cost")
    found = Found([])
    look_by_itself(recipe, found)
    ready = look(recipe, found)
    if found.problems:
        raise found.error()
    if ready is None:
        raise RecipeError("plan: the teacher is not on this machine yet, and its sizes are not known; run `stilla run`, "
                          "which downloads it, or give a folder")
    how = recipe.student.latency or Latency()
    ready = replace(ready, teacher=ready.task.pattern(ready.teacher))
    tried, by = _tried(Path(recipe.output))
    some = data.from_all_over(unlabelled.to_look_at(ready.task, ready.splits, ready.pool), COUNTED)
    counting, sample = Counting(ready.task, (some,)), _prepared(ready)
    if recipe.student.limited:
        students = surveyed(recipe.student, ready.task, ready.teacher, counting, sample)
    else:
        students = candidates(ready.teacher.model, None, vocabulary_of(ready.teacher, counting))
    fast: dict[str, float] = {}
    planned = []
    for one in students:
        layers = json.dumps([one.layers, one.width])
        if layers not in fast:
            fast[layers] = latency(one, ready.task, ready.teacher, how, sample)
        reached, chosen = tried.get(json.dumps(one.spec, sort_keys=True), (None, False))
        planned.append(Planned(one, fast[layers], reached, chosen))
    whole = Candidate({}, count_parameters(ready.teacher.model))
    theirs = Planned(whole, latency_of(ready.teacher.model, ready.teacher.processor, ready.task, how, sample))
    cost, uncached = _costs(ready)
    threads = "as many threads as PyTorch takes" if how.threads is None else counted(how.threads, "thread")
    measured_on = f"{how.runtime}, {how.batch} at a time, {threads}"
    return Plan(theirs, tuple(planned), by, measured_on, tuple(found.notes), cost, uncached)


def _prepared(ready: Ready) -> Any:
    some = data.from_all_over(unlabelled.to_look_at(ready.task, ready.splits, ready.pool), SAMPLE)
    return ready.task.prepare(some, ready.teacher.processor, ready.teacher.processor, training=True)


def _tried(output: Path) -> tuple[Mapping[str, tuple[float | None, bool]], str | None]:
    """What candidates reached in a run there, by what a recipe says of them."""
    file = output / "plan" / "plan.json"
    try:
        known = unsealed(file.read_text(encoding="utf-8"), needed=True)  # edited or damaged, it says nothing
    except (OSError, ValueError):
        return {}, None
    reached = {}
    for one in known["tried"]:
        spec = Candidate(one["layers"], one["parameters"], one["tokens"], ffn=one.get("ffn", 1.0),
                         hidden=one.get("hidden", 1.0)).spec
        reached[json.dumps(spec, sort_keys=True)] = (one["reached"], spec == known["chosen"])
    return reached, str(known["by"])


def _costs(ready: Ready) -> tuple[Estimate, Estimate | None]:
    """Of the run, and of the same without a cache."""
    def of(recipe: Recipe) -> Estimate:
        return estimate(recipe, ready.task, ready.splits, ready.teacher, ready.student, ready.prepared, ready.per_example,
                        ready.pool, ready.writing, ready.to_propose, ready.to_mine)

    with_cache = of(ready.recipe)
    without = of(ready.recipe.model_copy(update={"cache": Cache(form="none")}))
    return with_cache, without if without.disk < with_cache.disk else None
