"""Tiny recognisers of frames that hear spectrograms (Parakeet)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import ParakeetCTCConfig, ParakeetFeatureExtractor, ParakeetForCTC, ParakeetTokenizer

from tests.tasks.audio.setting import RATE
from tests.tasks.audio.speakers import LETTERS

NAMES = ("<unk>", "▁", *LETTERS, "<pad>")
SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_kernel_size": 3,
    "subsampling_factor": 4, "subsampling_conv_channels": 4, "num_mel_bins": 16}
QUIET: dict[str, Any] = {"dropout": 0.0, "layerdrop": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0}


def tokenizer(names: Sequence[str] = NAMES) -> ParakeetTokenizer:
    made = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(prepend_scheme="never"), pre_tokenizers.Split(Regex("."), "isolated")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return ParakeetTokenizer(tokenizer_object=made, unk_token="<unk>", pad_token="<pad>")


def extractor(**changes: Any) -> ParakeetFeatureExtractor:
    return ParakeetFeatureExtractor(**{"feature_size": 16, "sampling_rate": RATE, "hop_length": 40, "n_fft": 128,
                                       "win_length": 100, **changes})


def recogniser(names: Sequence[str] = NAMES, **changes: Any) -> ParakeetForCTC:
    """With random weights that hear something else in every frame; batch norms as if they had heard something."""
    torch.manual_seed(0)
    model = ParakeetForCTC(ParakeetCTCConfig(
        encoder_config={**SMALL, **changes}, vocab_size=len(names), pad_token_id=list(names).index("<pad>")))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, *((1.0, 0.2) if parameter.dim() == 1 else (0.0, 0.3)))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, 0.0, 0.3)
        if name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 2.0)
    return model.eval()


def folder(place: Path, names: Sequence[str] = NAMES, **changes: Any) -> str:
    recogniser(names, **changes).save_pretrained(place)
    tokenizer(names).save_pretrained(place)
    extractor().save_pretrained(place)
    return str(place)
