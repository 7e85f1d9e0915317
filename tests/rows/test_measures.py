"""What evaluation gets of every row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stilla.errors import CompatibilityError
from stilla.rows import row_measures
from tests.rows.setting import HEADS, ROWS, in_pieces, sides, top_k


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("form", ["headed", "dense"])
def test_measures_equal_the_textbook(head: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pieces(monkeypatch, 5, 2)
    given = sides(**HEADS[head])
    logits, target = given.student.dense().logits.detach(), given.teacher.dense().logits
    student, teacher = (given.student, given.teacher) if form == "headed" else (given.student.dense(), given.teacher.dense())
    found = row_measures(student, given.labels, teacher)
    torch.testing.assert_close(found.nll, F.cross_entropy(logits, given.labels, reduction="none"))
    assert torch.equal(found.top1, logits.argmax(-1))
    torch.testing.assert_close(found.confidence, logits.log_softmax(-1).amax(-1))
    torch.testing.assert_close(found.kl, F.kl_div(logits.log_softmax(-1), target.log_softmax(-1), log_target=True,
                                                 reduction="none").sum(-1))
    assert not found.nll.requires_grad


def test_labels_and_teacher_may_be_missing() -> None:
    given = sides()
    found = row_measures(given.student, None)
    assert not found.nll.any()
    assert found.kl is None
    assert found.top1.shape == (ROWS,)
    empty = row_measures(given.student.rows(0, 0), given.labels[:0], given.teacher.rows(0, 0))
    assert len(empty.nll) == len(empty.top1) == len(empty.kl) == 0


def test_bfloat16_is_measured_in_float32() -> None:
    given = sides(dtype=torch.bfloat16)
    found = row_measures(given.student, given.labels, given.teacher)
    assert found.nll.dtype == found.kl.dtype == torch.float32


def test_sides_that_do_not_agree_are_refused() -> None:
    given = sides()
    with pytest.raises(CompatibilityError, match="rows"):
        row_measures(given.student, None, given.teacher.rows(0, 3))
    with pytest.raises(CompatibilityError, match="need all of it"):
        row_measures(given.student, None, top_k(given.teacher, 3))
