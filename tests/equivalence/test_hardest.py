"""A choice of the hardest forms changes nothing else: how a step is cut, or a stop; and one form is what there was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stilla import DistillationTrainer
from stilla.teachers import LiveTeacher
from stilla.training.operations import operations_of
from tests.equivalence.setting import distance, losses, weights
from tests.equivalence.test_unlabelled import StopAt
from tests.equivalence.unlabelled import trainer

pytestmark = pytest.mark.slow


def outspoken(folder: Path, **options: Any) -> DistillationTrainer:
    """Models of whose answers it matters which words a text has; as they are made they say nearly the same of all."""
    made = trainer("reworded", folder, **options)
    assert isinstance(made.teacher, LiveTeacher)
    with torch.no_grad():
        for model in (made.student, made.teacher.model):
            for name in ("bert.pooler.dense", "classifier"):
                model.get_submodule(name).weight.mul_(30.0)
    return made


def test_one_form_is_today_s_training_and_four_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    plain = outspoken(tmp_path / "plain")
    one = outspoken(tmp_path / "one", hardest=1)
    whole = outspoken(tmp_path / "whole", hardest=3)
    cut = outspoken(tmp_path / "cut", hardest=3, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    for each in (plain, one, whole, cut):
        each.train()
    assert distance(weights(plain), weights(one)) == 0
    assert losses(plain) == losses(one)
    assert distance(weights(plain), weights(whole)) > 1e-5
    assert distance(weights(whole), weights(cut)) < 1e-6
    assert whole.hardest is not None
    assert whole.hardest.entered > 2.5 * plain.guard.entered  # three forms of every example, in batches of other lengths
    found = operations_of(whole, compiled=False)
    assert found is not None
    assert found.forward is not None
    assert 2.5 < found.student / found.forward < 4.0  # forward and backward


@pytest.mark.parametrize("stop", [1, 3, 4])  # within the first epoch, at its end, within the second
def test_stop_and_resume_equals_uninterrupted(stop: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"optim": "adamw_torch", "hardest": 3}
    whole = outspoken(tmp_path / "whole", **options)
    whole.train()
    first = outspoken(tmp_path / "parts", **options)
    first.add_callback(StopAt(stop))
    first.train()
    torch.manual_seed(99)
    second = outspoken(tmp_path / "parts", **options)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert distance(weights(whole), weights(second)) == 0
    assert losses(second)[stop:] == losses(whole)[stop:]
