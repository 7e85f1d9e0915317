"""What a step's loss is when the teacher tells a part of what it knows, beside the loss with all of it on the same batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from stilla import DistillationTrainer, Term
from stilla.objectives import Logits
from stilla.signals import Headed
from stilla.tasks.base import Side
from stilla.tasks.forward import listen
from stilla.teachers import CachedTeacher, CapturingTeacher, Keep, LiveTeacher, Teacher
from tests.equivalence.language import trainer
from tests.equivalence.setting import losses

pytestmark = pytest.mark.slow

EXAMPLES = 8
kinds = pytest.mark.parametrize("kind", ["causal", "seq2seq"])


def made(kind: str, folder: Path, keep: Keep | None = None, *, again: bool = False) -> DistillationTrainer:
    """A trainer whose first step sees all examples at once."""

    def answering(live: LiveTeacher) -> Teacher:
        if keep is None:
            return live
        if again:
            return CachedTeacher(folder / "cache", live.task, check_alignment=False)
        return CapturingTeacher(live, live.task, folder / "cache", keep, {"teacher": "a"})

    return trainer(kind, folder, examples=EXAMPLES, objectives=[Term(Logits(temperature=1.0))], answering=answering,
                   max_steps=1)


def loss_of(one: DistillationTrainer) -> float:
    one.train()
    if isinstance(one.teacher, CapturingTeacher):
        one.teacher.close()
    (said,) = losses(one)
    return said["terms/logits"]


def sides(one: DistillationTrainer) -> tuple[Tensor, Tensor]:
    """log p and log q of every row, before the step."""
    batch = one.train_dataset.collate(list(one.train_dataset.examples))
    assert isinstance(one.teacher, LiveTeacher)
    with torch.no_grad():
        both = one.task.align(listen(one.student.eval(), one.task, batch, Side.STUDENT), one.teacher(batch), batch)
    q, p = (said.logits.dense().logits.double().log_softmax(-1) for said in both if isinstance(said.logits, Headed))
    return p, q


@kinds
def test_the_loss_of_a_top_k_lacks_what_differs_outside_and_no_more(kind: str, tmp_path: Path) -> None:
    live, keep = made(kind, tmp_path / "live"), Keep("top_k", k=8)
    p, q = sides(live)
    whole = loss_of(live)
    assert whole == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-4)
    ids = p.topk(8, -1).indices
    outside, ours = (one.scatter(-1, ids, -torch.inf) for one in (p, q))
    tail = outside.logsumexp(-1, keepdim=True)
    # KL over all = KL over the parts + the mass outside times KL within it
    within = torch.where(outside > -torch.inf, p - tail - (q - ours.logsumexp(-1, keepdim=True)), 0)
    lacking = (outside.exp() * within).sum(-1).mean().item()
    # the eight bits: a log-probability errs by at most the row's range / 508 against the others, so 254 after normalising
    inside, theirs = p.gather(-1, ids), q.gather(-1, ids)
    step = (inside.amax(-1, keepdim=True) - inside.amin(-1, keepdim=True)) / 254
    bits = (step * step.exp() * inside.exp() * ((inside - theirs).abs() + 1)).sum(-1).mean().item()
    found = loss_of(made(kind, tmp_path, keep))
    assert lacking > 0.02 * whole > 2 * bits  # or the bound would say nothing
    assert abs(found - (whole - lacking)) <= bits + 1e-5 * whole
    assert 0 < found < whole
    assert loss_of(made(kind, tmp_path, keep, again=True)) == found


@kinds
def test_the_loss_of_drawn_tokens_is_the_whole_one_up_to_the_luck_of_the_draw(kind: str, tmp_path: Path) -> None:
    live, keep = made(kind, tmp_path / "live"), Keep("samples", samples=50)
    p, q = sides(live)
    whole = loss_of(live)
    # of independent draws; those of a cache are stratified, whose variance is never larger
    variance = (p.exp() * q.square()).sum(-1) - (p.exp() * q).sum(-1).square()
    sigma = (variance / 50).sum().sqrt().item() / len(p)
    found = loss_of(made(kind, tmp_path, keep))
    assert sigma < 0.05 * whole
    assert 0 < abs(found - whole) <= 4 * sigma
    assert loss_of(made(kind, tmp_path, keep, again=True)) == found
