"""Recognisers of frames of other families: w2v-BERT, SEW, data2vec, Conformer, UniSpeech."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    SeamlessM4TFeatureExtractor,
    SEWConfig,
    SEWDConfig,
    SEWDForCTC,
    SEWForCTC,
    UniSpeechSatConfig,
    UniSpeechSatForCTC,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
)

import stilla
from stilla.export import graphs, onnx
from stilla.export.session import OnnxModel
from stilla.recipe import ModelSource
from stilla.signals import Side
from stilla.tasks.audio import hearing
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.speech_recognition import SpeechRecognition, recogniser
from tests.tasks.audio.setting import RATE, SMALL, extractor
from tests.tasks.audio.speakers import VOCABULARY, spoken, symbols, utterances
from tests.tasks.audio.test_speech_recognition import understood
from tests.tasks.audio.test_speech_runs import QUICK

FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "w2v-bert": (Wav2Vec2BertConfig, Wav2Vec2BertForCTC, {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "conv_depthwise_kernel_size": 3}),
    "sew": (SEWConfig, SEWForCTC, SMALL),
    "sew-d": (SEWDConfig, SEWDForCTC, SMALL),
    "data2vec": (Data2VecAudioConfig, Data2VecAudioForCTC, {
        **SMALL, "conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2}),
    "conformer": (Wav2Vec2ConformerConfig, Wav2Vec2ConformerForCTC, SMALL),
    "unispeech-sat": (UniSpeechSatConfig, UniSpeechSatForCTC, SMALL),
}


def model(kind: str) -> Any:
    config, made, sizes = FAMILIES[kind]
    torch.manual_seed(0)
    found = made(config(**sizes, vocab_size=len(VOCABULARY), pad_token_id=0))
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, *((0.5, 0.2) if parameter.dim() == 1 else (0.0, 0.3)))
    return found.eval()


def folder(place: Path, kind: str) -> str:
    model(kind).save_pretrained(place)
    symbols(place).save_pretrained(place)
    ear = SeamlessM4TFeatureExtractor(sampling_rate=RATE) if kind == "w2v-bert" else extractor(return_attention_mask=True)
    ear.save_pretrained(place)
    return str(place)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(FAMILIES))
def test_every_frame_is_answered_as_transformers_answers_it_alone(kind: str, tmp_path: Path) -> None:
    loaded, plain = recogniser(ModelSource(model=folder(tmp_path, kind)), labelled=True), model(kind)
    ear: hearing.Ear = loaded.processor.ear
    waves = [Wave(spoken(text, seed=place), RATE) for place, text in enumerate(("abcde abc", "de", "abc"))]
    features = [ear.features(one) for one in waves]
    inputs = ear.batch(features)
    own = ear.said(inputs)
    assert own is not None
    assert ear.frames is not None
    with torch.no_grad():
        together = loaded.model(**inputs)["logits"]
        for row, (one, wave) in enumerate(zip(features, waves, strict=True)):
            alone = plain(**{ear.name: torch.from_numpy(one)[None]})["logits"][0]
            assert int(own[row].sum()) == len(alone) == ear.frames.number(len(wave.samples))
            assert (together[row, own[row]] - alone).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["w2v-bert", "sew"])
def test_rows_are_what_is_answered_and_hidden_states_the_layers_own(kind: str, tmp_path: Path) -> None:
    task, splits = understood(utterances(tmp_path / "d"), broken="skip")
    made = task.load(ModelSource(model=folder(tmp_path / "m", kind)), labelled=True)
    task = task.adapted_to(made)
    assert isinstance(task, SpeechRecognition)
    batch = task.prepare(splits["test"], made.processor, None, training=False).collate(range(4))
    with torch.no_grad():
        outputs = made.model(**batch.student, output_hidden_states=True)
    answered, layers = task.mask(batch, Side.STUDENT), task.stack_mask(batch, Side.STUDENT, "layers")
    assert answered.shape == outputs.logits.shape[:2]
    assert layers.shape == outputs.hidden_states[1].shape[:2]
    assert task.counts(batch)["rows"] == int(answered.sum())
    assert (answered.shape[1] // 2 == layers.shape[1]) == (kind == "sew")


def _of(samples: int) -> dict[str, torch.Tensor]:
    """Two waves, of which one ends before the other."""
    waves = torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
    mask = torch.ones(2, samples, dtype=torch.long)
    mask[1, -150:] = 0
    return {"input_values": torch.where(mask > 0, waves, torch.nan), "attention_mask": mask}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sew", "sew-d", "data2vec", "conformer", "unispeech-sat"])  # others: in the run below
def test_a_file_answers_as_its_model_does_for_sounds_of_any_length(kind: str, tmp_path: Path) -> None:
    task, splits = understood(utterances(tmp_path / "d"), broken="skip")
    made = task.load(ModelSource(model=folder(tmp_path / "m", kind)), labelled=True)
    task = task.adapted_to(made)
    batches = graphs.examples(task.prepare(splits["test"], made.processor, None, training=False))
    assert len({one["input_values"].shape[1] for one in batches}) > 1
    assert not [*task.unwritten(made.model, ["onnx"]), *graphs.unwritten(made.model, ["onnx"])]
    onnx.export_onnx(made.model, task.axes, task.outputs, batches, tmp_path / "model.onnx", task.answer)
    file, whole = OnnxModel(tmp_path / "model.onnx"), graphs.ready(made.model)
    odd = [_of(samples) for samples in (600, 640, 700, 720, 1500)]  # of 7, 8, 9, 9 and 19 frames: SEW makes one of two
    assert {one % 2 for one in (made.processor.ear.frames.number(one["input_values"].shape[1]) for one in odd)} == {0, 1}
    for batch in [*batches, *odd]:
        with torch.no_grad():
            torch.testing.assert_close(file(batch), task.outputs(whole(**batch)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["w2v-bert", "sew"])
def test_a_run_learns_answers_and_hidden_states_and_its_file_hears_the_same(kind: str, tmp_path: Path) -> None:
    run = stilla.distill({
        "task": "speech-recognition", "teacher": folder(tmp_path / "teacher", kind), "student": {"layers": 1}, **QUICK,
        "distill": {**QUICK["distill"], "objectives": [{"kind": "ctc"}, {"kind": "logits"}, {"kind": "hidden"}]},
        "data": {"train": utterances(tmp_path / "speech"), "broken": "skip"}, "export": ["onnx"],
        "output": str(tmp_path / "run")})
    student, file = (run.scores.subjects[name].quality["test"]["cer"].value for name in ("student", "onnx"))
    assert np.isfinite(student)
    assert student == file
