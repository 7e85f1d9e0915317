from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    GPT2Config,
    GPT2Model,
    MixtralConfig,
    MixtralForCausalLM,
    ResNetConfig,
    ResNetModel,
    SegformerConfig,
    SegformerForImageClassification,
    ViTModel,
)

from stilla.errors import StillaError
from stilla.evaluate import count_flops, count_parameters, stored_bytes
from stilla.evaluate.flops import Counter, count_tokens
from stilla.tasks.shared.int8 import quantise
from tests.tasks.tiny import vit_config


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("kept", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("not_kept", torch.zeros(100), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))


def test_a_tied_weight_counts_once() -> None:
    assert count_parameters(Tied()) == 40
    assert stored_bytes(Tied()) == 40 * 4 + 3 * 8


def test_a_weight_of_fewer_bits_is_still_a_parameter() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 3))
    whole = count_parameters(model)
    assert count_parameters(quantise(model)) == whole
    packed = nn.Parameter(torch.zeros(64, 1, dtype=torch.uint8), requires_grad=False)  # 128 weights of 4 bits
    model.register_parameter("packed", packed)
    assert count_parameters(model) == whole + 128


def test_bytes_follow_the_type_of_the_weights() -> None:
    assert stored_bytes(Tied().to(torch.bfloat16)) == 40 * 2 + 3 * 8


def test_flops_are_two_per_multiply_add() -> None:
    assert count_flops(Tied(), {"ids": torch.zeros(1, 7, dtype=torch.int64)}) == 2 * 7 * 4 * 10


class Attention(nn.Module):
    def __init__(self, *, with_mask: bool) -> None:
        super().__init__()
        self.with_mask = with_mask

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool).tril() if self.with_mask else None
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)


class HandsOver(nn.Module):
    """As DeBERTa does with its positions: a layer is handed a part of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.ones(3, 4))
        self.layer = nn.Linear(4, 5, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(self.positions[:2]) @ inputs


def test_a_weight_that_is_handed_to_a_layer_is_counted_and_still_learns() -> None:
    model = HandsOver()
    assert count_flops(model, {"inputs": torch.ones(5, 1)}) == 2 * 2 * 4 * 5 + 2 * 2 * 5
    assert model.positions.requires_grad


@pytest.mark.parametrize("with_mask", [True, False])
def test_attention_on_the_cpu_counts(with_mask: bool) -> None:
    """torch's own counter says 0."""
    x = torch.randn(1, 2, 16, 8)
    assert count_flops(Attention(with_mask=with_mask), {"x": x}) == 2 * 2 * 2 * 16 * 16 * 8


def test_a_transformer_encoder_on_its_fast_path_counts_the_same() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    expected = 2 * 5 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * 2 * 5 * 5 * 16
    assert count_flops(layer.eval(), {"src": torch.randn(1, 5, 16)}) == expected
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.slow
@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("name", ["bert", "resnet", "segformer", "deberta", "mixtral", "gpt2"])
def test_the_counter_counts_as_torchs_own(name: str, learning: bool) -> None:
    """In all: but for attention on the CPU, which torch's own does not know."""
    model, inputs = small(name)
    model.requires_grad_(learning)
    found = []
    for counter in (FlopCounterMode(display=False), Counter()):
        with torch.random.fork_rng([]), torch.inference_mode(not learning), counter:
            torch.manual_seed(0)
            said = model(**inputs)
            if learning:
                next(one for one in said.values() if isinstance(one, Tensor)).sum().backward()
        found.append(counter.total if isinstance(counter, Counter) else counter.get_total_flops())
    assert found[0] == found[1] > 0


def small(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    ids = {"input_ids": torch.randint(0, 40, (2, 7), generator=torch.manual_seed(0))}
    pixels = {"pixel_values": torch.randn(1, 3, 32, 32, generator=torch.manual_seed(0))}
    sizes: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                             "intermediate_size": 16}
    match name:
        case "bert":
            return BertModel(BertConfig(**sizes, attn_implementation="eager")), ids
        case "deberta":
            return DebertaV2Model(DebertaV2Config(**sizes, relative_attention=True, pos_att_type="p2c|c2p")), ids
        case "mixtral":
            return MixtralForCausalLM(MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=4,
                                                    attn_implementation="eager")), ids
        case "resnet":
            return ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1])), pixels
        case "segformer":
            return SegformerForImageClassification(SegformerConfig(
                hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=8,
                attn_implementation="eager")), pixels
    return GPT2Model(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, attn_implementation="eager")), ids


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such length")


@pytest.mark.parametrize(("model", "reason"), [
    (Broken(), "ValueError: no such length"), (nn.ReLU(), "no operation")])
def test_what_cannot_be_counted_is_said(model: nn.Module, reason: str) -> None:
    with pytest.raises(StillaError, match=reason):
        count_flops(model, {"x" if isinstance(model, Broken) else "input": torch.zeros(1, 3)})


def test_models_of_pictures_have_no_tokens() -> None:
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    assert count_tokens(BertModel(config)) == 40
    assert count_tokens(ViTModel(vit_config())) is None
    assert count_tokens(ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1]))) is None
    assert count_tokens(SegformerForImageClassification(SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=8))) is None
