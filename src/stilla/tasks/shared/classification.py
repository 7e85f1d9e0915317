"""What text and image classification share: labels, rows, metrics. One class, several labels, or a number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedModel
from typing_extensions import TypeVar

from stilla.data import are_unlabelled
from stilla.errors import CompatibilityError, DataError, RecipeError, all_of
from stilla.models.configs import says, without
from stilla.recipe import Data, ModelSource, StudentSpec
from stilla.signals import Batch, Dense, Heads, Side, Signals
from stilla.tasks.answers import Answers
from stilla.tasks.base import Loaded, Task
from stilla.tasks.shared.activations import activation_of, read_beside
from stilla.tasks.shared.class_exam import ClassExam
from stilla.tasks.shared.label_order import adapted, names_of
from stilla.tasks.shared.label_weights import weights_of_rows
from stilla.tasks.shared.problem import BETWEEN, Form, Problem
from stilla.tasks.shared.sections import Classified
from stilla.tasks.shared.standard import begun, learning, standard
from stilla.views import View

THRESHOLDS = "thresholds"
"""Where a model's config says from which probability on each of several labels applies."""

Found = TypeVar("Found")
ClassifiedT = TypeVar("ClassifiedT", bound=Classified, default=Any)


@dataclass(frozen=True)
class Classification(Task[ClassifiedT]):
    """A task whose examples have a label each, or several, or a number.

    Rows: an example with one label is a row of (classes,); every label of an example with several is a row of
    two classes, (0, z), whose softmax is that label's Bernoulli distribution, so that every objective over
    rows treats labels as independent; a number, or each of several, is a row of width one, in standard units
    (`standard.py`).
    """

    problem: Problem
    section: ClassifiedT | None = None
    """None for a model whose batches a person makes."""

    data_section: ClassVar[type[Data]] = Classified
    forms: ClassVar[Mapping[str | None, Form]] = {
        "single_label_classification": "class",
        "multi_label_classification": "indicators",
        "regression": "number",
    }
    """By what transformers calls the problem in a model's config."""

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        config: Any = model.config
        if config is None or not config.id2label:
            raise CompatibilityError(f"{type(model).__name__} does not say its labels: expected "
                                     "config.id2label.")
        read_beside(config, config.name_or_path, local_files_only=True)
        count = len(config.id2label)
        form = cls.forms.get(config.problem_type, "number" if count == 1 else "class")
        form = "numbers" if form == "number" and count > 1 else form
        names = names_of(config) or tuple(f"LABEL_{index}" for index in range(count))
        activation = activation_of(config, type(model).__name__)
        return cls(Problem(form, (), () if form == "number" else names, activation=activation))

    def adapted_to(self, teacher: Loaded) -> Self:
        return replace(self, problem=adapted(self.problem, teacher.model.config, teacher.source))

    def settled(self, teacher: ModelSource, student: StudentSpec) -> Self:
        if self.section is None or self.section.augment != "auto":
            return self
        chosen = self.augmentation(teacher, student)
        if chosen == "none" and self.section.views is not None:
            raise RecipeError("data.views: they are of examples that change, and `augment: auto` is none for these models "
                              "and data. Leave views out, or say `augment: light`")
        return replace(self, section=self.section.model_copy(update={"augment": chosen, **self.with_augmentation(chosen)}))

    def augmentation(self, teacher: ModelSource, student: StudentSpec) -> Literal["none", "light"]:
        """What `augment: auto` means for these models."""
        return "none"

    def with_augmentation(self, chosen: Literal["none", "light"]) -> dict[str, Any]:
        """What else of the section follows where `auto` has chosen this."""
        return {}

    def labels_resolved(self) -> dict[str, Any]:
        augment = "none" if self.section is None else self.section.augment
        weights = dict(zip(self.problem.names, self.problem.weights)) or None
        return {"label": self.problem.columns, "kind": self.problem.kind, "augment": augment, "label_weights": weights,
                "label_scale": self._scale_resolved()}

    def _scale_resolved(self) -> dict[str, tuple[float, float]] | None:
        scale, names = self.problem.scale, self.problem.names or self.problem.columns
        return None if scale is None else dict(zip(names, zip(scale.means, scale.deviations)))

    def signals(self, outputs: Any, batch: Batch, side: Side) -> Signals:
        logits, labels = self._rows(self.outputs(outputs)), batch.labels
        if self.problem.kind == "multi_label":
            labels = None if labels is None else _flags(labels).flatten()
        elif self.problem.kind == "regression":
            labels = None if labels is None else self._standard(labels.float().reshape(len(labels), -1)).flatten()
        elif labels is not None and (labels.is_floating_point() or labels.dim() != 1):
            raise CompatibilityError(
                f"got labels of shape {tuple(labels.shape)} and type {labels.dtype}; expected one whole "
                "number per "
                'example. For several labels set config.problem_type = "multi_label_classification".'
            )
        weights = None if labels is None or not self.problem.weights else weights_of_rows(self.problem, labels)
        return Signals(logits=Dense(logits), labels=labels, weights=weights,
                       heads=self._heads(outputs) if side is Side.STUDENT else None)

    def _rows(self, logits: Tensor) -> Tensor:
        if self.problem.kind == "regression":
            return self._standard(logits).reshape(-1, 1)
        if self.problem.kind != "multi_label":
            return logits
        return torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(0, 1)

    def _standard(self, numbers: Float[Tensor, "examples outputs"]) -> Float[Tensor, "examples outputs"]:
        return numbers if self.problem.scale is None else standard(numbers, self.problem.scale)

    def started(self, model: nn.Module, spec: StudentSpec) -> nn.Module:
        if spec.config is not None and self.problem.scale is not None and self.problem.activation == "none":
            begun(model, self.problem.scale)
        return model

    def learning(self, model: nn.Module) -> AbstractContextManager[None]:
        scale = self.problem.scale
        # of a sigmoid's the logits are of a usual size anyway
        return nullcontext() if scale is None or self.problem.activation != "none" else learning(model, scale)

    def _heads(self, outputs: Any) -> Heads | None:
        """What transformers calls so in its classes `...WithTeacher` (DeiT, LeViT); their `logits` are the mean."""
        if self.problem.kind == "regression" or not isinstance(outputs, Mapping) or "distillation_logits" not in outputs:
            return None
        return Heads(*(Dense(self._rows(outputs[name])) for name in ("cls_logits", "distillation_logits")))

    def exam(self) -> ClassExam:
        return ClassExam(self.problem, self.show, tuned=self.settles)

    @property
    def settles(self) -> bool:
        return self.section is not None and self.section.thresholds == "tuned" and self.problem.kind == "multi_label"

    def settle(self, model: nn.Module, validation: Answers) -> None:
        """The probabilities from which on labels apply, into the model's config."""
        if isinstance(model, PreTrainedModel):
            chosen = expit(self.exam().thresholds(validation))
            model.config.update({THRESHOLDS: {name: round(float(one), 6) for name, one in zip(self.problem.names, chosen)}})

    def forget(self, model: nn.Module) -> None:
        without(model, THRESHOLDS)

    def has_settled(self, model: nn.Module) -> bool:
        return says(model, THRESHOLDS)

    @abstractmethod
    def show(self, split: Dataset, key: int) -> View:
        """An example for a person."""

    def class_names(self) -> tuple[str, ...]:
        return self.problem.names

    def attributed(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of several labels those that apply, or the likeliest where none does; a number, or all of several, in standard
        units."""
        if self.problem.kind == "regression":
            return torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        if self.problem.kind == "single_label":
            return super().attributed(logits, batch)
        odds = (logits[:, 1] - logits[:, 0]).unflatten(0, (-1, self.problem.outputs))
        applies = odds > 0
        likeliest = torch.zeros_like(applies).scatter_(1, odds.argmax(1, keepdim=True), True)
        return torch.where(torch.where(applies.any(1, keepdim=True), applies, likeliest), 1, -1).flatten()

    def attributed_names(self, classes: Tensor, batch: Batch, split: Dataset) -> list[str]:
        names = self.problem.names
        if self.problem.kind == "regression":
            return [all_of(names or self.problem.columns)] * self.label_counts(batch)["examples"]
        if self.problem.kind == "single_label":
            return super().attributed_names(classes, batch, split)
        return [", ".join(name for name, one in zip(names, own) if one > 0) for own in classes.unflatten(0, (-1, len(names)))]

    def row_classes(self) -> int:
        return {"multi_label": 2, "regression": 1}.get(self.problem.kind, len(self.problem.names))

    def kl_from_equal(self) -> float:
        """Of an example, whose labels are summed."""
        return super().kl_from_equal() * (self.problem.outputs if self.problem.kind == "multi_label" else 1)

    def labelled(self, split: Dataset) -> bool:
        """Whether a split has the label's columns."""
        return set(self.problem.columns) <= set(split.column_names)

    def encoded(self, split: Dataset, keys: NDArray[np.int64]) -> NDArray[Any] | None:
        """The labels of these examples, as `Problem.encode` has them; -100, or NaN for numbers, where nobody has given one:
        what stands there is not looked at. None where the split has no labels at all."""
        if not self.labelled(split):
            return None
        known = ~are_unlabelled(split)[keys]
        labels = self.problem.encode(split.select(keys[known]))
        if known.all():
            return labels
        whole = np.full((len(keys), *labels.shape[1:]), np.nan if labels.dtype.kind == "f" else -100, labels.dtype)
        whole[known] = labels
        return whole

    def label_counts(self, batch: Batch) -> Mapping[str, int]:
        """`rows`, `labelled` and `examples` of a batch; -100 marks an example without label."""
        examples = len(next(iter(batch.student.values())))
        rows = examples * (1 if self.problem.kind == "single_label" else self.problem.outputs)
        labels = batch.labels
        if labels is None:
            labelled = 0
        elif self.problem.kind == "regression":
            labelled = int((~torch.isnan(labels)).sum())
            if self.problem.activation == "sigmoid" and bool(((labels < 0) | (labels > 1)).any()):
                raise CompatibilityError("got labels outside of 0 to 1; the models answer between 0 and 1 (the sigmoid of "
                                         "their "
                                         f"logit, says the config). {BETWEEN}")
        else:
            labelled = int((labels != -100).sum())
        return {"rows": rows, "labelled": labelled, "examples": examples}


class Positions(TorchDataset[int]):
    """Examples stand for themselves: the collator holds what they are made of."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return index


def _flags(labels: Tensor) -> Tensor:
    """Labels of 0 and 1 as whole numbers, also where transformers' own convention stores them as floats."""
    whole = labels.long()
    if labels.is_floating_point() and not torch.equal(whole.to(labels.dtype), labels):
        raise CompatibilityError("got labels between 0 and 1 for several labels per example; expected 0 or "
                                 "1.")
    return whole


def attempt(problems: list[str], find: Callable[..., Found], *arguments: Any) -> Found | None:
    """What is found; or None, with what is wrong added to the problems, so that all are named at once."""
    try:
        return find(*arguments)
    except DataError as error:
        problems.append(str(error))
        return None
