"""The heads of today's families, read from tiny models with weights at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from stilla.errors import CompatibilityError
from stilla.models.heads import head_of, tapped
from stilla.signals import Headed

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {**{name: value for name, value in SMALL.items() if name != "num_key_value_heads"}}
GPT = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2,
       "pad_token_id": 0}
BART = {"vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "pad_token_id": 0,
      "eos_token_id": 1, "decoder_start_token_id": 0}

# family: class, config, its fields, and (scale, softcap) where the family has one
FAMILIES: Mapping[str, tuple[type, type, dict[str, Any], tuple[float, float | None]]] = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, SMALL, (1, None)),
    "llama, tied": (hf.LlamaForCausalLM, hf.LlamaConfig, {**SMALL, "tie_word_embeddings": True}, (1, None)),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig, {**SMALL, "head_dim": 8}, (1, None)),
    "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config, {**SMALL, "tie_word_embeddings": True}, (1, None)),
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config, {**SMALL, "head_dim": 8}, (1, None)),
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config, GPT, (1, None)),
    "gpt-neox": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, TEXT, (1, None)),
    "gpt-j": (hf.GPTJForCausalLM, hf.GPTJConfig, {**GPT, "rotary_dim": 4}, (1, None)),
    "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config, {**SMALL, "head_dim": 8, "final_logit_softcapping": 3.0}, (1, 3.0)),
    "gemma3": (hf.Gemma3ForCausalLM, hf.Gemma3TextConfig, {**SMALL, "head_dim": 8, "final_logit_softcapping": 2.5}, (1, 2.5)),
    "cohere": (hf.CohereForCausalLM, hf.CohereConfig, {**SMALL, "logit_scale": 0.0625}, (0.0625, None)),
    "cohere2": (hf.Cohere2ForCausalLM, hf.Cohere2Config, {**SMALL, "logit_scale": 0.25}, (0.25, None)),
    "granite": (hf.GraniteForCausalLM, hf.GraniteConfig, {**SMALL, "logits_scaling": 8.0}, (0.125, None)),
    "phi": (hf.PhiForCausalLM, hf.PhiConfig, SMALL, (1, None)),
    "opt": (hf.OPTForCausalLM, hf.OPTConfig, {**TEXT, "ffn_dim": 24, "word_embed_proj_dim": 16}, (1, None)),
    "bloom": (hf.BloomForCausalLM, hf.BloomConfig, {**TEXT, "n_head": 2, "n_layer": 1}, (1, None)),
    "falcon-h1": (hf.FalconH1ForCausalLM, hf.FalconH1Config,
                  {**SMALL, "head_dim": 8, "mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 4,
                   "mamba_chunk_size": 8, "lm_head_multiplier": 0.5}, (0.5, None)),
    "t5, tied": (hf.T5ForConditionalGeneration, hf.T5Config, T5, (1, None)),
    "t5, untied": (hf.T5ForConditionalGeneration, hf.T5Config, {**T5, "tie_word_embeddings": False}, (1, None)),
    "bart": (hf.BartForConditionalGeneration, hf.BartConfig, BART, (1, None)),
    "mbart": (hf.MBartForConditionalGeneration, hf.MBartConfig, BART, (1, None)),
    "marian": (hf.MarianMTModel, hf.MarianConfig, {**BART, "decoder_vocab_size": 40}, (1, None)),
    "bert": (hf.BertForMaskedLM, hf.BertConfig, TEXT, (1, None)),
    "distilbert": (hf.DistilBertForMaskedLM, hf.DistilBertConfig,
                   {"vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24}, (1, None)),
    "roberta": (hf.RobertaForMaskedLM, hf.RobertaConfig, TEXT, (1, None)),
    "electra": (hf.ElectraForMaskedLM, hf.ElectraConfig, {**TEXT, "embedding_size": 8}, (1, None)),
    "modernbert": (hf.ModernBertForMaskedLM, hf.ModernBertConfig,
                   {**TEXT, "cls_token_id": 3, "sep_token_id": 4}, (1, None)),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


def built(name: str) -> nn.Module:
    model, config, fields, _ = FAMILIES[name]
    torch.manual_seed(3)
    made = model(config(**fields)).eval()
    for parameter in made.parameters():  # biases and norms that are not all zero or one
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 0.5, 0.2)
    return made


def inputs_of(model: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 40, (2, 6), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.randint(5, 40, (2, 7), generator=generator)
    return inputs


@every_family
@torch.no_grad()
def test_hidden_states_and_head_give_the_models_own_logits(name: str) -> None:
    model = built(name)
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("final_logits_bias"):
            buffer.normal_()
    inputs = inputs_of(model)
    own = model(**inputs).logits
    with tapped(model) as tap:
        empty = model(**inputs).logits
    assert empty.numel() == 0
    assert tap.hidden.shape[:2] == own.shape[:2]
    torch.testing.assert_close(tap.head.logits(tap.hidden), own, rtol=1e-5, atol=1e-5)
    assert (tap.head.scale, tap.head.softcap) == FAMILIES[name][3]


@every_family
def test_gradients_through_hidden_states_and_head_are_the_models_own(name: str) -> None:
    model = built(name)
    inputs = inputs_of(model)
    own = model(**inputs).logits
    weights = torch.randn_like(own)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = torch.autograd.grad((own * weights).sum(), parameters, allow_unused=True)
    with tapped(model) as tap:
        model(**inputs)
    found = torch.autograd.grad((tap.head.logits(tap.hidden) * weights).sum(), parameters, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_tapped_model_is_as_before_afterwards() -> None:
    model = built("llama")
    model.train()
    inputs = inputs_of(model)
    before = model(**inputs).logits
    torch.manual_seed(5)
    head_of(model)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert model.training
    with pytest.raises(RuntimeError, match="stop"), tapped(model):
        raise RuntimeError("stop")
    torch.testing.assert_close(model(**inputs).logits, before)


def test_a_bias_in_a_buffer_is_read_when_it_is_used() -> None:
    model = built("bart")
    with tapped(model) as tap:
        model(**inputs_of(model))
    assert tap.head.bias is not None
    assert not tap.head.bias.any()
    model.final_logits_bias.fill_(2.5)
    with tapped(model) as tap:
        model(**inputs_of(model))
    assert tap.head.bias.eq(2.5).all()


def test_the_head_is_read_anew_when_it_is_another_one() -> None:
    model = built("llama")
    assert head_of(model) is head_of(model)
    model.resize_token_embeddings(44)
    assert head_of(model).now().classes == 44


def test_what_wants_the_logits_runs_within_the_heads_own_forward() -> None:
    model = built("llama")
    seen: list[str] = []
    model.lm_head.register_forward_pre_hook(lambda *_: seen.append("gathered"))
    model.lm_head.register_forward_hook(lambda *_: seen.append("let go"))
    head_of(model)
    seen.clear()

    def use(headed: Headed) -> Tensor:
        seen.append("used")
        return headed.hidden.sum()

    with tapped(model, use):
        model(**inputs_of(model))
    assert seen == ["gathered", "used", "let go"]


def test_a_wrapper_is_asked_for_the_head_before_its_gradient_is_made() -> None:
    model, seen = built("llama"), []
    head_of(model)
    # as ZeRO-3 does it: by the gradient of what a module gives
    model.lm_head.register_full_backward_pre_hook(lambda *_: seen.append("gathered"))
    model.lm_head.weight.register_hook(lambda gradient: seen.append("gradient"))
    made: list[Tensor] = []

    def use(headed: Headed) -> Tensor:
        made.append(2 * (headed.hidden.detach() @ headed.head.weight.T).sum())
        return made[0]

    with tapped(model, use):
        empty = model(**inputs_of(model))["logits"]
    assert float(empty.detach().sum()) == 0
    (made[0] + empty.sum()).backward()
    assert seen == ["gathered", "gradient"]


def test_hidden_states_come_in_the_precision_of_the_product() -> None:
    model = built("llama")
    with tapped(model) as tap, torch.autocast("cpu", torch.bfloat16):
        model(**inputs_of(model))
    assert tap.hidden.dtype == torch.bfloat16
    model.to(torch.bfloat16)
    with tapped(model) as tap:
        model(**inputs_of(model))
    assert (tap.hidden.dtype, tap.head.weight.dtype) == (torch.bfloat16, torch.bfloat16)


class Strange(hf.LlamaForCausalLM):
    how: Callable[[Tensor], Tensor] = staticmethod(lambda logits: logits)

    def forward(self, input_ids: Tensor, **kwargs: Any) -> Any:
        said = super().forward(input_ids, **kwargs)
        said.logits = self.how(said.logits)
        return said


@pytest.mark.parametrize(
    ("how", "said"),
    [(lambda z: z.relu(), "not known here"), (lambda z: z.log_softmax(-1), "not known here"),
     (lambda z: z + 3, "none of its buffers"), (lambda z: -z, "not known here"), (lambda z: z.flip(1), "own logits"),
     (lambda z: z.masked_fill(torch.arange(40) == 7, -100.0), "not known here"), (lambda z: z[:, -1:], "shape")],
    ids=["relu", "softmax", "constant", "sign", "order", "mask", "last"])
def test_anything_else_is_refused(how: Callable[[Tensor], Tensor], said: str) -> None:
    model = Strange(hf.LlamaConfig(**SMALL))
    model.how = how
    with pytest.raises(CompatibilityError, match=said):
        head_of(model)
    with pytest.raises(CompatibilityError, match=said):
        head_of(model)


def test_a_model_without_a_head_over_a_vocabulary_is_refused() -> None:
    classifier = hf.BertForSequenceClassification(hf.BertConfig(**TEXT))
    for model in (classifier, nn.Linear(2, 2)):
        with pytest.raises(CompatibilityError, match="no head over a vocabulary"):
            head_of(model)


def lora(dropout: float = 0.0, targets: tuple[str, ...] = ("q_proj", "lm_head"), **options: Any) -> nn.Module:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        built("llama"), peft.LoraConfig(r=4, target_modules=list(targets), lora_dropout=dropout, **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, 0, 0.3)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["lm_head"], "targets": ("q_proj",)}], ids=["LoRA", "whole"])
def test_adapters_on_the_head_are_part_of_it(options: dict[str, Any]) -> None:
    model = lora(**options)
    inputs = {name: value for name, value in inputs_of(model).items() if name != "labels"}
    own = model(**inputs).logits
    weights = torch.randn_like(own)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = torch.autograd.grad((own * weights).sum(), trained)
    with tapped(model) as tap:
        model(**inputs)
    found = tap.head.logits(tap.hidden)
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-5)
    for one, other in zip(torch.autograd.grad((found * weights).sum(), trained), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_frozen_head_needs_no_gradient() -> None:
    with tapped(model := lora(targets=("q_proj",))) as tap:
        model(**inputs_of(model))
    assert tap.hidden.requires_grad
    assert not tap.head.weight.requires_grad


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("options", "said"), [({"dropout": 0.1}, "lora_dropout: 0"), ({"use_dora": True}, "plain LoRA")])
def test_adapters_that_no_single_weight_stands_for_are_refused(options: dict[str, Any], said: str) -> None:
    model = lora(**options)
    model.train()
    with pytest.raises(CompatibilityError, match=said), tapped(model):
        model(**inputs_of(model))
