"""The same step however it is cut, for objectives that look beyond a row's own two distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.objectives import DIST, Logits
from stilla.objectives.base import StepObjective, Term
from tests.equivalence.language import trainer as language
from tests.equivalence.launching import launch
from tests.equivalence.setting import SETS, bert, distance, examples, losses, pad, trainer, weights
from tests.equivalence.test_resume import StopAt

pytestmark = pytest.mark.slow

CLOSE = 2e-6
NAMES = [name for name in SETS if name != "hidden"]


def made(folder: Path, name: str, **options: Any) -> Any:
    return trainer(folder, objectives=SETS[name](), labels=5, **options)


def unlabelled(items: Any) -> dict[str, Tensor]:
    """Every fourth example of a batch without its label."""
    batch = pad(items)
    silent = batch["input_ids"].sum(-1) % 4 == 0
    return {**batch, "labels": torch.where(silent, -100, batch["labels"])}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [24, 21, 17])
def test_four_micro_batches_equal_one_batch(tmp_path: Path, name: str, number: int) -> None:
    one, four = (made(tmp_path, name, data=examples(number), collator=unlabelled, **options) for options in (
        {}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}))
    start = weights(one)
    one.train()
    four.train()
    assert distance(start, weights(one)) > 1e-3
    assert distance(weights(one), weights(four)) < CLOSE
    for a, b in zip(losses(one), losses(four), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows", "dist and others", "weights", "saliency"])
def test_two_processes_equal_one(tmp_path: Path, name: str) -> None:
    """Of 17 examples the last step has one, so one process has none; with and without micro-batches."""
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.setting", 17, 8, 1, name)
    for batch, accumulate in ((2, 2), (4, 1)):
        (first, said), (second, _) = launch(tmp_path / f"two-{batch}", 2, "tests.equivalence.setting", 17, batch, accumulate,
                                            name)
        assert distance(first, second) == 0
        assert distance(alone, first) < CLOSE
        for a, b in zip(said_alone, said, strict=True):
            assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_padding_has_no_influence(tmp_path: Path, name: str) -> None:
    def padded_further(items: Any) -> dict[str, Tensor]:
        batch = pad(items)
        wide = {one: nn.functional.pad(batch[one], (0, 7)) for one in ("input_ids", "attention_mask")}
        wide["input_ids"][wide["attention_mask"] == 0] = 33  # garbage where nothing is
        return {**wide, "labels": batch["labels"]}

    plain, padded = made(tmp_path, name), made(tmp_path, name, collator=padded_further)
    plain.train()
    padded.train()
    assert distance(weights(plain), weights(padded)) < CLOSE


@pytest.fixture
def summed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, Tensor]]:
    """What was summed over each batch, and whether it was for a gradient."""
    seen: list[tuple[bool, Tensor]] = []
    really = DIST.sums

    def watched(self: DIST, *args: Any) -> Tensor:
        found = really(self, *args)
        seen.append((torch.is_grad_enabled(), found.detach()))
        return found

    monkeypatch.setattr(DIST, "sums", watched)
    return seen


def test_a_step_is_looked_at_beforehand_only_where_it_is_cut(tmp_path: Path, summed: list[tuple[bool, Tensor]]) -> None:
    made(tmp_path, "dist", max_steps=2).train()
    assert [learnt for learnt, _ in summed] == [True, True]
    summed.clear()
    cut = made(tmp_path, "dist", max_steps=2, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    cut.train()
    assert [learnt for learnt, _ in summed] == 2 * [False, False, True, True]


def test_what_was_seen_beforehand_is_what_is_learnt_from(tmp_path: Path, summed: list[tuple[bool, Tensor]]) -> None:
    """Dropout falls on the same places in both."""
    made(tmp_path, "dist", dropout=0.3, max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=4).train()
    before = [found for learnt, found in summed if not learnt]
    learnt = [found for learnt, found in summed if learnt]
    assert len(before) == len(learnt) == 12
    for one, other in zip(before, learnt, strict=True):
        assert torch.equal(one, other)


def test_the_teacher_is_asked_once_where_a_step_is_looked_at_beforehand(tmp_path: Path) -> None:
    for name, times in (("dist", 1), ("dist and others", 2)):  # hidden states of a whole step would fill the memory
        one = made(tmp_path, name, max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=4)
        asked: list[int] = []
        teacher = one.teacher
        really = teacher.__class__.__call__
        teacher.__class__ = type("Counted", (teacher.__class__,), {
            "__call__": lambda self, batch, really=really, asked=asked: asked.append(1) or really(self, batch)})
        one.train()
        assert len(asked) == 4 * times


def test_looking_beforehand_moves_no_running_statistics(tmp_path: Path) -> None:
    """Batch norm counts every batch once."""

    student = bert(16, 2, labels=5)
    student.classifier = nn.Sequential(student.classifier, nn.BatchNorm1d(5))
    one = made(tmp_path, "dist", student=student, max_steps=3, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    one.train()
    assert one.student.classifier[1].num_batches_tracked == 6


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 4])
def test_a_resumed_training_looks_at_the_same(tmp_path: Path, stop: int) -> None:
    options = {"dropout": 0.2, "optim": "adamw_torch", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    whole = made(tmp_path / "whole", "dist and others", **options)
    whole.train()
    made(tmp_path / "parts", "dist and others", callbacks=[StopAt(stop)], **options).train()
    torch.manual_seed(99)
    again = made(tmp_path / "parts", "dist and others", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert distance(weights(whole), weights(again)) == 0
    assert losses(again)[stop:] == losses(whole)[stop:]


def test_a_checkpointed_student_learns_the_same(tmp_path: Path) -> None:
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "dropout": 0.2}
    found = []
    for checkpointing in (False, True):
        one = made(tmp_path, "dist", **options, activation_checkpointing=checkpointing)
        one.train()
        found.append(weights(one))
    assert distance(*found) < CLOSE


def test_a_sum_of_rows_as_a_step_term_is_the_row_term(tmp_path: Path) -> None:
    """The seam itself: what a row objective divides by a count, a step objective may divide by its own sum."""

    class Mean(StepObjective):
        def sums(self, logits: Any, teacher: Any, labels: Any, progress: float) -> Any:
            p, q = (one.log_softmax(-1) for one in (teacher.logits, logits))
            return torch.stack([(p.exp() * (p - q)).sum(), logits.new_tensor(float(len(logits)))])

        def loss(self, sums: Any, progress: float) -> Any:
            return sums[0] / sums[1]

    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "data": examples(21)}
    one, other = (trainer(tmp_path, objectives=[Term(objective, weight=0.7, name="same")], **options)
                  for objective in (Logits(temperature=1.0), Mean()))
    one.train()
    other.train()
    assert distance(weights(one), weights(other)) < CLOSE
    for a, b in zip(losses(one), losses(other), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_the_distiller_refuses_a_step_term_over_a_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match=r"`dist` compares the rows of a step .* over a vocabulary.*Use `logits`"):
        language("causal", tmp_path, objectives=[Term(DIST())])


