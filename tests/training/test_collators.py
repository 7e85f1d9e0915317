"""transformers' collators as people use them, and functions of one's own: the loss is the model's own, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers as hf

from stilla import CompatibilityError, DistillationTrainer, Term
from stilla.objectives import Hidden, Labels, Logits
from tests import tiny
from tests.equivalence.setting import distance, weights
from tests.tasks import pairs
from tests.tasks.tiny_lm import bert_lm, bert_lm_tokenizer, byte_tokenizer, llama, sentences
from tests.training.setting import arguments, classifier, losses, rows, tokenised, trainer


def first_loss(folder: Path, model: Any, data: Any, collator: Any = None, processor: Any = None, **options: Any) -> float:
    """Of one step over all examples that changes nothing."""
    made = DistillationTrainer(
        model, terms=[Term(Labels())], train_dataset=data, eval_dataset=data, processing_class=processor,
        data_collator=collator,
        args=arguments(folder, max_steps=1, learning_rate=0.0, per_device_train_batch_size=len(data), **options))
    made.train()
    return losses(made)[0]


def own_loss(model: torch.nn.Module, batch: Any) -> float:
    with torch.no_grad():
        return float(model.eval()(**batch).loss)


def targets(family: str) -> tuple[Any, Any, datasets.Dataset]:
    own = pairs.tokenizer(family)
    made = datasets.Dataset.from_dict(pairs.pairs(12)).map(
        lambda batch: own(batch["source"], text_target=batch["target"]), batched=True)
    return pairs.model(family), own, made


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "t5", "marian", "mbart"])
@pytest.mark.parametrize("named", [False, True], ids=["without model=", "with model="])
def test_pairs_through_the_seq2seq_collator_have_the_models_own_loss(tmp_path: Path, family: str, named: bool) -> None:
    model, own, data = targets(family)
    collator = hf.DataCollatorForSeq2Seq(own, model=model if named else None)
    kept = data.remove_columns(["source", "target"])
    expected = own_loss(model, collator([kept[index] for index in range(12)]))
    assert first_loss(tmp_path, model, data, collator, own) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_model_without_a_method_for_decoder_inputs_has_its_own_loss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = pairs.tokenizer("bart")
    model = hf.M2M100ForConditionalGeneration(hf.M2M100Config(
        vocab_size=len(own), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, dropout=0.0, attention_dropout=0.0,
        activation_dropout=0.0, pad_token_id=1, encoder_layerdrop=0.0, decoder_layerdrop=0.0, bos_token_id=0, eos_token_id=2,
        decoder_start_token_id=2, init_std=0.5))
    data = targets("bart")[2].remove_columns(["source", "target"])
    collator = hf.DataCollatorForSeq2Seq(own)
    expected = own_loss(model, collator([data[index] for index in range(12)]))
    assert first_loss(tmp_path, model, data, collator, own) == pytest.approx(expected, abs=1e-5)


def test_each_decoder_begins_with_its_own_token(tmp_path: Path) -> None:
    """A teacher that begins otherwise answers the same targets."""
    model, own, data = targets("bart")
    teacher = pairs.model("bart", layers=3)
    teacher.config.decoder_start_token_id = 0
    made = DistillationTrainer(
        model, teacher, terms=[Term(Logits())], train_dataset=data, processing_class=own,
        data_collator=hf.DataCollatorForSeq2Seq(own), args=arguments(tmp_path))
    batch = made.train_dataset.collate([0, 1])
    assert set(batch.student["decoder_input_ids"][:, 0].tolist()) == {2}
    assert set(batch.teacher["decoder_input_ids"][:, 0].tolist()) == {0}
    assert torch.equal(batch.student["decoder_input_ids"][:, 1:], batch.teacher["decoder_input_ids"][:, 1:])
    with pytest.raises(CompatibilityError, match=r"begins with token 2, the teacher's with 0.*Leave its `model=` out"):
        DistillationTrainer(
            model, teacher, terms=[Term(Logits())], train_dataset=data, processing_class=own,
            data_collator=hf.DataCollatorForSeq2Seq(own, model=model), args=arguments(tmp_path))


def test_a_decoder_whose_begin_is_not_known_is_refused(tmp_path: Path) -> None:
    model, own, data = targets("bart")
    model.config.decoder_start_token_id = None
    with pytest.raises(CompatibilityError, match=r"cannot make decoder inputs of the labels.*set decoder_start_token_id"):
        first_loss(tmp_path, model, data, hf.DataCollatorForSeq2Seq(own), own)


@pytest.mark.parametrize("collator", [hf.DataCollatorForSeq2Seq, hf.DataCollatorForTokenClassification])
def test_labels_padded_by_a_token_are_refused(tmp_path: Path, collator: Any) -> None:
    model, own, data = targets("bart")
    with pytest.raises(CompatibilityError, match=r"label_pad_token_id is 1, so that padding would be learnt.*set it to -100"):
        first_loss(tmp_path, model, data, collator(own, label_pad_token_id=1), own)


@pytest.mark.slow
def test_causal_models_learn_through_the_language_modelling_collator(tmp_path: Path) -> None:
    own, model = byte_tokenizer(), llama()
    data = datasets.Dataset.from_dict({"text": sentences(12)}).map(lambda batch: own(batch["text"]), batched=True)
    collator = hf.DataCollatorForLanguageModeling(own, mlm=False)
    expected = own_loss(model, collator([{"input_ids": ids} for ids in data["input_ids"]]))
    assert first_loss(tmp_path, model, data, collator, own) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [hf.DataCollatorForTokenClassification, hf.DataCollatorForSeq2Seq])
def test_causal_models_learn_from_labels_that_are_given(tmp_path: Path, make: Any) -> None:
    """Prompts hidden from the loss, as instruction data come."""
    own, model = byte_tokenizer(), llama()
    ids = [own(text)["input_ids"] for text in sentences(12)]
    data = datasets.Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(one) for one in ids],
                                       "labels": [[-100] * 5 + one[5:] for one in ids]})
    collator = make(own)
    expected = own_loss(model, collator([dict(data[index]) for index in range(12)]))
    assert first_loss(tmp_path, model, data, collator, own) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_packed_rows_have_the_models_own_loss_and_are_measured_one_by_one(tmp_path: Path) -> None:
    own, model = byte_tokenizer(), llama()
    model.config.use_cache = False  # with a cache, transformers lets documents of a row see each other
    ids = [own(text)["input_ids"] for text in sentences(6)]
    data = datasets.Dataset.from_dict({"input_ids": ids, "labels": ids})
    collator = hf.DataCollatorWithFlattening()
    expected = own_loss(model, collator([dict(data[index]) for index in range(6)]))
    assert first_loss(tmp_path, model, data, collator, own) == pytest.approx(expected, abs=1e-5)
    made = DistillationTrainer(model, terms=[Term(Labels())], train_dataset=data, data_collator=collator,
                               args=arguments(tmp_path))
    apart = DistillationTrainer(model, terms=[Term(Labels())], train_dataset=data, args=arguments(tmp_path),
                                data_collator=hf.DataCollatorForSeq2Seq(own))
    assert made.evaluate(data)["eval_perplexity"] == pytest.approx(apart.evaluate(data)["eval_perplexity"], rel=1e-5)
    with pytest.raises(CompatibilityError, match="hold several documents"):
        DistillationTrainer(model, llama(num_hidden_layers=4), terms=[Term(Hidden(pooling="mean"))], train_dataset=data,
                            data_collator=collator, args=arguments(tmp_path))


def masked(folder: Path, **more: Any) -> DistillationTrainer:
    own = bert_lm_tokenizer()
    data = datasets.Dataset.from_dict({"text": sentences(24)}).map(lambda batch: own(batch["text"]), batched=True)
    collator = more.pop("collator", None) or hf.DataCollatorForLanguageModeling(own, mlm_probability=0.3)
    return DistillationTrainer(
        bert_lm(num_hidden_layers=1), bert_lm(), terms=[Term(Labels()), Term(Logits())], train_dataset=data,
        eval_dataset=data, data_collator=collator, args=arguments(folder, **{"max_steps": 6, **more}))


def test_masks_are_drawn_anew_in_every_epoch_and_the_same_when_measured(tmp_path: Path) -> None:
    made = masked(tmp_path)
    before = torch.get_rng_state()
    first, again = (made.train_dataset.collate([0, 1, 2]).labels for _ in range(2))
    made.train_dataset.on_epoch(1)
    second = made.train_dataset.collate([0, 1, 2]).labels
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert made.evaluate() == made.evaluate()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("own_seed", [None, 7])
def test_a_resumed_training_draws_the_same_masks(tmp_path: Path, own_seed: int | None) -> None:
    collator = hf.DataCollatorForLanguageModeling(bert_lm_tokenizer(), mlm_probability=0.3, seed=own_seed)
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4, "collator": collator}
    whole = masked(tmp_path, **options)
    whole.train()
    torch.rand(5)
    rest = masked(tmp_path, **options)
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert distance(weights(whole), weights(rest)) == 0


@pytest.mark.slow
def test_the_default_collators_pad_where_a_tokenizer_is_given(tmp_path: Path) -> None:
    model, own, data = classifier(), tiny.tokenizer(), tokenised()
    expected = own_loss(model, hf.DataCollatorWithPadding(own)(
        [{name: row[name] for name in row if name != "text"} for row in data]))
    assert first_loss(tmp_path, model, data, processor=own) == pytest.approx(expected, abs=1e-6)
    padded = rows().map(lambda batch: own(batch["text"], padding="max_length", max_length=12), batched=True)
    for collator in (None, hf.default_data_collator, hf.DefaultDataCollator()):
        assert first_loss(tmp_path, model, padded, collator) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(CompatibilityError, match=r"could not make a batch.*`processing_class`"):
        first_loss(tmp_path, model, data)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["label", "labels", "label_ids"])
def test_a_function_collates_whatever_the_labels_are_called(tmp_path: Path, label: str) -> None:
    model, own = classifier(), tiny.tokenizer()

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = own.pad({"input_ids": [item["input_ids"] for item in items]}, return_tensors="pt")
        return {**batch, label: torch.tensor([item["label"] for item in items])}

    expected = own_loss(model, {**own.pad({"input_ids": tokenised()["input_ids"]}, return_tensors="pt"),
                                "labels": torch.tensor(rows()["label"])})
    assert first_loss(tmp_path, model, tokenised(), collate) == pytest.approx(expected, abs=1e-6)


def test_a_function_that_tokenises_gets_its_text_where_columns_are_kept(tmp_path: Path) -> None:
    own = tiny.tokenizer()

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = own([item["text"] for item in items], padding=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor([item["label"] for item in items])}

    made = trainer(tmp_path, rows(), data_collator=collate, options={"remove_unused_columns": False})
    made.train()
    assert len(losses(made)) == 2
    with pytest.raises(CompatibilityError, match=r"neither model takes one of them|set remove_unused_columns=False"):
        trainer(tmp_path, rows(), data_collator=collate)


@pytest.mark.parametrize(
    ("collate", "said"),
    [
        (lambda items: [item["label"] for item in items], "gave a list; expected tensors by name"),
        (lambda items: {"input_ids": np.ones((len(items), 3)), "labels": np.ones(len(items))},
         "is a ndarray; expected a tensor"),
        (lambda items: {"labels": torch.ones(len(items))}, "takes none of what the collator makes"),
        (lambda items: items[0]["nothing"], "could not make a batch of examples with the columns .*KeyError"),
    ],
)
def test_what_a_collator_makes_that_is_no_batch_is_refused(tmp_path: Path, collate: Any, said: str) -> None:
    with pytest.raises(CompatibilityError, match=said):
        trainer(tmp_path, data_collator=collate)
