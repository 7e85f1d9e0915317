"""A training that is held to its teacher's weights: by a term, and by steps beside the optimiser's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from stilla import DistillationTrainer, Term
from stilla.errors import CompatibilityError
from stilla.objectives import Labels, Weights
from stilla.recipe import Average, Pull
from stilla.students import by_layers
from tests.equivalence.setting import bert, distance, examples, losses, pad, weights
from tests.equivalence.test_resume import StopAt

pytestmark = pytest.mark.slow
KEPT = [1, 2]


def trainer(folder: Path, terms: list[Term], *, pull: Pull | None = None, average: Average | None = None, teacher: Any = None,
            callbacks: Any = (), **options: Any) -> DistillationTrainer:
    torch.manual_seed(0)
    start = bert(16, 4)
    student = by_layers(start, {"keep": KEPT})
    with torch.no_grad():
        for one in start.parameters():  # another teacher than the start was cut from
            one.mul_(1.5)
    arguments = {
        "per_device_train_batch_size": 8, "max_steps": 6, "learning_rate": 5e-2, "optim": "sgd", "save_strategy": "no",
        "logging_steps": 1, "use_cpu": True, "max_grad_norm": 0.0, "lr_scheduler_type": "constant", **options}
    return DistillationTrainer(
        student, teacher or start, terms=terms, train_dataset=examples(), data_collator=pad, pull=pull, average=average,
        callbacks=callbacks,
        args=TrainingArguments(output_dir=str(folder), report_to=[], disable_tqdm=True, remove_unused_columns=False,
                               **arguments))


def gap(trained: DistillationTrainer) -> float:
    """How far the student's weights are from the teacher's, in the layers that they came from."""
    teacher, student = trained.held.terms or {}, trained.student
    found = next(iter(teacher.values())).found
    return sum((student.get_parameter(one.name) - one.theirs).square().sum().item() for one in found) / 2


def test_plain_descent_closes_the_gap_as_the_rate_says(tmp_path: Path) -> None:
    """θ_S - θ_T shrinks by 1 - a a step, and with it ½ Σ (θ_S - θ_T)² by its square."""
    one = trainer(tmp_path, [Term(Weights())])
    before = gap(one)
    one.train()
    assert gap(one) == pytest.approx(before * 0.95**12, rel=1e-5)
    assert [entry["terms/weights"] for entry in losses(one)] == [pytest.approx(before * 0.95 ** (2 * step), rel=1e-5)
                                                                 for step in range(6)]


@pytest.mark.parametrize("term", [[Term(Labels()), Term(Weights(["layers"], "mean"), weight=50.0)], [Term(Weights())]])
def test_four_micro_batches_equal_one_batch(tmp_path: Path, term: list[Term]) -> None:
    one = trainer(tmp_path, term, pull=Pull(share=0.1, every=2))
    four = trainer(tmp_path, term, pull=Pull(share=0.1, every=2), per_device_train_batch_size=2,
                   gradient_accumulation_steps=4)
    one.train()
    four.train()
    assert distance(weights(one), weights(four)) < 2e-6
    for a, b in zip(losses(one), losses(four), strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_a_pull_is_a_step_after_every_so_many_and_moves_what_is_frozen(tmp_path: Path) -> None:
    one = trainer(tmp_path, [Term(Labels())], pull=Pull(share=0.5, every=3, parts=("embeddings",)))
    table = one.student.get_input_embeddings().weight.requires_grad_(False)
    before, theirs = table.clone(), one.teacher.model.get_input_embeddings().weight  # type: ignore[union-attr]
    one.train()
    expected = before + 0.75 * (theirs - before)  # twice half of the way
    torch.testing.assert_close(table, expected, rtol=0, atol=1e-6)
    assert not torch.equal(table, before)


def test_a_mean_of_the_weights_is_of_what_a_pull_has_made_of_them(tmp_path: Path) -> None:
    """Of the last step alone the mean is what the training ended with."""
    one, other = (trainer(tmp_path, [Term(Labels())], pull=Pull(share=0.5), average=average)
                  for average in (None, Average(last=0.1)))
    one.train()
    other.train()
    assert distance(weights(one), weights(other)) < 1e-7


def test_a_resumed_training_is_the_whole_one(tmp_path: Path) -> None:
    terms = [Term(Labels()), Term(Weights(), weight=0.1)]
    options = {"optim": "adamw_torch", "learning_rate": 1e-3, "pull": Pull(share=0.1, every=2)}
    whole = trainer(tmp_path / "whole", terms, **options)
    whole.train()
    trainer(tmp_path / "parts", terms, callbacks=[StopAt(3)], **options).train()
    again = trainer(tmp_path / "parts", terms, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert distance(weights(whole), weights(again)) == 0


def test_where_weights_alone_are_compared_the_teacher_answers_nothing(tmp_path: Path) -> None:
    one = trainer(tmp_path, [Term(Labels()), Term(Weights())])
    one.teacher.model.forward = None  # type: ignore[union-attr]
    one.train()


def test_a_teacher_that_is_not_here_has_no_weights(tmp_path: Path) -> None:
    one = trainer(tmp_path, [Term(Labels())])

    class Far:
        def __call__(self, batch: Any) -> Any:
            return one.teacher(batch)  # type: ignore[misc]

        def to(self, device: Any) -> None: ...

        def dims(self, batch: Any = None) -> Any:
            return one.teacher.dims(batch)  # type: ignore[union-attr]

    with pytest.raises(CompatibilityError, match=r"pull\.parts: needs the teacher's weights, and it is not here"):
        trainer(tmp_path, [Term(Labels())], pull=Pull(share=0.1), teacher=Far())


def test_weights_that_no_process_has_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match=r"`weights`: needs the student's weights whole(.|\n)*pull: needs"):
        trainer(tmp_path, [Term(Labels()), Term(Weights())], pull=Pull(share=0.1), fsdp="full_shard")
