"""How models that speak are loaded and asked, for the model cards of students, and what files are given that hear."""

from __future__ import annotations

from collections.abc import Sequence

SPEAKING = """\
import torch
from transformers import AutoModelForTextToSpectrogram, AutoTokenizer, FastSpeech2ConformerHifiGan, SpeechT5HifiGan

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForTextToSpectrogram.from_pretrained("path/to/this/folder")
ids = tokenizer("what is to be said", return_tensors="pt").input_ids
if model.config.model_type == "speecht5":
    vocoder = SpeechT5HifiGan.from_pretrained("microsoft/speecht5_hifigan")
    samples = model.generate_speech(ids, torch.zeros(1, model.config.speaker_embedding_dim), vocoder=vocoder)
else:
    vocoder = FastSpeech2ConformerHifiGan.from_pretrained("espnet/fastspeech2_conformer_hifigan")
    samples = vocoder(model(ids).spectrogram)
"""

HEARING = """\
import numpy as np
import soundfile
from transformers import AutoFeatureExtractor

extractor = AutoFeatureExtractor.from_pretrained(".")
samples, rate = soundfile.read("sound.wav", dtype="float32", always_2d=True)
if rate != extractor.sampling_rate:
    raise ValueError(f"resample the sound from {rate} to {extractor.sampling_rate} Hz")
inputs = dict(extractor(samples.mean(1), sampling_rate=rate, return_tensors="np"))
inputs.setdefault("attention_mask", np.ones(inputs[extractor.model_input_names[0]].shape[:2]))
inputs["attention_mask"] = inputs["attention_mask"].astype(np.int64)
"""

_TOLD = """\
tokenizer = AutoTokenizer.from_pretrained(".")
text = np.array([tokenizer.convert_tokens_to_ids({told})])  # what stands before all that is written
"""
_MARKED = "# several sounds of different lengths: those that are shorter are filled up with NaN, and their mask with 0\n"


def told(tokens: Sequence[str], *, marked: bool) -> str:
    """What files are given that write down what they hear. `tokens`: what their decoder reads first. `marked`: whether
    padding is marked in the sound itself."""
    hearing = HEARING.replace("AutoFeatureExtractor\n", "AutoFeatureExtractor, AutoTokenizer\n", 1)
    return hearing + (_MARKED if marked else "") + _TOLD.format(told=list(tokens))
