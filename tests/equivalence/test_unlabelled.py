"""Unlabelled examples in training: the teacher answers for them, nobody's label reaches them, and pieces do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from stilla import Term
from stilla.objectives import Labels, Logits
from stilla.signals import Batch
from stilla.tasks.text.perturbation import Draws, Perturbation
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights
from tests.equivalence.unlabelled import KINDS, trainer

pytestmark = pytest.mark.slow

kinds = pytest.mark.parametrize("kind", KINDS)
silent = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "seq2seq"])  # whose texts the teacher writes
ALONE = (Term(Logits(temperature=2.0), weight=0.7),)


@kinds
def test_a_pool_that_is_the_training_data_gives_plain_distillation_bit_for_bit(kind: str, tmp_path: Path) -> None:
    plain, pool = (trainer(kind, tmp_path / parts, parts=parts, terms=ALONE) for parts in ("labelled", "unlabelled"))
    for one in (plain, pool):
        one.train()
    assert distance(weights(plain), weights(pool)) == 0
    assert losses(plain) == losses(pool)


@silent
def test_without_weight_labels_are_as_if_they_were_not_there(kind: str, tmp_path: Path) -> None:
    none = trainer(kind, tmp_path / "none", terms=(Term(Labels(), weight=0.0), *ALONE))
    removed = trainer(kind, tmp_path / "removed", terms=ALONE)
    for one in (none, removed):
        one.train()
    assert distance(weights(none), weights(removed)) < 1e-7


@silent
def test_only_labelled_examples_have_a_part_in_what_labels_teach(kind: str, tmp_path: Path) -> None:
    made = trainer(kind, tmp_path, terms=(Term(Labels()),), labelled=6, pool=9)
    data = made.train_dataset
    known = [index for index in range(len(data)) if not data.unlabelled[index]]
    every = data.collate([data.examples[index] for index in range(len(data))])
    alone = data.collate([data.examples[index] for index in known])
    assert 0 < len(known) < len(data)
    whole, part = (gradients(made, batch) for batch in (every, alone))
    assert whole.keys() == part.keys()
    for name, gradient in part.items():
        torch.testing.assert_close(whole[name], gradient, rtol=1e-4, atol=1e-6)


def gradients(made: Any, batch: Batch) -> Mapping[str, Tensor]:
    from stilla.training.reduction import Step, count_step

    counted = count_step([made.task.counts(batch)], lambda one: one, torch.device("cpu"), made.task.counted)
    made.model.zero_grad()
    made.model.eval().loss(batch, made.teacher(batch), Step(counted))["loss"].backward()
    return {name: one.grad.clone() for name, one in made.model.named_parameters() if one.grad is not None}


@kinds
@pytest.mark.parametrize("share", [None, {"linear": [0.2, 1.0]}])
def test_the_teacher_is_asked_exactly_what_the_student_sees(kind: str, share: object, tmp_path: Path) -> None:
    made = trainer(kind, tmp_path, share=share)
    seen = spied(made.student, made.teacher.model)
    made.train()
    # before, how a model makes its logits is looked at by forwards of its own
    assert seen[0][-6:] == seen[1][-6:]
    assert len(set(seen[0])) > 1


def test_it_is_asked_about_changed_texts_as_the_student_sees_them(tmp_path: Path) -> None:
    made = trainer("text", tmp_path)
    collate = made.train_dataset.collate
    words = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    collate = replace(collate, changing=Perturbation(collate.student, [0, 1, 2, 3, 4], words, Draws(0)))
    made.train_dataset = replace(made.train_dataset, collate=collate)
    plain = trainer("text", tmp_path / "plain")
    seen, others = (spied(one.student, one.teacher.model) for one in (made, plain))
    for one in (made, plain):
        one.train()
    assert seen[0] == seen[1]
    assert seen[0] != others[0]


def spied(*models: nn.Module) -> list[list[bytes]]:
    """What each model is given, forward after forward."""
    found: list[list[bytes]] = [[] for _ in models]
    for model, seen in zip(models, found):
        def look(_: nn.Module, __: Any, inputs: dict[str, Any], into: list[bytes] = seen) -> None:
            tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
            into.append(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors)))

        model.register_forward_pre_hook(look, with_kwargs=True)
    return found


@kinds
@pytest.mark.parametrize("share", [None, {"linear": [0.2, 1.0]}])
def test_four_micro_batches_equal_one_batch(kind: str, share: object, tmp_path: Path) -> None:
    whole = trainer(kind, tmp_path / "whole", share=share)
    cut = trainer(kind, tmp_path / "cut", share=share, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    for one in (whole, cut):
        one.train()
    assert distance(weights(whole), weights(cut)) < 5e-6
    for one_step, other in zip(losses(whole), losses(cut), strict=True):
        assert one_step == pytest.approx(other, rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "share"), [("text", "linear"), ("causal", "linear"), ("text", "none")])
def test_two_processes_equal_one(kind: str, share: str, tmp_path: Path) -> None:
    program = "tests.equivalence.unlabelled"
    ((alone, said_alone),) = launch(tmp_path / "one", 1, program, kind, 8, 1, share)
    (first, said), (second, _) = launch(tmp_path / "two", 2, program, kind, 2, 2, share)
    assert distance(first, second) == 0
    assert distance(alone, first) < 5e-6
    for one, other in zip(said_alone, said, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True
        return control


@pytest.mark.parametrize("stop", [1, 4, 7])  # within the first epoch, within the second, at its end less one
@pytest.mark.parametrize("kind", ["text", "masked"])
def test_stop_and_resume_within_an_epoch_equals_uninterrupted(kind: str, stop: int, tmp_path: Path) -> None:
    options = {"share": {"linear": [0.2, 1.0]}, "optim": "adamw_torch", "max_steps": 8, "learning_rate": 1e-2}
    whole = trainer(kind, tmp_path / "whole", **options)
    whole.train()
    first = trainer(kind, tmp_path / "parts", **options)
    first.add_callback(StopAt(stop))
    first.train()
    torch.manual_seed(99)
    second = trainer(kind, tmp_path / "parts", **options)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert distance(weights(whole), weights(second)) == 0
    assert losses(second)[stop:] == losses(whole)[stop:]
