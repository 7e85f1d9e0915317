"""Tiny sounds on disk, and tiny models that hear them, for the tests of tasks on sounds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    Data2VecAudioConfig,
    Data2VecAudioForSequenceClassification,
    HubertConfig,
    HubertForSequenceClassification,
    SeamlessM4TFeatureExtractor,
    SEWConfig,
    SEWForSequenceClassification,
    UniSpeechConfig,
    UniSpeechForSequenceClassification,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForSequenceClassification,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WavLMConfig,
    WavLMForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

soundfile = pytest.importorskip("soundfile")

RATE = 4000
"""At which the tiny models hear: a second has as many samples as 0.25 s at 16 kHz."""
PITCHES = {"low": 300.0, "mid": 700.0, "high": 1500.0}

SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 3, 3), "conv_stride": (5, 4, 4), "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16, "num_feat_extract_layers": 3}


def tone(pitch: float, seconds: float, rate: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    found: NDArray[np.float32] = (0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * draw.standard_normal(len(time))).astype(
        np.float32)
    return found


def wav(path: Path, samples: NDArray[Any], rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def folders(place: Path, number: int = 9, *, splits: tuple[str, ...] = ("train", "validation", "test"), rate: int = RATE
            ) -> str:
    """Tones by class, of different lengths."""
    for split in splits:
        for index in range(number):
            kind = list(PITCHES)[index % 3]
            seconds = 0.15 + 0.03 * (index % 5)
            wav(place / split / kind / f"{index}.wav", tone(PITCHES[kind], seconds, rate, seed=index + len(split)), rate)
    return str(place)


def extractor(**changes: Any) -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(**{"sampling_rate": RATE, "do_normalize": True, **changes})


LABELS: dict[str, Any] = {"id2label": dict(enumerate(PITCHES)),
                          "label2id": {name: index for index, name in enumerate(PITCHES)}}


def model(kind: str = "wav2vec2", norm: str = "layer", **changes: Any) -> Any:
    """A classifier of three pitches with random weights, no two of them alike."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = _made(kind, norm, **{**LABELS, **changes})
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, *((0.5, 0.2) if parameter.dim() == 1 else (0.0, 0.3)))
    return made.eval()


def _made(kind: str, norm: str, **changes: Any) -> Any:
    if kind == "ast":
        return ASTForAudioClassification(ASTConfig(**{
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_length": 64,
            "num_mel_bins": 32, **changes}))
    if kind == "whisper":
        return WhisperForAudioClassification(WhisperConfig(**{
            "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 16,
            "max_source_positions": 50, "vocab_size": 20,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3, "classifier_proj_size": 8,
            **changes}))
    if kind == "w2v-bert":
        return Wav2Vec2BertForSequenceClassification(Wav2Vec2BertConfig(**{
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "conv_depthwise_kernel_size": 3, "classifier_proj_size": 16, **changes}))
    classes = {"wav2vec2": (Wav2Vec2Config, Wav2Vec2ForSequenceClassification),
               "hubert": (HubertConfig, HubertForSequenceClassification),
               "wavlm": (WavLMConfig, WavLMForSequenceClassification),
               "data2vec": (Data2VecAudioConfig, Data2VecAudioForSequenceClassification),
               "conformer": (Wav2Vec2ConformerConfig, Wav2Vec2ConformerForSequenceClassification),
               "sew": (SEWConfig, SEWForSequenceClassification),
               "unispeech": (UniSpeechConfig, UniSpeechForSequenceClassification)}
    config, made = classes[kind]
    own = {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2} if kind == "data2vec" else {}
    return made(config(**{
        **SMALL, **own, "feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", **changes}))


def extractor_of(kind: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "ast":
            return ASTFeatureExtractor(num_mel_bins=32, max_length=64, sampling_rate=RATE)
        if kind == "whisper":
            return WhisperFeatureExtractor(feature_size=16, chunk_length=1, sampling_rate=16_000, hop_length=160, n_fft=400)
        if kind == "w2v-bert":
            return SeamlessM4TFeatureExtractor(sampling_rate=RATE)
    return extractor()


def folder(place: Path, kind: str = "wav2vec2", norm: str = "layer", **changes: Any) -> str:
    """A model as `save_pretrained` leaves it."""
    model(kind, norm, **changes).save_pretrained(place)
    extractor_of(kind).save_pretrained(place)
    return str(place)
