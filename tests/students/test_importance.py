"""What a unit matters is what the loss would change by without it, to first order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.models.knobs import Kind
from stilla.models.members import Member, Units
from stilla.models.widths import find_widths
from stilla.students import importance
from tests.families import FAMILIES


def bert() -> hf.PreTrainedModel:
    family = next(family for family in FAMILIES if family.name == "bert")
    return family.build().double()


def units_of(model: hf.PreTrainedModel, kind: Kind) -> list[Units]:
    widths = find_widths(model, [kind])
    knobs = {"ffn": widths.ffn, "heads": [ways[0] for ways in widths.heads], "hidden": widths.hidden}[kind]
    return widths.units(knobs)


def texts(count: int = 4, seed: int = 0) -> list[dict[str, Tensor]]:
    """Examples by themselves, of several lengths."""
    draw = torch.Generator().manual_seed(seed)
    return [{"input_ids": torch.randint(5, 40, (1, 4 + number), generator=draw), "labels": torch.tensor([number % 3])}
            for number in range(count)]


def loss_of(model: nn.Module, example: dict[str, Tensor]) -> Tensor:
    """In float64; transformers' own loss of tokens is not."""
    inputs = {name: value for name, value in example.items() if name != "labels"}
    logits = model(**inputs).logits
    return nn.functional.cross_entropy(logits.flatten(0, -2), example["labels"].flatten())


def losses(model: nn.Module, examples: Sequence[dict[str, Tensor]]) -> Iterator[Tensor]:
    return (loss_of(model, example) for example in examples)


def by_hand(model: nn.Module, units: Units, unit: int, example: dict[str, Tensor], step: float = 1e-4) -> float:
    """The loss's slope while the unit's weights shrink, from two losses: (L((1 + h) w) - L((1 - h) w)) / 2h."""
    found = []
    weights = dict(model.named_parameters(remove_duplicate=False))
    for factor in (1 + step, 1 - step):
        before = {member.tensor: weights[member.tensor].detach().clone() for member in units.sinks or units.members}
        with torch.no_grad():
            for member in units.sinks or units.members:
                shape = [1] * weights[member.tensor].dim()
                shape[member.axis] = -1
                scale = 1 + (factor - 1) * (member.unit == unit).double()
                weights[member.tensor] *= scale.view(shape)
            found.append(float(loss_of(model, example)))
            for name, value in before.items():
                weights[name].copy_(value)
    return (found[0] - found[1]) / (2 * step)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ffn", "heads"])
def test_it_equals_the_slope_of_the_loss_measured_by_hand(kind: Kind) -> None:
    model = bert() if kind == "ffn" else next(one for one in FAMILIES if one.name == "vit").build().double()
    examples = texts(3) if kind == "ffn" else [
        {"pixel_values": torch.randn(1, 3, 16, 16, dtype=torch.float64), "labels": torch.tensor([one])} for one in range(3)]
    units = units_of(model, kind)
    found = importance(model, units, losses(model, examples))
    for one in units[:2]:
        expected = [sum(abs(by_hand(model, one, unit, example)) for example in examples) / len(examples)
                    for unit in range(one.count)]
        torch.testing.assert_close(found[one.name], torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_of_the_hidden_state_all_weights_count_and_tied_ones_once() -> None:
    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=2, n_positions=32)).double().eval()
    ids = torch.randint(5, 40, (1, 6), generator=torch.Generator().manual_seed(0))
    (units,) = [one for one in units_of(model, "hidden") if one.name == "n_embd"]
    assert len([member for member in units.members if member.tensor in ("lm_head.weight", "transformer.wte.weight")]) == 2
    once = Units(units.name, units.count, tuple(one for one in units.members if one.tensor != "lm_head.weight"))
    example = {"input_ids": ids, "labels": ids}
    found = importance(model, [units], losses(model, [example]))[units.name]
    expected = [abs(by_hand(model, once, unit, example)) for unit in range(units.count)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_order_of_the_examples_changes_nothing_and_parts_add_up() -> None:
    model, examples = bert(), texts(4)
    units = units_of(model, "ffn")
    whole = importance(model, units, losses(model, examples))
    backwards = importance(model, units, losses(model, examples[::-1]))
    parts = [importance(model, units, losses(model, part)) for part in (examples[:1], examples[1:])]
    for name, score in whole.items():
        torch.testing.assert_close(score, backwards[name], rtol=1e-12, atol=0)
        torch.testing.assert_close(score, (parts[0][name] + 3 * parts[1][name]) / 4, rtol=1e-12, atol=0)


@pytest.mark.slow
def test_padding_has_no_influence() -> None:
    model, examples = bert(), texts(3)
    units = units_of(model, "ffn")

    def padded(example: dict[str, Tensor]) -> dict[str, Tensor]:
        ids = example["input_ids"]
        return {**example, "input_ids": torch.cat([ids, torch.zeros(1, 5, dtype=torch.int64)], 1),
                "attention_mask": (torch.arange(ids.shape[1] + 5) < ids.shape[1])[None].long()}

    plain = importance(model, units, losses(model, examples))
    longer = importance(model, units, losses(model, [padded(one) for one in examples]))
    for name, score in plain.items():
        torch.testing.assert_close(score, longer[name], rtol=1e-9, atol=1e-15)


def test_gains_and_losses_of_several_examples_do_not_cancel() -> None:
    weight = nn.Linear(2, 1, bias=False).double()
    weight.weight.data[:] = torch.tensor([[1.0, 1.0]])
    member = Member("weight", 1, torch.arange(2))
    units = Units("weight", 2, (member,), (member,))
    inputs = [torch.tensor([[3.0, 1.0]]).double(), torch.tensor([[-3.0, 1.0]]).double()]
    found = importance(weight, [units], (weight(one).sum() for one in inputs))
    assert found["weight"].tolist() == [3.0, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "why"), [(None, "it is 0, or none has a label"), (0.0, "it is 0, or none has a label"),
                                           (float("nan"), "it is not finite")])
def test_examples_that_say_nothing_are_refused(loss: float | None, why: str) -> None:
    model = bert()
    units = units_of(model, "ffn")
    said = [] if loss is None else [next(losses(model, texts(1))) * loss]
    with pytest.raises(CompatibilityError, match=f"student.width: by the loss of {len(said)} training examples .*{why}"):
        importance(model, units, said)
