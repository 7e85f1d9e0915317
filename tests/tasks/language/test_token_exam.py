"""Models over a vocabulary: every number of a run against the dense logits that nobody keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor

from stilla.evaluate import (
    Asked,
    Examined,
    chance,
    examine,
    is_weak,
    make_scores,
    remarks,
    slices_of,
)
from stilla.scores import Cost
from stilla.signals import Side
from stilla.tasks.answers import Answers
from stilla.tasks.base import Loaded, Prepared
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.sections import CausalLMData
from stilla.tasks.language.token_exam import PERPLEXITY, TOKEN_ACCURACY
from stilla.tasks.text.sequences import NO_ROW
from stilla.views import Mark, Text
from tests.tasks.tiny_lm import byte_tokenizer, llama, sentences

TEXTS = sentences(7)


@pytest.fixture(scope="module")
def setting() -> tuple[CausalLM, Dataset, Prepared]:
    split, tokenizer = Dataset.from_dict({"text": TEXTS}), byte_tokenizer()
    task = CausalLM.understand(CausalLMData(train="x"), {"validation": split}).adapted_to(Loaded(llama(), tokenizer, "llama"))
    return task, split, task.prepare(split, tokenizer, None, training=False)


def alone(model: object, task: CausalLM, prepared: Prepared, **options: int) -> Answers:
    return examine(task.exam(), {"student": Asked(model)}, prepared, **options)["student"]


def beside(
    teacher: object, others: Mapping[str, object], task: CausalLM, prepared: Prepared, **options: int
) -> dict[str, Answers]:
    subjects = {"teacher": Asked(teacher, Side.TEACHER), **{name: Asked(one) for name, one in others.items()}}
    return examine(task.exam(), subjects, prepared, **options)


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
    said = beside(teacher, {"student": student}, task, prepared, batch_size=3)
    answers = {name: {"validation": [one]} for name, one in said.items()}
    scores = make_scores(task.kind, {"validation": split}, [Examined(task.exam(), answers)], dict.fromkeys(said, Cost(1, 1)),
                         resamples=100)
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
    assert (scores.decided, scores.units) == (len(labels), "tokens")
    assert scores.metric == "perplexity"
    assert not scores.higher_is_better
    assert scores.retention is None
    assert scores.classes == ()
    assert any("retention is not defined" in note for note in scores.notes)


def test_the_perplexity_of_a_slice_is_that_of_its_texts(setting) -> None:
    """Long texts in several pieces are in the slice of their text."""
    task, split, _ = setting
    some = split.add_column("kind", ["ab"[number % 2] for number in range(len(TEXTS))])
    prepared = replace(task, section=task.section.model_copy(update={"max_length": 24})).prepare(
        some, byte_tokenizer(), None, training=False)
    teacher, student = llama(), llama(num_hidden_layers=1)
    said = beside(teacher, {"student": student}, task, prepared, batch_size=3)
    answers = {name: {"validation": [one]} for name, one in said.items()}
    scores = make_scores(task.kind, {"validation": some}, [Examined(task.exam(), answers)], dict.fromkeys(said, Cost(1, 1)),
                         slices=slices_of(some, ["kind"]), resamples=100)
    logs, labels = dense(student, task, prepared)
    assert len(prepared) > len(TEXTS)
    assert {one.name for one in scores.slices} == {"a", "b"}
    for part in scores.slices:
        inside = [place for place, key in enumerate(prepared.keys) if some[int(key)]["kind"] == part.name]
        nll = torch.cat([-logs[place].gather(1, labels[place][:, None]) for place in inside]).mean().item()
        assert part.examples == len(inside)
        assert part.quality["student"].value == pytest.approx(math.exp(nll), rel=1e-5)


def test_beside_the_teacher_and_alone_a_model_says_the_same(setting) -> None:
    task, _, prepared = setting
    one = alone(llama(num_hidden_layers=1), task, prepared, batch_size=2)
    other = beside(llama(), {"student": llama(num_hidden_layers=1)}, task, prepared, batch_size=5)["student"]
    assert one.given.shape[-1] == 3
    assert other.given.shape[-1] == 4
    assert np.allclose(one.given, other.given[..., :3], atol=1e-5)
    assert np.array_equal(one.references, other.references)


def test_a_file_with_dense_logits_is_measured_like_its_model(setting, monkeypatch) -> None:
    task, _, prepared = setting
    model = llama(num_hidden_layers=1)
    asked: list[int] = []

    def file(inputs: Mapping[str, Tensor]) -> Tensor:
        asked.append(len(inputs["input_ids"]))
        with torch.no_grad():
            return model(**inputs).logits

    monkeypatch.setattr("stilla.tasks.language.token_exam._LOGITS", 2 * 80 * task.classes)
    found = beside(llama(), {"file": file, "model": model}, task, prepared, batch_size=7)
    assert np.allclose(found["file"].given, found["model"].given, atol=1e-5)
    assert max(asked) < 7


def test_intervals_resample_examples_and_sums_make_the_metrics(setting) -> None:
    task, _, prepared = setting
    said = alone(llama(), task, prepared)
    for metric in (PERPLEXITY, TOKEN_ACCURACY):
        table = metric.statistics(said.given, said.references)
        assert len(table) == len(TEXTS)
        assert metric.compute(said.given, said.references) == pytest.approx(metric.from_sums(table.sum(0)))


def test_chance_knows_how_frequent_tokens_are(setting) -> None:
    task, _, prepared = setting
    said = alone(llama(), task, prepared)
    labels = said.references[said.references != NO_ROW]
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    exam = task.exam()
    assert chance(exam, said) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
    assert chance(exam, said, TOKEN_ACCURACY) == pytest.approx(shares.max())
    assert is_weak(exam, said)


def test_a_word_is_said_about_outputs_that_no_token_uses(setting) -> None:
    task, _, prepared = setting
    padded, exact = llama(400), llama(task.classes)
    subjects = {"student": Asked(padded), "teacher": Asked(exact, Side.TEACHER)}
    (note,) = remarks(task.exam(), subjects, prepared)
    assert note.startswith("student: ")
    assert "no token uses" in note


def test_a_flipped_token_is_shown_after_what_stands_before_it(setting) -> None:
    task, split, prepared = setting
    said = beside(llama(), {"student": llama(num_hidden_layers=1)}, task, prepared)
    decisions = task.exam().decisions(said["student"])
    unit = int(np.argmax(decisions.place))
    example, place = int(decisions.example[unit]), int(decisions.place[unit])
    labels = said["student"].references[example]
    before = labels[:place][labels[:place] != NO_ROW][-24:]
    assert len(before) == 24 < place
    text = task.decoded(before.tolist())
    assert text
    assert task.exam().view(split, said, example, place) == Text(text, (Mark(len(text), len(text)),))
    assert decisions.references[unit] == labels[place]


def test_what_cannot_be_seen_of_a_token_is_written_out(setting) -> None:
    task, _, _ = setting
    space, letter = (task.tokenizer.encode(text, add_special_tokens=False)[0] for text in (" ", "a"))
    assert task.exam().named(letter) == "a"
    assert task.exam().named(space).startswith("'")


def test_tokens_of_two_vocabularies_do_not_compare(setting) -> None:
    task, _, prepared = setting
    said = alone(llama(), task, prepared)
    exam = task.exam()
    assert exam.comparable([said, said])
    other = said.references.copy()
    other[0, 3] += 1
    assert not exam.comparable([said, Answers(said.keys, said.given, other)])
    assert not exam.comparable([said, Answers(said.keys, said.given[:, 1:], said.references[:, 1:])])


def test_answers_of_tokens_that_are_kept_in_a_file_are_the_same(setting, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _, prepared = setting
    others = {"student": llama(num_hidden_layers=1)}
    in_memory = beside(llama(), others, task, prepared, batch_size=2)
    monkeypatch.setattr("stilla.evaluate.asking.IN_MEMORY", 0)
    in_a_file = beside(llama(), others, task, prepared, batch_size=2)
    for name, one in in_a_file.items():
        assert isinstance(one.given, np.memmap)
        assert np.array_equal(one.given, in_memory[name].given)
        assert np.array_equal(one.references, in_memory[name].references)
