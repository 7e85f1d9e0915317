"""Encoders that give a vector per text: what sentence-transformers says of the same folder, and that nothing else changes."""

from __future__ import annotations

import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import T5Config, T5EncoderModel, T5Model

from stilla.errors import CompatibilityError
from stilla.export.huggingface import restore, save_student
from stilla.models.stacks import find_stacks
from stilla.recipe import Lora, ModelSource
from stilla.students import by_layers, fresh, with_adapters
from stilla.tasks.retrieval.layout import Kind
from stilla.tasks.retrieval.loading import load
from stilla.tasks.retrieval.model import Layer, Shape, as_embedder
from stilla.tasks.retrieval.told import embed
from tests import tiny
from tests.tasks.retrieval.setting import encoder, folder, loaded, sentences, tokenizer

TEXTS = [*sentences(12), "bread", "the " * 80]


def encoded(path: str, texts: list[str], kind: Kind | None = None, **options: Any) -> np.ndarray:
    """What sentence-transformers says."""
    found = pytest.importorskip("sentence_transformers").SentenceTransformer(path, device="cpu", **options)
    encode = {None: found.encode, "query": found.encode_query, "document": found.encode_document}[kind]
    return np.asarray(encode(texts, batch_size=5, show_progress_bar=False))


@pytest.mark.slow
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("pooling", ["mean", "first", "last", "max"])
@pytest.mark.parametrize("normalised", [True, False])
def test_vectors_are_those_of_sentence_transformers(tmp_path: Path, pooling: Any, left: bool, normalised: bool) -> None:
    path = folder(tmp_path, pooling=pooling, left=left, normalised=normalised)
    ours, theirs = embed(loaded(path), TEXTS, [None] * len(TEXTS)), encoded(path, TEXTS)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * max(1, np.linalg.norm(theirs, axis=-1).max()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, "query", "document"])
def test_prompts_stand_before_texts_of_their_kind(tmp_path: Path, kind: Kind | None) -> None:
    path = folder(tmp_path, prompts={"query": "song the ", "document": "soup a ", "usual": "old "}, default="usual")
    ours = embed(loaded(path), TEXTS, [kind] * len(TEXTS))
    np.testing.assert_allclose(ours, encoded(path, TEXTS, kind), atol=1e-6)
    plain = embed(loaded(folder(tmp_path / "plain")), TEXTS, [None] * len(TEXTS))
    assert np.abs(ours - plain).max() > 1e-3


@pytest.mark.slow
def test_layers_after_the_pooling_are_read_and_written(tmp_path: Path) -> None:
    layers = [Layer(32, 24, bias=True, activation="tanh"), Layer(24, 16)]
    path = folder(tmp_path, dense=layers)
    again = loaded(path)
    assert again.model.width == 16
    np.testing.assert_allclose(embed(again, TEXTS, [None] * len(TEXTS)), encoded(path, TEXTS), atol=1e-6)
    np.testing.assert_allclose(encoded(path, TEXTS).shape, (len(TEXTS), 16))


@pytest.mark.slow
def test_fewer_numbers_are_the_first_of_all(tmp_path: Path) -> None:
    path = folder(tmp_path)
    ours = embed(loaded(path), TEXTS, [None] * len(TEXTS))[:, :8]
    ours /= np.linalg.norm(ours, axis=-1, keepdims=True)
    theirs = encoded(path, TEXTS, truncate_dim=8)
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs, axis=-1, keepdims=True), atol=1e-6)


@pytest.mark.slow
def test_padding_has_no_influence(tmp_path: Path) -> None:
    model, reader = (one := loaded(folder(tmp_path))).model, one.processor
    inputs = reader.tokenizer(TEXTS[:6], padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    wide = {name: torch.nn.functional.pad(value, (0, 9), value=7 if name == "input_ids" else 0)
            for name, value in inputs.items()}
    for pooling in ("mean", "first", "last", "max"):
        as_embedder(model, Shape(pooling, True))
        said, padded = (model(**one)["sentence_embedding"] for one in (inputs, wide))
        torch.testing.assert_close(said, padded, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_students_folder_is_one_of_sentence_transformers(tmp_path: Path) -> None:
    teacher = loaded(folder(tmp_path / "teacher"))
    student = by_layers(teacher.model, 2).model
    assert [stack.depth for stack in find_stacks(student)] == [2]
    batch = teacher.processor.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    save_student(student, teacher.processor, tmp_path / "student", example=dict(batch))
    assert json.loads((tmp_path / "student/config.json").read_text())["architectures"] == ["BertModel"]
    ours = embed(loaded(tmp_path / "student"), TEXTS, [None] * len(TEXTS))
    np.testing.assert_allclose(ours, encoded(str(tmp_path / "student"), TEXTS), atol=1e-6)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with torch.no_grad():
        for value in student.parameters():
            value.add_(1.0)
    restore(student, tmp_path / "student")
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [T5EncoderModel, T5Model])
def test_an_encoder_of_two_is_taken_alone_and_comes_back_from_its_folder(tmp_path: Path, kind: Any) -> None:
    torch.manual_seed(0)
    kind(T5Config(vocab_size=len(tokenizer()), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
         ).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    before = load(ModelSource(model=str(tmp_path)), "mean", True, {}, trained=True)
    assert isinstance(before.model, T5EncoderModel)
    save_student(before.model, before.processor, tmp_path / "saved")
    ours, theirs = (embed(one, TEXTS[:3], [None] * 3) for one in (before, loaded(tmp_path / "saved")))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_narrower_student_gets_a_layer_to_its_teachers_width_which_is_saved_with_it(tmp_path: Path) -> None:
    teacher = loaded(folder(tmp_path / "teacher"))
    as_embedder(teacher.model, Shape("mean", True, width=32))
    student = fresh(teacher.model, {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}).model
    assert student.width == 32
    batch = dict(teacher.processor.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt"))
    save_student(student, teacher.processor, tmp_path / "student", example=batch)
    again = loaded(tmp_path / "student")
    np.testing.assert_allclose(embed(again, TEXTS, [None] * len(TEXTS)), encoded(str(tmp_path / "student"), TEXTS), atol=1e-6)
    assert "projections.0.linear.weight" in student.state_dict()
    short = as_embedder(again.model, Shape("mean", True, layers=again.model.shape.layers, width=8))
    assert embed(again, TEXTS[:2], [None] * 2).shape == (2, 8)
    torch.testing.assert_close(short.projections[0].linear.weight, student.projections[0].linear.weight)


@pytest.mark.slow
def test_adapters_are_merged_into_what_is_saved(tmp_path: Path) -> None:
    teacher = loaded(folder(tmp_path / "teacher"))
    student = with_adapters(by_layers(teacher.model, 2), Lora(r=2)).model
    batch = dict(teacher.processor.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt"))
    save_student(student, teacher.processor, tmp_path / "student", example=batch)
    said = student(**batch)["sentence_embedding"].detach()
    np.testing.assert_allclose(embed(loaded(tmp_path / "student"), TEXTS, [None] * len(TEXTS)), said, atol=1e-5)


@pytest.mark.slow
def test_a_model_can_be_copied_and_sent_to_another_process(tmp_path: Path) -> None:
    teacher = loaded(folder(tmp_path, dense=[Layer(32, 8)]))
    expected = embed(teacher, TEXTS, [None] * len(TEXTS))
    for other in (copy.deepcopy(teacher.model), pickle.load(io.BytesIO(pickle.dumps(teacher.model)))):
        assert type(other) is type(teacher.model)
        teacher = type(teacher)(other, teacher.processor, teacher.source)
        np.testing.assert_array_equal(embed(teacher, TEXTS, [None] * len(TEXTS)), expected)


def test_a_plain_folder_takes_its_pooling_from_the_recipe_or_the_teacher(tmp_path: Path) -> None:
    encoder().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    source = ModelSource(model=str(tmp_path))
    with pytest.raises(CompatibilityError, match=r"Set data\.pooling"):
        load(source, None, None, {}, trained=True)
    assert load(source, "last", None, {}, trained=True).model.shape == Shape("last", True)
    like = load(source, None, None, {}, Shape("max", False, width=8), trained=False).model
    assert (like.shape.pooling, like.shape.normalised, like.width) == ("max", False, 8)


@pytest.mark.parametrize(("file", "change", "words"), [
    ("modules.json", [{"path": "", "type": "sentence_transformers.models.Transformer"},
                      {"path": "1", "type": "sentence_transformers.models.CNN"}], "lists Transformer and CNN"),
    ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "pooled by"),
    ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "include_prompt": False}, "include_prompt"),
    ("2_Dense/config.json", {"in_features": 32, "out_features": 8, "activation_function": "torch.nn.GELU"}, "torch.nn.GELU"),
    ("config_sentence_transformers.json", {"similarity_fn_name": "euclidean"}, "euclidean"),
])
def test_what_would_give_other_vectors_is_refused(tmp_path: Path, file: str, change: Any, words: str) -> None:
    path = Path(folder(tmp_path, dense=[Layer(32, 8)]))
    (path / file).write_text(json.dumps(change))
    with pytest.raises(CompatibilityError, match=words):
        loaded(path)


def test_a_cross_encoder_is_no_teacher_of_vectors(tmp_path: Path) -> None:
    source = ModelSource(model=tiny.bert(tmp_path, labels=1))
    with pytest.raises(CompatibilityError, match=r"is a BertForSequenceClassification, and has no modules\.json"):
        load(source, "mean", None, {}, trained=True)
    assert load(source, "mean", None, {}, trained=False).model.width == 32  # to begin with, it is an encoder like others


def test_the_recipe_may_not_say_otherwise_than_the_folder(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match=r"data\.pooling: got 'max'.*says 'mean'"):
        load(ModelSource(model=folder(tmp_path)), "max", None, {}, trained=True)
