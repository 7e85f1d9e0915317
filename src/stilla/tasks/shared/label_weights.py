"""What labels count in training: by a person's numbers, or so that rare classes weigh as much as frequent ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from stilla.errors import DataError, did_you_mean, one_of
from stilla.tasks.answers import NO_ANSWER
from stilla.tasks.shared.amounts import scaled
from stilla.tasks.shared.labels import Problem, understand
from stilla.tasks.shared.sections import Classified


def problem_of(section: Classified, columns: tuple[str, ...], splits: Mapping[str, Dataset]) -> Problem:
    """What the label columns mean, what each label counts, and in which units numbers are learnt.

    Raises:
        DataError: see `labels.understand`; weights, thresholds or units of labels that there are not.
    """
    problem = scaled(understand(section, columns, splits), section, splits)
    if section.thresholds == "tuned" and problem.kind != "multi_label":
        what = "a number" if problem.kind == "regression" else "one class, the likeliest"
        raise DataError(f"data.thresholds: tuned is for several labels per example, and here the answer is {what}. Leave it "
                        "out.")
    return _weighed(problem, section, splits.get("train"))


def _weighed(problem: Problem, section: Classified, train: Dataset | None) -> Problem:
    """Balanced weights are examples / (classes · examples of the class), 1 in the mean over the training data; of several
    labels examples without the label / examples with it. `train`: None where nothing is trained."""
    said = section.label_weights
    if said is None or train is None:
        return problem
    if problem.kind == "regression":
        raise DataError("data.label_weights: the label is a number, and there are no classes to weigh. Leave it out.")
    if said == "balanced":
        return replace(problem, weights=_balanced(problem, train))
    unknown = [name for name in said if name not in problem.names]
    if unknown:
        raise DataError(f"data.label_weights: no label is called {unknown[0]!r}; expected some of "
                        f"{one_of(problem.names[:20])}.{did_you_mean(unknown[0], problem.names)}")
    return replace(problem, weights=tuple(said.get(name, 1.0) for name in problem.names))


def _balanced(problem: Problem, train: Dataset) -> tuple[float, ...]:
    labels = problem.encode(train)
    if problem.kind == "single_label":
        counts = np.bincount(labels, minlength=len(problem.names))
        occurring = int((counts > 0).sum())
        weights = len(labels) / (occurring * np.maximum(counts, 1))
    else:
        there, known = (labels > 0).sum(0), (labels != NO_ANSWER).sum(0)
        counts, weights = there, (known - there) / np.maximum(there, 1)
        weights = np.where(known > there, weights, 1.0)  # what every example has is in no need of weight
    return tuple(round(float(one), 6) for one in np.where(counts > 0, weights, 1.0))


def weights_of_rows(problem: Problem, labels: Tensor) -> Float[Tensor, " rows"]:
    """What the label of every row counts: that of its class; of several labels, whose rows stand in the order of the names,
    that of the label where it applies, else 1."""
    weights = torch.tensor(problem.weights, device=labels.device)
    if problem.kind == "single_label":
        return weights[labels.clamp_min(0)]
    return torch.where(labels > 0, weights.repeat(len(labels) // len(weights)), 1.0)
