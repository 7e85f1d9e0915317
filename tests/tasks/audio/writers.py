"""Tiny recognisers that write (Whisper, Moonshine), over bytes; utterances are those of `speakers`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

END = "<|endoftext|>"
LANGUAGES = ("en", "zh")
LATER = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")
SECONDS = 2
"""That the tiny Whisper hears at once."""


PAIRS = (("a", "b"), ("Ġ", "a"), ("Ġ", "ab"), ("c", "d"), ("x", "y"), ("xy", "x"), ("q", "x"))
"""Merges, the last three of which no utterance needs."""


def tokenizer(
    languages: Sequence[str] = LANGUAGES, *, times: bool = False, pairs: Sequence[tuple[str, str]] = ()
) -> WhisperTokenizer:
    """Bytes, and Whisper's special tokens in their order: with another language, all later ones have other numbers. `times`:
    with a token for every 20 ms, as all that were released have. `pairs`: what is merged."""
    letters = [*sorted(ByteLevel.alphabet()), *map("".join, pairs)]
    made = WhisperTokenizer(vocab={**{one: place for place, one in enumerate(letters)}, END: len(letters)},
                            merges=list(pairs), pad_token=END)
    made.add_tokens(["<|startoftranscript|>", *(f"<|{one}|>" for one in languages), *LATER], special_tokens=True)
    if times:
        made.add_tokens([AddedToken(f"<|{place / 50:.2f}|>", special=False, normalized=False)
                         for place in range(50 * SECONDS + 1)])
    return made


def whisper(
    languages: Sequence[str] = LANGUAGES, *, several: bool = True, seed: int = 0, times: bool = False,
    pairs: Sequence[tuple[str, str]] = (), **changes: Any
) -> WhisperForConditionalGeneration:
    """With random weights, no two of which are alike."""
    known = tokenizer(languages, times=times, pairs=pairs).get_vocab()
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(WhisperConfig(**{
        "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 16, "max_source_positions": 50 * SECONDS,
        "max_target_positions": 40, "vocab_size": len(known) + 2, "pad_token_id": known[END], "bos_token_id": known[END],
        "eos_token_id": known[END], "decoder_start_token_id": known["<|startoftranscript|>"], **changes}))
    for parameter in model.parameters():
        if parameter.requires_grad:  # the encoder's positions are sines
            torch.nn.init.normal_(parameter, *((0.5, 0.2) if parameter.dim() == 1 else (0.0, 0.3)))
    model.generation_config = GenerationConfig(
        decoder_start_token_id=known["<|startoftranscript|>"], eos_token_id=known[END], pad_token_id=known[END],
        bos_token_id=known[END], max_length=40, is_multilingual=several, no_timestamps_token_id=known["<|notimestamps|>"],
        lang_to_id={f"<|{one}|>": known[f"<|{one}|>"] for one in languages},
        task_to_id={"transcribe": known["<|transcribe|>"], "translate": known["<|translate|>"]},
        suppress_tokens=[known["<|startoflm|>"]], begin_suppress_tokens=[known[END]], return_timestamps=False,
        alignment_heads=[[1, 0]])
    return model.eval()


def extractor(bins: int = 16) -> WhisperFeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WhisperFeatureExtractor(feature_size=bins, chunk_length=SECONDS, sampling_rate=16_000)


def folder(
    place: Path, languages: Sequence[str] = LANGUAGES, *, bins: int = 16, times: bool = False,
    pairs: Sequence[tuple[str, str]] = (), **changes: Any
) -> str:
    whisper(languages, num_mel_bins=bins, times=times, pairs=pairs, **changes).save_pretrained(place)
    tokenizer(languages, times=times, pairs=pairs).save_pretrained(place)
    extractor(bins).save_pretrained(place)
    return str(place)


def moonshine(
    seed: int = 0, pairs: Sequence[tuple[str, str]] = (), **changes: Any
) -> MoonshineForConditionalGeneration:
    known = tokenizer(pairs=pairs).get_vocab()
    torch.manual_seed(seed)
    model = MoonshineForConditionalGeneration(MoonshineConfig(**{
        "hidden_size": 16, "intermediate_size": 32, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2,
        "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "vocab_size": len(known),
        "max_position_embeddings": 40, "pad_token_id": known[END], "bos_token_id": known["<|startoftranscript|>"],
        "eos_token_id": known[END], "decoder_start_token_id": known["<|startoftranscript|>"], **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, *((0.5, 0.2) if parameter.dim() == 1 else (0.0, 0.3)))
    return model.eval()


def moonshine_folder(place: Path, pairs: Sequence[tuple[str, str]] = (), **changes: Any) -> str:
    moonshine(pairs=pairs, **changes).save_pretrained(place)
    tokenizer(pairs=pairs).save_pretrained(place)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=False, return_attention_mask=True).save_pretrained(place)
    return str(place)
