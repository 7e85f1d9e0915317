"""Models whose answers depend on more than their example are told of before they are trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from stilla.check import check, padding, refuse_known_problems, way
from stilla.check.found import Found
from stilla.recipe.file import from_options
from tests import tiny
from tests.tasks.several import setting

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
         "max_position_embeddings": 64, "num_labels": 3}


def family(kind: str, folder: Path, whole: Any = None, names: Sequence[str] = tuple(tiny.TOPICS)) -> str:
    """`whole`: another class of the family than that of classifiers. `names`: of its classes."""
    tokenizer = tiny.tokenizer()
    torch.manual_seed(0)
    size = {**SMALL, "vocab_size": len(tokenizer), "pad_token_id": 0}
    made: Any = {
        "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**size)),
        "fnet": lambda: (whole or hf.FNetForSequenceClassification)(hf.FNetConfig(**{**size, "num_labels": len(names)})),
        "convbert": lambda: hf.ConvBertForSequenceClassification(hf.ConvBertConfig(**size, embedding_size=16)),
        "nystromformer": lambda: hf.NystromformerForSequenceClassification(
            hf.NystromformerConfig(**size, segment_means_seq_len=64, num_landmarks=8)),
    }[kind]()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    made.config.id2label = dict(enumerate(names))
    made.config.label2id = {name: number for number, name in enumerate(names)}
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def recipe(folder: Path, kind: str) -> Any:
    return from_options({**tiny.recipe(folder), "teacher": {"model": family(kind, folder / "model")},
                         "student": {"config": {"num_hidden_layers": 1}}})


def noted(folder: Path, kind: str) -> list[str]:
    findings = check(recipe(folder, kind))
    assert not findings.problems
    return [note for note in findings.notes if "padded" in note or "draws numbers" in note]


@pytest.mark.slow
def test_a_model_that_masks_its_padding_is_not_spoken_of(tmp_path: Path) -> None:
    assert noted(tmp_path, "bert") == []


@pytest.mark.parametrize("kind", ["fnet", pytest.param("convbert", marks=pytest.mark.slow)])
def test_models_whose_answers_depend_on_padding_are_named(kind: str, tmp_path: Path) -> None:
    (teacher,) = (note for note in noted(tmp_path, kind) if note.startswith("teacher.model: what "))
    assert "depends on how far it is padded" in teacher
    assert "batch_size: 1" in teacher


@pytest.mark.slow
def test_a_model_that_draws_is_told_from_one_that_sees_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = hf.BertForSequenceClassification.forward

    def drawing(self: Any, *args: Any, **more: Any) -> Any:
        outputs = said(self, *args, **more)
        outputs.logits = outputs.logits * (1 + torch.rand(()))
        return outputs

    monkeypatch.setattr(hf.BertForSequenceClassification, "forward", drawing)
    (teacher,) = (note for note in noted(tmp_path, "bert") if note.startswith("teacher.model: "))
    assert "draws numbers at random" in teacher


@pytest.mark.slow
def test_a_model_that_cannot_read_these_examples_is_refused_in_words(tmp_path: Path) -> None:
    (problem, *_) = check(recipe(tmp_path, "nystromformer")).problems
    assert "cannot read a batch of these examples" in problem
    assert problem.startswith(("student: ", "teacher.model: "))


def test_a_run_begins_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refuse_known_problems(recipe(tmp_path, "fnet"))
    assert "teacher.model: what FNetForSequenceClassification says of an example depends" in caplog.text


def several(folder: Path, words: str) -> Any:
    """Two tasks whose shortest example is of the second, and the longest of the first."""
    own = {"topics": setting.topics(folder / "topics"), "words": words}
    return from_options(setting.recipe(folder, own=own))


@pytest.mark.slow
def test_tasks_learnt_together_are_each_asked_about_examples_of_their_own(tmp_path: Path) -> None:
    findings = check(several(tmp_path, setting.tagger(tmp_path / "words")))
    assert not findings.problems
    assert not [note for note in findings.notes if "padded" in note or "draws numbers" in note]


@pytest.mark.slow
def test_the_model_of_one_of_several_tasks_is_named(tmp_path: Path) -> None:
    words = family("fnet", tmp_path / "words", hf.FNetForTokenClassification, setting.TAGS)
    (note,) = (note for note in check(several(tmp_path, words)).notes if "padded" in note)
    assert note.startswith("teacher.model (words): what FNetForTokenClassification says of an example depends on how far")


@pytest.mark.slow
def test_a_model_that_takes_long_is_asked_about_short_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one on a processor would take minutes for a long example, before every run."""
    made = recipe(tmp_path, "fnet")
    widest: list[int] = []
    said = hf.FNetForSequenceClassification.forward

    def counting(self: Any, *args: Any, **inputs: Any) -> Any:
        widest.append(inputs["input_ids"].shape[1])
        return said(self, *args, **inputs)

    monkeypatch.setattr(hf.FNetForSequenceClassification, "forward", counting)
    for seconds, all_of_them in ((padding.SECONDS, True), (0.0, False)):
        monkeypatch.setattr(padding, "SECONDS", seconds)
        widest.clear()
        found = Found([])
        way.look(made, found)
        assert bool(found.warned) is all_of_them
        assert (max(widest) > min(widest)) is all_of_them


@pytest.mark.slow
def test_an_answer_that_is_no_number_where_it_is_padded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = hf.BertForSequenceClassification.forward

    def broken(self: Any, *args: Any, **inputs: Any) -> Any:
        outputs = said(self, *args, **inputs)
        outputs.logits = outputs.logits + (0 if inputs["attention_mask"].all() else torch.nan)
        return outputs

    monkeypatch.setattr(hf.BertForSequenceClassification, "forward", broken)
    assert any(note.startswith("teacher.model: what BertFor") for note in noted(tmp_path, "bert"))
