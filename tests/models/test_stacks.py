"""The stacks of layers are found from the model and its config alone."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torch import nn

from stilla.errors import CompatibilityError
from stilla.models import configs
from stilla.models.configs import edited_config
from stilla.models.stacks import LayerStack, find_stacks
from tests.families import FAMILIES, SMALL, SPEECH, Family

TINY_BERT = hf.BertConfig(**SMALL, num_hidden_layers=3)


def named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_stack_is_found_with_its_name_and_depth(family: Family) -> None:
    model = family.build()
    found = find_stacks(model)
    assert {stack.name: stack.depths for stack in found} == family.stacks
    for stack in found:
        layers = stack.layers(model)
        assert len(layers) == len(set(layers)) == stack.depth
        assert len({type(layer) for layer in layers}) == 1, "one class of layers"


@pytest.mark.parametrize(
    ("family", "paths"),
    [
        ("distilbert", [("n_layers",)]),
        ("gpt2", [("n_layer",)]),
        ("t5", [("num_layers",), ("num_decoder_layers",)]),
        ("clip", [("text_config", "num_hidden_layers"), ("vision_config", "num_hidden_layers")]),
        ("vit-gpt2", [("encoder", "num_hidden_layers"), ("decoder", "n_layer")]),
        ("swin", [("depths",)]),
        ("nemotron-h", [("layers_block_type",)]),
    ],
)
def test_the_config_path_is_the_field_that_counts_the_layers(family: str, paths: list[tuple[str, ...]]) -> None:
    assert [stack.config_path for stack in find_stacks(named(family).build())] == paths


@pytest.mark.parametrize(
    ("family", "lists"),
    [
        ("bert", ()),
        ("gemma2", (("layer_types",),)),
        ("longformer", (("attention_window",),)),
        ("gpt-neo", (("attention_layers",),)),
        ("gemma4", (("layer_types",),)),
        ("nemotron-h", ()),
        ("wav2vec2", ()),
    ],
)
def test_lists_with_one_entry_per_layer_are_found(family: str, lists: tuple[tuple[str, ...], ...]) -> None:
    (stack,) = find_stacks(named(family).build())
    assert stack.per_layer == lists


def test_a_list_that_is_as_long_as_the_stack_by_chance_is_not_cut_with_it() -> None:
    model = hf.BertModel(hf.BertConfig(**SMALL, num_hidden_layers=3, of_the_user=["a", "b", "c"]))
    (stack,) = find_stacks(model)
    assert stack.per_layer == ()


def test_stages_hold_their_layers_in_order_of_execution() -> None:
    model = named("resnet").build()
    (stack,) = find_stacks(model)
    assert stack.staged
    assert stack.paths == tuple(f"resnet.encoder.stages.{stage}.layers" for stage in range(3))
    order: list[nn.Module] = []
    for layer in stack.layers(model):
        layer.register_forward_hook(lambda module, args, output: order.append(module))
    model(**named("resnet").inputs())
    assert order == stack.layers(model)


@pytest.mark.parametrize(
    "model",
    [
        lambda: hf.AlbertModel(hf.AlbertConfig(**SMALL, num_hidden_layers=4, embedding_size=8)),
        # as many groups as layers: still the depth is said elsewhere than where the groups are counted
        lambda: hf.AlbertModel(hf.AlbertConfig(**SMALL, num_hidden_layers=4, num_hidden_groups=4, embedding_size=8)),
        lambda: hf.XLMModel(hf.XLMConfig(vocab_size=40, emb_dim=16, n_layers=3, n_heads=2)),
        lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
    ],
    ids=["shared", "shared in groups", "parallel lists", "outside Hugging Face"],
)
def test_what_no_config_counts_as_one_list_of_layers_is_no_stack(model) -> None:
    assert find_stacks(model()) == ()


@pytest.mark.slow
def test_experts_and_strided_convolutions_are_no_stacks() -> None:
    switch = hf.SwitchTransformersConfig(
        vocab_size=40,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        num_experts=3,
    )
    assert {stack.name for stack in find_stacks(hf.SwitchTransformersModel(switch))} == {"encoder", "decoder"}
    (stack,) = find_stacks(named("wav2vec2").build())
    assert stack.paths == ("wav2vec2.encoder.layers",)


def test_beside_layers_lists_of_convolutions_alone_are_no_stacks() -> None:
    model = hf.Data2VecAudioModel(hf.Data2VecAudioConfig(**{
        **SMALL, **SPEECH, "num_hidden_layers": 3, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}))
    assert [(stack.name, stack.depths) for stack in find_stacks(model)] == [("layers", (3,))]


def test_finding_changes_neither_the_model_nor_the_random_state() -> None:
    model = hf.BertModel(TINY_BERT)
    before, config = torch.get_rng_state(), model.config.to_dict()
    modules = [name for name, _ in model.named_modules()]
    find_stacks(model)
    assert torch.equal(before, torch.get_rng_state())
    assert model.config.to_dict() == config
    assert [name for name, _ in model.named_modules()] == modules


def test_models_are_built_once_for_all_models_with_the_same_config(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[hf.PreTrainedConfig] = []
    really = configs.skeleton
    monkeypatch.setattr(configs, "_KNOWN", {})
    monkeypatch.setattr(configs, "skeleton", lambda model, config: built.append(config) or really(model, config))
    first = find_stacks(hf.BertModel(TINY_BERT))
    once = len(built)
    assert once > 0
    assert find_stacks(hf.BertModel(TINY_BERT)) == first
    assert len(built) == once
    deeper = hf.BertModel(edited_config(TINY_BERT, {("num_hidden_layers",): 4}))
    assert [stack.depths for stack in find_stacks(deeper)] == [(4,)]
    assert len(built) > once
    other = hf.RobertaModel(hf.RobertaConfig(**SMALL, num_hidden_layers=3))
    assert find_stacks(other) == first


def test_what_is_known_of_models_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "_KNOWN", {})
    monkeypatch.setattr(configs, "_KEPT", 2)
    for layers in (2, 3, 4):
        model = hf.BertModel(edited_config(TINY_BERT, {("num_hidden_layers",): layers}))
        assert [stack.depths for stack in find_stacks(model)] == [(layers,)]
    assert len(configs._KNOWN) == 2


def test_a_stack_of_another_model_is_refused() -> None:
    (stack,) = find_stacks(hf.BertModel(TINY_BERT))
    with pytest.raises(CompatibilityError, match=r"2 layers at `encoder.layer`, expected 3"):
        stack.layers(hf.BertModel(edited_config(TINY_BERT, {("num_hidden_layers",): 2})))
    with pytest.raises(CompatibilityError, match=r"found in another model"):
        LayerStack("layers", ("blocks",), (), (2,)).layers(nn.Linear(1, 1))


def test_what_a_config_makes_of_its_own_numbers_follows_them() -> None:
    """Saved beside them, it would hide from the model what was changed."""
    config = hf.FastSpeech2ConformerConfig(encoder_layers=3)
    assert config.to_dict()["encoder_config"]["layers"] == 3
    assert edited_config(config, {("encoder_layers",): 1}).encoder_config["layers"] == 1
    config.encoder_config = {**config.encoder_config, "kernel_size": 3}  # of somebody's own
    assert edited_config(config, {("encoder_layers",): 1}).encoder_config["kernel_size"] == 3


def test_an_edited_config_is_a_new_one_that_was_checked() -> None:
    new = edited_config(TINY_BERT, {("num_hidden_layers",): 2})
    assert (new.num_hidden_layers, TINY_BERT.num_hidden_layers) == (2, 3)
    with pytest.raises(Exception, match=r"num_hidden_layers"):
        edited_config(TINY_BERT, {("num_hidden_layers",): "two"})
