"""What a recogniser hears of real sounds' spectrograms is what it hears of the sounds: from frames to `cer`, without a model
that speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from stilla.recipe import ModelSource
from stilla.signals import Batch
from stilla.tasks.audio.listening import listener
from stilla.tasks.audio.sections import TextToSpeechEvaluate
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.spoken_exam import Right, SpokenExam
from tests.tasks.audio import talkers
from tests.tasks.audio.setting import RATE, SMALL, extractor
from tests.tasks.audio.speakers import LETTERS, VOCABULARY, spoken, symbols
from tests.tasks.audio.test_text_to_speech import bound

pytestmark = pytest.mark.slow
STEPS, LONGEST = 300, 5


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One that knows the letters, also where there is noise."""
    place = tmp_path_factory.mktemp("recogniser")
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**{
        **SMALL, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "vocab_size": len(VOCABULARY), "pad_token_id": 0,
        "apply_spec_augment": False, "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "final_dropout": 0.0,
        "feat_proj_dropout": 0.0, "activation_dropout": 0.0})).train()
    ear = extractor(return_attention_mask=True)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    for _ in range(STEPS):
        texts = ["".join(draw.choice(list(LETTERS), draw.integers(2, LONGEST + 1))) for _ in range(8)]
        waves = [spoken(one, seed=int(draw.integers(1000))) for one in texts]
        waves = [(one + draw.uniform(0, 0.15) * draw.standard_normal(len(one))).astype(np.float32) for one in waves]
        labels = torch.full((8, LONGEST), -100)
        for row, text in zip(labels, texts):
            row[: len(text)] = torch.tensor([VOCABULARY.index(letter) for letter in text])
        loss = model(**ear(waves, sampling_rate=RATE, padding=True, return_tensors="pt"), labels=labels).loss / 8
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        pace.step()
    model.save_pretrained(place)
    symbols(place).save_pretrained(place)
    ear.save_pretrained(place)
    return str(place)


def test_spectrograms_of_sounds_are_heard_as_the_sounds_are(tmp_path: Path, recogniser: str) -> None:
    talkers.talker(num_mel_bins=24).save_pretrained(tmp_path / "teacher")
    talkers.tokenizer().save_pretrained(tmp_path / "teacher")
    talkers.extractor(num_mel_bins=24, win_length=32, hop_length=8).save_pretrained(tmp_path / "teacher")
    talkers.ljspeech(tmp_path / "lj", 4)
    task, _ = bound(tmp_path)
    teacher = task.load(ModelSource(model=str(tmp_path / "teacher")), labelled=True)
    exam = task.adapted_to(teacher).exams(TextToSpeechEvaluate(recogniser=recogniser))[0]
    assert isinstance(exam, SpokenExam)
    draw = np.random.default_rng(9)
    texts = ["".join(draw.choice(list(LETTERS), draw.integers(2, LONGEST + 1))) for _ in range(12)]
    sounds = [Wave(spoken(one, seed=5), RATE) for one in texts]
    frames = [teacher.processor.spectrogram(one) for one in sounds]
    cer = next(one for one in exam.metrics() if one.name == "cer")
    right = [Right(one, text) for one, text in zip(frames, texts, strict=True)]

    def measured(said: list[np.ndarray]) -> float:
        return cer.compute(exam.given([torch.from_numpy(one) for one in said], Batch(), None), right)

    copies = exam.given([torch.from_numpy(one) for one in frames], Batch(), None)
    own = listener(recogniser, "evaluate.recogniser")(sounds)
    real = cer.compute([one._replace(heard=heard) for one, heard in zip(copies, own, strict=True)], right)
    assert real < 0.05
    assert abs(measured(frames) - real) < 0.05
    # it is the frames that are heard: backwards, or of another text, they say something else
    assert measured([np.ascontiguousarray(one[::-1]) for one in frames]) > 0.4
    assert measured([*frames[1:], frames[0]]) > 0.4
