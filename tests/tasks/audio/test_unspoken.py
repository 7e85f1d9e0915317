"""Texts that nobody has spoken: the teacher does, and its frames and durations are what is learnt of them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import stilla
from stilla import data
from stilla.check import check
from stilla.data.unlabelled import joined
from stilla.errors import CompatibilityError, DataError
from stilla.recipe import ModelSource
from stilla.recipe.file import from_options
from stilla.tasks.audio import talking
from stilla.tasks.audio.sections import TextToSpeechData
from stilla.tasks.audio.sounds import Sounds
from stilla.tasks.audio.text_to_speech import TextToSpeech
from stilla.tasks.base import Loaded
from tests.tasks.audio import reciters, speakers, talkers
from tests.tasks.audio.speakers import spoken
from tests.tasks.audio.test_text_to_speech import VECTOR, table

TEXTS = ("abc", "de ab")
MORE = ("ba", "c d e", "edcb")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("unspoken")
    reciters.folder(place / "at once")
    talkers.folder(place / "step by step")
    return place


def understood(place: Path, more: dict[str, list[Any]] | None = None, **section: Any) -> tuple[TextToSpeech, Dataset]:
    made = table(place / "sounds", [
        {"text": text, "samples": spoken(text, seed=row), **{name: column[row] for name, column in (more or {}).items()}}
        for row, text in enumerate(TEXTS)])
    return TextToSpeech.understand(TextToSpeechData(train="made", **section), {"train": made}), made


def loaded(task: TextToSpeech, folder: Path, name: str, *, ends: bool = True) -> Loaded:
    """`ends`: whether a model that goes step by step ever does."""
    teacher = task.load(ModelSource(model=str(folder / name)), labelled=True)
    if name == "step by step":
        net: Any = teacher.model.speech_decoder_postnet
        torch.manual_seed(2)
        torch.nn.init.normal_(net.prob_out.weight, 0.0, 3.0 if ends else 0.0)
        torch.nn.init.constant_(net.prob_out.bias, -12.0)
    return teacher


def pool(task: TextToSpeech, texts: tuple[str, ...] = MORE, **columns: list[Any]) -> Dataset:
    return task.unlabelled(Dataset.from_dict({"text": list(texts), **columns}), {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["at once", "step by step"])
def test_what_is_learnt_of_a_text_without_a_sound_is_what_the_teacher_speaks(
    tmp_path: Path, folder: Path, name: str
) -> None:
    task, rows = understood(tmp_path)
    teacher = loaded(task, folder, name)
    task = task.adapted_to(teacher)
    whole = joined(task.beside(rows), pool(task))
    prepared = task.prepare(whole, teacher.processor, teacher.processor, training=True)
    assert prepared.keys.tolist() == [0, 1, 2, 3, 4]
    batch = prepared.collate([0, 2, 4])
    ids = teacher.processor.tokenizer(["abc", "ba", "edcb"], padding=True, return_tensors="pt")
    told = {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"],
            **({} if name == "at once" else {"speaker_embeddings": torch.zeros(3, 4)})}
    model: Any = teacher.model
    said = talking.speak(model, told, [1000] * 3)
    labels = batch["labels"]
    for row in (1, 2):
        own = labels[row][labels[row, :, 0] != -100]
        torch.testing.assert_close(own[:, :-1], said[row], atol=1e-4, rtol=1e-4)
        assert own[:, -1].tolist() == [0.0] * (len(own) - 1) + [1.0]
        assert prepared.lengths is not None
        assert prepared.lengths[[0, 2, 4][row]] == len(own)
    frames = teacher.processor.spectrogram(Sounds.of(rows, "audio").wave(0))
    assert np.array_equal(labels[0][labels[0, :, 0] != -100][:, :-1].numpy(), frames)
    if name == "at once":
        lasting = talking.lasting(model, told, [1000] * 3)[1]
        for row in (1, 2):
            assert batch.student["durations"][row, : len(lasting[row])].tolist() == lasting[row].tolist()


def test_texts_that_are_alone_need_no_column_of_sounds(tmp_path: Path, folder: Path) -> None:
    task, _ = understood(tmp_path)
    teacher = loaded(task, folder, "at once")
    whole = joined(None, pool(task))
    assert len(task.adapted_to(teacher).prepare(whole, teacher.processor, None, training=True).keys) == len(MORE)


def test_a_teacher_speaks_a_text_once_however_often_it_is_asked(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, rows = understood(tmp_path)
    teacher = loaded(task, folder, "step by step")
    task = task.adapted_to(teacher)
    whole = joined(task.beside(rows), pool(task))
    asked = list[int]()
    speak = talking.speak

    def counted(model: Any, inputs: Any, most: Any) -> list[torch.Tensor]:
        asked.append(len(most))
        return speak(model, inputs, most)

    monkeypatch.setattr(talking, "speak", counted)
    for _ in range(2):
        task.prepare(whole, teacher.processor, teacher.processor, training=True)
    assert asked == [len(MORE)]


@pytest.mark.slow
def test_what_a_teacher_does_not_end_is_left_out_and_counted(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task, rows = understood(tmp_path)
    teacher = loaded(task, folder, "step by step", ends=False)
    task = task.adapted_to(teacher)
    whole = joined(task.beside(rows), pool(task))
    with caplog.at_level(logging.WARNING):
        assert task.prepare(whole, teacher.processor, teacher.processor, training=True).keys.tolist() == [0, 1]
    assert "3 of 3 unlabelled texts left out: the teacher does not end them" in caplog.text
    with pytest.raises(DataError, match="nothing left to speak"):
        task.prepare(joined(None, pool(task)), teacher.processor, None, training=True)


def test_a_text_with_more_tokens_than_places_is_refused_before_it_is_spoken(tmp_path: Path, folder: Path) -> None:
    task, _ = understood(tmp_path)
    teacher = loaded(task, folder, "step by step")
    with pytest.raises(DataError, match="more tokens than the 40"):
        task.adapted_to(teacher).prepare(
            joined(None, pool(task, ("ab" * 30, "ab"))), teacher.processor, None, training=True)


@pytest.mark.slow
def test_what_a_recogniser_hears_otherwise_is_left_out_of_what_the_teacher_speaks(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = speakers.folder(tmp_path / "recogniser")
    task, rows = understood(tmp_path, recogniser=name, max_cer=0.1)
    teacher = loaded(task, folder, "at once")
    task = task.adapted_to(teacher)
    heard = iter([["ba", "wrong", "edcb"], ["abc", "de ab"]])
    monkeypatch.setattr("stilla.tasks.audio.telling.listener", lambda *_: lambda waves: next(heard))
    whole = joined(task.beside(rows), pool(task))
    assert task.prepare(whole, teacher.processor, teacher.processor, training=True).keys.tolist() == [0, 1, 2, 4]


def test_a_teacher_without_durations_cannot_say_how_long_tokens_of_new_texts_last(tmp_path: Path, folder: Path) -> None:
    given = {"lasting": [[30, 1, 1, 1], [30, 1, 1, 1, 1, 1]]}
    task, _ = understood(tmp_path, given, durations="lasting")
    teacher = loaded(task, folder, "step by step")
    student = loaded(task, folder, "at once")
    for bound in (task.adapted_to(teacher), task.adapted_to(teacher).sketched()):
        with pytest.raises(CompatibilityError, match=r"data\.unlabelled: .*SpeechT5.*how long each token"):
            bound.prepare(joined(None, pool(task)), student.processor, teacher.processor, training=True)


def test_whose_voice_a_text_is_spoken_in_stands_beside_it(tmp_path: Path, folder: Path) -> None:
    task, rows = understood(tmp_path, {"x": [VECTOR, VECTOR]}, speaker="x")
    teacher = loaded(task, folder, "step by step")
    task = task.adapted_to(teacher)
    with pytest.raises(DataError, match=r"data\.unlabelled.*no column 'x'.*data\.unlabelled\.columns"):
        pool(task)
    more = pool(task, x=[VECTOR[::-1]] * 3)
    batch = task.prepare(joined(task.beside(rows), more), teacher.processor, None, training=True).collate([0, 2])
    assert batch.student["speaker_embeddings"].tolist() == [VECTOR, VECTOR[::-1]]
    renamed = task.unlabelled(Dataset.from_dict({"line": list(MORE), "who": [VECTOR] * 3}), {"text": "line", "x": "who"})
    assert renamed["text"] == list(MORE)
    assert renamed["x"] == [VECTOR] * 3


def test_empty_texts_are_refused_or_left_out_and_texts_are_known_again(tmp_path: Path) -> None:
    task, rows = understood(tmp_path)
    with pytest.raises(DataError, match=r"data\.unlabelled: 'text' is null or empty in 1 of 2"):
        task.usable(pool(task, ("ab", " ")))
    skipping = replace(task, section=task.section.model_copy(update={"broken": "skip"}))
    assert skipping.usable(pool(task, ("ab", " ")))["text"] == ["ab"]
    assert [*task.traces(rows)] == [(text,) for text in TEXTS]


def test_a_file_of_lines_is_texts(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("ab\ncd\n")
    asked: dict[str, Any] = {"train": "x", "unlabelled": str(tmp_path / "more.txt")}
    section = TextToSpeechData(**asked)
    (found,) = data.load_unlabelled(section, seed=0).values()
    assert found["text"] == ["ab", "cd"]


@pytest.mark.slow
def test_a_run_learns_from_texts_beside_sounds_and_from_texts_alone(tmp_path: Path) -> None:
    lines = [f"{a}{b} {a}" for a in "abcde" for b in "abcde"]
    (tmp_path / "more.txt").write_text("\n".join(lines) + "\n")
    asked: dict[str, Any] = {
        "task": "text-to-speech", "student": {"layers": 1}, "teacher": reciters.folder(tmp_path / "teacher"),
        "data": {"train": talkers.ljspeech(tmp_path / "lj", 20), "unlabelled": str(tmp_path / "more.txt")},
        "output": str(tmp_path / "run"), "allow_weak_teacher": True, "cache": {"form": "dense"},
        "distill": {"max_steps": 2, "batch_size": 8, "unlabelled": 0.5},
        "evaluate": {"baseline": True, "resamples": 100, "speed": False, "speaking": False}}
    found = check(from_options(asked))
    assert not found.problems, found.problems
    run = stilla.distill(**asked)
    assert run.scores.learnt["unlabelled"] == 8
    given = {**asked, "data": {"unlabelled": asked["data"]["unlabelled"], "validation": talkers.ljspeech(tmp_path / "v", 6)},
             "output": str(tmp_path / "alone"), "distill": {"max_steps": 2, "batch_size": 8},
             "evaluate": {**asked["evaluate"], "baseline": False}}
    found = check(from_options(given))
    assert not found.problems, found.problems
    assert any("spectrogram × 0.5" in one for one in found.notes), found.notes
    run = stilla.distill(**given)
    assert run.scores.learnt["unlabelled"] == 16
