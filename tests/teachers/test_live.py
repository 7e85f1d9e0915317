"""A live teacher answers as it would when it is used, whatever mode it is in."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertForSequenceClassification

from stilla.signals import Batch
from stilla.teachers import LiveTeacher
from stilla.training.plain import task_of


def teacher() -> LiveTeacher:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels=3, hidden_dropout_prob=0.5))
    return LiveTeacher(model.train(), task_of(model, None), stacks=True)


def batch() -> Batch:
    inputs = {"input_ids": torch.arange(12).view(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    return Batch(student=inputs, teacher=inputs)


def test_a_teacher_that_was_put_into_training_mode_answers_without_dropout() -> None:
    made = teacher()
    before = made(batch())
    made.model.train()
    after = made(batch())
    assert torch.equal(before.logits.logits, after.logits.logits)
    for ours, theirs in zip(before.stacks["layers"].hidden_states, after.stacks["layers"].hidden_states, strict=True):
        assert torch.equal(ours, theirs)


def test_a_teacher_gives_no_gradients() -> None:
    made = teacher()
    said = made(batch())
    assert not said.logits.logits.requires_grad
    assert not any(parameter.requires_grad for parameter in made.model.parameters())
