"""What a model embeds by what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, CanineConfig, CanineForSequenceClassification, CanineTokenizer, ViTModel

from stilla.models.entry import entry_of, table_of
from stilla.recipe import ModelSource
from stilla.tasks.text.tokens import tokenizer_for, unknown_tokens
from tests.tasks.tiny import bert_tokenizer, vit_config


def canine() -> CanineForSequenceClassification:
    torch.manual_seed(0)
    return CanineForSequenceClassification(CanineConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, num_hash_buckets=8,
        max_position_embeddings=64, local_transformer_stride=16))


def test_a_table_has_a_row_for_each_token_and_patches_have_none() -> None:
    bert = BertModel(BertConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    assert table_of(bert) is entry_of(bert) is bert.embeddings.word_embeddings
    picture = ViTModel(vit_config())
    assert entry_of(picture) is not None
    assert table_of(picture) is None
    assert entry_of(torch.nn.Embedding(3, 2)) is None


def test_a_model_that_hashes_characters_knows_every_token() -> None:
    model = canine()
    assert entry_of(model) is None
    assert unknown_tokens(bert_tokenizer(["a"]), model) is None


@pytest.mark.slow
def test_a_model_that_hashes_characters_takes_its_tokenizer(tmp_path: Path) -> None:
    model = canine()
    model.save_pretrained(tmp_path)
    CanineTokenizer().save_pretrained(tmp_path)
    made = tokenizer_for(ModelSource(model=str(tmp_path)), model)
    assert made.model_max_length == 64
    assert made("ab")["input_ids"] == [0xE000, ord("a"), ord("b"), 0xE001]
