"""Models over a vocabulary: every number of a run against the dense logits that nobody keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor

from stilla.evaluate import chance, is_weak, make_scores, predict, predict_beside, unused_outputs
from stilla.scores import Cost
from stilla.tasks.base import Loaded, Prepared, Side
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.sections import CausalLMData
from stilla.tasks.language.vocabulary import PERPLEXITY, TOKEN_ACCURACY
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks.tiny_lm import byte_tokenizer, llama, sentences

TEXTS = sentences(7)


@pytest.fixture(scope="module")
def setting() -> tuple[CausalLM, Dataset, Prepared]:
    split, tokenizer = Dataset.from_dict({"text": TEXTS}), byte_tokenizer()
    task = CausalLM.understand(CausalLMData(train="x"), {"validation": split}).adapted_to(Loaded(llama(), tokenizer, "llama"))
    return task, split, task.prepare(split, tokenizer, None, training=False)


def dense(model: torch.nn.Module, task: CausalLM, prepared: Prepared) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probabilities over the tokens in use, and labels, of every example by itself."""
    logs, labels = [], []
    for index in range(len(prepared)):
        batch = prepared.collate([index])
        with torch.no_grad():
            logits = model(**batch.student).logits[0].double()
        there = batch.labels[0] != NO_ROW
        logs.append(logits[there][:, : task.classes].log_softmax(-1))
        labels.append(batch.labels[0][there])
    return logs, labels


def test_every_number_is_that_of_the_dense_logits(setting) -> None:
    task, split, prepared = setting
    teacher, student = llama(), llama(num_hidden_layers=1)
    said = predict_beside(teacher, {"student": student}, task, prepared, batch_size=3)
    scores = make_scores(task, {"validation": split},
                         {name: {"validation": [one]} for name, one in said.items()},
                         dict.fromkeys(said, Cost(1, 1)), resamples=100)
    p, labels = dense(teacher, task, prepared)
    q, _ = dense(student, task, prepared)
    labels, p, q = torch.cat(labels), torch.cat(p), torch.cat(q)
    measured = scores.student
    nll = -q.gather(1, labels[:, None]).mean().item()
    assert measured["perplexity"] == pytest.approx(math.exp(nll), rel=1e-5)
    assert measured["token_accuracy"] == pytest.approx((q.argmax(1) == labels).double().mean().item())
    assert measured.agreement["validation"].value == pytest.approx((q.argmax(1) == p.argmax(1)).double().mean().item())
    assert measured.kl["validation"] == pytest.approx((p.exp() * (p - q)).sum(1).mean().item(), rel=1e-4)
    confidence = q.max(1).values.exp().mean().item()
    bars = measured.calibration["validation"].bins
    assert sum(bar.confidence * bar.count for bar in bars) / len(labels) == pytest.approx(confidence, rel=1e-5)
    assert sum(bar.count for bar in bars) == len(labels)
    differ = p.argmax(1) != q.argmax(1)
    lost = int((differ & (p.argmax(1) == labels)).sum())
    assert scores.flipped["lost"] == lost
    assert scores.decided == (len(labels), "tokens")
    assert scores.metric == "perplexity"
    assert not scores.higher_is_better
    assert scores.retention is None
    assert scores.classes == ()
    assert any("retention is not defined" in note for note in scores.notes)


def test_beside_the_teacher_and_alone_a_model_says_the_same(setting) -> None:
    task, _, prepared = setting
    alone = predict(llama(num_hidden_layers=1), task, prepared, side=Side.STUDENT, batch_size=2)
    beside = predict_beside(llama(), {"student": llama(num_hidden_layers=1)}, task, prepared, batch_size=5)["student"]
    assert alone.outputs.shape[-1] == 3
    assert beside.outputs.shape[-1] == 4
    assert np.allclose(alone.outputs, beside.outputs[..., :3], atol=1e-5)
    assert np.array_equal(alone.labels, beside.labels)


def test_a_file_with_dense_logits_is_measured_like_its_model(setting, monkeypatch) -> None:
    task, _, prepared = setting
    model = llama(num_hidden_layers=1)
    asked: list[int] = []

    def file(inputs: Mapping[str, Tensor]) -> Tensor:
        asked.append(len(inputs["input_ids"]))
        with torch.no_grad():
            return model(**inputs).logits

    monkeypatch.setattr("stilla.evaluate.vocabulary._LOGITS", 2 * 80 * task.classes)
    found = predict_beside(llama(), {"file": file, "model": model}, task, prepared, batch_size=7)
    assert np.allclose(found["file"].outputs, found["model"].outputs, atol=1e-5)
    assert max(asked) < 7


def test_intervals_resample_examples_and_sums_make_the_metrics(setting) -> None:
    task, _, prepared = setting
    said = predict(llama(), task, prepared, side=Side.STUDENT)
    for metric in (PERPLEXITY, TOKEN_ACCURACY):
        table = metric.statistics(said.outputs, said.labels)
        assert len(table) == len(TEXTS)
        assert metric.compute(said.outputs, said.labels) == pytest.approx(metric.from_sums(table.sum(0)))


def test_chance_knows_how_frequent_tokens_are(setting) -> None:
    task, _, prepared = setting
    said = predict(llama(), task, prepared, side=Side.STUDENT)
    labels = said.labels[said.labels != NO_ROW]
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    assert chance(task, said) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
    assert chance(task, said, TOKEN_ACCURACY) == pytest.approx(shares.max())
    assert is_weak(task, said)


def test_a_word_is_said_about_outputs_that_no_token_uses(setting) -> None:
    task, _, prepared = setting
    padded, exact = llama(400), llama(task.classes)
    (note,) = unused_outputs(task, prepared, {"student": (padded, Side.STUDENT), "teacher": (exact, Side.TEACHER)})
    assert note.startswith("student: ")
    assert "no token uses" in note
