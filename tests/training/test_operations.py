"""What a training computes, counted on real steps, against the products that its layers make."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from stilla import Term
from stilla.objectives import DIST, Labels, Logits
from stilla.training.operations import MICRO_BATCHES, operations_of, operations_of_teacher
from tests.equivalence.setting import distance, trainer, weights

BATCH, LENGTH, CLASSES = 8, 10, 3


def rows(number: int = 24) -> Dataset:
    """All of one length, so that no padding makes batches unlike."""
    ids = torch.randint(1, 50, (number, LENGTH), generator=torch.manual_seed(1)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": [index % CLASSES for index in range(number)]})


def forward(width: int, layers: int) -> tuple[int, int]:
    """FLOPs of a batch in products with weights, and in those of attention: BERT's four matrices of width², two of twice
    that, its pooler and its classifier; q·kᵀ and the product with v."""
    weights = BATCH * (layers * LENGTH * 2 * (4 + 2 * 2) * width**2 + 2 * width**2 + 2 * width * CLASSES)
    return weights, layers * BATCH * 4 * LENGTH**2 * width


@pytest.mark.slow
def test_a_step_is_a_forward_two_backwards_and_the_teachers_forward(tmp_path: Path) -> None:
    made = trainer(tmp_path, data=rows(), objectives=[Term(Labels()), Term(Logits())])
    made.train()
    entered, asked = made.guard.entered, made.teacher.entered
    assert entered == asked == 6 * BATCH * LENGTH * 2  # ids and mask
    found = operations_of(made, compiled=False)
    assert found is not None
    products, attention = forward(16, 2)
    # a product's gradient takes two; attention's takes five products where its forward has two, as one is made again
    assert found.student * BATCH * LENGTH * 2 == pytest.approx(3 * products + attention * (1 + 5 / 2), rel=1e-9)
    products, attention = forward(32, 4)
    assert found.teacher is not None
    assert found.teacher * BATCH * LENGTH * 2 == pytest.approx(products + attention, rel=1e-9)


def test_the_teachers_part_is_counted_where_the_steps_ask_it(tmp_path: Path) -> None:
    """And not by a forward more, whose number is the same."""
    made = trainer(tmp_path, data=rows(), objectives=[Term(Labels()), Term(Logits())])
    batch, asked = next(iter(made.get_train_dataloader())), []
    alone = operations_of_teacher(made.teacher, batch)
    made.teacher.model.register_forward_hook(lambda *_: asked.append(1))
    found = operations_of(made, compiled=False)
    assert found is not None
    assert found.teacher == alone
    assert len(asked) == MICRO_BATCHES


@pytest.mark.parametrize("what", ["batches that are cut", "a frozen encoder"])
def test_counting_follows_what_is_trained(tmp_path: Path, what: str) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": 2} if what == "batches that are cut" else {}
    made = trainer(tmp_path, data=rows(), objectives=[Term(Labels())], **options)
    made.student.requires_grad_(what != "a frozen encoder")
    made.student.get_submodule("classifier").requires_grad_(True)
    some = operations_of(made, compiled=False)
    assert some is not None
    products, attention = forward(16, 2)
    expected = 3 * products + attention * 3.5
    if what == "a frozen encoder":
        expected = products + attention + BATCH * 2 * 16 * CLASSES  # the gradient of the classifier's weight alone
    assert some.student * BATCH * LENGTH * 2 == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_counting_leaves_everything_as_it_was(tmp_path: Path) -> None:
    made = trainer(tmp_path, data=rows(), dropout=0.1)
    made.train()
    before, chance, teacher, asked = weights(made), torch.random.get_rng_state(), made.teacher, made.teacher.entered
    others = random.getstate(), np.random.get_state()[2]
    assert operations_of(made, compiled=False) is not None
    assert made.teacher is teacher
    assert teacher.entered == asked
    assert distance(before, weights(made)) == 0
    assert torch.equal(chance, torch.random.get_rng_state())
    assert others == (random.getstate(), np.random.get_state()[2])
    assert all(one.grad is None for one in made.student.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_term_over_a_step_costs_a_forward_more_only_where_steps_are_cut(tmp_path: Path, accumulate: int) -> None:
    made = trainer(tmp_path, data=rows(), objectives=[Term(DIST())], gradient_accumulation_steps=accumulate)
    found = operations_of(made, compiled=False)
    assert found is not None
    products, attention = forward(16, 2)
    assert found.student * BATCH * LENGTH * 2 == pytest.approx(
        3 * products + 3.5 * attention + (accumulate - 1) * (products + attention), rel=1e-3)


@pytest.mark.parametrize("optimiser", ["galore_adamw_layerwise", "schedule_free_sgd"])
def test_nothing_is_computed_again_where_that_would_change_weights(tmp_path: Path, optimiser: str) -> None:
    assert operations_of(trainer(tmp_path, data=rows(), optim=optimiser), compiled=False) is None


def test_compiled_losses_are_not_counted(tmp_path: Path) -> None:
    assert operations_of(trainer(tmp_path, data=rows()), compiled=True) is None
