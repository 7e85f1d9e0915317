"""A small SpeechT5 learns to speak digits in six voices from random weights, and is distilled into fewer layers.

    python -m benchmarks.speaking --data FSDD

The Free Spoken Digit Dataset's 3,000 recordings (2,400 to learn from) of six people at 8 kHz; a voice is a vector of zeros
with a one. Measured is what each model says by itself: the mel-cepstral distance from the same person's recording, and by how
much it is too long or too short. The objectives are the defaults. The same command again continues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, SpeechT5Config, SpeechT5FeatureExtractor, SpeechT5ForTextToSpeech

from benchmarks.inputs import add_data_option, spoken_digits
from benchmarks.students import distil, parser, show
from stilla.runtime.quiet import quiet_libraries

_SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
_LETTERS = "efghinorstuvwxz"
_RATE, _BINS = 8000, 40


def main() -> None:
    made = parser(__doc__, "runs/benchmarks/speaking", layers=[1], teacher_epochs=20.0, teacher_learning_rate=1e-3,
                  epochs=10.0, learning_rate=1e-3, export=[], seeds=1)
    add_data_option(made)
    options = made.parse_args()
    quiet_libraries()
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


def speaker(place: Path) -> None:
    """Letters in, 40 mel bins every 16 ms out, two frames a step; three layers that read and three that speak."""
    torch.manual_seed(0)
    names = ["<s>", "<pad>", "</s>", "<unk>", *_LETTERS]
    SpeechT5ForTextToSpeech(SpeechT5Config(
        vocab_size=len(names), hidden_size=96, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=192, decoder_ffn_dim=192, num_mel_bins=_BINS, speaker_embedding_dim=6,
        speech_decoder_prenet_units=64, speech_decoder_postnet_units=64, speech_decoder_postnet_layers=3,
        encoder_max_relative_position=16)).save_pretrained(place)
    SpeechT5FeatureExtractor(sampling_rate=_RATE, num_mel_bins=_BINS, fmax=3800).save_pretrained(place)
    tokens = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokens.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>", pad_token="<pad>", bos_token="<s>",
                            eos_token="</s>").save_pretrained(place)


if __name__ == "__main__":
    main()
