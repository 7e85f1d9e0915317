"""Whole runs of models that hear: files, report, caches, unlabelled sounds; what a check says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForAudioClassification, pipeline

import stilla
from stilla import data
from stilla.check import check
from stilla.export import OnnxModel, graphs, onnx
from stilla.recipe import ModelSource
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.tasks.audio.audio_classification import AudioClassification
from stilla.tasks.audio.sections import AudioClassificationData
from stilla.views import Sound, view_of
from tests.tasks.audio.setting import RATE, folder, folders, soundfile, tone, wav

pytestmark = pytest.mark.slow

QUICK: dict[str, Any] = {"distill": {"max_steps": 8, "batch_size": 8, "precision": "float32", "learning_rate": 1e-3},
                         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def recipe(place: Path, kind: str = "wav2vec2", norm: str = "group", **changes: Any) -> dict[str, Any]:
    return {"task": "audio-classification", "teacher": folder(place / "teacher", kind, norm), "student": {"layers": 1},
            "output": str(place / "run"), **QUICK, **changes,
            "data": {"train": folders(place / "sounds"), **changes.get("data", {})}}


def test_a_student_that_hears_is_loaded_exported_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stilla.distill(recipe(tmp_path, export=["onnx", "int8"]))
    assert (run.scores.metric, run.scores.split) == ("accuracy", "test")
    assert set(run.scores.subjects) == {"teacher", "student", "onnx", "int8"}
    clip = wav(tmp_path / "clip.wav", tone(700, 0.37))
    said = pipeline("audio-classification", str(run.student))(soundfile.read(clip, dtype="float32")[0])
    file = OnnxModel(run.folder / "export/onnx/model.onnx")
    waves = np.full((2, 2000), np.nan, np.float32)
    heard = (tone(700, 0.37), tone(300, 0.5))
    for row, wave in enumerate(heard):
        waves[row, : len(wave)] = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    mask = (~np.isnan(waves)).astype(np.int64)
    logits = file({"input_values": torch.from_numpy(waves), "attention_mask": torch.from_numpy(mask)})[0]
    plain = AutoModelForAudioClassification.from_pretrained(run.student)
    with torch.no_grad():
        alone = plain(torch.from_numpy(waves[:1, : len(heard[0])]))["logits"][0]
    assert (logits - alone).abs().max() < 1e-4  # of the file, padded beside a longer one; of the plain model, alone
    best = max(said, key=lambda one: one["score"])
    assert best["score"] == pytest.approx(float(alone.softmax(-1).max()), abs=1e-3)
    (code,) = re.findall(r"```python\n(.*?)```", (run.folder / "export/onnx/README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(run.folder / "export/onnx")
    wav(Path("sound.wav"), tone(700, 0.37))
    exec(code, {})
    shown = [view_of(flip.shown) for flip in Scores.load(run.folder / "scores.json").flips]
    assert all(isinstance(one, Sound) for one in shown)
    page = run.report.read_text(encoding="utf-8")
    assert ("<audio" in page) == bool(shown)
    assert run.report.stat().st_size < 10e6


@pytest.mark.parametrize("kind", ["wav2vec2", "ast"])
def test_a_cache_changes_nothing(tmp_path: Path, kind: str) -> None:
    objectives = {"distill": {**QUICK["distill"], "objectives": [{"kind": "logits"}]}}
    live = stilla.distill(recipe(tmp_path, kind, **objectives, cache={"form": "none"}, output=str(tmp_path / "live")))
    kept = stilla.distill(recipe(tmp_path, kind, **objectives, cache={"form": "dense"}, output=str(tmp_path / "kept")))
    ours, theirs = (load_file(run.student / "model.safetensors") for run in (live, kept))
    # keys' biases change no attention: what their gradients hold is rounding
    apart = {name: float((ours[name] - theirs[name]).abs().max()) for name in ours if "k_proj.bias" not in name}
    assert max(apart.values()) < 1e-5, apart


def test_unlabelled_sounds_stand_beside_labelled_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(6):
        wav(tmp_path / "more" / f"{index}.wav", tone(400 + 50 * index, 0.2, seed=index + 50))
    same = Path(folders(tmp_path / "sounds")) / "test" / "low" / "0.wav"
    (tmp_path / "more" / "met.wav").write_bytes(same.read_bytes())
    run = stilla.distill(recipe(tmp_path, data={"unlabelled": str(tmp_path / "more")}))
    assert run.scores.learnt["unlabelled"] == 6  # one is measured: it stands in the test data


@pytest.mark.parametrize("student", [{"layers": 1, "lora": {"r": 2}}, {"config": {"num_hidden_layers": 1}},
                                     {"layers": 1, "width": {"ffn": 0.5}}])
def test_students_are_made_in_every_way(tmp_path: Path, student: dict[str, Any]) -> None:
    run = stilla.distill(recipe(tmp_path, student=student))
    assert np.isfinite(run.scores.student.quality["test"]["accuracy"].value)


def test_a_check_says_what_will_be_heard(tmp_path: Path) -> None:
    found = check(from_options({**recipe(tmp_path, "ast"), "data": {"train": folders(tmp_path / "sounds"), "window": 3}}))
    assert any("data.window: got 3 seconds, and a model hears 0.655 at most" in problem for problem in found.problems)
    assert RATE == 4000


@pytest.mark.parametrize("kind", ["w2v-bert", "sew", "whisper"])
def test_a_file_hears_sounds_of_any_length_as_its_model_does(tmp_path: Path, kind: str) -> None:
    """Whisper's spectrograms are all of one."""
    place = folders(tmp_path / "sounds")
    for number in (1, 2, 3):
        wav(Path(place) / f"train/low/long{number}.wav", tone(300, 0.29 * number))
    split = data.load(AudioClassificationData(train=place), seed=0)["train"]
    task = AudioClassification.understand(AudioClassificationData(train="x"), {"train": split})
    made = task.load(ModelSource(model=folder(tmp_path / "m", kind)), labelled=True)
    prepared = task.prepare(split, made.processor, None, training=False)
    onnx.write(made.model, task, prepared, tmp_path / "model.onnx")
    file, whole, lengths = OnnxModel(tmp_path / "model.onnx"), graphs.ready(made.model), set()
    for one in range(len(prepared)):
        batch = dict(prepared.collate([prepared.examples[one], prepared.examples[0]]).student)
        lengths.add(next(iter(batch.values())).shape[1])
        with torch.no_grad():
            torch.testing.assert_close(file(batch), task.outputs(whole(**batch)), rtol=1e-4, atol=1e-4)
    assert (len(lengths) > 2) is (kind != "whisper")
