"""Sounds by class: columns, windows, both sides of a batch, answers, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import average_precision_score
from torch import nn
from transformers import AutoModelForAudioClassification

from stilla import data
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate.asking import Asked, examine
from stilla.models.features import hidden_sizes
from stilla.models.stacks import find_stacks
from stilla.recipe import ModelSource, StudentSpec
from stilla.signals import Side
from stilla.students import by_layers
from stilla.tasks import of_model
from stilla.tasks.answers import Answers
from stilla.tasks.audio.audio_classification import AudioClassification, SoundExam
from stilla.tasks.audio.sections import AudioClassificationData
from stilla.tasks.base import Loaded, Task
from stilla.tasks.forward import listen
from stilla.tasks.shared.labels import Problem
from stilla.tasks.shared.metrics import average_precision
from stilla.views import Sound, plain, view_of
from tests.tasks.audio.setting import LABELS, PITCHES, RATE, folder, folders, model, tone, wav


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def understood(place: str, **section: Any) -> tuple[AudioClassification, dict[str, Dataset]]:
    told = AudioClassificationData(train=place, **section)
    splits = data.load(told, seed=0)
    return AudioClassification.understand(told, splits), splits


def loaded(task: Task, place: str) -> Loaded:
    return task.load(ModelSource(model=place), labelled=True)


def test_folders_of_classes_become_rows_of_their_model(tmp_path: Path) -> None:
    task, splits = understood(folders(tmp_path / "d"))
    made = loaded(task, folder(tmp_path / "m"))
    task = task.adapted_to(made)
    assert task.class_names() == tuple(PITCHES)
    assert task.resolved(AudioClassificationData(train="x")).audio == "audio"
    prepared = task.prepare(splits["train"], made.processor, made.processor, training=True)
    batch = prepared.collate([0, 1, 2])
    assert batch.teacher is batch.student
    said = listen(made.model, task, batch, Side.STUDENT)
    assert said.logits is not None
    assert len(said.logits) == task.counts(batch)["rows"] == 3
    names = splits["train"].features["label"].names
    assert [task.class_names()[one] for one in batch.labels.tolist()] == [names[row["label"]] for row in
                                                                          splits["train"].select(range(3))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wav2vec2", "ast", "whisper"])
def test_hidden_states_are_of_the_frames_that_are_not_padding(tmp_path: Path, kind: str) -> None:
    task, splits = understood(folders(tmp_path / "d", 6))
    made = loaded(task, folder(tmp_path / "m", kind))
    batch = task.adapted_to(made).prepare(splits["train"], made.processor, None, training=False).collate(range(6))
    mask = task.mask(batch, Side.STUDENT)
    assert (mask is None) == (kind != "wav2vec2")
    if mask is not None:
        assert task.counts(batch)["tokens"] == int(mask.sum()) < mask.numel()
    assert [width for _, width in hidden_sizes(made.model, find_stacks(made.model))["layers"]] == [16] * 3


@pytest.mark.slow
def test_a_long_sound_is_answered_by_the_mean_of_its_windows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "d"
    for split in ("train", "validation"):
        for kind, pitch in PITCHES.items():
            wav(place / split / kind / "long.wav", tone(pitch, 1.4))
            wav(place / split / kind / "short.wav", tone(pitch, 0.4))
    task, splits = understood(str(place))
    made = loaded(task, folder(tmp_path / "m", "ast"))
    task = task.adapted_to(made)
    with caplog.at_level(logging.INFO):
        prepared = task.prepare(splits["validation"], made.processor, None, training=False)
    assert "6 sounds are heard in 12 windows; their answer is the mean of their windows'" in caplog.text
    assert sum(prepared.seconds) == pytest.approx(3 * (1.4 + 0.4))  # no second of an overlap is heard twice
    answers = examine(task.exam(), {"student": Asked(made.model)}, prepared, batch_size=5)["student"]
    assert answers.keys.tolist() == list(range(6))
    with torch.no_grad():
        each = [made.model(**prepared.collate([one]).student)["logits"][0].numpy() for one in range(12)]
    expected = [np.mean([said for said, key in zip(each, prepared.keys) if key == row], 0) for row in range(6)]
    np.testing.assert_allclose(answers.given, expected, atol=1e-5)


@pytest.mark.slow
def test_two_models_that_hear_otherwise_hear_the_same_moments(tmp_path: Path) -> None:
    task, splits = understood(folders(tmp_path / "d", 6, rate=8000))
    teacher, student = loaded(task, folder(tmp_path / "t", "ast")), loaded(task, folder(tmp_path / "s"))
    task = task.adapted_to(teacher)
    prepared = task.prepare(splits["train"], student.processor, teacher.processor, training=True)
    batch = prepared.collate([2, 5])
    assert batch.student["input_values"].dim() == 2
    assert batch.teacher["input_values"].shape == (2, 64, 32)
    assert not prepared.aligned
    alone = task.prepare(splits["train"], teacher.processor, None, training=True).collate([2, 5])
    torch.testing.assert_close(alone.student["input_values"], batch.teacher["input_values"])


@pytest.mark.slow
def test_changes_at_random_are_the_same_for_both_models_and_after_a_resume(tmp_path: Path) -> None:
    task, splits = understood(folders(tmp_path / "d", 6), augment="light")
    one, other = loaded(task, folder(tmp_path / "t")), loaded(task, folder(tmp_path / "s", norm="group"))
    prepared = task.prepare(splits["train"], one.processor, other.processor, training=True, seed=3)
    assert prepared.on_epoch is not None
    first = prepared.collate([1])
    there = first.student["attention_mask"].bool()
    torch.testing.assert_close(first.student["input_values"][there], first.teacher["input_values"][there], rtol=0, atol=0)
    prepared.on_epoch(1)
    second = prepared.collate([1])
    assert (first.student["input_values"] - second.student["input_values"]).abs().max() > 0.01
    again = task.prepare(splits["train"], one.processor, other.processor, training=True, seed=3)
    assert again.on_epoch is not None
    again.on_epoch(1)
    again.collate([4])
    torch.testing.assert_close(again.collate([1]).student["input_values"], second.student["input_values"], rtol=0, atol=0)
    assert task.prepare(splits["train"], one.processor, None, training=False).on_epoch is None


def test_rates_channels_and_silence_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "d"
    for split in ("train", "validation"):
        for kind, pitch in PITCHES.items():
            wav(place / split / kind / "a.wav", tone(pitch, 0.3, 8000), 8000)
            wav(place / split / kind / "b.wav", np.stack([tone(pitch, 0.3)] * 2, 1))
    wav(place / "train" / "low" / "c.wav", np.zeros(900))
    with caplog.at_level(logging.INFO):
        task, splits = understood(str(place))
        made = loaded(task, folder(tmp_path / "m"))
        task.prepare(splits["train"], made.processor, None, training=True)
    assert "data.train: sounds of several rates (4 of 4,000 Hz and 3 of 8,000 Hz)" in caplog.text
    assert "data.train: 3 of 7 sounds have several channels; heard is their mean" in caplog.text
    assert "data.train: 1 of 7 sounds are silent, first row" in caplog.text
    assert "3 of 7 sounds are resampled from 8,000 to 4,000 Hz" in caplog.text


@pytest.mark.slow
def test_broken_sounds_are_refused_by_name_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = folders(tmp_path / "d")
    (Path(place) / "train" / "low" / "x.wav").write_text("nothing")
    with pytest.raises(DataError, match=r"data\.train: 1 of 10 sounds cannot be read: row \d+ \(.*x\.wav\): not a sound"):
        understood(place)
    task, splits = understood(place, broken="skip")
    made = loaded(task, folder(tmp_path / "m"))
    assert "left out: row" in caplog.text
    prepared = task.prepare(splits["train"], made.processor, None, training=True)
    assert len(prepared) == 9
    assert len(prepared.collate(list(range(9))).labels) == 9


def test_sounds_that_are_named_and_not_there_are_refused_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Path(folders(tmp_path / "d")) / "train"
    names = sorted(str(path.relative_to(place)) for path in place.rglob("*.wav"))
    lines = [f"{name},{name.partition('/')[0]}" for name in [*names, "gone.wav"]]
    lines[-1] = lines[-1].replace(",gone.wav", ",low")
    (place / "metadata.csv").write_text("\n".join(["file_name,label", *lines]) + "\n")
    with pytest.raises(DataError, match=r"1 of \d+ sounds cannot be read: row \d+ \(.*gone\.wav\): there is no such file"):
        understood(str(place), validation=None, test=None)
    understood(str(place), validation=None, test=None, broken="skip")
    assert "left out: row" in caplog.text


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"text": ["a"], "label": ["x"]})
    with pytest.raises(DataError, match=r"data\.audio: which column is the sound\? no column holds sounds"):
        AudioClassification.understand(AudioClassificationData(train="x"), {"train": rows})
    task, _ = understood(folders(tmp_path / "d"))
    with pytest.raises(CompatibilityError, match=r"student\.config\.conv_stride: changes how the student hears"):
        task.started(model(), StudentSpec(config={"conv_stride": [5, 4, 2]}))


def test_mean_average_precision_is_scikit_learns_and_skips_labels_that_nobody_has() -> None:
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(40, 4)).round(1), (draw.random((40, 4)) < 0.3).astype(int)
    labels[:, 2] = 0
    expected = np.mean([average_precision_score(labels[:, one], logits[:, one]) for one in (0, 1, 3)])
    metric = average_precision()
    assert metric.compute(logits, labels) == pytest.approx(expected, abs=1e-12)
    counts = draw.integers(0, 4, 40)
    again = np.mean([average_precision_score(np.repeat(labels[:, one], counts), np.repeat(logits[:, one], counts))
                     for one in (0, 1, 3)])
    assert metric.from_list is not None
    assert metric.from_list(metric.statistics(logits, labels), counts) == pytest.approx(again, abs=1e-12)
    assert np.isnan(metric.compute(logits, np.zeros_like(labels)))
    holes = labels.copy()
    holes[::3, 0] = -100
    kept = holes[:, 0] != -100
    first = average_precision_score(labels[kept, 0], logits[kept, 0])
    others = [average_precision_score(labels[:, one], logits[:, one]) for one in (1, 3)]
    assert metric.compute(logits, holes) == pytest.approx(np.mean([first, *others]), abs=1e-12)
    exam = SoundExam(Problem("list", ("label",), ("a", "b")), lambda split, key: Sound(""))
    assert exam.metrics()[0].name == "mean_average_precision"


def test_a_sound_is_shown_with_a_player(tmp_path: Path) -> None:
    task, splits = understood(folders(tmp_path / "d", 3))
    answers = Answers(np.array([2]), np.zeros((1, 3)), np.zeros(1, np.int64))
    view = task.exam().view(splits["validation"], {"teacher": answers}, 0, 0)
    assert isinstance(view, Sound)
    assert view.uri.startswith("data:audio/")
    assert view_of(plain(view)) == view


@pytest.mark.slow
def test_a_student_cut_by_layers_hears_as_its_teacher_and_is_a_plain_folder(tmp_path: Path) -> None:
    task, splits = understood(folders(tmp_path / "d", 6))
    made = loaded(task, folder(tmp_path / "m", norm="group"))
    student = task.started(by_layers(made.model, 1).model, StudentSpec(layers=1))
    batch = task.adapted_to(made).prepare(splits["train"], made.processor, None, training=False).collate(range(6))
    with torch.no_grad():
        said = student(**batch.student)["logits"]
        student.save_pretrained(tmp_path / "s")
        made.processor.save_pretrained(tmp_path / "s")
        again = AutoModelForAudioClassification.from_pretrained(tmp_path / "s")
        mask = batch.student["attention_mask"].bool()
        alone = torch.cat([again(batch.student["input_values"][row, mask[row]][None])["logits"] for row in range(6)])
    assert (said - alone).abs().max() < 1e-5


@pytest.mark.slow
def test_the_task_of_a_model_that_hears_is_known_by_its_class() -> None:
    assert isinstance(of_model(model()), AudioClassification)
    assert isinstance(of_model(model("ast")), AudioClassification)
    assert of_model(model()).class_names() == tuple(LABELS["id2label"].values())


class Own(nn.Module):
    """Loudness by quarters of the wave, for a module of a person's own."""

    def __init__(self, num_labels: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(1, num_labels)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        return self.head(input_values.abs().mean(1, keepdim=True))


def test_a_model_of_ones_own_hears_waves_without_marks(tmp_path: Path) -> None:
    task, splits = understood(folders(tmp_path / "d", 6))
    folder(tmp_path / "m")
    source = ModelSource(model="tests.tasks.audio.test_audio_classification:Own", processor=str(tmp_path / "m"))
    made = task.load(source, labelled=False)
    prepared = task.prepare(splits["train"], made.processor, None, training=True)
    assert torch.isfinite(made.model(**prepared.collate([0, 1]).student)["logits"]).all()
    assert made.processor.rate == RATE
