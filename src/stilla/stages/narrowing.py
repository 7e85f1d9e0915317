"""How a student that is narrower than its teacher comes by its units: measured once, kept with the run, the same for all that
start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

from stilla.errors import CompatibilityError, all_at_once
from stilla.objectives import term
from stilla.objectives.base import StepTableObjective
from stilla.recipe import StudentSpec
from stilla.runtime.narrate import progress
from stilla.runtime.processes import processes
from stilla.signals import Dims
from stilla.students import Cut, Plan, Towards, importance
from stilla.tasks.base import Prepared, Task
from stilla.training.distiller import Distiller
from stilla.training.reduction import Step

FILE = "kept.safetensors"


def problems_of(spec: StudentSpec, task: Task) -> list[str]:
    """Why nobody can say which units matter, where a student asks for them, in words."""
    if not spec.by_importance:
        return []
    return problems(task) if spec.width is not None else problems(task, "student.interpolate.units", "Take the `first`")


def problems(
    task: Task, place: str = "student.width", otherwise: str = "Take layers, or `student: {config: ...}`"
) -> list[str]:
    """Why nobody can say which units of a student matter, in words. `otherwise`: what can be done."""
    labels = term(task.labels_of_each())
    if not task.has_labels:
        return [f"{place}: what a unit matters is seen by the loss of labels, and these data say of no example what is "
                f"right. {otherwise}"]
    if isinstance(labels.objective, StepTableObjective):
        return [f"{place}: what a unit matters is seen of one example at a time, and `{labels.name}` compares examples "
                f"with each other. {otherwise}"]
    return []


def measure(plan: Plan | Towards, task: Task, prepared: Prepared) -> Cut:
    """Which units stay, or are taken over, by the loss of labels on some training examples.

    prepared: these examples, unchanged, each by itself.

    Raises:
        CompatibilityError: the examples say nothing.
    """
    if found := problems(task):
        raise all_at_once(found, CompatibilityError)
    terms = task.terms([term(task.labels_of_each())])
    with progress("width", plan.rounds * len(prepared)) as advance:

        def losses(part: nn.Module) -> Iterator[Tensor]:
            part.to(processes().device)
            distiller = Distiller(part, terms, task, student_dims=Dims(task.row_classes())).eval()
            for number in range(len(prepared)):
                batch = prepared.collate([prepared.examples[number]]).to(processes().device)
                counts = task.counts(batch)
                if any(counts[one.objective.count] for one in terms):
                    yield distiller.loss(batch, None, Step({name: float(value) for name, value in counts.items()}))["loss"]
                advance(1)

        try:
            return plan.cut(lambda part, units: importance(part, units, losses(part)))
        except CompatibilityError as error:
            if isinstance(plan, Plan):
                raise
            raise CompatibilityError(str(error).replace("student.width", "student.interpolate.units")) from error


def write(cut: Cut, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cut.save(folder / FILE)


def read(folder: Path) -> Cut:
    """Raises:
        CompatibilityError: the file cannot be read.
    """
    try:
        return Cut.load(folder / FILE)
    except Exception as error:  # safetensors and JSON each have their own
        raise CompatibilityError(f"{folder / FILE}: cannot be read ({error}); remove the folder, and it is measured "
                                 "anew") from error
