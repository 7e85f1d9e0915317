"""Cross-encoders of sentence-transformers say what their scores are of their logits, and are taken at their word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from stilla import CompatibilityError, DataError, DistillationTrainer, Term, by_layers
from stilla.objectives import Labels, Logits
from stilla.recipe import ModelSource
from stilla.tasks.base import Side
from stilla.tasks.shared.activations import FILE, activation_of
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from tests import tiny
from tests.tasks.tiny import bert_config, labels_of
from tests.training.setting import arguments, classifier, tokenised

SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


def folder(place: Path, *, beside: str | None = None, **said: Any) -> str:
    """A cross-encoder of one logit; `beside`: what the file of newer versions says."""
    model = classifier(labels=1)
    model.config.update(said)
    model.save_pretrained(place)
    tiny.tokenizer().save_pretrained(place)
    if beside:
        (place / FILE).write_text(json.dumps({"model_type": "CrossEncoder", "activation_fn": beside}), encoding="utf-8")
    return str(place)


def scored(*scores: float) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": ["the good song", "a goal", "old bread"], "score": list(scores)})


def understood(data: datasets.Dataset) -> TextClassification:
    return TextClassification.understand(TextClassificationData(train="x", kind="regression"), {"train": data})


@pytest.mark.parametrize(
    ("config", "meant"),
    [
        ({"sentence_transformers": {"version": "5.0", "activation_fn": SIGMOID}}, "sigmoid"),
        ({"sbert_ce_default_activation_function": SIGMOID}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": IDENTITY}, "sbert_ce_default_activation_function": SIGMOID}, "none"),
        ({}, "none"),
        ({"sentence_transformers": {"version": "5.0"}}, "none"),
    ],
)
def test_a_config_says_what_scores_are_of_logits(config: dict[str, Any], meant: str) -> None:
    assert activation_of(bert_config(num_labels=1, **config), "bert") == meant


def test_what_is_done_to_several_logits_anyway_needs_no_word() -> None:
    softmax = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Softmax"}}
    assert activation_of(bert_config(num_labels=3, **softmax), "bert") == "none"
    several = {"problem_type": "multi_label_classification", "sentence_transformers": {"activation_fn": SIGMOID}}
    assert activation_of(bert_config(num_labels=3, **several), "bert") == "none"


@pytest.mark.parametrize(("name", "labels"), [(SIGMOID, 3), ("torch.nn.modules.activation.Tanh", 1), ("own.Scale", 2)])
def test_another_function_is_refused(name: str, labels: int) -> None:
    with pytest.raises(CompatibilityError, match=f"bert: its config says that its scores are {name} of its {labels} logits"):
        activation_of(bert_config(**labels_of(*"abc"[:labels]), sentence_transformers={"activation_fn": name}), "bert")


@pytest.mark.parametrize("where", ["config", "beside"])
def test_a_teachers_scores_are_measured_and_learnt_as_it_gives_them(tmp_path: Path, where: str) -> None:
    said = {"sentence_transformers": {"activation_fn": SIGMOID}} if where == "config" else {"beside": SIGMOID}
    place = folder(tmp_path / "teacher", **said)
    data = scored(0.2, 0.9, 0.5)
    task = understood(data)
    teacher = task.load(ModelSource(model=place), labelled=True)
    task = task.adapted_to(teacher)
    batch = task.prepare(data, teacher.processor, None, training=False).collate([0, 1, 2])
    with torch.no_grad():
        outputs = teacher.model(**batch.student)
    expected = outputs["logits"].sigmoid()
    torch.testing.assert_close(task.outputs(outputs), expected)
    truth = np.array([0.2, 0.9, 0.5])
    torch.testing.assert_close(task.signals(outputs, batch, Side.TEACHER).logits.logits,
                               (expected - float(truth.mean())) / float(truth.std()), rtol=1e-4, atol=1e-5)
    teacher.model.save_pretrained(tmp_path / "again")
    teacher.processor.save_pretrained(tmp_path / "again")
    ready = pipeline("text-classification", model=str(tmp_path / "again"))
    assert [one["score"] for one in ready([*data["text"]])] == pytest.approx(expected[:, 0].tolist(), abs=1e-5)


def test_a_student_of_ones_own_is_told_the_teachers_function(tmp_path: Path) -> None:
    data = scored(0.2, 0.9, 0.5)
    task = understood(data)
    task = task.adapted_to(task.load(ModelSource(model=folder(tmp_path / "teacher", beside=SIGMOID)), labelled=True))
    student = task.load(ModelSource(model=folder(tmp_path / "student")), labelled=False)
    assert activation_of(student.model.config, "student") == "sigmoid"


def test_a_teacher_that_is_trained_first_answers_with_its_logit(tmp_path: Path) -> None:
    data = scored(2.0, 4.5, 0.5)
    task = understood(data)
    teacher = task.load(ModelSource(model=folder(tmp_path / "teacher", beside=SIGMOID)), labelled=False)
    assert activation_of(teacher.model.config, "teacher") == "none"
    assert task.adapted_to(teacher).problem.activation == "none"


def test_labels_that_a_sigmoid_never_gives_are_refused(tmp_path: Path) -> None:
    data = scored(0.2, 4.5, -1.0)
    task = understood(data)
    teacher = task.load(ModelSource(model=folder(tmp_path / "teacher", beside=SIGMOID)), labelled=True)
    task = task.adapted_to(teacher)
    with pytest.raises(DataError, match=r"'score' goes from -1 to 4.5, first outside of 0 to 1 in rows 1, 2.*sigmoid"):
        task.prepare(data, teacher.processor, None, training=True)


@pytest.mark.slow
def test_a_trainer_of_ones_own_learns_the_scores(tmp_path: Path) -> None:
    teacher = AutoModelForSequenceClassification.from_pretrained(folder(tmp_path / "teacher", beside=SIGMOID))
    numbers = tokenised().map(lambda row: {"label": 0.25 * row["label"]})
    own = tiny.tokenizer()
    made = DistillationTrainer(by_layers(teacher, 1), teacher, terms=[Term(Labels()), Term(Logits(divergence="mse"))],
                               train_dataset=numbers, args=arguments(tmp_path), processing_class=own)
    found = made.predict(numbers)
    assert np.all((found.predictions > 0) & (found.predictions < 1))
    made.train()
    made.save_model(str(tmp_path / "saved"))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert activation_of(saved.config, "saved") == "sigmoid"
    with pytest.raises(CompatibilityError, match="the teacher's score is the sigmoid of its logit, the student's its logit"):
        DistillationTrainer(classifier(labels=1), teacher, terms=[Term(Labels())], train_dataset=numbers,
                            args=arguments(tmp_path), processing_class=own)
    outside = numbers.map(lambda row: {"label": row["label"] + 1})
    with pytest.raises(CompatibilityError, match="got labels outside of 0 to 1"):
        DistillationTrainer(by_layers(teacher, 1), teacher, terms=[Term(Labels())], train_dataset=outside,
                            args=arguments(tmp_path), processing_class=own).train()
