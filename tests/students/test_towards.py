"""A narrower student that is given or made by a config takes over slices of a wider teacher's weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.models.members import Units
from stilla.recipe import Width
from stilla.recipe.weights import Interpolate
from stilla.students import Towards, by_width, first_units, given, importance, interpolate
from tests.equivalence.setting import bert as same_heads
from tests.families import FAMILIES
from tests.students.test_width import inputs_of, lively, named

SIZE = 4
"""Of a head, of both."""


def bert(width: int, heads: int, ffn: int, layers: int = 2, seed: int = 0) -> hf.BertForSequenceClassification:
    torch.manual_seed(seed)
    return lively(hf.BertForSequenceClassification(hf.BertConfig(
        vocab_size=50, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=ffn,
        max_position_embeddings=32, num_labels=3))).eval().double()


def places(name: str, hidden: Tensor, heads: Tensor, ffn: Tensor) -> tuple[Tensor | None, ...]:
    """Where the small model's weight lies in the wide one's, axis by axis, as BERT is known to compute."""
    if "attention.self" in name:
        return (heads, hidden) if name.endswith("weight") else (heads,)
    if "attention.output.dense.weight" in name:
        return hidden, heads
    if "intermediate.dense" in name:
        return (ffn, hidden) if name.endswith("weight") else (ffn,)
    if ".output.dense.weight" in name:
        return hidden, ffn
    if "embeddings.weight" in name or name == "classifier.weight":
        return None, hidden
    if name == "classifier.bias":
        return (None,)
    return (hidden, hidden) if name == "bert.pooler.dense.weight" else (hidden,)


@torch.no_grad()
def padded(small: nn.Module, *, drawn: bool) -> hf.BertForSequenceClassification:
    """A teacher twice as wide whose further units are zero: behind the small model's, or anywhere between them."""
    wide = bert(16, 4, 32)
    generator = torch.Generator().manual_seed(3)

    def some(number: int) -> Tensor:
        return torch.randperm(2 * number, generator=generator)[:number].sort().values if drawn else torch.arange(number)

    hidden = some(8)
    by_layer = [(some(2), some(16)) for _ in range(2)]
    for name, one in wide.named_parameters():
        heads, ffn = by_layer[int(name.split("layer.")[1][0]) if "layer." in name else 0]
        rows = (heads[:, None] * SIZE + torch.arange(SIZE)).flatten()
        value = small.get_parameter(name)
        axes = [torch.arange(value.shape[axis]) if where is None else where
                for axis, where in enumerate(places(name, hidden, rows, ffn))]
        one.zero_()
        one[torch.meshgrid(*axes, indexing="ij")] = value
    return wide


def losses(model: nn.Module) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(4)
    for label in range(6):
        ids = torch.randint(1, 50, (1, 9), generator=generator)
        yield model(input_ids=ids, labels=torch.tensor([label % 3])).loss


def by_importance(model: nn.Module, units: Sequence[Units]) -> Mapping[str, Tensor]:
    return importance(model, units, losses(model))


@pytest.mark.slow
@pytest.mark.parametrize("units", ["first", "importance"])
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_of_a_teacher_padded_with_zero_units_it_is_the_small_model(units: Any, share: float) -> None:
    small, student = bert(8, 2, 16, seed=1), bert(8, 2, 16, seed=2)
    teacher = padded(small, drawn=units == "importance")
    before = {name: one.detach().clone() for name, one in student.named_parameters()}
    made = given(student, teacher)
    towards = Towards(made, teacher)
    assert towards.reasons == []
    said = interpolate(made, teacher, Interpolate(share=share, units=units),
                       cut=towards.cut(by_importance) if units == "importance" else None)
    assert said == f"{len(before)} of its tensors, 100% of its weights"
    for name, one in student.named_parameters():
        expected = before[name] + share * (small.get_parameter(name) - before[name])
        torch.testing.assert_close(one, expected, rtol=0, atol=0 if share == 1 else 1e-15, msg=name)


@pytest.mark.slow
def test_by_importance_the_first_are_not_taken_where_others_matter() -> None:
    small = bert(8, 2, 16, seed=1)
    teacher = padded(small, drawn=True)
    student = bert(8, 2, 16, seed=2)
    interpolate(given(student, teacher), teacher, Interpolate(share=1.0, units="first"))
    assert not torch.equal(student.classifier.weight, small.classifier.weight)


@pytest.mark.parametrize("units", ["first", "importance"])
def test_of_the_same_sizes_it_is_what_it_is_without(units: Any) -> None:
    teacher = same_heads(16, 4)
    plain, other = same_heads(16, 2), same_heads(16, 2)
    other.load_state_dict(plain.state_dict())
    interpolate(given(plain, teacher), teacher, Interpolate(share=0.5))
    towards = Towards(given(other, teacher), teacher)
    assert not towards.units
    interpolate(given(other, teacher), teacher, Interpolate(share=0.5, units=units), cut=towards.cut(by_importance))
    torch.testing.assert_close(other.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_layers_are_those_that_they_are_compared_with() -> None:
    """Of two layers the second of four and the fourth."""
    teacher, student = bert(16, 4, 32, layers=4), bert(8, 2, 16, seed=2)
    interpolate(given(student, teacher), teacher, Interpolate(share=1.0, units="first"))
    for ours, theirs in ((0, 1), (1, 3)):
        weight, whole = (model.bert.encoder.layer[place].intermediate.dense.weight
                         for model, place in ((student, ours), (teacher, theirs)))
        assert torch.equal(weight, whole[:16, :8])


@pytest.mark.parametrize("name", ["bert", "llama", "vit", *(pytest.param(name, marks=pytest.mark.slow) for name in (
    "distilbert", "gpt2", "t5", "qwen3", "clip", "swin", "dinov2"))])
def test_it_takes_over_what_a_cut_student_would_keep(name: str) -> None:
    """With the sizes that a student has that is cut, and the same choice of units."""
    teacher = lively(named(name))
    family = next(family for family in FAMILIES if family.name == name)
    kinds = {"ffn": 0.5, "hidden": 0.5, "heads": 0.5}
    expected = by_width(teacher, Width(**kinds, rounds=1), first_units, inputs_of(family)).of(teacher)
    student = type(teacher)(expected.config)
    interpolate(given(student, teacher), teacher, Interpolate(share=1.0, units="first"))
    for weight, one in student.named_parameters():
        if one.requires_grad:
            torch.testing.assert_close(one, expected.get_parameter(weight), rtol=0, atol=0, msg=weight)


@pytest.mark.slow
@pytest.mark.parametrize(("student", "words"), [
    ((16, 8, 32), "heads are of another size than its teacher's .num_attention_heads: 8 and 8."),
    ((18, 9, 32), "a part of one would have to be taken over"),
    ((64, 16, 32), "the student has more than its teacher .hidden_size, num_attention_heads."),
])
def test_what_cannot_be_taken_over_is_said_by_name(student: tuple[int, int, int], words: str) -> None:
    teacher, made = bert(32, 8, 64), bert(*student, seed=2)
    said = Towards(given(made, teacher), teacher).reasons
    assert len(said) == 1
    assert re.search(words, said[0]), said
    told = interpolate(given(made, teacher), teacher, Interpolate(share=1.0, units="first"))
    assert "without a counterpart: bert.embeddings.word_embeddings.weight" in told
    assert re.search(words, told)


def test_a_teacher_of_ones_own_has_no_config_to_go_by() -> None:
    teacher, student = nn.Sequential(nn.Linear(8, 3)), nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(CompatibilityError, match=r"student\.interpolate\.units: Sequential is no model of transformers"):
        Towards(given(student, teacher), teacher)
    same = nn.Sequential(nn.Linear(8, 3))
    interpolate(given(same, teacher), teacher, Interpolate(share=1.0, units="first"))
    assert torch.equal(same[0].weight, teacher[0].weight)
