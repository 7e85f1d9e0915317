"""Tiny models that speak, and utterances: letters are tones. LJSpeech's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, SpeechT5Config, SpeechT5FeatureExtractor, SpeechT5ForTextToSpeech

from tests.tasks.audio.setting import RATE, wav
from tests.tasks.audio.speakers import LETTERS, spoken

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "▁")
SMALL: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(LETTERS), "hidden_size": 16, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "num_mel_bins": 12, "speech_decoder_prenet_units": 12, "speech_decoder_postnet_layers": 3,
    "speech_decoder_postnet_units": 8, "speaker_embedding_dim": 4, "max_text_positions": 40, "max_speech_positions": 60,
    "encoder_max_relative_position": 8}
"""Of a config."""
QUIET: dict[str, Any] = {
    "positional_dropout": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
    "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "speech_decoder_postnet_dropout": 0.0}
NO_PRENET: dict[str, Any] = {"speech_decoder_prenet_layers": 0, "speech_decoder_prenet_units": SMALL["num_mel_bins"]}
"""Without the layers that always drop."""


def tokenizer(letters: str = LETTERS) -> PreTrainedTokenizerFast:
    """A token for every letter, and one for the end of a text."""
    names = [*SPECIAL, *letters]
    made = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(prepend_scheme="never"), pre_tokenizers.Split(Regex("."), "isolated")])
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<pad>", bos_token="<s>",
                                   eos_token="</s>", padding_side="right")


def extractor(**changes: Any) -> SpeechT5FeatureExtractor:
    return SpeechT5FeatureExtractor(**{"sampling_rate": RATE, "num_mel_bins": 12, "fmax": RATE / 2 - 100, **changes})


def talker(**changes: Any) -> SpeechT5ForTextToSpeech:
    """With random weights that say something else for every text."""
    torch.manual_seed(0)
    model = SpeechT5ForTextToSpeech(SpeechT5Config(**{**SMALL, **changes}))
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and not name.startswith("speech_decoder_postnet.prob"):
            torch.nn.init.normal_(parameter, 0.0, 0.3)
    for layer in model.speech_decoder_postnet.layers:  # as if they had seen something
        torch.nn.init.normal_(layer.batch_norm.running_mean, 0.0, 0.3)
        torch.nn.init.uniform_(layer.batch_norm.running_var, 0.5, 2.0)
    return model.eval()


def folder(place: Path, **changes: Any) -> str:
    talker(**changes).save_pretrained(place)
    tokenizer().save_pretrained(place)
    extractor().save_pretrained(place)
    return str(place)


def ljspeech(place: Path, number: int = 12, seed: int = 0) -> str:
    """`metadata.csv` without a header, and `wavs/`."""
    draw = np.random.default_rng(seed)
    lines = []
    for index in range(number):
        text = " ".join("".join(draw.choice(list(LETTERS), draw.integers(1, 4))) for _ in range(draw.integers(1, 3)))
        wav(place / "wavs" / f"LJ001-{index:04}.wav", spoken(text, seed=index))
        lines.append(f"LJ001-{index:04}|{text.upper()}|{text}")
    (place / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(place)
