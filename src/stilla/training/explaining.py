"""What a training needs whose terms compare what answers rest on: a teacher that says it, steps that are derived twice."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import TrainingArguments

from stilla.errors import CompatibilityError
from stilla.objectives.base import Term
from stilla.signals import Batch, Signals
from stilla.tasks.base import Task
from stilla.tasks.forward import dense
from stilla.teachers import LiveTeacher


def explains(terms: Sequence[Term]) -> bool:
    """Whether a term compares what answers rest on."""
    return any(term.objective.needs_inputs for term in terms)


def live(model: nn.Module, task: Task, terms: Sequence[Term], *, stacks: bool) -> LiveTeacher:
    """A teacher that says all that the terms compare."""
    return LiveTeacher(model, task, stacks=stacks, inputs=explains(terms))


def explaining_problems(terms: Sequence[Term], args: TrainingArguments) -> list[str]:
    """What of the arguments keeps a step from being derived twice."""
    if not explains(terms):
        return []
    named = ("activation_checkpointing", "gradient_checkpointing", "torch_compile", "fsdp", "deepspeed")
    return [f"args.{name}: with `saliency` a step is derived twice, which {name} does not do; leave one of the two out"
            for name in named if getattr(args, name, None)]


def classes_of(teacher: Signals | None, task: Task, batch: Batch) -> Tensor:
    """Of which class of every row it is asked what it rests on: what the teacher takes each example for.

    Raises:
        CompatibilityError: it said nothing, or not what its answers rest on.
    """
    if teacher is None or teacher.saliency is None:
        raise CompatibilityError("`saliency` needs a teacher that is asked anew (cache: none): its gradients are not stored")
    return task.attributed(dense(teacher), batch)
