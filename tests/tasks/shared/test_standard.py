"""Numbers to predict, one or several: what columns may hold, standard units in training, the data's everywhere else."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import r2_score, root_mean_squared_error
from torch import nn

from stilla.errors import CompatibilityError, DataError
from stilla.objectives import Labels, Logits
from stilla.recipe import ModelSource, StudentSpec
from stilla.recipe.file import from_options
from stilla.signals import Batch, Dense, Side
from stilla.tasks.answers import Answers
from stilla.tasks.shared import metrics
from stilla.tasks.shared.label_order import adapted
from stilla.tasks.shared.problem import Scale
from stilla.tasks.shared.standard import last_layer
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from tests.tasks.tiny import bert_config, bert_folder

WORDS = ("good", "bad", "film", "food")
TEXTS = [f"{one} {other}" for one in WORDS for other in WORDS] * 2
HEAT = [float(WORDS.index(text.split()[0])) + 0.25 * WORDS.index(text.split()[1]) for text in TEXTS]
PRICE = [1e4 + 1e3 * (3 - one) for one in HEAT]
COLUMNS = ("heat", "price")


def task_of(rows: dict[str, list[Any]] | None = None, **section: Any) -> TextClassification:
    rows = {"text": TEXTS, "heat": HEAT, "price": PRICE} if rows is None else rows
    label = section.pop("label", tuple(name for name in rows if name != "text"))
    made = TextClassificationData(train="x", label=label, augment="none", **section)
    return TextClassification.understand(made, {"train": Dataset.from_dict(rows)})


def batch_of(labels: Any) -> Batch:
    count = len(labels)
    ids = {"input_ids": torch.ones(count, 3, dtype=torch.long)}
    return Batch(student=ids, teacher=ids, labels=torch.tensor(labels), keys=torch.arange(count))


# --- columns ---


def test_columns_of_fractions_are_numbers_and_an_empty_place_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        task = task_of({"text": ["a", "b", "c"], "x": [0.5, None, 2.5], "y": ["1", "2e2", "3.5"]})
    problem = task.problem
    assert (problem.kind, problem.form, problem.names, problem.outputs) == ("regression", "numbers", ("x", "y"), 2)
    encoded = problem.encode(Dataset.from_dict({"x": [1.5, None], "y": ["2", "4"]}))
    np.testing.assert_array_equal(encoded, np.array([[1.5, 2], [np.nan, 4]], np.float32))
    assert "'x' is not known of 1 of 3 examples" in caplog.text
    assert "read as numbers to predict (data.kind: regression)" in caplog.text
    assert problem.scale is not None
    assert problem.scale.means[0] == 1.5
    assert problem.scale.deviations[0] == 1.0


@pytest.mark.parametrize(("rows", "section", "said"), [
    ({"x": [0.5, 1.0], "y": ["a", "b"]}, {"kind": "regression"}, r"'y' is one of several numbers .* rows 0, 1 \('a'\)"),
    ({"x": [3, 4], "y": [5, 6]}, {}, r"expected 0, 1 or nothing .* set data\.kind: regression"),
    ({"x": [0.5, 1.5], "y": [2, 2]}, {"kind": "regression"}, "'y' is the same number in every training example"),
    ({"x": [0.5, 1.5], "y": [None, None]}, {"kind": "regression"}, "'y' is empty in every example"),
    ({"x": [0.5, 1.5], "y": [1.0, float("inf")]}, {"kind": "regression"}, "'y' is not finite"),
    ({"x": [0.5, 1.5], "y": [1, 2]}, {"labels": ("x", "z")}, r"data\.labels"),
    ({"x": [0.5, 1.5], "y": [1, 2]}, {"label_scale": {"z": (0, 1)}}, r"data\.label_scale: no number is called 'z'"),
    ({"x": [0, 1], "y": [1, 0]}, {"label_scale": {"x": (0, 1)}}, r"data\.label_scale: it is of numbers"),
])
def test_what_is_wrong_with_columns_of_numbers_is_said(rows: Any, section: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        task_of({"text": ["a", "b"], **rows}, **section)


def test_columns_of_0_and_1_are_labels_still() -> None:
    assert task_of({"text": ["a", "b"], "x": [0, 1], "y": [1.0, 0.0]}).problem.form == "columns"
    assert task_of({"text": ["a", "b"], "x": [0, 1], "y": [1, 0]}, kind="regression").problem.form == "numbers"


def test_units_are_those_of_the_training_data_and_a_recipe_may_say_others() -> None:
    scale = task_of().problem.scale
    assert scale is not None
    np.testing.assert_allclose(scale.means, [np.mean(HEAT), np.mean(PRICE)], rtol=1e-5)
    np.testing.assert_allclose(scale.deviations, [np.std(HEAT), np.std(PRICE)], rtol=1e-5)
    said = task_of(label_scale={"price": (9000, 500)})
    assert said.problem.scale is not None
    assert (said.problem.scale.means[1], said.problem.scale.deviations[1]) == (9000, 500)
    resolved = said.resolved(TextClassificationData(train="x"))
    assert resolved.label_scale is not None
    assert resolved.label_scale["price"] == (9000, 500)
    assert task_of(label_scale=resolved.label_scale).problem.scale == said.problem.scale


def test_a_teacher_may_have_the_numbers_in_another_order() -> None:
    task = task_of()

    turned = {"id2label": {0: "price", 1: "heat"}, "label2id": {"price": 0, "heat": 1}}
    for kind in ("regression", None):
        problem = adapted(task.problem, bert_config(**turned, problem_type=kind), "bert")
        assert problem.names == problem.raw == ("price", "heat")
        assert task.problem.scale is not None
        assert problem.scale == Scale(task.problem.scale.means[::-1], task.problem.scale.deviations[::-1])
        row = problem.encode(Dataset.from_dict({"heat": [1.0], "price": [2.0]}))
        assert row.tolist() == [[2.0, 1.0]]
    with pytest.raises(CompatibilityError, match="answers with 3 numbers, the data have 2"):
        adapted(task.problem, bert_config(num_labels=3, problem_type="regression"), "bert")
    with pytest.raises(CompatibilityError, match="does not know 1 of the data's 2 labels: 'price'"):
        adapted(task.problem, bert_config(id2label={0: "heat", 1: "age"}, label2id={"heat": 0, "age": 1},
                                          problem_type="regression"), "bert")


# --- losses ---


def test_losses_are_of_standard_units_on_both_sides_and_of_every_number_that_is_known() -> None:
    task, draw = task_of(), np.random.default_rng(0)
    ours, theirs, truth = (np.array([1.5, 1e4]) + np.array([1.2, 900]) * draw.normal(size=(5, 2)) for _ in range(3))
    truth[1, 0] = np.nan
    batch = batch_of(truth)
    assert task.problem.scale is not None
    spread = np.array(task.problem.scale.deviations)
    student, teacher = (task.signals({"logits": torch.tensor(one)}, batch, side)
                        for one, side in ((ours, Side.STUDENT), (theirs, Side.TEACHER)))
    assert isinstance(student.logits, Dense)
    assert student.logits.logits.shape == (10, 1)
    counts = task.counts(batch)
    assert (counts["rows"], counts["labelled"], counts["examples"], task.row_classes()) == (10, 9, 5, 1)
    told = Logits(divergence="mse").losses(student.logits.logits, teacher.logits, None, 0.0)
    np.testing.assert_allclose(told.numpy(), (((ours - theirs) / spread) ** 2).ravel(), rtol=1e-9)
    right = Labels().losses(student.logits.logits, None, student.labels, 0.0)
    expected = np.nan_to_num(((ours - truth) / spread) ** 2).ravel()
    np.testing.assert_allclose(right.numpy(), expected, rtol=2e-3)  # labels are float32, 1e4 with seven digits
    assert right[2] == 0


# --- the head ---


Learnt = tuple[TextClassification, Any, np.ndarray[Any, Any]]


def answers(task: TextClassification, model: nn.Module, batch: Batch) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return task.outputs(model(**batch.student)).double().numpy()


def learnt(folder: Path, rows: dict[str, list[Any]], steps: int = 30, **section: Any) -> Learnt:
    """A tiny model after a few steps, as a run makes and trains it, and what it says then."""
    task = task_of(rows, **section)
    torch.manual_seed(0)
    made = task.load(ModelSource(model=str(folder)), labelled=False)
    batch = task.prepare(Dataset.from_dict(rows), made.processor, None, training=True).collate(list(range(len(TEXTS))))
    optimiser = torch.optim.AdamW(made.model.parameters(), 5e-3)
    with task.learning(made.model):
        for _ in range(steps):
            said = task.signals(made.model(**batch.student), batch, Side.STUDENT)
            assert isinstance(said.logits, Dense)
            loss = Labels().losses(said.logits.logits, None, said.labels, 0.0).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return task, made.model, answers(task, made.model, batch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"), num_labels=5)  # of no use here: the head will be a new one


@pytest.mark.slow
def test_shifted_and_scaled_numbers_are_learnt_as_well_as_plain_ones(folder: Path) -> None:
    *_, plain = learnt(folder, {"text": TEXTS, "heat": HEAT}, kind="regression")
    *_, moved = learnt(folder, {"text": TEXTS, "heat": [1e4 + 1e3 * one for one in HEAT]}, kind="regression")
    np.testing.assert_allclose((moved - 1e4) / 1e3, plain, atol=1e-2)
    assert pearsonr(plain[:, 0], HEAT)[0] > 0.8
    said = (metrics.regression()[0].compute(one, np.array(HEAT)) for one in (plain, moved))
    assert next(said) == pytest.approx(next(said), abs=1e-4)


@pytest.mark.slow
def test_several_numbers_of_any_size_are_learnt_at_once_and_saved_in_their_own_units(folder: Path, tmp_path: Path) -> None:
    rows = {"text": TEXTS, "heat": HEAT, "price": PRICE}
    task, model, said = learnt(folder, rows)
    for place, truth in enumerate((HEAT, PRICE)):
        assert r2_score(truth, said[:, place]) > 0.6
    model.save_pretrained(tmp_path)
    config = model.config
    assert (config.problem_type, tuple(config.id2label.values())) == ("regression", COLUMNS)
    again = type(model).from_pretrained(tmp_path)
    batch = task.prepare(Dataset.from_dict(rows), task.load(ModelSource(model=str(folder)), labelled=False).processor, None,
                         training=False).collate(list(range(len(TEXTS))))
    np.testing.assert_array_equal(answers(task, again, batch), answers(task, model, batch))


def test_a_new_head_answers_around_the_mean_and_a_trained_one_is_left_as_it_is(folder: Path, tmp_path: Path) -> None:
    rows = {"text": TEXTS, "heat": HEAT, "price": PRICE}
    task, model, said = learnt(folder, rows, steps=0)
    assert task.problem.scale is not None
    distance = (said - np.array(task.problem.scale.means)) / np.array(task.problem.scale.deviations)
    assert np.abs(distance).max() < 1
    model.save_pretrained(tmp_path)
    task.load(ModelSource(model=str(folder)), labelled=False).processor.save_pretrained(tmp_path)
    *_, again = learnt(tmp_path, rows, steps=0)
    np.testing.assert_allclose(again, said, rtol=1e-6)
    fresh = type(model)(model.config).eval()
    before = last_layer(fresh, 2)
    assert before is not None
    weight = before.weight.clone()
    task.started(fresh, StudentSpec(config={"num_hidden_layers": 1}))
    torch.testing.assert_close(before.weight / weight, torch.tensor(task.problem.scale.deviations)[:, None].expand(2, 16))


def test_while_it_is_trained_a_model_answers_as_before_and_has_the_same_names(folder: Path) -> None:
    rows = {"text": TEXTS, "heat": HEAT, "price": PRICE}
    task, model, said = learnt(folder, rows, steps=3)
    batch = task.prepare(Dataset.from_dict(rows), task.load(ModelSource(model=str(folder)), labelled=False).processor, None,
                         training=False).collate(list(range(len(TEXTS))))
    names, head = list(model.state_dict()), copy.deepcopy(model.classifier.state_dict())
    with task.learning(model):
        np.testing.assert_allclose(answers(task, model, batch), said, rtol=1e-6)
        copied = copy.deepcopy(model)
        np.testing.assert_allclose(answers(task, copied, batch), said, rtol=1e-6)
        assert list(model.state_dict()) == names
        assert model.classifier.weight.abs().max() < 1 < head["weight"].abs().max()
    torch.testing.assert_close(dict(model.classifier.state_dict()), dict(head))
    assert not model.classifier._forward_hooks


def test_what_has_no_such_layer_or_no_bias_is_said(caplog: pytest.LogCaptureFixture) -> None:
    task = task_of()
    with task.learning(nn.Linear(3, 5)):
        pass
    assert "has no linear layer that gives its 2 numbers" in caplog.text
    frozen = nn.Linear(3, 2).requires_grad_(False)
    weight = frozen.weight.clone()
    with task.learning(frozen):
        assert torch.equal(frozen.weight, weight)
    with task.learning(nn.Linear(3, 2, bias=False)):
        pass
    assert "the head has no bias" in caplog.text


# --- metrics ---


def test_metrics_of_several_numbers_are_scikit_learns_and_scipys() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=(60, 2)) * [1, 1e3] + [0, 1e4]
    said = truth + draw.normal(size=(60, 2)) * [0.5, 800]
    truth[:20, 1] = np.nan
    known = [~np.isnan(column) for column in truth.T]
    pairs = [(truth[one, place], said[one, place]) for place, one in enumerate(known)]
    found = {one.name: one.compute(said, truth) for one in metrics.regression(COLUMNS)}
    assert found == pytest.approx({
        "pearson": np.mean([pearsonr(*one)[0] for one in pairs]), "spearman": np.mean([spearmanr(*one)[0] for one in pairs]),
        "r2": np.mean([r2_score(*one) for one in pairs]),
        **{f"rmse_{name}": root_mean_squared_error(*one) for name, one in zip(COLUMNS, pairs)}}, rel=1e-9)
    exam = task_of().exam()
    assert [one.name for one in exam.metrics()] == list(found)


def test_a_constant_answer_is_the_mean_of_what_is_known() -> None:
    truth = np.array([[1.0, 5.0], [3.0, np.nan]])
    constant = task_of().exam().constant(Answers(np.arange(2), np.zeros((2, 2)), truth))
    np.testing.assert_array_equal(constant, [[2, 5], [2, 5]])


def test_a_scale_is_read_as_yaml_has_it() -> None:
    read = from_options({"task": "text-classification", "data": {"train": "x.csv", "label_scale": {"price": [9000, 500]}},
                         "teacher": "./t", "student": 1})
    assert read.data.label_scale == {"price": (9000, 500)}  # type: ignore[attr-defined]
