"""Texts in other words train as any: however a step is cut, and after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.equivalence.setting import distance, losses, weights
from tests.equivalence.test_unlabelled import StopAt, spied
from tests.equivalence.unlabelled import trainer


@pytest.mark.slow
def test_the_teacher_is_asked_about_the_very_texts_and_four_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    whole, plain = (trainer(kind, tmp_path / kind) for kind in ("reworded", "text"))
    cut = trainer("reworded", tmp_path / "cut", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    seen, others = (spied(one.student, one.teacher.model) for one in (whole, plain))
    for one in (whole, plain, cut):
        one.train()
    assert seen[0] == seen[1]
    assert seen[0] != others[0]
    assert distance(weights(whole), weights(cut)) < 5e-6
    for one_step, other in zip(losses(whole), losses(cut), strict=True):
        assert one_step == pytest.approx(other, rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 4])  # within the first epoch, within the second
def test_stop_and_resume_equals_uninterrupted(stop: int, tmp_path: Path) -> None:
    whole = trainer("reworded", tmp_path / "whole", optim="adamw_torch")
    whole.train()
    first = trainer("reworded", tmp_path / "parts", optim="adamw_torch")
    first.add_callback(StopAt(stop))
    first.train()
    torch.manual_seed(99)
    second = trainer("reworded", tmp_path / "parts", optim="adamw_torch")
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert distance(weights(whole), weights(second)) == 0
    assert losses(second)[stop:] == losses(whole)[stop:]
