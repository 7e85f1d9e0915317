"""A small wav2vec 2.0 learns spoken digits from random weights, alone or in strings, and is distilled into fewer layers.

    python -m benchmarks.sounds digits --data FSDD
    python -m benchmarks.sounds strings --data FSDD_DIGIT_STRINGS

`digits` are classes of the Free Spoken Digit Dataset's 3,000 recordings (2,400 to learn from) of six people at 8 kHz;
`strings` are three to six of them in a row with what is said (480 to learn from), for CTC. The objectives are the defaults.
The same command again continues.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
)

from benchmarks.inputs import add_data_option, spoken_digits
from benchmarks.students import distil, parser, show
from stilla.runtime.quiet import quiet_libraries

_SIZES: dict[str, Any] = {
    "hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 192, "conv_dim": (48,) * 4,
    "conv_kernel": (10, 8, 4, 4), "num_feat_extract_layers": 4, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 96}


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/sounds", layers=[2, 1], teacher_epochs=12.0, teacher_learning_rate=1e-3,
                  epochs=8.0, learning_rate=1e-3)
    made.add_argument("sounds", choices=["digits", "strings"])
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
    options.output = options.output / options.sounds
    start = options.output / "start"
    if not (start / "config.json").is_file():
        (classifier if options.sounds == "digits" else recogniser)(start)
    place = spoken_digits(options.data, "fsdd" if options.sounds == "digits" else "fsdd_digit_strings")
    data = {"train": str(place), "limit": options.limit}
    task = {"task": "audio-classification", "data": {**data, "label": "label"}} if options.sounds == "digits" else {
        "task": "speech-recognition", "data": {**data, "text": "transcription"}}
    show(options.sounds, distil(options, task, start))


def classifier(place: Path) -> None:
    """Frames of 10 ms, normalised over a sound's own time."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(**_SIZES, conv_stride=(5, 4, 2, 2), num_labels=10)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(place)
    Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True).save_pretrained(place)


def recogniser(place: Path) -> None:
    """Frames of 20 ms; the letters of English."""
    place.mkdir(parents=True, exist_ok=True)
    names = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    (place / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    Wav2Vec2CTCTokenizer(str(place / "vocab.json")).save_pretrained(place)
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(
        **_SIZES, conv_stride=(5, 4, 4, 2), feat_extract_norm="layer", do_stable_layer_norm=True, vocab_size=len(names),
        pad_token_id=0)).save_pretrained(place)
    Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True, return_attention_mask=True).save_pretrained(place)


if __name__ == "__main__":
    main()
