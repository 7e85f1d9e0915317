"""One step of a body that several tasks learn from, against NumPy; what is drawn, and what is shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForQuestionAnswering,
    BertForTokenClassification,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from stilla.errors import CompatibilityError, TrainingError
from stilla.models.stacks import find_stacks
from stilla.training import reptile
from stilla.training.reptile import Learning, body_of, moved, put
from tests import tiny
from tests.equivalence import reptile as setting
from tests.equivalence.launching import launch
from tests.equivalence.reptile import BODY, HOW, Two


@pytest.fixture
def learning() -> Learning:
    return setting.learning()


def by_hand(learning: Learning, number: int) -> tuple[np.ndarray, float]:
    """Softmax regression on a linear body, by formulas; Adam without momentum: g / sqrt of the mean of g²."""
    theta, ends, losses = BODY["body.weight"].numpy(), [], []
    for place, which in enumerate(learning.drawn(number)):
        one = learning.sources[which]
        weights = [theta.copy(), learning.starts[which]["head.weight"].numpy().copy()]
        squares = [np.zeros_like(weight) for weight in weights]
        for step, rows in enumerate(learning.batches(len(one.prepared), (learning.seed, number, place)), 1):
            batch = one.prepared.collate(rows.tolist())
            x, y = batch.student["input_ids"].numpy(), batch["labels"].numpy()
            z = x @ weights[0].T @ weights[1].T
            p = np.exp(z - z.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            loss = -np.log(p[np.arange(len(y)), y]).mean()
            dz = (p - np.eye(p.shape[1])[y]) / len(y)
            gradients = [(dz @ weights[1]).T @ x, dz.T @ (x @ weights[0].T)]
            for weight, square, gradient in zip(weights, squares, gradients, strict=True):
                square[:] = 0.999 * square + 0.001 * gradient**2
                weight -= learning.learning_rate * gradient / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        ends.append(weights[0])
        losses.append(loss)
    rate = HOW.rate * (1 - number / HOW.steps)
    return theta + rate * (np.mean(ends, axis=0) - theta), float(np.mean(losses))


@pytest.mark.parametrize("number", [0, 7])
def test_a_step_is_that_of_the_formula(learning: Learning, number: int) -> None:
    """θ + ε (mean φ - θ), in float64, twice over: what a step leaves in its models moves no later one."""
    expected, loss = by_hand(learning, number)
    for _ in range(2):
        body, found = learning.step(number, BODY)
        np.testing.assert_allclose(body["body.weight"].numpy(), expected, rtol=1e-10)
        assert found == pytest.approx(loss, rel=1e-10)
    assert np.abs(expected - BODY["body.weight"].numpy()).max() > 1e-2


def test_processes_that_share_a_steps_tasks_make_the_same_body(learning: Learning, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each of them adds up, summed as they do it, is what one alone adds up."""
    whole, loss = learning.step(4, BODY)
    parts: list[list[torch.Tensor]] = [[], []]
    for rank in range(2):
        class State:
            process_index, num_processes = rank, 2

        monkeypatch.setattr(reptile, "processes", State)
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda one, rank=rank: parts[rank].append(one.clone()))
        learning.step(4, BODY)
    losses, *ways = [one + other for one, other in zip(*parts, strict=True)]
    assert losses.item() / HOW.tasks_per_step == pytest.approx(loss, rel=1e-12)
    body = moved(BODY, dict(zip(BODY, ways, strict=True)), HOW.tasks_per_step, learning.rate_of(4))
    torch.testing.assert_close(body["body.weight"], whole["body.weight"], rtol=1e-12, atol=0)


def test_tasks_are_drawn_by_their_size_and_nothing_but_seed_and_step(learning: Learning) -> None:
    many = [one for number in range(2000) for one in learning.drawn(number)]
    assert np.mean(many) == pytest.approx(9 / 16, abs=0.02)
    assert learning.drawn(5) == Learning(learning.sources, HOW, shared=BODY, learning_rate=1.0, seed=3).drawn(5)


def test_a_task_learns_from_so_many_of_its_examples_each_as_often(learning: Learning) -> None:
    rows = np.concatenate(list(learning.batches(9, (3, 0, 0))))
    found, often = np.unique(rows, return_counts=True)
    assert len(rows) == 8
    assert len(found) == 5
    assert set(often) <= {1, 2}
    assert [len(one) for one in learning.batches(1, (3, 0, 0))] == [1] * 4  # a task of one example has batches of one


def test_the_loss_that_is_not_finite_names_the_tasks(learning: Learning) -> None:
    with pytest.raises(TrainingError, match=r"step 1 \(task 1, task 2\); lower student.reptile.learning_rate"):
        learning.step(0, {"body.weight": BODY["body.weight"] * float("nan")})


def test_the_body_is_what_lies_below_the_head_and_is_trained(tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny.bert(tmp_path, layers=2))
    names = set(body_of(model))
    assert {name for name, _ in model.named_parameters()} - names == {"classifier.weight", "classifier.bias"}
    for layer in find_stacks(model)[0].layers(model)[:1]:
        layer.requires_grad_(False)
    frozen = set(body_of(model))
    assert {name.split(".")[3] for name in names - frozen} == {"0"}
    other = {name: value + 1 for name, value in body_of(model).items()}
    put(other, model)
    assert all(torch.equal(value, other[name]) for name, value in body_of(model).items())
    model.bert.requires_grad_(False)
    with pytest.raises(CompatibilityError, match="nothing but the head"):
        body_of(model)


def test_a_model_without_a_head_that_is_known_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"student\.reptile: 'head' matches no weight of Two"):
        body_of(Two(2, 0))


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    first, second = launch(tmp_path / "two", 2, "tests.equivalence.reptile", 3)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, setting.steps(3), rtol=1e-12, atol=0)
    assert (first - BODY["body.weight"]).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["token", "answers", "image", "audio"])
def test_other_tasks_than_texts_have_a_head_that_is_known(family: str) -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model, head = {
        "token": lambda: (BertForTokenClassification(BertConfig(vocab_size=8, **small)), "classifier."),
        "answers": lambda: (BertForQuestionAnswering(BertConfig(vocab_size=8, **small)), "qa_outputs."),
        "image": lambda: (ViTForImageClassification(ViTConfig(image_size=4, patch_size=2, **small)), "classifier."),
        "audio": lambda: (Wav2Vec2ForSequenceClassification(Wav2Vec2Config(
            conv_dim=(8,), conv_kernel=(4,), conv_stride=(4,), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
            classifier_proj_size=4, **small)), ("classifier.", "projector.")),
    }[family]()
    left = {name for name, _ in model.named_parameters()} - body_of(model).keys()
    assert left == {name for name, _ in model.named_parameters() if name.startswith(head)}
    assert left
