"""A student that stays below a recipe's limits: candidates that fit, a short training of the best, and the choice kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stilla.errors import counted
from stilla.models.fingerprint import of_model, of_processor
from stilla.runtime.files import unsealed
from stilla.runtime.narrate import say
from stilla.runtime.processes import on_main
from stilla.stages import trials
from stilla.stages.completions import Completed
from stilla.stages.stages import Stages
from stilla.stages.surveying import in_words, surveyed, with_choice
from stilla.students.candidates import SPOKEN, Candidate, finalists

STAGE, FILE = "size", "plan.json"


@dataclass(frozen=True)
class Tried:
    """A candidate, and what it reached in a short training; None where it was the only one."""

    candidate: Candidate
    reached: float | None = None

    def plain(self) -> dict[str, Any]:
        one = self.candidate
        return {"layers": one.layers, "ffn": one.ffn, "hidden": one.hidden, "tokens": one.tokens,
                "parameters": one.parameters, "kept": one.kept, "reached": self.reached}


def sized(stages: Stages, written: Completed | None) -> Stages:
    """The same with a student that stays below the recipe's limits: chosen once, and kept in the run folder.

    Raises:
        CompatibilityError: none does.
    """
    spec, place = stages.recipe.student, stages.place
    if not spec.limited:
        return stages
    folder = place.folder.path / "plan"
    inputs = {**place.inputs, "limits": spec.model_dump(mode="json"), "teacher": of_model(stages.teacher.model),
              "processor": of_processor(stages.teacher.processor), "seed": stages.recipe.seed,
              "distill": stages.recipe.distill[0].model_dump(mode="json"),
              **({} if written is None else {"completions": written.fingerprint}),
              **({} if place.pool is None else {"unlabelled": place.pool.fingerprint})}
    chosen = on_main(lambda: _kept(stages, inputs, folder / FILE))
    if chosen is None:
        found, by = _tried(stages, written)
        best = on_main(lambda: _best(found, higher=trials.is_better_higher(place.task, by)))
        chosen = best.candidate.spec
        on_main(lambda: place.folder.begin(STAGE, inputs))
        on_main(lambda: place.folder.write(folder / FILE, {
            "limits": spec.model_dump(mode="json"), "by": by, "tried": [one.plain() for one in found],
            "chosen": best.candidate.spec}))
        on_main(lambda: place.folder.finish(STAGE, inputs, folder))
    say(f"student: {in_words(chosen)}, chosen as the best below the limits")
    return stages.with_recipe(stages.recipe.model_copy(update={"student": with_choice(spec, chosen)}))


def _kept(stages: Stages, inputs: dict[str, Any], file: Path) -> dict[str, Any] | None:
    """What was chosen before for the same."""
    folder = stages.place.folder
    if not folder.fits(STAGE, inputs) or folder.is_damaged(STAGE) or not file.is_file():
        return None
    chosen: dict[str, Any] = unsealed(file.read_text(encoding="utf-8"))["chosen"]
    return chosen


def _tried(stages: Stages, written: Completed | None) -> tuple[list[Tried], str]:
    """The finalists, each after the same short training, and the name of what they are compared by."""
    place = stages.place
    teacher = place.task.pattern(stages.teacher)
    prepared, share = stages.sample()
    # latency is measured: each process would find another
    found = on_main(lambda: finalists(
        surveyed(stages.recipe.student, place.task, teacher, stages.counting(written), prepared),
        in_tokens=place.task.vocabulary))
    by = trials.judged_by(stages)
    if place.task.vocabulary and all(one.kept < SPOKEN for one in found):
        say(f"student: below the limits it has {max(one.kept for one in found):.0%} of the texts' tokens at most, and the "
            "teacher is asked about texts made of these, of which it knows less. Allow more, or give a student of other "
            "sizes (`config`) with the teacher's tokens")
    if len(found) == 1:
        return [Tried(found[0])], by
    steps = trials.steps_of(stages.recipe.distill[0], share * len(prepared))
    say(f"student: {len(found)} candidates, each trained for {counted(steps, 'step')}; then compared by "
        f"`{by}` on validation data")
    tried = []
    for number, one in enumerate(found):
        reached = trials.reached(stages, written, with_choice(stages.recipe.student, one.spec), f"trial-{number}", steps, by)
        say(f"student: {in_words(one.spec)} ({one.parameters:,} parameters, {one.kept:.1%} of the texts' tokens): "
            f"{by} {reached:.4g}")
        tried.append(Tried(one, reached))
    return tried, by


def _best(tried: Sequence[Tried], *, higher: bool) -> Tried:
    """Of equals the first, which is the deepest."""
    sign = -1.0 if higher else 1.0
    return min(tried, key=lambda one: sign * (0.0 if one.reached is None else one.reached))
