"""What is counted of a step, by whatever names a task has."""

from __future__ import annotations

import pytest
import torch
from transformers import BertForSequenceClassification

from stilla.errors import CompatibilityError
from stilla.objectives.base import FeatureObjective, Term
from stilla.signals import Dims, Signals
from stilla.tasks import of_model
from stilla.training.distiller import Distiller
from stilla.training.reduction import count_step
from tests.tasks.tiny import bert_config


def alone(values: torch.Tensor) -> torch.Tensor:
    return values


def test_names_of_a_task_are_summed_over_batches_and_processes() -> None:
    batches = [{"rows": 3, "words": 5}, {"rows": 1, "words": 2}]

    def two(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, torch.tensor([[10, 20]])])

    assert count_step(batches, alone, "cpu", ("rows", "words")) == {"rows": 4.0, "words": 7.0}
    assert count_step(batches, two, "cpu", ("rows", "words")) == {"rows": 14.0, "words": 27.0}
    assert count_step([], two, "cpu", ("rows", "words")) == {"rows": 10.0, "words": 20.0}


def test_other_names_than_the_declared_ones_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="declares that it counts rows and words, and counted rows in a batch"):
        count_step([{"rows": 3}], alone, "cpu", ("rows", "words"))


class OfWords(FeatureObjective):
    """Counted by what a classifier does not count."""

    count = "words"

    def total(self, student: Signals, teacher: Signals, progress: float) -> torch.Tensor:
        return torch.zeros(())


def test_an_objective_is_refused_where_nothing_is_counted_that_it_is_divided_by() -> None:
    model = BertForSequenceClassification(bert_config(num_labels=2))
    with pytest.raises(CompatibilityError, match=r"`ofwords` is divided by the number of words, which this task does not "
                                                 r"count; it counts rows, labelled, tokens or examples"):
        Distiller(model, [Term(OfWords())], of_model(model), student_dims=Dims(2), teacher_dims=Dims(2))
