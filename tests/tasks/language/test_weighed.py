"""Examples of which a token counts otherwise than one of the others: a teacher's reasons."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from stilla.errors import CompatibilityError
from stilla.objectives import Labels, Logits
from stilla.rows import row_loss
from stilla.signals import Dense, Head, Headed
from stilla.tasks.base import Side
from stilla.tasks.forward import listen
from stilla.tasks.language.causal_lm import CausalLM
from stilla.tasks.language.sections import CausalLMData, Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.language.translations import reasoned
from stilla.tasks.language.weighed import WEIGHT, weights_in
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks import pairs
from tests.tasks.tiny_lm import byte_tokenizer, llama


def test_labels_of_a_vocabulary_are_weighed_by_walks_over_rows_that_count_alike() -> None:
    torch.manual_seed(0)
    hidden, matrix = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    labels, weights = torch.tensor([0, 8, NO_ROW, 3, 3, 1]), torch.tensor([1.0, 0.5, 1.0, 0.5, 2.0, 1.0])
    loss, sums = row_loss([(Labels(), 0.3)], Headed(hidden, Head(matrix)), None, labels, 0.0, weights=weights)
    loss.backward()
    found = hidden.grad, matrix.grad
    hidden.grad = matrix.grad = None
    each = weights * F.cross_entropy(hidden @ matrix.T, labels, reduction="none", ignore_index=NO_ROW)
    (0.3 * each.sum()).backward()
    assert sums.item() == pytest.approx(each.sum().item(), rel=1e-6)
    assert loss.item() == pytest.approx(0.3 * each.sum().item(), rel=1e-6)
    for ours, expected in zip(found, (hidden.grad, matrix.grad), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_beside_a_teacher_labels_of_a_vocabulary_cannot_be_weighed() -> None:
    headed, told = Headed(torch.randn(2, 4), Head(torch.randn(7, 4))), Dense(torch.randn(2, 7))
    with pytest.raises(CompatibilityError, match="only where no teacher answers"):
        row_loss([(Labels(), 1.0), (Logits(), 1.0)], headed, told, torch.tensor([0, 1]), 0.0, weights=torch.ones(2))


def causal() -> tuple[Any, Any, Any, Dataset]:
    split = Dataset.from_list([{"prompt": "say", "completion": "a cat"}, {"prompt": "why", "completion": "it is"}])
    task = CausalLM.understand(CausalLMData(train="x"), {"train": split})
    return task, byte_tokenizer(), llama(), split


def translating() -> tuple[Any, Any, Any, Dataset]:
    split = Dataset.from_dict(pairs.pairs(2))
    task = Seq2Seq.understand(Seq2SeqData(train="x"), {"train": split})
    return task, pairs.processor("t5"), pairs.CLASSES["t5"](pairs.config("t5")), split


@pytest.mark.parametrize("made", [causal, translating])
def test_every_token_counts_what_its_example_does(made: Any) -> None:
    torch.manual_seed(0)
    task, processor, model, split = made()
    plain = task.prepare(split, processor, None, training=True)
    prepared = task.prepare(split.add_column(WEIGHT, [None, 0.5]), processor, None, training=True)
    batch = prepared.collate([prepared.examples[one] for one in range(2)])
    assert "counted" not in plain.collate([plain.examples[one] for one in range(2)])
    with torch.no_grad():
        said = listen(model.eval(), task, batch, Side.STUDENT)
        loss, _ = row_loss([(Labels(), 1.0)], said.logits, None, said.labels, 0.0, weights=said.weights)
        logits = model(**batch.student).logits
    assert said.weights.unique().tolist() == [0.5, 1.0]
    each = F.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none", ignore_index=NO_ROW)
    assert loss.item() == pytest.approx((each.sum(1) * torch.tensor([1.0, 0.5])).sum().item(), rel=1e-4)


def test_a_reason_is_asked_for_in_other_words_than_an_answer() -> None:
    split = Dataset.from_dict({"source": ["one", "two"], "target": ["a", "b"], "more": [1, 2]})
    found = reasoned(split, ("source", "target"), "Why? {source}!", ["for a", "for b"], 0.5)
    assert (found["source"][:], found["target"][:]) == (["Why? one!", "Why? two!"], ["for a", "for b"])
    assert weights_in(found).tolist() == [0.5, 0.5]
    assert weights_in(split).tolist() == [1.0, 1.0]
