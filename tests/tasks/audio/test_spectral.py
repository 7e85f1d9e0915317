"""Recognisers of frames that hear spectrograms: their frames are counted, and no sound has an influence on another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

import stilla
from stilla.check import check
from stilla.errors import CompatibilityError
from stilla.export import OnnxModel
from stilla.recipe import ModelSource
from stilla.recipe.file import from_options
from stilla.tasks.audio import hearing
from stilla.tasks.audio.letters import Scribe
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.speech_recognition import recogniser
from tests.tasks.audio import speakers, spectral
from tests.tasks.audio.setting import RATE, wav
from tests.tasks.audio.speakers import spoken, utterances

QUICK: dict[str, Any] = {"distill": {"max_steps": 6, "batch_size": 4, "precision": "float32", "learning_rate": 1e-3},
                         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def heard(model: Any, ear: hearing.Ear, waves: list[Wave]) -> list[torch.Tensor]:
    inputs = ear.batch([ear.features(one) for one in waves])
    valid = ear.valid(inputs)
    assert valid is not None
    logits = model(**inputs)["logits"]
    assert logits.shape[1] == valid.shape[1]
    return [one[own] for one, own in zip(logits, valid, strict=True)]


@pytest.fixture
def waves() -> list[Wave]:
    return [Wave(spoken(text, seed=number), RATE) for number, text in enumerate(("abcde abc", "de", "a"))]


def test_neighbours_have_no_influence_and_frames_are_those_that_transformers_counts(waves: list[Wave]) -> None:
    model = spectral.recogniser()
    ear = hearing.ear_of(spectral.extractor(), model)
    with torch.no_grad():
        together = heard(model, ear, waves)
        for one, wave in zip(together, waves, strict=True):
            torch.testing.assert_close(one, heard(model, ear, [wave])[0], atol=1e-5, rtol=1e-4)
            assert ear.frames is not None
            assert len(one) == ear.frames.number(len(wave.samples))
            said = spectral.extractor()(wave.samples, sampling_rate=RATE, return_tensors="pt")
            theirs = model(**said)["logits"][0]
            torch.testing.assert_close(one, theirs[: len(one)], atol=1e-5, rtol=1e-4)
            assert len(one) == int(model._get_subsampling_output_length(said["attention_mask"].sum(-1))[0])


def test_running_statistics_are_of_a_sounds_own_frames(waves: list[Wave]) -> None:
    found = []
    for more in (0, 40):
        model = spectral.recogniser(**spectral.QUIET)
        ear = hearing.ear_of(spectral.extractor(), model)
        inputs = ear.batch([ear.features(waves[0])])
        padded = {name: F.pad(one, (0, 0, 0, more) if one.dim() == 3 else (0, more)) for name, one in inputs.items()}
        model.train()(**padded)
        found.append({name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name})
    assert found[0].keys() == found[1].keys()
    assert found[0]
    for name, buffer in found[0].items():
        torch.testing.assert_close(buffer, found[1][name], atol=1e-5, rtol=1e-4)


def test_a_sound_shorter_than_a_frame_is_heard_with_silence_behind_it() -> None:
    model = spectral.recogniser()
    ear = hearing.ear_of(spectral.extractor(), model)
    for length in (1, 39, 41, 79):
        with torch.no_grad():
            (said,) = heard(model, ear, [Wave(np.full(length, 0.1, np.float32), RATE)])
        assert len(said) == 1
        assert said.isfinite().all()


def test_repeated_symbols_of_a_transcript_stay_repeated() -> None:
    scribe = Scribe(hearing.ear_of(spectral.extractor(), spectral.recogniser()), spectral.tokenizer())
    ids = scribe.ids("aab  b", "as it is")
    assert scribe.written(ids) == "aab b"
    blank = scribe.blank
    assert scribe.heard(np.array([blank, *[ids[0]] * 2, blank, ids[1], ids[2]])) == "aab"


def test_an_extractor_of_another_model_is_refused_in_words(tmp_path: Path) -> None:
    spectral.folder(tmp_path)
    spectral.extractor(feature_size=20).save_pretrained(tmp_path)
    with pytest.raises(CompatibilityError, match=r"does not hear what its feature extractor makes.*processor"):
        recogniser(ModelSource(model=str(tmp_path)), labelled=True)


@pytest.mark.slow
def test_a_student_learns_from_all_kinds_of_data_and_is_read_by_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        wav(tmp_path / "more" / f"{index}.wav", spoken("abcde"[: index + 2] * 2, seed=index + 50))
    ask: dict[str, Any] = {
        "task": "speech-recognition", "teacher": spectral.folder(tmp_path / "teacher"), "student": {"layers": 1},
        "output": str(tmp_path / "run"), **QUICK, "cache": {"form": "dense"}, "export": ["onnx", "int8"],
        "data": {"train": utterances(tmp_path / "speech"), "unlabelled": str(tmp_path / "more"), "broken": "skip"}}
    found = check(from_options(ask))
    assert not found.problems, found.problems
    run = stilla.distill(**ask)
    assert run.scores.learnt["unlabelled"] == 3
    model, tokens = AutoModelForCTC.from_pretrained(run.student), AutoTokenizer.from_pretrained(run.student)
    clip = spoken("ab c", seed=3)
    inputs = AutoFeatureExtractor.from_pretrained(run.student)(clip, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        theirs = tokens.decode(model(**inputs)["logits"][0].argmax(-1))
    loaded = recogniser(ModelSource(model=str(run.student)), labelled=True)
    with torch.no_grad():
        (logits,) = heard(loaded.model, loaded.processor.ear, [Wave(clip, RATE)])
    assert loaded.processor.heard(logits.argmax(-1).numpy()) == theirs.strip()
    student, file = (run.scores.subjects[name].quality["test"]["cer"].value for name in ("student", "onnx"))
    assert student == file
    made = OnnxModel(run.folder / "export/onnx/model.onnx")
    for steps in (9, 10, 11, 12, 57, 200):  # four of them are folded into a frame
        mask = torch.ones(2, steps, dtype=torch.long)
        mask[1, -5:] = 0
        bands = torch.randn(2, steps, 16, generator=torch.Generator().manual_seed(steps)) * mask[..., None]
        with torch.no_grad():
            whole = loaded.model(input_features=bands, attention_mask=mask)["logits"]
        torch.testing.assert_close(made({"input_features": bands, "attention_mask": mask}), whole, rtol=1e-4, atol=1e-4)
    monkeypatch.chdir(run.folder / "export/onnx")
    wav(Path("sound.wav"), clip)
    (program,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    printed: list[Any] = []
    exec(program, {"print": printed.append})
    assert printed == [[theirs.strip()]]


@pytest.mark.slow
def test_what_cannot_be_is_said_before_a_run(tmp_path: Path) -> None:
    ask: dict[str, Any] = {
        "task": "speech-recognition", "teacher": spectral.folder(tmp_path / "teacher"), "student": {"layers": 1},
        "output": str(tmp_path / "run"), **QUICK, "data": {"train": utterances(tmp_path / "speech"), "broken": "skip"}}
    for changes, words in (
        ({"student": {"model": speakers.folder(tmp_path / "waves")}}, "make other frames of a sound"),
        ({"student": {"config": {"encoder_config": {"subsampling_factor": 8}}}}, "changes how the student hears"),
    ):
        problems = check(from_options({**ask, **changes})).problems
        assert any(re.search(words, one) for one in problems), (words, problems)
