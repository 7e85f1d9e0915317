"""Tiny recognisers and utterances: letters are tones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

from tests.tasks.audio.setting import RATE, SMALL, extractor, tone, wav

LETTERS = "abcde"
VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS)
OTHER_ORDER = ("e", "d", "<unk>", "c", "|", "<pad>", "b", "a", "</s>", "<s>")
SECONDS = 0.06  # of a letter


def symbols(place: Path, names: Sequence[str] = VOCABULARY) -> Wav2Vec2CTCTokenizer:
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    return Wav2Vec2CTCTokenizer(str(place / "vocab.json"), pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|")


def recogniser(names: Sequence[str] = VOCABULARY, norm: str = "group", **changes: Any) -> Wav2Vec2ForCTC:
    """With random weights; the head's are of what a class stands for, whatever its number."""
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**{
        **SMALL, "feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "vocab_size": len(names),
        "pad_token_id": list(names).index("<pad>"), **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, *((0.5, 0.2) if parameter.dim() == 1 else (0.0, 0.3)))
    with torch.no_grad():
        # so that frames differ in what they are best for, and not only in how sure of it they are
        model.lm_head.weight.sub_(model.lm_head.weight.mean(1, keepdim=True)).mul_(20)
        model.lm_head.bias.zero_()
        for parameter in (model.lm_head.weight, model.lm_head.bias):
            parameter.copy_(parameter[[VOCABULARY.index(name) for name in names]].clone())
    return model.eval()


def folder(place: Path, names: Sequence[str] = VOCABULARY, norm: str = "group", **changes: Any) -> str:
    recogniser(names, norm, **changes).save_pretrained(place)
    symbols(place, names).save_pretrained(place)
    extractor().save_pretrained(place)
    return str(place)


def spoken(text: str, seed: int = 0) -> np.ndarray:
    """A tone for every letter, silence for a space and between two of a kind."""
    parts = []
    for place, letter in enumerate(text):
        if letter == " ":
            parts.append(np.zeros(round(SECONDS * RATE), np.float32))
        else:
            parts += [tone(250 + 300 * LETTERS.index(letter.lower()), SECONDS, seed=seed + place), np.zeros(60, np.float32)]
    return np.concatenate(parts)


def utterances(place: Path, number: int = 12, seed: int = 0, column: str = "transcription") -> str:
    """Folders of splits with a metadata file each."""
    draw = np.random.default_rng(seed)
    for split, size in (("train", number), ("validation", 5), ("test", 5)):
        lines = [f"file_name,{column}"]
        for index in range(size):
            text = " ".join("".join(draw.choice(list(LETTERS), draw.integers(1, 4))) for _ in range(draw.integers(1, 4)))
            wav(place / split / f"{index}.wav", spoken(text, seed=index))
            lines.append(f"{index}.wav,{text}")
        (place / split / "metadata.csv").write_text("\n".join(lines) + "\n")
    return str(place)
