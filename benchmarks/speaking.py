"""A small SpeechT5, or FastSpeech2-Conformer, learns to speak digits in six voices from random weights, and is distilled into
fewer layers.

    python -m benchmarks.speaking --data FSDD
    python -m benchmarks.speaking --data FSDD --family fastspeech2

The Free Spoken Digit Dataset's 3,000 recordings (2,400 to learn from) of six people at 8 kHz; a voice is a vector of zeros
with a one. Measured is what each model says by itself: the mel-cepstral distance from the same person's recording, and by how
much it is too long or too short. The objectives are the defaults. The same command again continues. A FastSpeech2-Conformer
knows speakers by number, and learns durations as if all letters of a recording lasted as long: nobody has aligned them.
"""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from datasets import Audio, Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    FastSpeech2ConformerConfig,
    FastSpeech2ConformerModel,
    PreTrainedTokenizerFast,
    SpeechT5Config,
    SpeechT5FeatureExtractor,
    SpeechT5ForTextToSpeech,
)

from benchmarks.inputs import add_data_option, spoken_digits
from benchmarks.students import distil, parser, show
from stilla.runtime.quiet import quiet_libraries
from stilla.tasks.audio.durations import evenly

_SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
_LETTERS = "efghinorstuvwxz"
_RATE, _BINS = 8000, 40


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/speaking", layers=[1], teacher_epochs=20.0, teacher_learning_rate=1e-3,
                  epochs=10.0, learning_rate=1e-3, export=[], seeds=1)
    add_data_option(made)
    made.add_argument("--family", choices=("speecht5", "fastspeech2"), default="speecht5")
    options = made.parse_args()
    quiet_libraries()
    if options.family == "fastspeech2":
        at_once(options)
    else:
        step_by_step(options)


def step_by_step(options: Namespace) -> None:
    start, known = options.output / "start", options.output / "speakers.npz"
    if not (start / "config.json").is_file():
        speaker(start)
        vectors: dict[str, Any] = dict(zip(_SPEAKERS, np.eye(len(_SPEAKERS), dtype=np.float32), strict=True))
        np.savez(known, **vectors)
    # in so few steps noise is all that a teacher would learn; its prenet drops in any case
    options.overrides = ["teacher.train.dropout=0.0", *options.overrides]
    place = spoken_digits(options.data, "fsdd")
    task = {"task": "text-to-speech", "data": {
        "train": str(place), "text": "label_name", "speaker": "speaker", "speakers": str(known), "limit": options.limit}}
    show("spoken digits", distil(options, task, start, lambda depth: {"layers": {"encoder": depth, "decoder": depth}}))


def at_once(options: Namespace) -> None:
    options.output = options.output / "at-once"
    start = options.output / "start"
    if not (start / "config.json").is_file():
        reciter(start)
    place = spoken_digits(options.data, "fsdd")
    splits = {name: str(aligned(place / name, options.output / "data" / f"{name}.parquet"))
              for name in ("train", "validation", "test")}
    options.overrides = ["teacher.train.dropout=0.0", *options.overrides]
    task = {"task": "text-to-speech", "data": {
        **splits, "text": "text", "speaker": "speaker", "durations": "durations", "limit": options.limit}}
    show("spoken digits, all frames at once",
         distil(options, task, start, lambda depth: {"layers": {"encoder": depth, "decoder": depth}}))


def aligned(folder: Path, file: Path) -> Path:
    """A split as Parquet, with how many frames each letter and the end of the text last: all as long."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made, rows = extractor(), []
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            path = folder / row["file_name"]
            samples = max(soundfile.info(path).frames, made.n_fft // 2 + 1)
            lasting = evenly(len(row["label_name"]) + 1, 1 + samples // made.sample_stride)
            rows.append({"audio": {"bytes": path.read_bytes(), "path": path.name}, "text": row["label_name"],
                         "speaker": _SPEAKERS.index(row["speaker"]), "durations": lasting.tolist()})
    Dataset.from_list(rows).cast_column("audio", Audio(decode=False)).to_parquet(str(file))
    return file


def reciter(place: Path) -> None:
    """Letters in, 40 mel bins every 16 ms out; three layers that read and three that speak."""
    torch.manual_seed(0)
    names = ["<pad>", "<s>", "</s>", "<unk>", *_LETTERS]
    FastSpeech2ConformerModel(FastSpeech2ConformerConfig(
        vocab_size=len(names), hidden_size=96, num_mel_bins=_BINS, encoder_layers=3, decoder_layers=3,
        encoder_num_attention_heads=4, decoder_num_attention_heads=4, encoder_linear_units=192, decoder_linear_units=192,
        decoder_kernel_size=15, speech_decoder_postnet_units=64, speech_decoder_postnet_layers=3,
        duration_predictor_channels=96, pitch_predictor_channels=96, energy_predictor_channels=96,
        num_speakers=len(_SPEAKERS))).save_pretrained(place)
    extractor().save_pretrained(place)
    letters(names).save_pretrained(place)


def speaker(place: Path) -> None:
    """Letters in, 40 mel bins every 16 ms out, two frames a step; three layers that read and three that speak."""
    torch.manual_seed(0)
    names = ["<s>", "<pad>", "</s>", "<unk>", *_LETTERS]
    SpeechT5ForTextToSpeech(SpeechT5Config(
        vocab_size=len(names), hidden_size=96, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=192, decoder_ffn_dim=192, num_mel_bins=_BINS, speaker_embedding_dim=6,
        speech_decoder_prenet_units=64, speech_decoder_postnet_units=64, speech_decoder_postnet_layers=3,
        encoder_max_relative_position=16)).save_pretrained(place)
    extractor().save_pretrained(place)
    letters(names).save_pretrained(place)


def extractor() -> SpeechT5FeatureExtractor:
    return SpeechT5FeatureExtractor(sampling_rate=_RATE, num_mel_bins=_BINS, fmax=3800)


def letters(names: Sequence[str]) -> PreTrainedTokenizerFast:
    """A token for every letter, and one for the end."""
    tokens = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokens.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>", pad_token="<pad>", bos_token="<s>",
                                   eos_token="</s>")


if __name__ == "__main__":
    main()
