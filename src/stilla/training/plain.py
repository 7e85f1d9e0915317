"""What a person with Trainer code of their own brings: plain models, in the types used here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.hub import PushToHubMixin

from stilla.errors import CompatibilityError
from stilla.models.configs import as_delivered
from stilla.models.features import hidden_sizes
from stilla.models.stacks import find_stacks
from stilla.signals import Dims
from stilla.students import has_adapters, merged
from stilla.tasks import find, of_model
from stilla.tasks.base import Task
from stilla.tasks.shared.classification import Classification


def task_of(model: nn.Module, task: Task | str | None, teacher: object = None) -> Task:
    """The task itself, or the one that fits the model.

    Raises:
        CompatibilityError: no task is known for a model of this class; the teacher's scores are made of its logits by
            another function than the student's.
    """
    if isinstance(task, Task):
        return task
    found = find(task).of_model(model) if task is not None else of_model(model)
    if isinstance(found, Classification) and isinstance(teacher, PreTrainedModel):
        theirs = type(found).of_model(teacher).problem.activation
        if theirs != found.problem.activation:
            raise CompatibilityError(
                f"the teacher's score is {_SCORES[theirs]}, the student's {_SCORES[found.problem.activation]}, say their "
                f"configs "
                "(`sentence_transformers: {activation_fn: ...}`). Let the student's say what the teacher's does")
    return found


_SCORES = {"none": "its logit", "sigmoid": "the sigmoid of its logit"}


def dims_of(model: nn.Module, task: Task, inputs: Mapping[str, Tensor] | None) -> Dims:
    """Sizes of what a model will say. `inputs`: of a small batch, where hidden states are compared; else None."""
    # how many tokens there are, a teacher says; one that is trained has none
    classes = task.row_classes() or int(task.vocabulary)
    sizes = Dims(classes, embedding=task.embedding_width(model), bins=task.bins_of(model))
    if inputs is None:
        return sizes
    device = next(model.parameters()).device
    placed = {name: value.to(device) for name, value in inputs.items()}
    return sizes.with_states(hidden_sizes(model, find_stacks(model), placed))


def save_plain(model: nn.Module, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """A folder that `from_pretrained` loads, adapters merged; of a class outside transformers its weights alone.

    weights: of the whole model, where a process holds only a part.

    Raises:
        CompatibilityError: adapters of a model of which this process holds only a part.
    """
    if weights is not None and has_adapters(model):
        raise CompatibilityError("save_model: adapters cannot be merged while the model is spread over processes; save a "
                                 "checkpoint, and merge them in one process")
    folder.mkdir(parents=True, exist_ok=True)
    whole = merged(model)
    if isinstance(whole, PreTrainedModel):
        with as_delivered(whole):
            whole.save_pretrained(folder, state_dict=weights)
    elif isinstance(whole, PushToHubMixin):  # peft's own class around one
        whole.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
    elif weights is None:
        save_model(whole, str(folder / "model.safetensors"))
    else:
        # as save_model does: of tied weights the first
        own = {id(one): name for name, one in reversed(list(weights.items()))}
        save_file({name: weights[name] for name in own.values()}, str(folder / "model.safetensors"))
