"""What a step that is cut makes of layers that normalise by the batch, and that nothing else of it changes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stilla.errors import CompatibilityError
from stilla.recipe import Average
from stilla.training.batch_norm import batch_norms, by_running_statistics
from stilla.training.reduction import Step
from tests.equivalence.launching import launch
from tests.equivalence.pictures import examples, resnet, trainer, used, vit
from tests.equivalence.setting import distance, losses, weights

CLOSE = 5e-6
PIECES = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}


def statistics(model: nn.Module) -> torch.Tensor:
    return torch.cat([one.flatten() for norm in batch_norms(model) for one in (norm.running_mean, norm.running_var)
                      if one is not None])


@pytest.mark.slow
def test_frozen_statistics_make_four_micro_batches_one_batch(tmp_path: Path) -> None:
    one = trainer(tmp_path, data=examples(21), batch_norm="frozen")
    four = trainer(tmp_path, data=examples(21), batch_norm="frozen", **PIECES)
    before, start = statistics(one.student), weights(one)
    one.train()
    four.train()
    assert distance(start, weights(one)) > 5e-3
    assert distance(weights(one), weights(four)) < CLOSE
    assert torch.equal(statistics(one.student), before)


@pytest.mark.slow
def test_a_step_that_is_cut_is_another_one_where_batches_normalise_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, four = trainer(tmp_path), trainer(tmp_path, **PIECES)
    assert caplog.text.count("4 micro-batches of 2 examples by itself") == 1
    one.train()
    four.train()
    assert losses(one)[0]["loss"] != pytest.approx(losses(four)[0]["loss"], rel=1e-3)
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        trainer(tmp_path, student=vit(), **PIECES)
    assert "normalises by the batch" not in caplog.text


def test_a_micro_batch_of_one_example_is_normalised_by_running_statistics(tmp_path: Path) -> None:
    made = trainer(tmp_path, data=examples(9), max_steps=-1, num_train_epochs=1)  # the second step has one example
    made.train()
    assert batch_norms(made.student)[0].num_batches_tracked == 3 + 1
    assert len(losses(made)) == 2


def test_a_batch_that_stands_in_for_none_moves_no_statistics(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    batch = made.train_dataset.collate([made.train_dataset.examples[0]])  # type: ignore[union-attr]
    batch["void"] = True
    before = statistics(made.student)
    made.model.train()
    counts = {"rows": 7.0, "labelled": 7.0, "tokens": 7.0, "examples": 7.0}
    out = made.model.loss(batch, made.teacher(batch), Step(counts, 2, 0.5))
    out["loss"].backward()
    assert out["loss"].item() == 0
    assert torch.equal(statistics(made.student), before)


def test_what_cannot_be_frozen_or_normalised_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="ViTForImageClassification has no layer that normalises by the batch"):
        trainer(tmp_path, student=vit(), batch_norm="frozen")
    with pytest.raises(CompatibilityError, match="has random weights: its running statistics"):
        trainer(tmp_path, student=resnet(), batch_norm="frozen")
    with pytest.raises(CompatibilityError, match="batch_size: got 1, and ResNetForImageClassification normalises by the"):
        trainer(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8)
    trainer(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8, batch_norm="frozen")


@pytest.mark.slow
def test_the_teacher_keeps_its_statistics(tmp_path: Path) -> None:
    teacher = used(resnet(16))
    before = statistics(teacher)
    trainer(tmp_path, teacher=teacher).train()
    assert torch.equal(statistics(teacher), before)


@pytest.mark.slow
def test_an_averaged_student_has_averaged_statistics(tmp_path: Path) -> None:
    made = trainer(tmp_path, average=Average(ema=0.6))
    made.train()
    last = trainer(tmp_path)
    last.train()
    assert not torch.equal(statistics(made.student), statistics(last.student))


@pytest.mark.slow
def test_two_processes_have_the_same_statistics_and_frozen_ones_equal_one_process(tmp_path: Path) -> None:
    number = 17  # in the last step a process has no example
    alone = trainer(tmp_path, data=examples(number), max_steps=-1, num_train_epochs=2, batch_norm="frozen")
    alone.train()
    first, second = launch(tmp_path / "two", 2, "tests.equivalence.pictures", number, 4)
    for (one, said), (other, _), close in zip(first, second, (CLOSE, None), strict=True):
        assert distance(one, other) == 0
        moved = [name for name in one if "running_mean" in name and not torch.equal(one[name], weights(alone)[name])]
        assert bool(moved) == (close is None)
        if close is not None:
            assert distance(weights(alone), one) < close
            for a, b in zip(losses(alone), said, strict=True):
                assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("examples_at_once", [1, 2])
def test_a_map_that_is_read_as_a_sequence_has_the_gradient_of_its_formula(examples_at_once: int) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8).double()
    seen, pull = torch.randn(examples_at_once, 8, 4, 4).double(), torch.randn(examples_at_once, 16, 8).double()
    with by_running_statistics([norm]):
        normalised = norm(seen.requires_grad_())
    normalised.flatten(2).permute(0, 2, 1).backward(pull)
    of_map = pull.permute(0, 2, 1).unflatten(2, (4, 4))
    assert_close(seen.grad, of_map / (1 + norm.eps) ** 0.5)
    assert_close(norm.bias.grad, of_map.sum((0, 2, 3)))
