"""A student with a head that answers to the labels and one that answers to the teacher (DeiT, Touvron et al. 2021,
arXiv:2012.12877, sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    TrainingArguments,
    set_seed,
)

from stilla import DistillationTrainer, Term
from stilla.export import onnx
from stilla.objectives import DIST, Labels, Logits
from stilla.recipe import ModelSource, StudentSpec
from stilla.stages.starting import start_student
from stilla.training.reduction import Step
from tests.equivalence.pictures import examples, stacked, vit
from tests.tasks.tiny import image_processor, labels_of, vit_folder
from tests.tasks.vision.test_image_classification import rows_of, task_of

HARD = [Term(Labels(), weight=0.5), Term(Logits(divergence="hard"), weight=0.5)]


def deit(**labels: Any) -> DeiTForImageClassificationWithTeacher:
    torch.manual_seed(0)
    made = DeiTForImageClassificationWithTeacher(DeiTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        **(labels or {"num_labels": 3})))
    for head in (made.cls_classifier, made.distillation_classifier):
        nn.init.normal_(head.weight, 0, 0.3)
    return made


def trainer(folder: Path, terms: Sequence[Term], pieces: tuple[int, int] = (8, 1), **options: Any) -> DistillationTrainer:
    student = deit()
    torch.manual_seed(1)
    teacher = vit(3)
    set_seed(0)
    return DistillationTrainer(
        student, teacher, terms=list(terms), train_dataset=examples(16), data_collator=stacked,
        args=TrainingArguments(str(folder), per_device_train_batch_size=pieces[0], gradient_accumulation_steps=pieces[1],
                               max_steps=3, learning_rate=1e-2, optim="sgd", use_cpu=True, report_to=[], disable_tqdm=True,
                               save_strategy="no", remove_unused_columns=False, **options))


def gradients(made: DistillationTrainer) -> tuple[float, float, float]:
    """Of one step: of the class head, of the distillation head, and the loss."""
    batch = made.train_dataset.collate([made.train_dataset.examples[index] for index in range(8)])  # type: ignore[union-attr]
    counts = {name: float(value) for name, value in made.task.counts(batch).items()}
    made.model.train()
    loss = made.model.loss(batch, made.teacher(batch), Step(counts))["loss"]
    loss.backward()
    student: Any = made.student
    found = [0.0 if head.weight.grad is None else head.weight.grad.abs().max().item()
             for head in (student.cls_classifier, student.distillation_classifier)]
    return found[0], found[1], loss.item()


def test_the_loss_is_half_the_labels_of_one_head_and_half_the_teachers_choice_of_the_other(tmp_path: Path) -> None:
    made = trainer(tmp_path, HARD)
    batch = made.train_dataset.collate([made.train_dataset.examples[index] for index in range(8)])  # type: ignore[union-attr]
    with torch.no_grad():
        said, told = made.student.train()(**batch.student), made.teacher.model(**batch.teacher).logits  # type: ignore[union-attr]
    expected = (F.cross_entropy(said.cls_logits, batch["labels"]) + F.cross_entropy(
        said.distillation_logits, told.argmax(-1))) / 2
    assert gradients(made)[2] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("teaching", [Logits(divergence="hard"), Logits(), DIST()])
def test_each_head_learns_from_its_own_and_from_nothing_else(tmp_path: Path, teaching: Any) -> None:
    def weighted(labels: float, teacher: float) -> tuple[float, float]:
        made = trainer(tmp_path, [Term(Labels(), weight=labels), Term(teaching, weight=teacher)])
        return gradients(made)[:2]

    of_labels, untouched = weighted(1.0, 0.0)
    assert of_labels > 1e-3
    assert untouched == 0
    untouched, of_teacher = weighted(0.0, 1.0)
    assert of_teacher > 1e-4
    assert untouched == 0


@pytest.mark.parametrize("term", [Labels(), Logits(divergence="hard")])
def test_by_one_kind_of_terms_alone_the_mean_learns_and_no_head_stays_random(tmp_path: Path, term: Any) -> None:
    one, other, _ = gradients(trainer(tmp_path, [Term(term)]))
    assert one > 1e-3
    assert other > 1e-3


@pytest.mark.slow
def test_a_cut_step_is_the_same_and_answers_are_the_mean_of_both_heads(tmp_path: Path) -> None:
    found = []
    for pieces in ((8, 1), (2, 4)):
        made = trainer(tmp_path, HARD, pieces)
        made.train()
        found.append(torch.cat([one.detach().flatten() for one in made.student.parameters()]))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)
    prediction = made.predict(examples(5))
    with torch.no_grad():
        said = made.student.eval()(pixel_values=stacked(list(examples(5)))["pixel_values"])  # type: ignore[arg-type]
    mean = (said.cls_logits + said.distillation_logits) / 2
    torch.testing.assert_close(torch.tensor(prediction.predictions), mean, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_a_folder_with_two_heads_learns_from_a_vit_and_is_exported_as_their_mean(tmp_path: Path) -> None:
    ours, theirs, rows = tmp_path / "ours", vit_folder(tmp_path / "theirs", **labels_of("cat", "dog")), rows_of(8)
    deit(**labels_of("cat", "dog")).save_pretrained(ours)
    image_processor().save_pretrained(ours)
    task = task_of(rows)
    told = task.load(ModelSource(model=str(theirs)), labelled=True)
    task = task.adapted_to(told)
    student, loaded = start_student(StudentSpec(model=str(ours)), task, told)
    assert isinstance(student.model, DeiTForImageClassificationWithTeacher)
    made = DistillationTrainer(
        student, told.model, terms=HARD, task=task,
        train_dataset=task.prepare(rows, loaded.processor, told.processor, training=True),
        args=TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True))
    made.train()
    made.save_model(str(tmp_path / "student"))
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "student").eval()
    pixels = {"pixel_values": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
    with torch.no_grad():
        said = again(**pixels)
        torch.testing.assert_close(said.logits, (said.cls_logits + said.distillation_logits) / 2)
        torch.testing.assert_close(said.logits, made.student.eval()(**pixels).logits)
    onnx.export_onnx(again, task.axes, task.outputs, [pixels], tmp_path / "model.onnx")
