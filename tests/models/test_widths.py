"""What a model can be made narrower by is found from the model and its config alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import pytest
import torch
import transformers as hf

from stilla.errors import CompatibilityError
from stilla.models.configs import changed_numbers
from stilla.models.knobs import Knob, Widths
from stilla.models.members import NOBODYS, Member, Units
from stilla.models.widths import find_widths
from tests.families import FAMILIES, SMALL, Family
from tests.widths import CUTTABLE, Cuttable

ALL = ("ffn", "heads", "hidden")
WIDE = {**SMALL, "hidden_size": 32, "num_attention_heads": 8, "num_hidden_layers": 3, "pad_token_id": 0}


def named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def inputs_of(family: Family) -> object:
    """Nothing is made up for speech."""
    return family.inputs() if family.name in ("whisper", "wav2vec2") else None


def fields(knobs: Sequence[Knob]) -> tuple[str, ...]:
    return tuple(".".join(path) for knob in knobs for path in knob.now)


def cuttable(widths: Widths) -> Cuttable:
    return Cuttable(fields(widths.ffn), fields([ways[0] for ways in widths.heads]), fields(widths.hidden),
                    tuple(".".join(path) for knob in widths.hidden for path in knob.bound))


def members(units: Units) -> dict[tuple[str, int], list[int]]:
    return {(member.tensor, member.axis): member.unit.tolist() for member in units.members}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_can_be_cut_is_found_by_the_fields_that_say_it(family: Family) -> None:
    model = family.build()
    found = cuttable(find_widths(model, ALL, inputs_of(family)))  # type: ignore[arg-type]
    expected = CUTTABLE[family.name]
    assert {*found.ffn} == {*expected.ffn}
    assert found.heads == expected.heads
    assert {*found.hidden} == {*expected.hidden}
    # gpt2 and gpt-neo are built here with a field that their classes do not read
    assert {*found.bound} - {"num_key_value_heads"} == {*expected.bound}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_units_are_those_that_the_code_of_the_model_has(family: str) -> None:
    widths = find_widths(named(family).build(), ALL)
    neurons = {one.name: members(one) for one in widths.units(widths.ffn)}
    layers = range(4 if family == "bert" else 5)
    each, half = [*range(24)], [0] * 8 + [1] * 8
    if family == "bert":
        places = [f"bert.encoder.layer.{number}" for number in layers]
        assert [*neurons.values()] == [
            {(f"{place}.intermediate.dense.weight", 0): each, (f"{place}.intermediate.dense.bias", 0): each,
             (f"{place}.output.dense.weight", 1): each} for place in places]
        heads = [members(one) for one in widths.units(widths.hidden) if one.count == 2]
        assert heads == [{(f"{place}.attention.output.dense.weight", 1): half, **{
            (f"{place}.attention.self.{name}.{kind}", 0): half
            for name in ("query", "key", "value") for kind in ("weight", "bias")}} for place in places]
    else:
        places = [f"model.layers.{number}" for number in layers]
        assert [*neurons.values()] == [
            {(f"{place}.mlp.{name}.weight", axis): each
             for name, axis in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1))} for place in places]
        heads = [members(one) for one in widths.units(ways[0] for ways in widths.heads)]
        assert heads == [{(f"{place}.self_attn.{name}_proj.weight", int(name == "o")): half for name in "qkvo"}
                         for place in places]


@pytest.mark.slow
def test_the_hidden_state_is_every_axis_that_carries_it() -> None:
    model = named("llama").build()
    (knob,) = find_widths(model, ["hidden"]).hidden
    of_probe = {name for name, _ in members(knob.units[0])}
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} < of_probe
    (whole,) = find_widths(model, ["hidden"]).units([knob])
    carried = {(name, axis) for name, weight in model.named_parameters(remove_duplicate=False)
               for axis, size in enumerate(weight.shape) if size == 16}
    inner = {(name, int(name.endswith("o_proj.weight"))) for name, _ in carried if "self_attn" in name}
    assert members(whole).keys() == carried - inner


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fused"), [("gpt2", "c_attn.weight"), ("phi3", "qkv_proj.weight")])
def test_heads_in_one_matrix_with_others_are_told_apart(name: str, fused: str) -> None:
    if name == "gpt2":
        model: hf.PreTrainedModel = named("gpt2").build()
        widths = find_widths(model, ALL)
        units, expected = widths.units(widths.hidden), ([0] * 8 + [1] * 8) * 3
    else:
        model = hf.Phi3ForCausalLM(hf.Phi3Config(**WIDE, num_key_value_heads=4))
        widths = find_widths(model, ALL)
        units = widths.units(ways[0] for ways in widths.heads)
        group = [number for number in range(4) for _ in range(4)]  # four heads' keys, each of four numbers
        expected = [number for number in range(4) for _ in range(8)] + 2 * group
    found = [member.unit.tolist() for one in units if one.count in (2, 4) for member in one.members
             if member.tensor.endswith(fused)]
    assert found == [expected] * len(found) != []


@pytest.mark.slow
def test_layers_that_share_a_bias_of_positions_keep_the_same_heads() -> None:
    model = named("t5").build()
    widths = find_widths(model, ["heads"])
    units = widths.units(ways[0] for ways in widths.heads)
    biases = {f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight": 4 * blocks + 1
              for stack, blocks in (("encoder", 4), ("decoder", 3))}
    shared = {name: one for one in units for name in biases if (name, 1) in members(one)}
    assert {name: len(one.members) for name, one in shared.items()} == biases
    assert len(units) == 2 + 3, "attention to the encoder shares none"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("groups", "ways"),
    [(8, [(8, 1)]), (4, [(4, 1), (8, 4)]), (2, [(2, 1), (8, 2)]), (1, [(8, 1)])],
)
def test_heads_that_share_their_keys_go_in_groups_or_as_many_of_each(groups: int, ways: list[tuple[int, int]]) -> None:
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**WIDE, num_key_value_heads=groups))
    (found,) = find_widths(model, ["heads"]).heads
    assert [(knob.size, knob.units[0].pools) for knob in found] == ways
    assert fields(found[:1]) == ("num_attention_heads", "num_key_value_heads")[:1 + (groups > 1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kind", "why"),
    [
        # what a head adds to scores follows from its place among so many
        (lambda: hf.BloomForCausalLM(hf.BloomConfig(vocab_size=40, hidden_size=32, n_layer=3, n_head=8)), "heads",
         "that leaves its heads as they are"),
        # queries are normalised over all heads together
        (lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**WIDE, num_key_value_heads=8)), "heads",
         "that leaves its heads as they are"),
        (lambda: hf.BertForSequenceClassification(hf.BertConfig(**WIDE)), "heads",
         "as large as `hidden_size` divided by the number of heads"),
        (lambda: named("convnext").build(), "ffn", "is the width of its feed-forward blocks alone"),
        (lambda: named("resnet").build(), "hidden", "is the width of its hidden state"),
    ],
)
def test_what_no_config_can_say_is_not_found(model: object, kind: str, why: str) -> None:
    widths = find_widths(model(), [kind])  # type: ignore[operator, list-item]
    assert not getattr(widths, kind)
    assert why in widths.reasons[kind]  # type: ignore[index]


@pytest.mark.slow
def test_experts_and_ranks_are_no_widths_of_feed_forward_blocks() -> None:
    model = hf.MixtralForCausalLM(hf.MixtralConfig(**WIDE, num_key_value_heads=4, num_local_experts=3))
    assert fields(find_widths(model, ["ffn"]).ffn) == ("intermediate_size",)


@pytest.mark.slow
def test_a_model_without_a_stack_of_layers_is_understood_too() -> None:
    albert = hf.AlbertForSequenceClassification(hf.AlbertConfig(**{**WIDE, "embedding_size": 8}))
    found = cuttable(find_widths(albert, ALL))
    assert found == Cuttable(("intermediate_size",), (), ("hidden_size",), ("num_attention_heads",))


@pytest.mark.slow
def test_the_model_and_torchs_random_numbers_are_left_as_they_were() -> None:
    model = named("bert").build()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    find_widths(model, ALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.slow
def test_a_deep_model_is_looked_at_in_two_layers() -> None:
    model = hf.BertForSequenceClassification(hf.BertConfig(**{**WIDE, "num_hidden_layers": 12}))
    widths = find_widths(model, ["ffn"])
    assert widths.probe.model.config.num_hidden_layers == 2
    assert [one.name for one in widths.units(widths.ffn)] == [
        f"bert.encoder.layer.{number}.output.dense.weight" for number in range(12)]


def test_a_model_that_cannot_be_run_on_made_up_inputs_is_refused_in_words() -> None:
    model = hf.PatchTSTForPrediction(hf.PatchTSTConfig(
        num_input_channels=1, context_length=16, patch_length=4, d_model=8, num_attention_heads=2, ffn_dim=8,
        num_hidden_layers=2, prediction_length=4))
    with pytest.raises(CompatibilityError, match="PatchTSTForPrediction could not be run on made-up inputs, to see which of"):
        find_widths(model, ALL)


def test_units_that_are_left_are_numbered_anew() -> None:
    member = Member("weight", 0, torch.tensor([0, 0, 1, 1, 2, 2, NOBODYS]))
    units = Units("weight", 3, (member,), (member,))
    left = units.only(torch.tensor([0, 2]))
    assert left.count == 2
    assert left.members[0].unit.tolist() == left.sinks[0].unit.tolist() == [0, 0, 1, 1, NOBODYS]
    assert prod(left.members[0].unit.shape) == 5
    assert left.only(torch.tensor([1])).members[0].unit.tolist() == [0, 0, NOBODYS]


def test_what_was_chosen_after_a_training_is_no_part_of_a_cut() -> None:
    before, after = (hf.BertConfig(intermediate_size=size) for size in (48, 24))
    before.thresholds, after.thresholds = {"food": 0.5}, {"food": 0.4}
    assert changed_numbers(before, after) == ["intermediate_size 48 → 24"]
