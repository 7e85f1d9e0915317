"""A narrower student: the teacher without some of its units."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.models.members import NOBODYS, Units
from stilla.recipe import Width
from stilla.students import Cut, by_layers, by_width, entire, first_units
from tests.families import BART, FAMILIES, SMALL, Family, main_output
from tests.students.test_layers import names_of_ties, storages
from tests.widths import CUTTABLE

MADE_ANEW = r"embed_positions\.weight` is not saved but made when a model is loaded"
WIDE = {**SMALL, "hidden_size": 32, "num_attention_heads": 8, "num_hidden_layers": 3, "pad_token_id": 0}


def named(name: str) -> hf.PreTrainedModel:
    return next(family for family in FAMILIES if family.name == name).build()


def llama(**fields: object) -> hf.PreTrainedModel:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**{**WIDE, **fields})).eval()


def inputs_of(family: Family) -> Mapping[str, Tensor] | None:
    return family.inputs() if family.name in ("whisper", "wav2vec2") else None


def lively(model: hf.PreTrainedModel) -> hf.PreTrainedModel:
    """Weights so large that every unit is seen in the outputs: of fresh models, they are all but silent."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1 and weight.requires_grad:  # else it is made by the class, and not saved
                weight.copy_(torch.randn(weight.shape, generator=generator) * weight[0].numel() ** -0.5)
    return model


def cut(model: hf.PreTrainedModel, score: Any = first_units, inputs: Mapping[str, Tensor] | None = None,
        **width: Any) -> hf.PreTrainedModel:
    return by_width(model, Width(**{"rounds": 1, **width}), score, inputs).of(model)


def sizes(model: nn.Module, units: Sequence[Units]) -> dict[str, Tensor]:
    """How large the weights are that each unit reaches the outputs through."""
    weights, found = dict(model.named_parameters(remove_duplicate=False)), {}
    for one in units:
        found[one.name] = torch.zeros(one.count, dtype=torch.float64)
        for member in one.sinks:
            along = weights[member.tensor].detach().double().abs().movedim(member.axis, 0).flatten(1).sum(1)
            found[one.name].index_add_(0, member.unit.clamp(min=0), along * (member.unit != NOBODYS))
    return found


def silenced(model: hf.PreTrainedModel, inputs: Mapping[str, Tensor] | None, **width: Any) -> hf.PreTrainedModel:
    """The model with the units zero, drawn at random, that a cut of this width has no place for."""
    silent = copy.deepcopy(model)

    def draw(part: nn.Module, units: Sequence[Units]) -> dict[str, Tensor]:
        drawn = {one.name: torch.rand(one.count, generator=torch.Generator().manual_seed(len(one.name))) for one in units}
        weights = dict(silent.named_parameters(remove_duplicate=False))
        for one in units:
            by_pool = drawn[one.name].view(one.pools, -1)
            share = next(iter(width.values()))
            left = max(1, round(share * by_pool.shape[1]))
            lowest = by_pool.topk(left, 1).values[:, -1:]
            gone = (by_pool < lowest).flatten().nonzero().flatten()
            with torch.no_grad():
                for member in one.sinks:
                    weights[member.tensor].index_fill_(member.axis, torch.isin(member.unit, gone).nonzero().flatten(), 0.0)
        return drawn

    by_width(model, Width(rounds=1, **width), draw, inputs)
    return silent


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_units_that_are_zero_can_go_without_a_trace_and_what_is_saved_is_what_is_loaded(
    family: Family, tmp_path: Path
) -> None:
    cuttable = CUTTABLE[family.name]
    whole = lively(family.build())
    tried = 0
    for kind in ("ffn", "heads", "hidden"):
        if not getattr(cuttable, kind):
            with pytest.raises(CompatibilityError, match=rf"student\.width\.{kind}: "):
                cut(whole, inputs=inputs_of(family), **{kind: 0.5})
            continue
        width = {kind: 0.5, **({"heads": 0.5} if kind == "hidden" and cuttable.bound else {})}
        if family.name == "electra" and kind == "hidden":
            # its state would be as wide as its embeddings, which are then not projected
            with pytest.raises(CompatibilityError, match="has other weights than the teacher"):
                cut(whole, **width)
            continue
        if cuttable.made_anew and kind == "hidden":
            with pytest.raises(CompatibilityError, match=MADE_ANEW):
                cut(whole, **width)
            continue
        teacher = whole if kind == "hidden" else silenced(whole, inputs_of(family), **width)
        before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
        student = cut(teacher, first_units if kind == "hidden" else sizes, inputs_of(family), **width)
        with torch.no_grad():
            ours, theirs = (main_output(model(**family.inputs())) for model in (student, teacher))
            if kind == "hidden":
                assert ours.isfinite().all()
            else:
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
                moved = (theirs - main_output(whole(**family.inputs()))).abs().max() / theirs.abs().max()
                assert moved > 1e-3, "nothing was silenced"
        assert _numbers(student) < _numbers(teacher)
        assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
        assert not storages(student) & storages(teacher)
        assert names_of_ties(student) == names_of_ties(teacher)
        folder = tmp_path / kind
        student.save_pretrained(folder)
        loaded, found = type(student).from_pretrained(folder, output_loading_info=True)
        assert not any(found[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        with torch.no_grad():
            assert torch.equal(main_output(loaded.eval()(**family.inputs())), ours)
        tried += 1
    assert tried or family.name in ("convnext", "resnet")


def _numbers(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.slow
def test_a_narrower_bert_is_the_one_that_is_sliced_by_hand() -> None:
    teacher = hf.BertForSequenceClassification(hf.BertConfig(**WIDE, num_labels=3)).eval()
    neurons, heads, state = torch.arange(0, 24, 2), torch.tensor([1, 2, 5, 7]), torch.arange(1, 32, 2)
    in_heads = (4 * heads[:, None] + torch.arange(4)).flatten()

    def wanted(model: nn.Module, units: Sequence[Units]) -> dict[str, Tensor]:
        kept = {24: neurons, 8: heads, 32: state}
        return {one.name: torch.isin(torch.arange(one.count), kept[one.count]).double() for one in units}

    student = cut(teacher, wanted, ffn=0.5, heads=0.5, hidden=0.5)
    weights = teacher.state_dict()
    by_hand = {}
    for name, weight in weights.items():
        for part, axes in (("intermediate.dense", (neurons, state)), ("attention.self", (in_heads, state)),
                           ("attention.output.dense", (state, in_heads)), (".output.dense", (state, neurons)),
                           ("classifier", (torch.arange(3), state)), ("embeddings.LayerNorm", (state,)),
                           ("embeddings.", (torch.arange(len(weight)), state)), ("", (state, state))):
            if part in name:
                for axis in range(weight.dim()):
                    weight = weight.index_select(axis, axes[axis])
                break
        by_hand[name] = weight
    made = student.state_dict()
    assert made.keys() == by_hand.keys()
    assert all(torch.equal(made[name], by_hand[name]) for name in made)
    config = student.config
    assert (config.intermediate_size, config.num_attention_heads, config.hidden_size) == (12, 4, 16)


@pytest.mark.slow
def test_silent_numbers_of_the_hidden_state_can_go_but_for_what_its_norms_divide_by() -> None:
    teacher = lively(llama(rms_norm_eps=1e-12))
    silent = torch.arange(0, 32, 2)
    with torch.no_grad():
        teacher.model.embed_tokens.weight[:, silent] = 0  # nothing writes to them
        for layer in teacher.model.layers:
            layer.self_attn.o_proj.weight[silent] = 0
            layer.mlp.down_proj.weight[silent] = 0

    def spoken(model: nn.Module, units: Sequence[Units]) -> dict[str, Tensor]:
        return {one.name: torch.arange(one.count) % 2.0 for one in units}

    student = cut(teacher, spoken, hidden=0.5)
    assert student.config.hidden_size == 16
    ids = torch.randint(5, 40, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if "norm" in name:  # a mean over half as many numbers is twice as large
                weight.mul_(2 ** 0.5)
        torch.testing.assert_close(student(ids).logits, teacher(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_of_heads_that_share_keys_the_best_group_or_as_many_of_each_group_stay() -> None:
    def last(model: nn.Module, units: Sequence[Units]) -> dict[str, Tensor]:
        return {one.name: torch.arange(one.count).double() for one in units}

    teacher = llama(num_key_value_heads=4)
    rows = teacher.model.layers[0].self_attn.q_proj.weight
    groups = cut(teacher, last, heads=0.5)
    assert (groups.config.num_attention_heads, groups.config.num_key_value_heads) == (4, 2)
    assert torch.equal(groups.model.layers[0].self_attn.q_proj.weight, rows[16:])

    teacher = llama(num_key_value_heads=2, hidden_size=48)
    rows = teacher.model.layers[0].self_attn.q_proj.weight.view(8, 6, 48)
    within = cut(teacher, last, heads=0.75)  # of four heads of a group, three
    assert (within.config.num_attention_heads, within.config.num_key_value_heads) == (6, 2)
    assert torch.equal(within.model.layers[0].self_attn.q_proj.weight, rows[[1, 2, 3, 5, 6, 7]].reshape(36, 48))
    assert torch.equal(within.model.layers[0].self_attn.k_proj.weight, teacher.model.layers[0].self_attn.k_proj.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "fields"),
    [
        ({"ffn": 0.67}, {"intermediate_size": 104}),  # a multiple of 8, as 160 is
        ({"ffn": 107}, {"intermediate_size": 107}),
        ({"ffn": 0.001}, {"intermediate_size": 8}),
        ({"heads": 0.67}, {"num_attention_heads": 6}),  # 5 do not divide 48, as the class wants it
        ({"heads": 3}, {"num_attention_heads": 3}),
        ({"heads": 0.01}, {"num_attention_heads": 1}),
        ({"hidden": 0.4}, {"hidden_size": 16}),  # a multiple of 8 heads
        ({"hidden": 0.4, "heads": 0.7}, {"hidden_size": 18, "num_attention_heads": 6}),
    ],
)
def test_a_share_is_rounded_to_what_a_config_can_say_and_a_number_is_taken_as_written(
    width: dict[str, float], fields: dict[str, int]
) -> None:
    teacher = llama(hidden_size=48, intermediate_size=160, num_key_value_heads=1)
    config = cut(teacher, **width).config
    assert {name: getattr(config, name) for name in fields} == fields
    assert config.head_dim == teacher.config.head_dim


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "width", "said"),
    [
        (lambda: hf.BertForMaskedLM(hf.BertConfig(**WIDE)), {"heads": 0.5},
         "student.width.heads: a head of BertForMaskedLM is as large as `hidden_size` divided by the number of heads, so "
         "fewer heads alone would be larger ones, and a part of a head is not cut off. Cut the hidden state alike, {heads: "
         "0.5, hidden: 0.5}, or leave heads out"),
        (lambda: llama(num_key_value_heads=1), {"heads": 5},
         "student.width.heads: num_attention_heads cannot be 5; expected 1, 2, 4 or 8"),
        (lambda: hf.BertForMaskedLM(hf.BertConfig(**WIDE)), {"hidden": 0.5},
         "student.width.hidden: got 0.5 and heads: 1; expected the same share of both: a head is as large as the hidden "
         "state divided by their number (hidden_size and num_attention_heads), and no part of a head is cut off. Write "
         "{hidden: 0.5, heads: 0.5}"),
        (lambda: hf.BertForMaskedLM(hf.BertConfig(**WIDE)), {"hidden": 18, "heads": 0.5},
         "student.width.hidden: got 18; expected a multiple of 4, so that heads stay whole"),
        (lambda: llama(), {"ffn": 25}, "student.width.ffn: got 25; the teacher has 24. Expected fewer, or a share up to 1"),
        (lambda: llama(), {"ffn": 0.999},
         "student.width: rounded to what can be said in a config, nothing is cut. Ask for less"),
        (lambda: named("convnext"), {"ffn": 0.5, "heads": 0.5, "hidden": 0.5}, "3 problems:"),
    ],
)
def test_what_no_config_can_say_is_refused_with_the_way_out(model: Any, width: dict[str, float], said: str) -> None:
    with pytest.raises(CompatibilityError) as refused:
        cut(model(), **width)
    assert str(refused.value).startswith(said)


@pytest.mark.slow
def test_weights_that_are_made_anew_when_a_model_is_loaded_are_not_cut() -> None:
    marian = hf.MarianMTModel(hf.MarianConfig(pad_token_id=39, **BART))
    with pytest.raises(CompatibilityError, match=MADE_ANEW):
        cut(marian, hidden=0.5, heads=0.5)
    assert cut(marian, ffn=0.5).config.encoder_ffn_dim == 12


@pytest.mark.slow
def test_each_round_cuts_a_part_and_measures_what_is_left_of_what_is_left() -> None:
    teacher = llama(intermediate_size=160)
    seen: list[tuple[int, nn.Module]] = []

    def score(model: nn.Module, units: Sequence[Units]) -> dict[str, Tensor]:
        seen.append((units[0].count, model))
        weights = dict(model.named_parameters())
        assert all(weights[member.tensor].shape[member.axis] == len(member.unit) for one in units for member in one.members)
        return first_units(model, units)

    made = by_width(teacher, Width(ffn=0.25, rounds=4), score)
    assert [count for count, _ in seen] == [160, 112, 80, 56]  # by the same share each time, rounded to eights
    assert [model.config.intermediate_size for _, model in seen] == [160, 112, 80, 56]
    assert made.of(teacher).config.intermediate_size == 40
    kept = {name: indices[1] for name, indices in made.slices.items() if "down" in name}
    assert [indices.tolist() for indices in kept.values()] == [[*range(40)]] * 3


@pytest.mark.slow
def test_what_was_thought_least_of_at_first_may_be_what_stays() -> None:
    teacher = llama(intermediate_size=160)
    asked: list[int] = []

    def turns(model: nn.Module, units: Sequence[Units]) -> dict[str, Tensor]:
        """The last matter first, then the first of what is left."""
        asked.append(1)
        sign = 1 if len(asked) == 1 else -1
        return {one.name: sign * torch.arange(one.count).double() for one in units}

    made = by_width(teacher, Width(ffn=0.25, rounds=2), turns)
    assert made.slices["model.layers.0.mlp.down_proj.weight"][1].tolist() == [*range(80, 120)]


@pytest.mark.slow
def test_a_cut_is_written_and_read_as_it_was(tmp_path: Path) -> None:
    teacher = llama(num_key_value_heads=4)
    made = by_width(teacher, Width(ffn=0.5, heads=0.5, hidden=0.5, rounds=1), first_units)
    made.save(tmp_path / "kept.safetensors")
    read = Cut.load(tmp_path / "kept.safetensors")
    assert read.changes == made.changes
    ours, theirs = read.of(teacher), made.of(teacher)
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.slow
def test_layers_are_cut_first_and_the_rest_of_them_is_made_narrower() -> None:
    teacher = hf.BertForSequenceClassification(hf.BertConfig(**{**WIDE, "num_hidden_layers": 4})).eval()
    student = by_layers(teacher, {"keep": [0, 3]})
    assert isinstance(student.model, hf.PreTrainedModel)
    narrow = cut(student.model, ffn=0.5)
    assert (narrow.config.num_hidden_layers, narrow.config.intermediate_size) == (2, 12)
    assert torch.equal(narrow.bert.encoder.layer[1].intermediate.dense.weight,
                       teacher.bert.encoder.layer[3].intermediate.dense.weight[:12])


def test_a_student_of_all_layers_is_a_copy_in_float32_with_a_layer_for_each() -> None:
    teacher = hf.BertForSequenceClassification(hf.BertConfig(**WIDE)).to(torch.bfloat16)
    student = entire(teacher)
    assert student.layer_map == {"layers": (0, 1, 2)}
    assert {weight.dtype for weight in student.model.parameters()} == {torch.float32}
    assert all(torch.equal(weight, teacher.state_dict()[name].float()) for name, weight in student.model.state_dict().items()
               if weight.is_floating_point())
    assert entire(hf.AlbertModel(hf.AlbertConfig(**{**WIDE, "embedding_size": 8}))).layer_map == {}
    with pytest.raises(CompatibilityError, match="Linear is not a Hugging Face model: only those can be cut"):
        entire(nn.Linear(2, 2))


@pytest.mark.slow
def test_generation_settings_labels_and_modes_are_the_teachers() -> None:
    writer = llama()
    writer.generation_config.max_new_tokens = 7
    assert cut(writer, ffn=0.5).generation_config.max_new_tokens == 7
    teacher = hf.BertForSequenceClassification(hf.BertConfig(**WIDE, id2label={0: "no", 1: "yes"}))
    assert cut(teacher.eval(), ffn=0.5).config.id2label == {0: "no", 1: "yes"}
    assert not cut(teacher.eval(), ffn=0.5).training
    assert cut(teacher.requires_grad_(False), ffn=0.5).classifier.weight.requires_grad
