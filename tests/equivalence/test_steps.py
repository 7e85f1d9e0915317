"""However an optimiser step is cut into pieces, it is the same step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from stilla import DistillationTrainer
from stilla.errors import CompatibilityError
from stilla.objectives import Hidden, Labels
from stilla.objectives.base import Term
from stilla.signals import Batch
from stilla.training.distiller import Distiller
from stilla.training.reduction import Step
from tests.equivalence.launching import launch
from tests.equivalence.setting import bert, distance, examples, losses, pad, trainer, weights

CLOSE = 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("number", [24, 21])
def test_four_micro_batches_equal_one_batch(tmp_path: Path, number: int) -> None:
    one = trainer(tmp_path, data=examples(number))
    four = trainer(tmp_path, data=examples(number), per_device_train_batch_size=2, gradient_accumulation_steps=4)
    start = weights(one)
    one.train()
    four.train()
    assert distance(start, weights(one)) > 1e-2
    assert distance(weights(one), weights(four)) < CLOSE
    for a, b in zip(losses(one), losses(four), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.slow
def test_four_micro_batches_of_pooled_states_equal_one_batch(tmp_path: Path) -> None:
    """Counted by examples, not by tokens: the longest must not weigh most."""
    one, four = (trainer(tmp_path, data=examples(21), objectives=[Term(Labels(), weight=0.3), Term(Hidden(pooling="mean"))],
                         **options) for options in ({}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}))
    one.train()
    four.train()
    assert distance(weights(one), weights(four)) < CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("number", [24, 17])  # 17: the last step has one example, so one process has none
def test_two_processes_equal_one(tmp_path: Path, number: int) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.setting", number, 8, 1)
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.setting", number, 2, 2)
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.slow
def test_two_processes_compare_hidden_states_alone(tmp_path: Path) -> None:
    ((alone, _),) = launch(tmp_path / "one", 1, "tests.equivalence.setting", 16, 8, 1, "hidden")
    (first, _), _ = launch(tmp_path / "two", 2, "tests.equivalence.setting", 16, 4, 1, "hidden")
    assert distance(alone, first) < CLOSE  # though the head gets no gradient


@pytest.mark.slow
def test_padding_has_no_influence(tmp_path: Path) -> None:
    def padded_further(items):
        batch = pad(items)
        wide = {name: torch.nn.functional.pad(batch[name], (0, 7)) for name in ("input_ids", "attention_mask")}
        wide["input_ids"][wide["attention_mask"] == 0] = 33  # garbage where nothing is
        return {**wide, "labels": batch["labels"]}

    plain, padded = trainer(tmp_path), trainer(tmp_path, collator=padded_further)
    plain.train()
    padded.train()
    assert distance(weights(plain), weights(padded)) < CLOSE


def test_what_does_not_fit_the_examples_is_refused_before_training(tmp_path: Path) -> None:
    prepared = trainer(tmp_path).train_dataset
    for changed, term, said in [({"packed": True}, Hidden(pooling="mean"), "hold several documents"),
                                ({"aligned": False}, Hidden(), "cut the examples differently")]:
        with pytest.raises(CompatibilityError, match=f"`hidden` .*{said}"):
            trainer(tmp_path, data=replace(prepared, **changed), objectives=[Term(term)])


def test_length_grouping_changes_only_the_order(tmp_path: Path) -> None:
    made = trainer(tmp_path, max_steps=-1, num_train_epochs=1)
    seen = [key for batch in made.get_train_dataloader() for key in batch.keys_.tolist()]
    assert sorted(seen) == list(range(24))


def test_a_void_batch_is_a_zero_with_a_gradient_path(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    batch = made.train_dataset.collate([made.train_dataset.examples[0]])
    batch["void"] = True
    counts = {"rows": 7.0, "labelled": 7.0, "tokens": 50.0, "examples": 7.0}
    out = made.model.loss(batch, made.teacher(batch), Step(counts, 2, 0.5))
    out["loss"].backward()
    assert out["loss"].item() == 0
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in made.model.parameters() if p.requires_grad)


def test_a_batch_without_labels_is_a_zero_of_the_labels_term(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    batch = made.train_dataset.collate([made.train_dataset.examples[index] for index in range(3)])
    batch["labels"] = torch.full_like(batch["labels"], -100)
    counts = {name: float(value) for name, value in made.task.counts(batch).items()}
    assert counts["labelled"] == 0
    out = made.model.loss(batch, made.teacher(batch), Step(counts))
    assert out["terms"][0] == 0
    assert torch.isfinite(out["loss"])
    out["loss"].backward()


@pytest.mark.slow
def test_signals_pass_a_wrapper_uncast(tmp_path: Path) -> None:
    made = trainer(tmp_path, bf16=True, max_steps=2)
    seen = []
    loss = Distiller.loss

    def spy(batch, teacher, step):
        seen.append(teacher.logits.logits.dtype)
        return loss(made.model, batch, teacher, step)

    made.model.loss = spy
    made.train()
    assert set(seen) == {torch.bfloat16}  # as the teacher said it: neither widened nor narrowed on the way


@pytest.mark.slow
def test_bfloat16_is_finite_and_near_float32(tmp_path: Path) -> None:
    exact, fast = trainer(tmp_path), trainer(tmp_path, bf16=True)
    exact.train()
    fast.train()
    assert all(torch.isfinite(tensor).all() for tensor in weights(fast).values())
    assert losses(fast)[-1]["loss"] == pytest.approx(losses(exact)[-1]["loss"], rel=0.05)


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain = trainer(tmp_path)
    checkpointed = trainer(tmp_path, activation_checkpointing=True)
    plain.train()
    checkpointed.train()
    assert distance(weights(plain), weights(checkpointed)) < CLOSE


@pytest.mark.slow
def test_projections_are_optimised_and_clipped_and_not_in_the_student(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    before = weights(made)
    made.train()
    projections = [name for name in before if "projections" in name]
    assert projections
    assert all((before[name] - weights(made)[name]).abs().max() > 0 for name in projections)
    in_optimiser = {id(p) for group in made.optimizer.param_groups for p in group["params"]}
    assert all(id(p) in in_optimiser for p in made.model.parameters())
    made.student.save_pretrained(tmp_path / "student")
    assert bert(16, 2).load_state_dict(made.student.state_dict()).missing_keys == []
    assert not any("projection" in name for name in made.student.state_dict())


@pytest.mark.slow
def test_teacher_is_untouched_and_outside(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    before = {name: tensor.clone() for name, tensor in made.teacher.model.state_dict().items()}
    made.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in made.teacher.model.state_dict().items())
    assert not made.teacher.model.training
    inside = {id(parameter) for parameter in made.model.parameters()}
    assert not any(id(parameter) in inside for parameter in made.teacher.model.parameters())


def test_a_training_without_terms_is_refused(tmp_path: Path) -> None:
    student = bert(16, 1)
    with pytest.raises(CompatibilityError, match="there is no term, so nothing would be learnt"):
        DistillationTrainer(student, terms=[], args=TrainingArguments(str(tmp_path), report_to=[]),
                            train_dataset=examples(), data_collator=pad)


@pytest.mark.slow
def test_each_term_is_logged_by_name_and_adds_up(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.train()
    for step, said in enumerate(losses(made)):
        progress = step / 6
        expected = sum(term.weight_at(progress) * said[f"terms/{term.name}"] for term in made.model.terms)
        assert said["loss"] == pytest.approx(expected, rel=1e-4)


def test_batch_of_plain_mappings_keeps_shared_inputs_shared() -> None:
    inputs = {"input_ids": torch.ones(2, 3)}
    moved = Batch(student=inputs, teacher=inputs, keys=torch.arange(2)).to("cpu")
    assert moved.student is moved.teacher
