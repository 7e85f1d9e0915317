"""Tiny models of many families, from configs, with inputs: shared by the tests of stacks and students."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import transformers as hf
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Family:
    """stacks: name -> layers per path. cut: for `by_layers`, with the layers that it keeps, per path."""

    name: str
    model: Callable[[], hf.PreTrainedModel]
    inputs: Callable[[], Inputs]
    stacks: Mapping[str, tuple[int, ...]]
    cut: object
    kept: Mapping[str, tuple[tuple[int, ...], ...]]

    def build(self) -> hf.PreTrainedModel:
        """In eval mode, with biases and norms that are not all zero or one: any wrong layer shows."""
        torch.manual_seed(7)
        model = self.model()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                nn.init.normal_(parameter, 0.5, 0.2)
        return model.eval()


SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
VISION = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def _text() -> Inputs:
    ids = torch.randint(5, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _pair() -> Inputs:
    ids = torch.randint(5, 40, (2, 6), generator=torch.Generator().manual_seed(2))
    return {**_text(), "decoder_input_ids": ids}


def _image(size: int = 16) -> Inputs:
    return {"pixel_values": torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))}


def _image_and_text() -> Inputs:
    return {**_text(), **_image()}


def _wave() -> Inputs:
    return {"input_values": torch.randn(2, 400, generator=torch.Generator().manual_seed(4))}


def _spectrogram() -> Inputs:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, 40, (2, 6), generator=generator)
    return {"input_features": torch.randn(2, 8, 40, generator=generator), "decoder_input_ids": ids}


def _encoder(name: str, model: type, config: type, **fields: object) -> Family:
    """A text encoder of four layers with a classifier on top."""
    return Family(
        name,
        lambda: model(config(**{**SMALL, "num_hidden_layers": 4, "num_labels": 3, **fields})),
        _text,
        {"layers": (4,)},
        2,
        {"layers": ((0, 3),)},
    )


def _decoder(name: str, model: type, config: type, cut: object = 3, **fields: object) -> Family:
    """A causal language model of five layers."""
    return Family(
        name,
        lambda: model(
            config(**{**SMALL, "num_hidden_layers": 5, "pad_token_id": 0, "num_key_value_heads": 2, **fields})
        ),
        _text,
        {"layers": (5,)},
        cut,
        {"layers": ((0, 2, 4),)},
    )


def _vision(name: str, model: type, config: type, **fields: object) -> Family:
    return Family(
        name,
        lambda: model(config(**{**VISION, "num_hidden_layers": 4, "num_labels": 3, **fields})),
        _image,
        {"layers": (4,)},
        {"keep": [0, 1, 3]},
        {"layers": ((0, 1, 3),)},
    )


def _stages(name: str, model: type, config: type, kept: tuple[tuple[int, ...], ...], **fields: object) -> Family:
    return Family(
        name,
        lambda: model(config(**{"num_labels": 3, "depths": [2, 3, 6], **fields})),
        lambda: _image(32),
        {"stages": (2, 3, 6)},
        {"depths": [1, 2, 3]},
        {"stages": kept},
    )


def _seq2seq(name: str, model: type, config: type, inputs: Callable[[], Inputs] = _pair, **fields: object) -> Family:
    return Family(
        name,
        lambda: model(config(**fields)),
        inputs,
        {"encoder": (4,), "decoder": (3,)},
        {"encoder": 3, "decoder": [0, 2]},
        {"encoder": ((0, 1, 3),), "decoder": ((0, 2),)},
    )


BART = {
    "vocab_size": 40,
    "d_model": 16,
    "encoder_layers": 4,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
}
T5 = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 4,
    "num_decoder_layers": 3,
    "num_heads": 2,
}
CLIP = {
    "text_config": {**SMALL, "num_hidden_layers": 4, "eos_token_id": 39},
    "vision_config": {**VISION, "num_hidden_layers": 3},
    "projection_dim": 12,
}
SPEECH = {
    "conv_dim": [8, 8, 8],
    "conv_stride": [4, 2, 2],
    "conv_kernel": [8, 3, 3],
    "num_conv_pos_embeddings": 4,
}

FAMILIES = (
    _encoder("bert", hf.BertForSequenceClassification, hf.BertConfig),
    _encoder("roberta", hf.RobertaForSequenceClassification, hf.RobertaConfig),
    _encoder("electra", hf.ElectraForSequenceClassification, hf.ElectraConfig, embedding_size=8),
    _encoder(
        "deberta-v2",
        hf.DebertaV2ForSequenceClassification,
        hf.DebertaV2Config,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
    ),
    _encoder(
        "modernbert",
        hf.ModernBertForSequenceClassification,
        hf.ModernBertConfig,
        local_attention=4,
        pad_token_id=0,
        **{f"{name}_token_id": 1 for name in ("bos", "eos", "cls", "sep")},
    ),
    _encoder(
        "longformer",
        hf.LongformerForSequenceClassification,
        hf.LongformerConfig,
        attention_window=[4, 8, 4, 8],
    ),
    _encoder("mpnet", hf.MPNetForSequenceClassification, hf.MPNetConfig),
    Family(
        "distilbert",
        lambda: hf.DistilBertForMaskedLM(
            hf.DistilBertConfig(vocab_size=40, dim=16, n_heads=2, hidden_dim=24, n_layers=4, max_position_embeddings=32)
        ),
        _text,
        {"layers": (4,)},
        2,
        {"layers": ((0, 3),)},
    ),
    _decoder("gpt2", hf.GPT2LMHeadModel, hf.GPT2Config),
    _decoder("llama", hf.LlamaForCausalLM, hf.LlamaConfig, tie_word_embeddings=True),
    _decoder(
        "qwen2",
        hf.Qwen2ForCausalLM,
        hf.Qwen2Config,
        use_sliding_window=True,
        sliding_window=3,
        max_window_layers=2,
    ),
    _decoder("qwen3", hf.Qwen3ForCausalLM, hf.Qwen3Config, head_dim=8),
    _decoder("gemma2", hf.Gemma2ForCausalLM, hf.Gemma2Config, head_dim=8, sliding_window=3),
    _decoder(
        "gpt-neo",
        hf.GPTNeoForCausalLM,
        hf.GPTNeoConfig,
        attention_types=[[["global", "local"], 2], [["global"], 1]],
        window_size=3,
    ),
    _decoder("mixtral", hf.MixtralForCausalLM, hf.MixtralConfig, num_local_experts=3),
    Family(
        "gemma4",  # its full attention has heads of another size: `per_layer_config`
        lambda: hf.Gemma4ForCausalLM(
            hf.Gemma4TextConfig(
                **SMALL,
                num_hidden_layers=6,
                num_key_value_heads=2,
                head_dim=8,
                global_head_dim=16,
                hidden_size_per_layer_input=0,
                num_kv_shared_layers=0,
                sliding_window=3,
                pad_token_id=0,
            )
        ),
        _text,
        {"layers": (6,)},
        {"keep": [0, 2, 5]},
        {"layers": ((0, 2, 5),)},
    ),
    Family(
        "nemotron-h",  # counted by a list, and of layers of several kinds
        lambda: hf.NemotronHForCausalLM(
            hf.NemotronHConfig(
                **{name: value for name, value in SMALL.items() if name != "max_position_embeddings"},
                layers_block_type=["linear_attention", "full_attention", "mlp", "linear_attention"],
                num_key_value_heads=2,
                head_dim=8,
                mamba_num_heads=4,
                mamba_head_dim=8,
                ssm_state_size=4,
                n_groups=2,
                chunk_size=4,
                pad_token_id=0,
            )
        ),
        _text,
        {"layers": (4,)},
        3,
        {"layers": ((0, 1, 3),)},
    ),
    _seq2seq("t5", hf.T5ForConditionalGeneration, hf.T5Config, **T5),
    _seq2seq("mt5", hf.MT5ForConditionalGeneration, hf.MT5Config, **T5),
    _seq2seq("bart", hf.BartForConditionalGeneration, hf.BartConfig, **BART),
    _seq2seq("marian", hf.MarianMTModel, hf.MarianConfig, pad_token_id=39, **BART),
    _seq2seq(
        "whisper",
        hf.WhisperForConditionalGeneration,
        hf.WhisperConfig,
        _spectrogram,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **{name: value for name, value in BART.items() if name != "max_position_embeddings"},
    ),
    _vision("vit", hf.ViTForImageClassification, hf.ViTConfig),
    _vision("deit", hf.DeiTForImageClassificationWithTeacher, hf.DeiTConfig),
    _vision("beit", hf.BeitForImageClassification, hf.BeitConfig, use_relative_position_bias=True),
    _vision("dinov2", hf.Dinov2ForImageClassification, hf.Dinov2Config, mlp_ratio=2),
    _stages(
        "swin",
        hf.SwinForImageClassification,
        hf.SwinConfig,
        # every second layer has shifted windows: a kept layer must stay on an even, or an odd, place
        ((0,), (0, 1), (0, 1, 4)),
        image_size=32,
        patch_size=2,
        embed_dim=8,
        num_heads=[2, 2, 2],
        window_size=4,
    ),
    _stages(
        "convnext",
        hf.ConvNextForImageClassification,
        hf.ConvNextConfig,
        ((0,), (0, 2), (0, 2, 5)),
        num_stages=3,
        hidden_sizes=[8, 12, 16],
        patch_size=2,
    ),
    _stages(
        "resnet",
        hf.ResNetForImageClassification,
        hf.ResNetConfig,
        ((0,), (0, 2), (0, 2, 5)),
        embedding_size=8,
        hidden_sizes=[8, 12, 16],
        layer_type="basic",
    ),
    Family(
        "segformer",
        lambda: hf.SegformerForSemanticSegmentation(
            hf.SegformerConfig(
                num_encoder_blocks=3,
                depths=[2, 3, 3],
                sr_ratios=[4, 2, 1],
                hidden_sizes=[8, 12, 16],
                patch_sizes=[7, 3, 3],
                strides=[4, 2, 2],
                num_attention_heads=[1, 2, 2],
                mlp_ratios=[2, 2, 2],
                decoder_hidden_size=16,
            )
        ),
        lambda: _image(32),
        {"stages": (2, 3, 3)},
        {"depths": [1, 2, 3]},
        {"stages": ((0,), (0, 2), (0, 1, 2))},
    ),
    Family(
        "wav2vec2",
        lambda: hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**SMALL, **SPEECH, num_hidden_layers=4, pad_token_id=0)),
        _wave,
        {"layers": (4,)},
        3,
        {"layers": ((0, 1, 3),)},
    ),
    Family(
        "clip",
        lambda: hf.CLIPModel(hf.CLIPConfig(**CLIP)),
        _image_and_text,
        {"text": (4,), "vision": (3,)},
        {"text": 2, "vision": [0, 1]},
        {"text": ((0, 3),), "vision": ((0, 1),)},
    ),
    Family(
        "vit-gpt2",
        lambda: hf.VisionEncoderDecoderModel(
            hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
                hf.ViTConfig(**VISION, num_hidden_layers=4),
                hf.GPT2Config(vocab_size=40, n_embd=16, n_head=2, n_layer=3, n_positions=32, add_cross_attention=True),
            )
        ),
        lambda: {**_image(), "decoder_input_ids": _pair()["decoder_input_ids"]},
        {"encoder": (4,), "decoder": (3,)},
        2,
        {"encoder": ((0, 3),), "decoder": ((0, 2),)},
    ),
)


def main_output(output: object) -> Tensor:
    """What a model says, whatever its class calls it, as one vector."""
    tensors = [value for value in output.values() if isinstance(value, Tensor)]  # type: ignore[attr-defined]
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])
