"""Hugging Face folders: heads, labels, precisions, tokenizers; and every folder that is refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource
from stilla.tasks.shared import loading
from stilla.tasks.shared.int8 import Int8Linear, quantise
from stilla.tasks.text import tokens as _tokens
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from tests.tasks.tiny import bert_config, bert_folder, bert_tokenizer, labels_of, splits_of

ROWS = {"text": ["good film", "bad food", "the film was bad"], "label": ["good", "bad", "bad"]}


@pytest.fixture
def task() -> TextClassification:
    return TextClassification.understand(TextClassificationData(train="x"), splits_of(ROWS))


def load(task: TextClassification, folder: Path, *, labelled: bool = True, **source: Any) -> Any:
    return task.load(ModelSource(model=str(folder), **source), labelled=labelled)


# --- heads and labels ---


@pytest.mark.slow
def test_a_teacher_keeps_its_labels_and_weights(task: TextClassification, tmp_path: Path) -> None:
    model = load(task, bert_folder(tmp_path, **labels_of("good", "bad", "mixed"))).model
    assert model.config.id2label == {0: "good", 1: "bad", 2: "mixed"}
    other = load(task, tmp_path).model
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters()))


def test_labels_without_names_get_the_datas(task: TextClassification, tmp_path: Path) -> None:
    config = load(task, bert_folder(tmp_path, num_labels=2)).model.config
    assert (config.id2label, config.label2id) == ({0: "bad", 1: "good"}, {"bad": 0, "good": 1})
    config = load(task, bert_folder(tmp_path, num_labels=3)).model.config
    assert config.id2label[0] == "LABEL_0"


def test_a_teacher_without_a_trained_head_is_refused(task: TextClassification, tmp_path: Path) -> None:
    BertForMaskedLM(bert_config()).save_pretrained(tmp_path)
    bert_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(CompatibilityError, match=r"has no trained head .* lacks .*classifier.* train: \{\}"):
        load(task, tmp_path)


def test_a_model_to_be_trained_gets_a_head_and_keeps_its_body(
    task: TextClassification, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = BertModel(bert_config(), add_pooling_layer=False)
    body.save_pretrained(tmp_path)
    bert_tokenizer().save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        model = load(task, tmp_path, labelled=False).model
    assert "new weights, with 2 outputs: bert.pooler.dense.bias" in caplog.text
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, body.embeddings.word_embeddings.weight)


@pytest.mark.slow
def test_a_head_of_another_size_or_order_is_made_new_and_seeded_by_the_caller(
    task: TextClassification, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for labels in (labels_of("x", "y", "z"), labels_of("good", "bad")):
        bert_folder(tmp_path, **labels)
        stored = load(task, tmp_path).model
        heads = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            model = load(task, tmp_path, labelled=False).model
            heads.append(model.classifier.weight)
            assert model.config.id2label == {0: "bad", 1: "good"}
            assert torch.equal(model.bert.pooler.dense.weight, stored.bert.pooler.dense.weight)
        assert torch.equal(heads[0], heads[1])
        assert not torch.equal(heads[0], heads[2])
    assert "a new head; its own is for other labels, or in another order" in caplog.text


def test_a_head_that_fits_is_kept(task: TextClassification, tmp_path: Path) -> None:
    stored = load(task, bert_folder(tmp_path, **labels_of("bad", "good"))).model
    model = load(task, tmp_path, labelled=False).model
    assert torch.equal(model.classifier.weight, stored.classifier.weight)


def test_a_number_has_one_output(tmp_path: Path) -> None:
    rows = {"text": ["a", "b"], "score": [0.5, 1.5]}
    task = TextClassification.understand(TextClassificationData(train="x"), splits_of(rows))
    config = load(task, bert_folder(tmp_path, num_labels=5), labelled=False).model.config
    assert (config.num_labels, config.problem_type) == (1, "regression")


# --- precisions ---


@pytest.mark.slow
def test_a_teacher_comes_in_the_precision_asked_for(task: TextClassification, tmp_path: Path) -> None:
    bert_folder(tmp_path, num_labels=2)
    whole = load(task, tmp_path).model.eval()
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3]])}
    expected = whole(**inputs).logits
    for precision in ("bfloat16", "int8"):
        model = load(task, tmp_path, precision=precision).model.eval()
        found = model(**inputs).logits
        assert not torch.equal(found.float(), expected)
        torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.1)
    assert {one.dtype for one in load(task, tmp_path, precision="bfloat16").model.parameters()} == {torch.bfloat16}


def test_what_is_trained_is_float32(task: TextClassification, tmp_path: Path) -> None:
    load(task, bert_folder(tmp_path, num_labels=2)).model.to(torch.bfloat16).save_pretrained(tmp_path)
    for labelled in (True, False):
        model = load(task, tmp_path, labelled=labelled, precision="float32" if labelled else "int8").model
        assert {one.dtype for one in model.parameters()} == {torch.float32}


def test_int8_weights_are_off_by_half_a_step_at_most() -> None:
    linear = torch.nn.Linear(40, 30)
    with torch.no_grad():
        linear.weight[0] *= 100
        linear.weight[1] = 0
    small = Int8Linear(linear)
    step = linear.weight.abs().amax(1, keepdim=True) / 127
    assert ((small.weight - linear.weight).abs() <= step / 2 + 1e-6 * step).all()
    assert small.quantised.dtype == torch.int8
    inputs = torch.randn(7, 40)
    torch.testing.assert_close(small(inputs), inputs @ small.weight.T + linear.bias)
    whole = linear(inputs)
    torch.testing.assert_close(small.bfloat16()(inputs.bfloat16()).float(), whole, atol=0.5, rtol=0.05)


def test_int8_takes_a_quarter_of_the_bytes_and_every_linear_layer(tmp_path: Path, task: TextClassification) -> None:
    model = load(task, bert_folder(tmp_path, num_labels=2, hidden_size=64, intermediate_size=256)).model
    before = {name: module for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    count = sum(module.weight.nbytes for module in before.values())
    quantise(model)
    after = dict(model.named_modules())
    assert all(isinstance(after[name], Int8Linear) for name in before)
    assert sum(after[name].quantised.nbytes + after[name].scale.nbytes for name in before) < 0.32 * count


# --- folders that are refused ---


def test_a_folder_that_is_not_there_is_refused_with_its_neighbours(task: TextClassification, tmp_path: Path) -> None:
    bert_folder(tmp_path / "my-bert")
    with pytest.raises(CompatibilityError, match=r"no such folder\. Did you mean my-bert\?"):
        load(task, tmp_path / "my-brt")
    (tmp_path / "reviews.csv").touch()
    with pytest.raises(CompatibilityError, match=r"no such folder\. '.*' holds my-bert\."):
        load(task, tmp_path / "teacher")
    with pytest.raises(CompatibilityError, match="is a file; expected the folder"):
        load(task, tmp_path / "my-bert" / "model.safetensors")


def test_a_name_that_is_nowhere_is_refused(
    task: TextClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "hub_reachable", lambda: False)
    bert_folder(tmp_path / "my-bert")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CompatibilityError, match=r"'my-brt' is no folder here, .*no network.*Did you mean my-bert\?"):
        load(task, Path("my-brt"))


def test_a_folder_without_weights_is_refused(task: TextClassification, tmp_path: Path) -> None:
    (bert_folder(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(CompatibilityError, match=r"holds no weights; expected model\.safetensors"):
        load(task, tmp_path)


def test_a_pickle_is_refused_with_the_way_out(task: TextClassification, tmp_path: Path) -> None:
    bert_folder(tmp_path, num_labels=2)
    state = load(task, tmp_path).model.state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CompatibilityError, match=r"as a pickle \(pytorch_model\.bin\).*Convert it once") as caught:
        load(task, tmp_path)
    command = str(caught.value).split('python -c "')[1].rstrip('"')
    exec(command)
    assert load(task, tmp_path).model.config.num_labels == 2


def test_damaged_folders_say_what_is_wrong(task: TextClassification, tmp_path: Path) -> None:
    whole = bert_folder(tmp_path / "whole", num_labels=2)

    def changed(name: str, change: Any) -> Path:
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        change(folder)
        return folder

    def configured(folder: Path, **fields: Any) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **fields}))

    for name, change, words in (
        ("cut", lambda f: (f / "model.safetensors").write_bytes(b"12345678"), "cannot be loaded: "),
        ("none", lambda f: (f / "config.json").unlink(), r"has no config\.json that says what model it is"),
        ("vit", lambda f: configured(f, model_type="vit"), "is a vit model, for which transformers has no Sequence"),
        ("new", lambda f: configured(f, model_type="bert9"), "is of a type that this version of transformers does not know"),
        ("wide", lambda f: configured(f, hidden_size=32), "holds weights of other shapes"),
        ("deep", lambda f: configured(f, num_hidden_layers=3), r"weights are missing .*encoder\.layer\.2\."),
    ):  # fmt: skip
        with pytest.raises(CompatibilityError, match=words):
            load(task, changed(name, change))
    with pytest.raises(CompatibilityError, match=r"weights are missing .*encoder\.layer\.2\..* does not describe"):
        load(task, tmp_path / "deep", labelled=False)


def test_code_that_comes_with_a_model_is_not_run(task: TextClassification, tmp_path: Path) -> None:
    bert_folder(tmp_path)
    auto = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(CompatibilityError, match=r"comes with code of its own.*trust_remote_code: true"):
        load(task, tmp_path)


# --- tokenizers ---


def test_a_folder_without_a_tokenizer_is_refused(task: TextClassification, tmp_path: Path) -> None:
    bert_folder(tmp_path, num_labels=2)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(CompatibilityError, match="holds no tokenizer"):
        load(task, tmp_path)
    bert_tokenizer().save_pretrained(tmp_path / "elsewhere")
    assert load(task, tmp_path, processor=str(tmp_path / "elsewhere")).processor.vocab_size == 17


def test_a_tokenizer_of_another_model_is_refused(task: TextClassification, tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="tokens go up to 16, the model knows 9"):
        load(task, bert_folder(tmp_path, num_labels=2, vocab_size=9))


def test_the_longest_text_is_what_the_model_has_positions_for(task: TextClassification, tmp_path: Path) -> None:
    assert load(task, bert_folder(tmp_path / "bert", num_labels=2)).processor.model_max_length == 24
    config = RobertaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=16, max_position_embeddings=12, pad_token_id=0)  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "roberta")
    bert_tokenizer().save_pretrained(tmp_path / "roberta")
    loaded = load(task, tmp_path / "roberta")
    assert loaded.processor.model_max_length == 11
    tokens, _ = _tokens.tokenise(loaded.processor, [["good " * 30]], loaded.processor.model_max_length)
    assert loaded.model(**tokens.batch([0])).logits.shape == (1, 2)


def test_inputs_that_the_model_does_not_take_are_left_out(task: TextClassification, tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=20, num_labels=2)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer = bert_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "[SEP]"})
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    loaded = load(task, tmp_path)
    assert loaded.processor.pad_token == "[SEP]"
    assert loaded.model.config.pad_token_id == loaded.processor.pad_token_id
    prepared = task.prepare(splits_of(ROWS)["train"], loaded.processor, None, training=False)
    together = loaded.model.eval()(**prepared.collate([0, 1, 2]).student).logits
    alone = torch.cat([loaded.model(**prepared.collate([row]).student).logits for row in range(3)])
    torch.testing.assert_close(together, alone)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CompatibilityError, match="neither a padding token nor an end of text"):
        load(task, tmp_path)


def test_padding_before_a_text_does_not_move_it_to_other_positions(task: TextClassification, tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=20, num_labels=2, pad_token_id=0)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    bert_tokenizer().save_pretrained(tmp_path)
    said = tmp_path / "tokenizer_config.json"
    said.write_text(json.dumps(json.loads(said.read_text()) | {"padding_side": "left"}))
    loaded = load(task, tmp_path)
    prepared = task.prepare(splits_of(ROWS)["train"], loaded.processor, None, training=False)
    together = loaded.model.eval()(**prepared.collate([0, 1, 2]).student).logits
    alone = torch.cat([loaded.model(**prepared.collate([row]).student).logits for row in range(3)])
    torch.testing.assert_close(together, alone)
    loaded.processor.save_pretrained(tmp_path / "student")
    assert AutoTokenizer.from_pretrained(tmp_path / "student").padding_side == "right"


@pytest.mark.parametrize("pads", [True, False])
def test_a_decoder_answers_at_the_last_token_whatever_padding_its_config_names(
    task: TextClassification, tmp_path: Path, *, pads: bool
) -> None:
    config = LlamaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                         num_labels=2, pad_token_id=1)  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer = bert_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "[SEP]"})
    if not pads:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    loaded = load(task, tmp_path)
    assert loaded.processor.pad_token_id == loaded.model.config.pad_token_id == (0 if pads else 1)
    prepared = task.prepare(splits_of(ROWS)["train"], loaded.processor, None, training=False)
    together = loaded.model.eval()(**prepared.collate([0, 1, 2]).student).logits
    alone = torch.cat([loaded.model(**prepared.collate([row]).student).logits for row in range(3)])
    torch.testing.assert_close(together, alone)
