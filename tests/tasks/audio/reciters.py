"""Tiny models that make all frames of a text at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import FastSpeech2ConformerConfig, FastSpeech2ConformerModel

from tests.tasks.audio import talkers

SMALL: dict[str, Any] = {
    "hidden_size": 16, "vocab_size": talkers.SMALL["vocab_size"], "num_mel_bins": 12, "encoder_num_attention_heads": 2,
    "decoder_num_attention_heads": 2, "encoder_layers": 2, "decoder_layers": 2, "encoder_linear_units": 24,
    "decoder_linear_units": 24, "encoder_kernel_size": 3, "decoder_kernel_size": 5, "speech_decoder_postnet_layers": 2,
    "speech_decoder_postnet_units": 8, "duration_predictor_channels": 8, "energy_predictor_channels": 8,
    "pitch_predictor_channels": 8, "pitch_predictor_layers": 2, "max_source_positions": 200}
"""Of a config."""
QUIET: dict[str, Any] = {
    "encoder_dropout_rate": 0.0, "encoder_positional_dropout_rate": 0.0, "encoder_attention_dropout_rate": 0.0,
    "decoder_dropout_rate": 0.0, "decoder_positional_dropout_rate": 0.0, "decoder_attention_dropout_rate": 0.0,
    "duration_predictor_dropout_rate": 0.0, "energy_predictor_dropout": 0.0, "pitch_predictor_dropout": 0.0,
    "speech_decoder_postnet_dropout": 0.0}


def reciter(**changes: Any) -> FastSpeech2ConformerModel:
    """With random weights that say something else for every text, about four frames of each token."""
    torch.manual_seed(0)
    model = FastSpeech2ConformerModel(FastSpeech2ConformerConfig(**{**SMALL, **changes}))
    for name, buffer in model.named_buffers():  # as if they had seen something
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, 0.0, 0.3)
        if name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 2.0)
    torch.nn.init.normal_(model.duration_predictor.linear.weight, 0.0, 0.15)
    torch.nn.init.constant_(model.duration_predictor.linear.bias, 1.6)
    return model.eval()


def folder(place: Path, **changes: Any) -> str:
    reciter(**changes).save_pretrained(place)
    talkers.tokenizer().save_pretrained(place)
    talkers.extractor().save_pretrained(place)
    return str(place)
