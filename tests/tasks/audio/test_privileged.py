"""Teachers that hear other sounds than their students: the same, clean, near or longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset

import stilla
from stilla.errors import DataError
from stilla.recipe import ModelSource, StudentSpec
from stilla.signals import Dense, Side
from stilla.tasks.audio.audio_classification import AudioClassification
from stilla.tasks.audio.dictation import Dictation
from stilla.tasks.audio.sections import AudioClassificationData, SpeechRecognitionData
from stilla.tasks.audio.sounds import Sounds
from stilla.tasks.audio.speech_recognition import SpeechRecognition
from stilla.tasks.base import Loaded
from stilla.tasks.forward import listen
from tests.tasks.audio import speakers, writers
from tests.tasks.audio.setting import PITCHES, RATE, folder, tone, wav
from tests.tasks.caches import _own_cache  # noqa: F401

CLEAN = {"audio": ("clean",)}
TEXTS = ("abc", "de", "cab e", "bad")


def noisy(samples: np.ndarray, seed: int = 0) -> np.ndarray:
    return (samples + 0.3 * np.random.default_rng(seed).standard_normal(len(samples))).astype(np.float32)


def table(place: Path, clean: list[np.ndarray], own: list[np.ndarray] | None = None, **columns: list[Any]) -> Dataset:
    """Sounds and the clean ones, of which the others are made by noise."""
    own = [noisy(one, number) for number, one in enumerate(clean)] if own is None else own
    files = {name: [{"path": str(wav(place / f"{name}{number}.wav", one)), "bytes": None} for number, one in enumerate(some)]
             for name, some in (("audio", own), ("clean", clean))}
    made = Dataset.from_dict({**files, **columns})
    for name in files:
        made = made.cast_column(name, Audio(decode=False))
    return made


def alike(split: Dataset) -> Dataset:
    """With the student's own sounds as the clean ones."""
    return split.remove_columns("clean").add_column("clean", split["audio"][:]).cast_column("clean", Audio(decode=False))


def tones(place: Path, seconds: tuple[float, ...] = (0.2, 0.3, 0.25), **more: Any) -> Dataset:
    kinds = [list(PITCHES)[number % 3] for number in range(len(seconds))]
    return table(place, [tone(PITCHES[kind], long) for kind, long in zip(kinds, seconds)], label=kinds, **more)


def classes(split: Dataset, **said: Any) -> AudioClassification:
    asked = AudioClassificationData.model_validate({"train": "x", "audio": "audio", "label": "label", **said})
    return AudioClassification.understand(asked, {"train": split}).taught_from(CLEAN, {"train": split})


def recognisers(split: Dataset, model: str, **said: Any) -> tuple[Any, Loaded]:
    asked = SpeechRecognitionData.model_validate({"train": "x", "audio": "audio", "text": "text", **said})
    task = SpeechRecognition.understand(asked, {"train": split}).taught_from(CLEAN, {"train": split})
    task = task.settled(ModelSource(model=model), StudentSpec(layers=1))
    made = task.load(ModelSource(model=model), labelled=True)
    return task.adapted_to(made), made


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> str:
    return speakers.folder(tmp_path_factory.mktemp("frames"), norm="layer")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    return writers.folder(tmp_path_factory.mktemp("whisper"))


def said_by(task: Any, model: Any, batch: Any, side: Side) -> Any:
    with torch.no_grad():
        found = listen(model.eval(), task, batch, side).logits
    return found.logits if isinstance(found, Dense) else found.dense().logits


def test_a_teacher_hears_its_own_sounds_and_a_student_its_own(tmp_path: Path) -> None:
    split = tones(tmp_path / "d")
    task = classes(split, augment="none")
    made = task.load(ModelSource(model=folder(tmp_path / "m")), labelled=True)
    prepared = task.prepare(split, made.processor, made.processor, training=True)
    batch = prepared.collate(range(3))
    assert not prepared.aligned
    alone = task.of_teacher().prepare(split, made.processor, None, training=False).collate(range(3))
    plain = task.prepare(split, made.processor, None, training=False).collate(range(3))
    for mine, other in ((batch.teacher, alone.student), (batch.student, plain.student)):
        torch.testing.assert_close(mine["input_values"], other["input_values"])
    assert not torch.equal(batch.student["input_values"], batch.teacher["input_values"])
    # a teacher that is the student, and hears the same, has nothing to teach
    same = alike(split)
    both = classes(same).prepare(same, made.processor, made.processor, training=True).collate(range(3))
    torch.testing.assert_close(both.student["input_values"], both.teacher["input_values"])


def test_changes_at_random_are_the_same_for_both(tmp_path: Path) -> None:
    split = tones(tmp_path / "d")
    same = alike(split)
    made = classes(same).load(ModelSource(model=folder(tmp_path / "m")), labelled=True)
    fresh = classes(same, augment="light").prepare(same, made.processor, made.processor, training=True, seed=3)
    batch = fresh.collate([1, 2])
    torch.testing.assert_close(batch.student["input_values"], batch.teacher["input_values"])
    plain = classes(same).prepare(same, made.processor, None, training=True, seed=3).collate([1, 2])
    assert not torch.allclose(batch.student["input_values"], plain.student["input_values"], atol=1e-3)


def test_windows_of_long_sounds_are_the_same_moments(tmp_path: Path) -> None:
    split = tones(tmp_path / "d", (0.2, 0.9, 0.25))
    task = classes(split, window=0.3)
    made = task.load(ModelSource(model=folder(tmp_path / "m")), labelled=True)
    prepared = task.prepare(split, made.processor, made.processor, training=True)
    assert prepared.keys.tolist() == [0, 1, 1, 1, 2]
    batch = prepared.collate([3])
    clean = Sounds.of(split, "clean").wave(1).part(0.6, 0.3).samples
    torch.testing.assert_close(batch.teacher["input_values"][0],
                               torch.from_numpy((clean - clean.mean()) / np.sqrt(clean.var() + 1e-7)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("broken", ["refuse", "skip"])
def test_sounds_without_the_same_moments_are_refused_or_left_out(tmp_path: Path, broken: str) -> None:
    clean = [tone(300, long) for long in (0.5, 0.9, 0.25)]
    split = table(tmp_path / "d", clean, [noisy(tone(300, long)) for long in (0.2, 0.7, 0.25)], label=["low", "mid", "high"])
    made = classes(split).load(ModelSource(model=folder(tmp_path / "m")), labelled=True)
    longer = classes(split).prepare(split, made.processor, made.processor, training=True)  # a teacher may hear more
    assert longer.keys.tolist() == [0, 1, 2]
    assert longer.collate([0]).teacher["input_values"].shape[1] == round(0.5 * RATE)
    task = classes(split, window=0.6, broken=broken)
    if broken == "skip":
        assert task.prepare(split, made.processor, made.processor, training=True).keys.tolist() == [0, 2]
        return
    with pytest.raises(DataError, match=r"1 of 3 examples: each .* longer than the 0\.6 seconds that .*row 1"):
        task.prepare(split, made.processor, made.processor, training=True)


@pytest.mark.slow
def test_frames_of_a_recogniser_are_of_the_same_moments(tmp_path: Path, frames: str) -> None:
    clean = [speakers.spoken(text, seed=number) for number, text in enumerate(TEXTS)]
    split = table(tmp_path / "d", clean, text=list(TEXTS))
    task, made = recognisers(split, frames)
    assert type(task) is SpeechRecognition
    batch = task.prepare(split, made.processor, made.processor, training=True).collate(range(4))
    torch.testing.assert_close(batch["frames"]["student"], batch["frames"]["teacher"])
    alone = task.of_teacher().prepare(split, made.processor, None, training=False).collate(range(4))
    torch.testing.assert_close(said_by(task, made.model, batch, Side.TEACHER),
                               said_by(task, made.model, alone, Side.STUDENT))
    other = table(tmp_path / "o", clean, [noisy(clean[0]), np.tile(noisy(clean[1]), 3), *map(noisy, clean[2:])],
                  text=list(TEXTS))
    task, made = recognisers(other, frames)
    with pytest.raises(DataError, match=r"1 of 4 examples: each lasts otherwise than its teacher's sound.*row 1"):
        task.prepare(other, made.processor, made.processor, training=True)
    task, made = recognisers(other, frames, broken="skip")
    assert task.prepare(other, made.processor, made.processor, training=True).keys.tolist() == [0, 2, 3]


def test_a_teacher_that_writes_hears_its_own_sounds(tmp_path: Path, whisper: str) -> None:
    clean = [speakers.spoken(text, seed=number) for number, text in enumerate(TEXTS)]
    own = [noisy(one[: len(one) - 40 * number]) for number, one in enumerate(clean)]  # tokens need not last alike
    split = table(tmp_path / "d", clean, own, text=list(TEXTS))
    task, made = recognisers(split, whisper, language="en")
    assert isinstance(task, Dictation)
    prepared = task.prepare(split, made.processor, made.processor, training=True)
    assert not prepared.aligned
    batch = prepared.collate(range(4))
    alone = task.of_teacher().prepare(split, made.processor, None, training=True).collate(range(4))
    for name, values in alone.student.items():
        torch.testing.assert_close(batch.teacher[name], values)
    assert not torch.allclose(batch.student["input_features"], batch.teacher["input_features"])
    # what it is stored by is what it heard, and what it writes of a sound is written of its own
    assert [one.content for one in task.segments(batch)] == [one.content for one in task.of_teacher().segments(alone)]
    asked = task.teaching().asked(split, made.processor).tokens.batch([0, 1])
    torch.testing.assert_close(asked["input_features"], alone.student["input_features"][:2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classes", "frames", "writes"])
def test_sounds_that_one_of_both_cannot_hear_are_refused_or_left_out_for_both(
    tmp_path: Path, kind: str, frames: str, whisper: str
) -> None:
    clean = [speakers.spoken(text, seed=number) for number, text in enumerate(TEXTS)]
    split = table(tmp_path / "d", clean, text=list(TEXTS), label=["low", "mid", "high", "low"])
    (tmp_path / "d/clean1.wav").write_bytes(b"no sound")
    told = {"language": "en"} if kind == "writes" else {}
    model = {"classes": lambda: folder(tmp_path / "m"), "frames": lambda: frames, "writes": lambda: whisper}[kind]()

    def made(**said: Any) -> tuple[Any, Loaded]:
        if kind == "classes":
            task = classes(split, **said)
            return task, task.load(ModelSource(model=model), labelled=True)
        return recognisers(split, model, **said)

    with pytest.raises(DataError, match=r"data\.train: 1 of 4 sounds cannot be read: row 1"):
        made(**told)
    task, loaded = made(broken="skip", **told)
    for one, teacher in ((task, loaded.processor), (task, None), (task.of_teacher(), None)):
        assert one.prepare(split, loaded.processor, teacher, training=True).keys.tolist() == [0, 2, 3]
    assert len(task.usable(split)) == 3


@pytest.mark.parametrize(("told", "words"), [
    ({"audio": ("label",)}, "'label' is the label"), ({"audio": ("cleaner",)}, "there is no column 'cleaner'.*Did you mean"),
    ({"text": ("clean",)}, "got 'text'; expected audio"), ({"audio": ("audio", "clean")}, "got 2 columns of sounds")])
def test_what_no_teacher_can_hear_is_refused(tmp_path: Path, told: Any, words: str) -> None:
    split = tones(tmp_path / "d")
    with pytest.raises(DataError, match=words):
        classes(split).taught_from(told, {"train": split})
    assert classes(split).taught_from({"audio": ("audio",)}, {"train": split}).teachers == ""


def test_unlabelled_sounds_need_both(tmp_path: Path, frames: str, whisper: str) -> None:
    split = tones(tmp_path / "d", text=["abc", "de", "cab"])
    for task in (classes(split), recognisers(split, frames)[0], recognisers(split, whisper, language="en")[0]):
        assert {"audio", "clean"} < set(task.beside(split).column_names)
        assert task.unlabelled(split, {}).column_names == ["audio", "clean"]
        with pytest.raises(DataError, match="which column is 'clean'"):
            task.unlabelled(split.remove_columns(["clean"]), {})


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "cache"), [("classes", "dense"), ("frames", "dense"), ("writes", "none")])
def test_a_run_whose_teacher_learns_and_answers_by_clean_sounds(
    tmp_path: Path, kind: str, cache: str, frames: str, whisper: str
) -> None:
    texts = [TEXTS[number % 4] for number in range(12)]
    clean = [speakers.spoken(text, seed=number) for number, text in enumerate(texts)]
    names = {"text": texts, "label": [list(PITCHES)[number % 3] for number in range(12)]}
    paths = {}
    for place, count in (("train", 12), ("test", 6)):
        split = table(tmp_path / place, clean[:count], **{name: some[:count] for name, some in names.items()})
        paths[place] = str(tmp_path / f"{place}.parquet")
        read = [{name: {"bytes": Path(one["path"]).read_bytes(), "path": None} if name in ("audio", "clean") else one
                 for name, one in row.items()} for row in split]
        Dataset.from_list(read).cast(split.features).to_parquet(paths[place])
    model = {"classes": lambda: folder(tmp_path / "m"), "frames": lambda: frames, "writes": lambda: whisper}[kind]()
    said: dict[str, Any] = {"classes": {"label": "label"}, "frames": {"text": "text"},
                            "writes": {"text": "text", "language": "en"}}[kind]
    run = stilla.distill({
        "task": "audio-classification" if kind == "classes" else "speech-recognition",
        "teacher": {"model": model, "data": {"audio": "clean"}, "train": {"max_steps": 3, "precision": "float32"}},
        "student": {"layers": 1}, "cache": cache, "data": {**paths, "audio": "audio", **said}, "allow_weak_teacher": True,
        "distill": {"max_steps": 4, "batch_size": 4, "precision": "float32"}, "output": str(tmp_path / "run"),
        "evaluate": {"resamples": 100, "speed": False}})
    assert set(run.scores.subjects) == {"teacher", "student"}
    again = stilla.evaluate_run(run.folder, paths["test"])
    name = "accuracy" if kind == "classes" else "cer"
    for subject in ("teacher", "student"):
        assert again.subjects[subject].quality[again.split][name].value == pytest.approx(
            run.scores.subjects[subject].quality["test"][name].value)
