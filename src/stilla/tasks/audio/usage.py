"""How models that speak are loaded and asked, for the model cards of students."""

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
