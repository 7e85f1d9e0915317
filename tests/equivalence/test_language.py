"""Language models are trained the same however a step is cut, packed blocks and masks included."""

from __future__ import annotations

from pathlib import Path

import pytest

from stilla.rows import blocks
from tests.equivalence.language import KINDS, trainer
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights

pytestmark = pytest.mark.slow

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_four_micro_batches_equal_one_batch(kind: str, tmp_path: Path) -> None:
    whole = trainer(kind, tmp_path / "whole")
    whole.train()
    cut = trainer(kind, tmp_path / "cut", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    cut.train()
    assert distance(weights(whole), weights(cut)) < 5e-6
    for one, other in zip(losses(whole), losses(cut), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_compiling_reaches_the_losses_and_changes_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    # whether a compiler gives the same numbers is tested where blocks are
    monkeypatch.setattr("stilla.rows.engine.compiled", lambda device: asked.append(True) or blocks.compare)
    made = [trainer("causal", tmp_path / str(compile), compile=compile, max_steps=1) for compile in (False, True)]
    for one in made:
        assert not asked
        one.train()
    assert asked
    assert distance(*(weights(one) for one in made)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["causal", "seq2seq", "next item"])  # the first with a tied head, within the wrapper twice
def test_two_processes_equal_one(kind: str, tmp_path: Path) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.language", kind, 8, 1)
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.language", kind, 2, 2)
    assert distance(first, second) == 0
    assert distance(alone, first) < 5e-6
    for one, other in zip(said_alone, said, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.slow
@kinds
def test_a_stop_and_a_continuation_change_nothing(kind: str, tmp_path: Path) -> None:
    whole = trainer(kind, tmp_path / "whole", save_strategy="steps", save_steps=3, max_steps=6)
    whole.train()
    again = trainer(kind, tmp_path / "whole", save_strategy="steps", save_steps=3, max_steps=6)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert distance(weights(whole), weights(again)) == 0
