"""How models that speak are loaded and asked, for the model cards of students."""

SPEAKING = """\
import torch
from transformers import AutoTokenizer, SpeechT5ForTextToSpeech, SpeechT5HifiGan

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = SpeechT5ForTextToSpeech.from_pretrained("path/to/this/folder")
vocoder = SpeechT5HifiGan.from_pretrained("microsoft/speecht5_hifigan")
ids = tokenizer("what is to be said", return_tensors="pt").input_ids
samples = model.generate_speech(ids, torch.zeros(1, model.config.speaker_embedding_dim), vocoder=vocoder)
"""
