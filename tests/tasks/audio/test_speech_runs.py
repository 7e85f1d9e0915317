"""Whole runs of recognisers: files, report, a cache, unlabelled speech; what a check says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCTC, pipeline

import stilla
from stilla.check import check
from stilla.export import OnnxModel
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.views import Sound, view_of
from tests.tasks.audio.setting import RATE, soundfile, wav
from tests.tasks.audio.speakers import folder, spoken, utterances

pytestmark = pytest.mark.slow

QUICK: dict[str, Any] = {"distill": {"max_steps": 8, "batch_size": 4, "precision": "float32", "learning_rate": 1e-3},
                         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def recipe(place: Path, norm: str = "group", **changes: Any) -> dict[str, Any]:
    return {"task": "speech-recognition", "teacher": folder(place / "teacher", norm=norm), "student": {"layers": 1},
            "output": str(place / "run"), **QUICK, **changes,
            "data": {"train": utterances(place / "speech"), **changes.get("data", {})}}


def test_a_recogniser_learns_is_exported_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = {"model": folder(tmp_path / "teacher", norm="layer"),
               "train": {"max_steps": 60, "batch_size": 6, "learning_rate": 5e-3, "precision": "float32", "dropout": 0.0}}
    ask = recipe(tmp_path, teacher=trained, export=["onnx"], evaluate={**QUICK["evaluate"], "baseline": True})
    run = stilla.distill({**ask, "distill": {**QUICK["distill"], "max_steps": 30}})
    assert (run.scores.metric, run.scores.split) == ("wer", "test")
    assert set(run.scores.subjects) == {"teacher", "student", "baseline", "onnx"}
    assert run.scores.subjects["onnx"].quality["test"]["cer"].value == run.scores.student.quality["test"]["cer"].value
    clip = spoken("ab c", seed=3)
    hears = pipeline("automatic-speech-recognition", str(run.student))
    heard = hears(soundfile.read(wav(tmp_path / "clip.wav", clip), dtype="float32")[0])["text"]
    plain = AutoModelForCTC.from_pretrained(run.student)
    wave = torch.from_numpy((clip - clip.mean()) / np.sqrt(clip.var() + 1e-7))[None]
    with torch.no_grad():
        logits = plain(wave)["logits"]
    assert heard == hears.tokenizer.decode(logits.argmax(-1)[0])
    file = OnnxModel(run.folder / "export/onnx/model.onnx")
    mask = torch.ones(wave.shape, dtype=torch.long)
    assert (file({"input_values": wave, "attention_mask": mask}) - logits).abs().max() < 1e-4
    monkeypatch.chdir(run.folder / "export/onnx")
    wav(Path("sound.wav"), clip)
    (program,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    printed: list[Any] = []
    exec(program, {"print": printed.append})
    assert printed == [[heard]]
    shown = [view_of(flip.shown) for flip in Scores.load(run.folder / "scores.json").flips]
    assert all(isinstance(one, Sound) and set(one.texts) == {"right", "teacher", "student"} for one in shown)
    page = run.report.read_text(encoding="utf-8")
    assert ("<audio" in page) == bool(shown)
    assert run.report.stat().st_size < 10e6
    assert RATE == 4000


def test_a_cache_changes_nothing(tmp_path: Path) -> None:
    runs = [stilla.distill(recipe(tmp_path, cache={"form": form}, output=str(tmp_path / form))) for form in ("none", "dense")]
    stilla.distill(recipe(tmp_path, cache={"form": "top_k", "k": 3}, output=str(tmp_path / "few")))
    ours, theirs = (load_file(run.student / "model.safetensors") for run in runs)
    # keys' biases change no attention: what their gradients hold is rounding
    apart = {name: float((ours[name] - theirs[name]).abs().max()) for name in ours if "k_proj.bias" not in name}
    assert max(apart.values()) < 2e-5, apart


def test_unlabelled_speech_stands_beside_labelled_and_alone(tmp_path: Path) -> None:
    for index in range(4):
        wav(tmp_path / "more" / f"{index}.wav", spoken("abcde"[: index + 1] * 3, seed=index + 50))
    run = stilla.distill(recipe(tmp_path, data={"unlabelled": str(tmp_path / "more"), "window": 0.7, "broken": "skip"}))
    assert run.scores.learnt["unlabelled"] >= 4
    alone = recipe(tmp_path, output=str(tmp_path / "alone"))
    data = {"train": None, "unlabelled": str(tmp_path / "more"), "validation": f"{alone['data']['train']}/validation"}
    run = stilla.distill({**alone, "data": data})
    assert np.isfinite(run.scores.student.quality["validation"]["cer"].value)


def test_adapters_and_fresh_students_learn_too(tmp_path: Path) -> None:
    for student in ({"layers": 1, "lora": {"r": 2}}, {"config": {"num_hidden_layers": 1}}):
        run = stilla.distill(recipe(tmp_path, student=student, output=str(tmp_path / str(len(student)))))
        assert np.isfinite(run.scores.student.quality["test"]["cer"].value)


def test_what_makes_no_sense_is_said_before_a_run(tmp_path: Path) -> None:
    found = check(from_options(recipe(tmp_path)))
    assert not found.problems, found.problems
    assert any("ctc × 0.5" in note and "logits × 0.5" in note for note in found.notes)
    other = folder(tmp_path / "other", conv_stride=(5, 4, 2))
    for changes, words in (
        ({"student": {"model": other}}, "make other frames of a sound"),
        ({"distill": {**QUICK["distill"], "objectives": [{"kind": "labels"}]}}, "the number of labelled, which this task"),
        ({"distill": {**QUICK["distill"], "objectives": [{"kind": "ctc"}, {"kind": "maps"}]}},
         r"\(maps\): compares what is seen at each place of a picture, and these examples are no pictures"),
    ):
        found = check(from_options(recipe(tmp_path, **changes)))
        assert any(re.search(words, one) for one in found.problems), (words, found.problems)
