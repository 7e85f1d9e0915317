"""Whatever stands in padding, a step over a vocabulary does not see it: all terms, both models, every gradient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stilla import DistillationTrainer
from stilla.signals import Batch
from stilla.tasks.text.sequences import NO_ROW
from stilla.training.reduction import Step, count_step
from tests.equivalence.language import KINDS, trainer


def padding(made: DistillationTrainer, batch: Batch) -> dict[str, Tensor]:
    """By input of ids, where nothing stands."""
    found = {"input_ids": batch.student["input_ids"] == made.student.config.pad_token_id}  # no text holds it
    if "decoder_input_ids" in batch.student:  # a step of the decoder stands where it has something to say
        assert batch.labels is not None
        found["decoder_input_ids"] = batch.labels == NO_ROW
    return found


def with_garbage(batch: Batch, where: Mapping[str, Tensor]) -> Batch:
    inputs = dict(batch.student)
    for name, places in where.items():
        inputs[name] = torch.where(places, torch.randint(3, 20, places.shape), inputs[name])
    return Batch({**batch, "student": inputs, "teacher": inputs})


def step(made: DistillationTrainer, batch: Batch) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
    """The loss, the gradients of all parameters, and those of what the embedding gave."""
    embedded: list[Tensor] = []

    def keep(module: Any, args: Any, output: Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    distiller: Any = made.model
    hooks = [one.register_forward_hook(keep) for one in distiller.student.modules()
             if isinstance(one, nn.Embedding) and one.num_embeddings == distiller.config.vocab_size]
    counted = count_step([made.task.counts(batch)], lambda one: one, torch.device("cpu"), made.task.counted)
    distiller.zero_grad()
    loss = distiller.loss(batch, made.teacher(batch), Step(counted))["loss"]
    loss.backward()
    for hook in hooks:
        hook.remove()
    gradients = {name: one.grad.clone() for name, one in distiller.named_parameters() if one.grad is not None}
    assert all(one.grad is not None for one in embedded)
    return loss.detach(), gradients, [one.grad for one in embedded]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "unpacked"])
def test_garbage_in_padding_changes_no_loss_and_no_gradient(kind: str, tmp_path: Path) -> None:
    made = trainer(kind, tmp_path)
    data = made.train_dataset
    batch = data.collate(list(data.examples)[:6])
    where = padding(made, batch)
    assert all(places.any() and not places.all() for places in where.values())
    assert batch.student is batch.teacher  # what the student does not see, the teacher does not either
    loss, gradients, _ = step(made, batch)
    again, others, embedded = step(made, with_garbage(batch, where))
    assert loss > 0
    torch.testing.assert_close(again, loss, rtol=1e-7, atol=0)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-6, atol=1e-7)
    for places, there in zip(where.values(), embedded, strict=True):  # the encoder's, then the decoder's
        assert not there[places].any()
        assert there[~places].any()
