"""A student cut from its teacher: the same as the teacher with its layers taken out in place."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.models.stacks import find_stacks
from stilla.students import Student, by_layers
from stilla.students.layers import spaced
from tests.families import BART, FAMILIES, SMALL, T5, VISION, Family, main_output

BERT = {**SMALL, "num_hidden_layers": 6}


def cut_in_place(teacher: hf.PreTrainedModel, kept: Mapping[str, tuple[tuple[int, ...], ...]]) -> nn.Module:
    """The oracle: a copy of the teacher whose own lists of layers are shortened, and told so."""
    model = copy.deepcopy(teacher)
    for stack in find_stacks(teacher):
        for path, indices in zip(stack.paths, kept[stack.name], strict=True):
            layers = model.get_submodule(path)
            owner, _, name = path.rpartition(".")
            left = [layers[index] for index in indices]
            shorter = nn.ModuleList(left) if isinstance(layers, nn.ModuleList) else nn.Sequential(*left)
            setattr(model.get_submodule(owner), name, shorter)
            for position, index in enumerate(indices):
                for module in layers[index].modules():
                    for attribute in ("layer_idx", "layer_id"):
                        if getattr(module, attribute, None) == index:
                            setattr(module, attribute, position)
        for field in ("layer_types", "attention_window", "attention_layers"):
            entries = getattr(model.config, field, None)
            if isinstance(entries, list):
                setattr(model.config, field, [entries[index] for index in kept[stack.name][0]])
    return model


def bert(**fields: object) -> hf.PreTrainedModel:
    return hf.BertForSequenceClassification(hf.BertConfig(**{**BERT, **fields})).eval()


def names_of_ties(model: nn.Module) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(name)
    return {frozenset(names) for names in groups.values() if len(names) > 1}


def storages(model: nn.Module) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@torch.no_grad()
def test_the_student_gives_what_the_teacher_cut_in_place_gives(family: Family, tmp_path: Path) -> None:
    teacher = family.build()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    config = teacher.config.to_dict()
    student = by_layers(teacher, family.cut).model

    expected = main_output(cut_in_place(teacher, family.kept)(**family.inputs()))
    assert torch.equal(main_output(student(**family.inputs())), expected)
    assert not torch.equal(expected, main_output(teacher(**family.inputs()))), "the test would see nothing"

    assert teacher.config.to_dict() == config
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not storages(student) & storages(teacher)
    assert names_of_ties(student) == {
        group
        for group in names_of_ties(teacher)
        if group <= dict(student.named_parameters(remove_duplicate=False)).keys()
    }

    student.save_pretrained(tmp_path)
    loaded, found = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(main_output(loaded.eval()(**family.inputs())), expected)
    assert names_of_ties(loaded) == names_of_ties(student)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "bart", "swin"])
def test_every_layer_answers_to_its_source_and_the_last_to_the_last(name: str) -> None:
    expected = {
        "bert": {"layers": (0, 3)},
        "bart": {"encoder": (0, 1, 3), "decoder": (0, 2)},
        "swin": {"stages": (1, 2, 4, 5, 6, 10)},
    }
    family = next(family for family in FAMILIES if family.name == name)
    assert by_layers(family.build(), family.cut).layer_map == expected[name]
    assert by_layers(bert(), {"keep": [0, 2, 4]}).layer_map == {"layers": (0, 2, 5)}


def test_layers_are_spaced_as_widely_as_possible() -> None:
    assert [spaced(n, 12) for n in (1, 2, 3, 4, 6)] == [
        (0,),
        (0, 11),
        (0, 5, 11),
        (0, 4, 7, 11),
        (0, 2, 4, 7, 9, 11),
    ]
    for depth in range(1, 40):
        for n in range(2, depth + 1):
            layers = spaced(n, depth)
            gaps = {after - before for before, after in pairwise(layers)}
            assert (len(layers), layers[0], layers[-1]) == (n, 0, depth - 1)
            assert max(gaps) - min(gaps) <= 1 <= min(gaps)


def test_a_single_layer_is_the_first_and_answers_to_the_last() -> None:
    teacher = bert()
    student = by_layers(teacher, 1)
    assert student.layer_map == {"layers": (5,)}
    ours, theirs = student.model.bert.encoder.layer[0], teacher.bert.encoder.layer[0]
    for mine, source in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, source)


def test_a_number_is_meant_for_both_stacks_of_an_encoder_decoder() -> None:
    student = by_layers(hf.BartModel(hf.BartConfig(**{**BART, "decoder_layers": 4})), 2)
    assert student.layer_map == {"encoder": (0, 3), "decoder": (0, 3)}


def test_a_stack_that_is_not_named_stays_whole() -> None:
    student = by_layers(hf.T5Model(hf.T5Config(**T5)), {"decoder": 1})
    assert student.layer_map == {"encoder": (0, 1, 2, 3), "decoder": (2,)}
    assert (student.model.config.num_layers, student.model.config.num_decoder_layers) == (4, 1)


def test_all_layers_give_a_copy_of_the_teacher() -> None:
    teacher = bert()
    student = by_layers(teacher, 6)
    assert student.layer_map == {"layers": tuple(range(6))}
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(student.model.state_dict()[name], tensor)


@torch.no_grad()
def test_t5_keeps_the_position_bias_that_only_its_first_blocks_hold() -> None:
    family = next(family for family in FAMILIES if family.name == "t5")
    teacher = family.build()
    oracle = copy.deepcopy(teacher)
    for stack, kept in ((oracle.encoder, [1, 3]), (oracle.decoder, [2])):
        lender, borrower = (stack.block[index].layer[0].SelfAttention for index in (0, kept[0]))
        borrower.relative_attention_bias = lender.relative_attention_bias
        borrower.has_relative_attention_bias = True
        stack.block = nn.ModuleList(stack.block[index] for index in kept)
        for position, block in enumerate(stack.block):
            for attention in (layer for layer in block.modules() if hasattr(layer, "layer_idx")):
                attention.layer_idx = position
    student = by_layers(teacher, {"encoder": [1, 3], "decoder": [2]}).model
    assert torch.equal(main_output(student(**family.inputs())), main_output(oracle(**family.inputs())))


def test_labels_and_generation_settings_are_the_teachers() -> None:
    teacher = bert(id2label={0: "no", 1: "perhaps", 2: "yes"})
    assert by_layers(teacher, 2).model.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}
    writer = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=3))
    writer.generation_config.max_new_tokens = 7
    student = by_layers(writer, 2).model
    assert student.generation_config.max_new_tokens == 7
    assert student.generation_config is not writer.generation_config


def test_a_student_of_a_teacher_in_half_precision_is_in_float32_with_the_same_values() -> None:
    teacher = bert().to(torch.bfloat16)
    student = by_layers(teacher, 2).model
    assert {tensor.dtype for tensor in student.parameters()} == {torch.float32}
    assert torch.equal(student.classifier.weight, teacher.classifier.weight.float())


def test_a_frozen_teacher_has_a_student_that_trains() -> None:
    teacher = bert().requires_grad_(False)
    student = by_layers(teacher, 2).model
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_building_draws_no_random_numbers() -> None:
    teacher = bert()
    before = torch.get_rng_state()
    by_layers(teacher, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_attention_implementation_is_kept() -> None:
    teacher = hf.BertModel._from_config(hf.BertConfig(**BERT), attn_implementation="eager")
    assert by_layers(teacher, 2).model.config._attn_implementation == "eager"


def test_backbones_hand_out_the_same_layers_outputs() -> None:
    config = hf.Dinov2Config(
        image_size=16, patch_size=4, hidden_size=16, num_attention_heads=2, mlp_ratio=2, num_hidden_layers=4,
        out_indices=[1, 4],
    )  # fmt: skip
    teacher = hf.Dinov2Backbone(config).eval()
    assert by_layers(teacher, {"keep": [0, 2]}).model.config.out_indices == [1, 2]
    with pytest.raises(CompatibilityError, match=r"what leaves layer 0.*not kept.*Keep it too"):
        by_layers(teacher, {"keep": [1, 2]})


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (0, "got 0; expected 1 to 6"),
        (7, "got 7; expected 1 to 6"),
        (True, "got True; expected a number of layers"),
        ("3", "got '3'.*Expected for example 3, or {keep: \\[0, 5\\]}"),
        ({}, "got {}.*layers \\(6 layers\\)"),
        ({"keep": []}, "got \\[\\]; expected one or more layers from 0 to 5"),
        ({"keep": [0, 0]}, "each once, in rising order"),
        ({"keep": [3, 1]}, "each once, in rising order"),
        ({"keep": [-1, 2]}, "from 0 to 5"),
        ({"keep": [0, 6]}, "from 0 to 5"),
        ({"keep": [0, True]}, "or a list to keep"),
        ({"keep": 3}, "got {'keep': 3}"),
        ({"kepe": [0]}, "Did you mean keep?"),
        ({"keep": [0], "layers": 2}, "got {'keep'"),
        ({"depths": [1, 1]}, "layers \\(6 layers\\)"),
        ({"encoder": 3}, "got {'encoder': 3}.*layers \\(6 layers\\)"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers: object, message: str) -> None:
    with pytest.raises(CompatibilityError, match=message):
        by_layers(bert(), layers)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (3, "its stages have \\[2, 3, 6\\] layers.*{depths: \\[1, 1, 3\\]}"),
        ({"keep": [0, 1]}, "stages \\(\\[2, 3, 6\\] layers\\).*{depths: \\[1, 1, 3\\]}"),
        ({"depths": [1, 1]}, "a list of 3 numbers"),
        ({"depths": [1, 1, 7]}, "each from 1 to what its stage has"),
        ({"depths": [0, 1, 1]}, "each from 1"),
        ({"depths": 3}, "got {'depths': 3}"),
    ],
)
def test_stages_ask_for_a_number_each(layers: object, message: str) -> None:
    teacher = next(family for family in FAMILIES if family.name == "convnext").build()
    with pytest.raises(CompatibilityError, match=message):
        by_layers(teacher, layers)


@pytest.mark.parametrize("layers", [2, {"keep": [0, 1]}, {"vison": 2}])
def test_several_stacks_ask_for_their_names(layers: object) -> None:
    teacher = next(family for family in FAMILIES if family.name == "clip").build()
    with pytest.raises(CompatibilityError, match=r"text \(4 layers\), vision \(3 layers\).*{text: 2, vision: 1}"):
        by_layers(teacher, layers)


def test_the_problems_of_all_stacks_are_told_at_once() -> None:
    teacher = hf.BartModel(hf.BartConfig(**BART))
    with pytest.raises(CompatibilityError, match=r"(?s)2 problems.*encoder.*got 9.*decoder.*got \[7\]"):
        by_layers(teacher, {"encoder": 9, "decoder": [7]})


def test_shared_layers_are_refused_with_the_way_out() -> None:
    albert = hf.AlbertModel(hf.AlbertConfig(**SMALL, num_hidden_layers=4, embedding_size=8))
    with pytest.raises(CompatibilityError, match=r"share their weights.*student: {model: .*student: {config: "):
        by_layers(albert, 2)


def test_a_model_outside_hugging_face_is_refused_with_the_way_out() -> None:
    with pytest.raises(CompatibilityError, match=r"Sequential is not a Hugging Face model.*student: {model: "):
        by_layers(nn.Sequential(nn.Linear(2, 2)), 1)


def test_a_layer_that_would_compute_something_else_at_its_new_place_is_refused() -> None:
    by_name = {family.name: family for family in FAMILIES}
    with pytest.raises(CompatibilityError, match=r"layer 1 of .*only one of the two has `attn_norm.weight`"):
        by_layers(by_name["modernbert"].build(), {"keep": [1, 2]})
    sparse = hf.Qwen2MoeConfig(
        **SMALL, num_hidden_layers=4, num_key_value_heads=2, decoder_sparse_step=2, num_experts=3,
        moe_intermediate_size=8, shared_expert_intermediate_size=8,
    )  # fmt: skip
    with pytest.raises(CompatibilityError, match=r"layer 1 of .*`model.layers`.* as layer 0 of the student"):
        by_layers(hf.Qwen2MoeForCausalLM(sparse), {"keep": [1, 2]})


def test_layers_of_several_kinds_stand_where_the_class_expects_them() -> None:
    config = hf.JambaConfig(
        **SMALL, num_hidden_layers=8, num_key_value_heads=2, attn_layer_period=4, attn_layer_offset=2,
        expert_layer_period=2, expert_layer_offset=1, num_experts=2, mamba_d_state=4, mamba_dt_rank=4, pad_token_id=0,
    )  # fmt: skip
    student = by_layers(hf.JambaForCausalLM(config), 4)
    # attention is the third of four layers, experts have the second of two: only 2 and 6 fit the third place
    assert student.layer_map == {"layers": (0, 1, 6, 7)}


def test_a_weight_that_several_layers_hold_by_their_place_is_not_lent() -> None:
    config = hf.Blip2QFormerConfig(**SMALL, num_hidden_layers=4, cross_attention_frequency=2, encoder_hidden_size=16)
    with pytest.raises(CompatibilityError, match=r"only one of the two has `crossattention"):
        by_layers(hf.Blip2QFormerModel(config), {"keep": [1, 2]})


def test_a_table_that_follows_from_the_place_of_its_layer_binds_it_there() -> None:
    class Sloping(nn.Module):
        def __init__(self, config: hf.BertConfig, place: int) -> None:
            super().__init__()
            self.linear = nn.Linear(config.hidden_size, config.hidden_size)
            self.register_buffer("slope", torch.full((1,), 2.0**-place), persistent=False)

    class Model(hf.BertPreTrainedModel):
        def __init__(self, config: hf.BertConfig) -> None:
            super().__init__(config)
            self.layers = nn.ModuleList(Sloping(config, place) for place in range(config.num_hidden_layers))
            self.post_init()

    teacher = Model(hf.BertConfig(**BERT))
    assert by_layers(teacher, {"keep": [0, 1]}).layer_map == {"layers": (0, 5)}
    with pytest.raises(CompatibilityError, match=r"`layers.1.slope` follows from the place of its layer"):
        by_layers(teacher, {"keep": [0, 2]})


def test_plain_tensors_of_modules_are_copied_too() -> None:
    class Model(hf.BertPreTrainedModel):
        def __init__(self, config: hf.BertConfig) -> None:
            super().__init__(config)
            block = [nn.Sequential(nn.Linear(2, 2)) for _ in range(config.num_hidden_layers)]
            self.layers = nn.ModuleList(block)
            self.scale = torch.ones(3)
            self.post_init()

    student = by_layers(Model(hf.BertConfig(**BERT)), 2).model
    assert torch.equal(student.scale, torch.ones(3))


def test_where_only_a_number_is_given_the_nearest_layers_that_fit_are_taken() -> None:
    sparse = hf.Qwen2MoeConfig(
        **SMALL, num_hidden_layers=6, num_key_value_heads=2, decoder_sparse_step=2, num_experts=3,
        moe_intermediate_size=8, shared_expert_intermediate_size=8,
    )  # fmt: skip
    student: Student = by_layers(hf.Qwen2MoeForCausalLM(sparse).eval(), 3)
    # every second layer has experts, and so has every second place: 0, 2, 5 become 0, 1, 4
    assert student.layer_map == {"layers": (0, 1, 5)}
    assert [hasattr(layer.mlp, "experts") for layer in student.model.model.layers] == [False, True, False]


def test_weights_that_depend_on_the_number_of_layers_are_refused() -> None:
    config = hf.Wav2Vec2Config(**SMALL, num_hidden_layers=3, use_weighted_layer_sum=True, conv_dim=[8] * 7)
    model = hf.Wav2Vec2ForSequenceClassification(config)
    with pytest.raises(CompatibilityError, match=r"depend on the number of layers: layer_weights \(4,\) for \(3,\)"):
        by_layers(model, 2)


def test_weights_that_would_be_random_or_lost_are_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"2 weights of the student would be random: pooler.dense.weight"):
        by_layers(hf.BertModel(hf.BertConfig(**BERT), add_pooling_layer=False), 2)
    teacher = bert()
    teacher.of_the_user = nn.Linear(2, 2)
    with pytest.raises(CompatibilityError, match=r"2 weights of kept layers would be lost: of_the_user.bias"):
        by_layers(teacher, 2)


def test_ties_that_a_saved_student_would_not_have_are_refused() -> None:
    tied = hf.LlamaConfig(**SMALL, num_hidden_layers=2, num_key_value_heads=2, tie_word_embeddings=True)
    model = hf.LlamaForCausalLM(tied)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    with pytest.raises(CompatibilityError, match=r"lm_head.weight and model.embed_tokens.weight are one tensor in a"):
        by_layers(model, 1)


def test_layers_without_which_a_head_cannot_be_run_are_refused() -> None:
    teacher = hf.DPTForSemanticSegmentation(hf.DPTConfig(
        **{**VISION, "image_size": 32}, num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[4] * 4,
        fusion_hidden_size=4, use_auxiliary_head=False, reassemble_factors=[4, 2, 1, 0.5])).eval()
    with pytest.raises(CompatibilityError, match=r"cannot be run with these layers alone: .*neck hidden sizes"):
        by_layers(teacher, {"keep": [0, 1, 2]})


def test_a_quantised_teacher_is_refused() -> None:
    teacher = bert()
    weight: Tensor = teacher.classifier.weight.detach().to(torch.int8)
    teacher.classifier.weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(CompatibilityError, match=r"`classifier.weight` is torch.int8.*unquantised"):
        by_layers(teacher, 2)


@pytest.mark.slow
def test_a_head_that_reads_layers_by_number_keeps_reading_the_same_ones() -> None:
    config = hf.DPTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=6, num_attention_heads=2, intermediate_size=32,
        backbone_out_indices=[0, 2, 3, 5], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        use_auxiliary_head=False)  # fmt: skip
    torch.manual_seed(0)
    teacher = hf.DPTForSemanticSegmentation(config).eval()
    student = by_layers(teacher, {"keep": [0, 2, 3, 5]}).model
    assert student.config.backbone_out_indices == [0, 1, 2, 3]
    assert student(pixel_values=torch.zeros(1, 3, 32, 32)).logits.shape[:2] == (1, 2)
    with pytest.raises(CompatibilityError, match=r"what leaves layer 2.*not kept"):
        by_layers(teacher, {"keep": [0, 3, 5]})
