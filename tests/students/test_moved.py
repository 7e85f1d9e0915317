"""Where a student starts, and what of it is not trained."""

from __future__ import annotations

import pytest
import torch

from stilla.errors import CompatibilityError, RecipeError
from stilla.recipe import StudentSpec
from stilla.recipe.weights import Interpolate
from stilla.students import freeze, given, interpolate
from tests.equivalence.setting import bert


def test_a_student_starts_so_far_on_the_way_to_its_teacher() -> None:
    teacher, model = bert(16, 2).double(), bert(16, 2).double()
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    interpolate(given(model, teacher), teacher, Interpolate(share=0.25, parts=("embeddings", "layers.0")))
    theirs = dict(teacher.named_parameters())
    for name, now in model.named_parameters():
        moved = name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))
        expected = before[name] + 0.25 * (theirs[name] - before[name]) if moved else before[name]
        torch.testing.assert_close(now.detach(), expected.detach(), rtol=0, atol=1e-15)


def test_all_of_the_way_is_the_teacher() -> None:
    teacher, model = bert(16, 2).double(), bert(16, 2).double()
    interpolate(given(model, teacher), teacher, Interpolate(share=1.0))
    torch.testing.assert_close(model.state_dict(), teacher.state_dict(), rtol=0, atol=0)


def test_frozen_parts_get_no_gradient() -> None:
    model = bert(16, 2)
    freeze(model, ["embeddings", "layers.0"])
    model(torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    for name, one in model.named_parameters():
        assert (one.grad is None) == name.startswith(("bert.embeddings.", "bert.encoder.layer.0.")), name


def test_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"student\.freeze: nothing would be left to be trained"):
        freeze(bert(16, 2), ["*"])


def test_a_share_is_the_short_form() -> None:
    assert StudentSpec.model_validate({"model": "m", "interpolate": 0.5}).interpolate == Interpolate(share=0.5)


@pytest.mark.parametrize(("wrong", "words"), [
    ({"layers": 2, "interpolate": 0.5}, "starts with the teacher's weights already"),
    ({"layers": 2, "lora": {"r": 4}, "freeze": ["head"]}, "adapters alone are trained"),
    ({"model": "m", "interpolate": 1.5}, "less than or equal to 1"),
])
def test_what_cannot_be_meant_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises((ValueError, RecipeError), match=words):
        StudentSpec.model_validate(wrong)
