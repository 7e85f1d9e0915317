"""Texts that are spoken all at once, from files to signals: durations of the data or of a teacher, and what is refused."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    FastSpeech2ConformerHifiGan,
    FastSpeech2ConformerHifiGanConfig,
    FastSpeech2ConformerWithHifiGan,
    FastSpeech2ConformerWithHifiGanConfig,
)

from stilla.errors import CompatibilityError, DataError
from stilla.objectives import Frames, Spectrogram
from stilla.recipe import ModelSource, StudentSpec, Teacher
from stilla.recipe.models import TeacherTraining
from stilla.signals import Prosody, Side, Signals, Speech
from stilla.tasks.answers import Answers
from stilla.tasks.audio import telling
from stilla.tasks.audio.durations import along, evenly
from stilla.tasks.audio.sections import TextToSpeechData, TextToSpeechEvaluate
from stilla.tasks.audio.spoken_exam import FrameExam, SpokenExam
from stilla.tasks.audio.text_to_speech import TextToSpeech
from stilla.tasks.audio.waves import vocoder
from stilla.tasks.base import Loaded
from stilla.teachers import LiveTeacher
from tests.tasks.audio import reciters, talkers
from tests.tasks.audio.setting import RATE
from tests.tasks.audio.speakers import spoken
from tests.tasks.audio.test_text_to_speech import table

TEXTS = ("abc", "de ab", "c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reciters")
    reciters.folder(place / "at once")
    talkers.folder(place / "step by step")
    return place


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Loaded:
    return loaded(folder / "at once")


def loaded(place: Path, *, labelled: bool = True) -> Loaded:
    task, _ = understood(place.parent)
    return task.load(ModelSource(model=str(place)), labelled=labelled)


def understood(place: Path, more: dict[str, list[Any]] | None = None, **section: Any) -> tuple[TextToSpeech, Dataset]:
    made = table(place / "sounds", [
        {"text": text, "samples": spoken(text, seed=row), **{name: column[row] for name, column in (more or {}).items()}}
        for row, text in enumerate(TEXTS)])
    return TextToSpeech.understand(TextToSpeechData(train="made", **section), {"train": made}), made


def frames_of(teacher: Loaded, row: int) -> int:
    return int(teacher.processor.frames_in(len(spoken(TEXTS[row], seed=row)) / RATE))


def given(teacher: Loaded, **changes: list[int] | None) -> list[Any]:
    """Durations of every text: one frame of every token, the rest of the first."""
    found: list[Any] = [[frames_of(teacher, row) - len(text), *[1] * len(text)] for row, text in enumerate(TEXTS)]
    for row, one in changes.items():
        found[int(row[1:])] = one
    return found


# --- durations ---


def test_durations_lie_along_a_sound_as_a_models_own_speech_of_it_does() -> None:
    draw = np.random.default_rng(0)
    phones = draw.normal(0, 3, (4, 12))
    said, slow = np.array([3, 5, 0, 2]), np.array([7, 4, 0, 9])
    mels, right = (np.repeat(phones, one, 0) + draw.normal(0, 0.05, (one.sum(), 12)) for one in (said, slow))
    assert along(mels, said, right).tolist() == slow.tolist()
    assert along(mels, said, mels).tolist() == said.tolist()
    assert along(mels, said, right[:1]).sum() == 1


@pytest.mark.slow
def test_a_teacher_says_how_long_tokens_last_in_the_datas_own_sounds(folder: Path, teacher: Loaded) -> None:
    task, rows = understood(folder)
    task = task.adapted_to(teacher)
    prepared = task.prepare(rows, teacher.processor, teacher.processor, training=True)
    batch = prepared.collate([0, 1, 2])
    durations = batch.student["durations"]
    assert durations.sum(1).tolist() == (batch["labels"][..., 0] != -100).sum(1).tolist()
    assert not durations[batch.student["attention_mask"] == 0].any()
    assert task.teller is not None
    assert len(task.teller.known) == 3
    again = task.prepare(rows, teacher.processor, None, training=False).collate([0, 1, 2])  # not asked again
    assert torch.equal(again.student["durations"], durations)
    assert len(task.teller.known) == 3


def test_durations_of_a_column_are_learnt_as_they_are(folder: Path, teacher: Loaded) -> None:
    said = given(teacher)
    task, rows = understood(folder, {"frames": said}, durations="frames")
    batch = task.prepare(rows, teacher.processor, None, training=True).collate([0, 1])
    assert batch.student["durations"][0, : len(said[0])].tolist() == said[0]
    made = task.signals(teacher.model(**batch.student), batch, Side.STUDENT).speech
    assert made is not None
    assert made.stop is None
    assert made.prosody is not None
    tokens, frames = len(TEXTS[0]) + 1, sum(said[0])
    first = slice(0, frames)
    assert made.prosody.share[first].tolist() == pytest.approx([frames / tokens] * tokens + [0.0] * (frames - tokens))
    assert made.prosody.given[:tokens].tolist() == pytest.approx(np.log1p(said[0]).tolist())
    assert made.prosody.share.sum().item() == pytest.approx(len(made.after))


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "words"), [
    ({"t1": [3, 4]}, r"not one for each of its tokens, or do not add up.*\(in one, 2 add up to 7, of 6 tokens"),
    ({"t0": [1, 1, 1, 1]}, "4 add up to 4, of 4 tokens"), ({"t2": None}, "1 of 3 examples")])
def test_durations_that_do_not_fit_are_refused_or_left_out(
    folder: Path, teacher: Loaded, changes: dict[str, Any], words: str
) -> None:
    column = {"frames": given(teacher, **changes)}
    task, rows = understood(folder, column, durations="frames")
    with pytest.raises(DataError, match=words):
        task.prepare(rows, teacher.processor, None, training=True)
    task, rows = understood(folder, column, durations="frames", broken="skip")
    assert len(task.prepare(rows, teacher.processor, None, training=True).keys) == 2


def test_without_anybody_who_knows_durations_nothing_is_learnt(folder: Path, teacher: Loaded) -> None:
    task, rows = understood(folder)
    with pytest.raises(CompatibilityError, match=r"data\.durations.*forced aligner.*without train:"):
        task.prepare(rows, teacher.processor, None, training=True)
    with pytest.raises(CompatibilityError, match=r"data\.durations: a SpeechT5 says frame after frame.*no proof"):
        task.adapted_to(loaded(folder / "step by step")).prepare(rows, teacher.processor, None, training=True)
    with pytest.raises(DataError, match=r"data\.durations.*lists of whole numbers"):
        understood(folder, durations="text")


def test_that_nobody_will_know_durations_is_said_before_any_training(folder: Path) -> None:
    at_once, steps = (str(folder / name) for name in ("at once", "step by step"))
    task, _ = understood(folder)
    for teacher, student, words in (
        (Teacher(model=at_once, train=TeacherTraining()), StudentSpec(layers=1), "no teacher that has learnt to speak"),
        (Teacher(model=steps), StudentSpec(model=at_once), "a SpeechT5 says frame after frame")):
        with pytest.raises(CompatibilityError, match=words):
            task.settled(teacher, student)
    assert task.settled(Teacher(model=at_once), StudentSpec(layers=1)) is task
    told, _ = understood(folder, {"frames": [[1]] * 3}, durations="frames")
    assert told.settled(Teacher(model=steps), StudentSpec(model=at_once)) is told


def test_a_sketch_asks_no_teacher(folder: Path, teacher: Loaded) -> None:
    task, rows = understood(folder)
    batch = task.adapted_to(teacher).sketched().prepare(rows, teacher.processor, None, training=True).collate([0])
    assert batch.student["durations"][0].tolist() == evenly(len(TEXTS[0]) + 1, frames_of(teacher, 0)).tolist()


def test_tokens_have_to_be_the_teachers_and_none_of_them_the_first(folder: Path, teacher: Loaded) -> None:
    task, rows = understood(folder)
    other = replace(teacher.processor, tokenizer=talkers.tokenizer("edcba"))
    with pytest.raises(CompatibilityError, match="read other tokens"):
        task.adapted_to(teacher).prepare(rows, other, teacher.processor, training=True)
    with pytest.raises(CompatibilityError, match="reads others"):
        task.adapted_to(teacher).prepare(rows, other, None, training=True)
    zero = talkers.tokenizer()
    zero.backend_tokenizer.post_processor = type(zero.backend_tokenizer.post_processor)(
        single="$A <s>", special_tokens=[("<s>", 0)])
    with pytest.raises(DataError, match=r"3 of 3 texts have the token 0.*padding"):
        task.adapted_to(teacher).prepare(rows, replace(teacher.processor, tokenizer=zero), None, training=True)


# --- whose voice ---


@pytest.mark.slow
def test_speakers_and_languages_are_known_by_number_or_by_vector(folder: Path, tmp_path: Path) -> None:
    many = loaded(Path(reciters.folder(tmp_path / "many", num_speakers=3, num_languages=2)))
    task, rows = understood(folder, {"who": [2, 0, 1], "tongue": [1, 1, 0]}, speaker="who", language="tongue")
    task = task.adapted_to(many)
    batch = task.prepare(rows, many.processor, None, training=True).collate([0, 2])
    assert batch.student["speaker_ids"].tolist() == [2, 1]
    assert batch.student["lang_ids"].tolist() == [1, 0]
    with torch.no_grad():
        made = many.model(**batch.student).spectrogram
        assert not torch.allclose(made, many.model(**{**batch.student, "speaker_ids": torch.tensor([0, 0])}).spectrogram)
    vectors = loaded(Path(reciters.folder(tmp_path / "vectors", speaker_embed_dim=4)))
    task, rows = understood(folder, {"x": [[1.0, 2.0, 0.0, 1.0]] * 3}, speaker="x")
    batch = task.adapted_to(vectors).prepare(rows, vectors.processor, None, training=True).collate([1])
    assert batch.student["speaker_embedding"].tolist() == [[1.0, 2.0, 0.0, 1.0]]
    assert "speaker_ids" not in batch.student


@pytest.mark.slow
@pytest.mark.parametrize(("config", "more", "section", "words"), [
    ({"num_speakers": 3}, {}, {}, r"data\.speaker: the model knows 3 by number.*0 to 2"),
    ({"num_speakers": 3}, {"who": [0, 3, 1]}, {"speaker": "who"}, "'who' holds 3"),
    ({"num_languages": 2}, {}, {}, r"data\.language: the model knows 2 by number"),
    ({}, {"who": [0, 1, 1]}, {"speaker": "who"}, "the model has one voice"),
    ({}, {"tongue": [0, 1, 1]}, {"language": "tongue"}, "the model knows one language"),
    ({"speaker_embed_dim": 4}, {"who": [0, 1, 1]}, {"speaker": "who"}, "holds numbers of speakers.*vectors of 4")])
def test_a_voice_that_the_model_is_not_told_or_does_not_know_is_refused(
    folder: Path, teacher: Loaded, config: dict[str, int], more: dict[str, list[int]], section: dict[str, str], words: str
) -> None:
    model = reciters.reciter(**config)
    voice = type(teacher.processor).fitted(teacher.processor.tokenizer, teacher.processor.extractor, model, "here")
    task, rows = understood(folder, more, **section)
    with pytest.raises(DataError, match=words):
        task.prepare(rows, voice, None, training=True)


# --- signals ---


@pytest.mark.slow
@pytest.mark.parametrize(("student", "told"), [("at once", "step by step"), ("step by step", "at once")])
def test_either_family_learns_the_frames_of_the_other_where_durations_are_given(
    folder: Path, teacher: Loaded, student: str, told: str
) -> None:
    task, rows = understood(folder, {"frames": given(teacher)}, durations="frames")
    ours, theirs = loaded(folder / student), loaded(folder / told)
    task = task.adapted_to(theirs)
    prepared = task.prepare(rows, ours.processor, theirs.processor, training=True)
    batch = prepared.collate([0, 1, 2])
    assert not prepared.aligned
    with torch.no_grad():
        said, right = (task.signals(one.model(**batch[side]), batch, side)
                       for one, side in ((ours, Side.STUDENT), (theirs, Side.TEACHER)))
    assert said.speech is not None
    assert right.speech is not None
    assert said.speech.after.shape == right.speech.after.shape == (task.counts(batch)["rows"], 12)
    apart = sum((one - other).abs().mean(1).sum() for one, other in (
        (said.speech.after, right.speech.after), (said.speech.before, right.speech.before)))
    assert Frames().total(said, right, 0.0).item() == pytest.approx(float(apart), rel=1e-5)
    assert Spectrogram().total(said, 0.0).item() > 0


def test_what_is_stored_of_a_teacher_is_read_back_as_it_said_it(folder: Path, teacher: Loaded) -> None:
    task, rows = understood(folder)
    task = task.adapted_to(teacher)
    prepared = task.prepare(rows, teacher.processor, teacher.processor, training=True)
    batch = prepared.collate([0, 1, 2])
    live = LiveTeacher(teacher.model, task)(batch)
    stored = task.remembered(live, batch)
    assert stored.logits is not None
    assert stored.logits.logits.shape == (task.counts(batch)["rows"], task.teacher_classes())  # type: ignore[union-attr]
    _, back = task.align(Signals(), stored, batch)
    assert back.speech is not None
    assert live.speech is not None
    for name in ("before", "after"):
        assert torch.equal(getattr(back.speech, name), getattr(live.speech, name))
    for name in ("said", "given", "share"):
        assert torch.equal(getattr(back.speech.prosody, name), getattr(live.speech.prosody, name))
    apart = [task.segments(prepared.collate([one]))[0].content for one in (0, 1, 2)]
    assert [one.content for one in task.segments(batch)] == apart
    assert len({*apart}) == 3


def test_frames_are_learnt_with_what_the_teacher_thinks_of_tokens() -> None:
    draw = torch.Generator().manual_seed(0)
    mels = torch.randn(5, 3, generator=draw, dtype=torch.float64)
    ours, theirs = torch.randn(2, 5, 3, generator=draw, dtype=torch.float64)
    share, lasted = torch.tensor([1.5, 1.5, 0, 2.0, 0], dtype=torch.float64), torch.rand(5, generator=draw).double()
    said, told = (Signals(speech=Speech(mels, mels, None, prosody=Prosody(one, lasted, share))) for one in (ours, theirs))
    expected = 0.5 * float((share * (ours - theirs).square().sum(1)).sum())
    assert Frames(prosody=0.5).total(said, told, 0.0).item() == pytest.approx(expected, rel=1e-10)
    own = replace(said, labels=torch.nn.functional.pad(mels, (0, 1)))
    expected = 0.5 * float((share * (ours[:, 0] - lasted).square()).sum())
    assert Spectrogram(durations=0.5).total(own, 0.0).item() == pytest.approx(expected, rel=1e-10)


# --- exams ---


def test_such_models_are_measured_by_their_speech_and_say_no_ends(folder: Path, teacher: Loaded) -> None:
    task, rows = understood(folder)
    task = task.adapted_to(teacher)
    exam, frames = task.exams(TextToSpeechEvaluate(longest=0.5))
    assert isinstance(exam, SpokenExam)
    assert isinstance(frames, FrameExam)
    prepared = task.prepare(rows, teacher.processor, None, training=False)
    batch = prepared.collate([0, 1, 2])
    most = [int(0.5 * frames_of(teacher, row) + 0.5 * RATE / teacher.processor.hop) for row in range(3)]
    said = exam.ask(teacher.model, batch, Side.STUDENT)
    assert all(0 < len(one) <= longest for one, longest in zip(said, most, strict=True))
    with torch.no_grad():
        next_frames = frames.given(frames.ask(teacher.model, batch, Side.STUDENT), batch, None)
    answers = Answers(np.arange(3), next_frames, list(prepared.references or ()))
    assert [one.name for one in frames.metrics() if frames.concerns(one, answers)] == ["frame_error"]
    assert [np.isfinite(one.compute(answers.given, answers.references)) for one in frames.metrics()] == [True, False]


@pytest.mark.slow
def test_texts_that_a_recogniser_hears_otherwise_than_the_teacher_spoke_them_are_left_out(
    folder: Path, teacher: Loaded, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = iter(["abd", "e ab", "c"])
    monkeypatch.setattr(telling, "listener", lambda name, field: lambda waves: [next(heard) for _ in waves])
    for source in (folder / "at once", folder / "step by step"):
        teller = loaded(source)
        task, rows = understood(folder, recogniser="here", max_cer=0.25)
        task = task.adapted_to(teller)
        with caplog.at_level(logging.WARNING):
            kept = task.prepare(rows, teller.processor, None, training=True)
        assert kept.keys.tolist() == [1, 2]  # of three characters one is wrong; of five one
        assert "1 of 3 texts left out: a recogniser hears them otherwise" in caplog.text
        assert task.prepare(rows, teller.processor, None, training=False).keys.tolist() == [0, 1, 2]
        heard = iter(["abd", "e ab", "c"])
    heard = iter(["x", "x", "x"])
    task, rows = understood(folder, recogniser="here", max_cer=0.25)
    with pytest.raises(DataError, match=r"hears all 3 texts otherwise.*error rate of 1\.00"):
        task.adapted_to(teacher).prepare(rows, teacher.processor, None, training=True)


def test_a_recogniser_and_its_limit_come_together() -> None:
    with pytest.raises(ValueError, match="max_cer: needs recogniser"):
        TextToSpeechData(train="x", max_cer=0.1)
    with pytest.raises(ValueError, match="vocoder: makes waves for a recogniser"):
        TextToSpeechData(train="x", vocoder="there")


# --- files ---


@pytest.mark.slow
def test_of_a_model_with_its_vocoder_the_model_is_taught_and_the_vocoder_makes_the_waves(
    folder: Path, tmp_path: Path
) -> None:
    whole = FastSpeech2ConformerWithHifiGan(FastSpeech2ConformerWithHifiGanConfig(
        model_config=reciters.reciter().config.to_dict(), vocoder_config=FastSpeech2ConformerHifiGanConfig(
            model_in_dim=12, upsample_initial_channel=8, upsample_rates=(4, 4), upsample_kernel_sizes=(8, 8),
            resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),)).to_dict()))
    whole.model.load_state_dict(reciters.reciter().state_dict())
    whole.save_pretrained(tmp_path / "whole")
    talkers.tokenizer().save_pretrained(tmp_path / "whole")
    talkers.extractor().save_pretrained(tmp_path / "whole")
    model = understood(folder)[0].load(ModelSource(model=str(tmp_path / "whole")), labelled=True).model
    assert type(model).__name__ == "FastSpeech2ConformerModel"
    for mine, other in zip(model.state_dict().values(), reciters.reciter().state_dict().values(), strict=True):
        assert torch.equal(mine, other)
    mels = np.random.default_rng(0).normal(size=(9, 12)).astype(np.float32)
    wave = vocoder(str(tmp_path / "whole"), 12, RATE, "evaluate.vocoder")(mels)
    assert (wave.rate, len(wave.samples)) == (RATE, 9 * 16)
    alone = FastSpeech2ConformerHifiGan(whole.vocoder.config)
    alone.load_state_dict(whole.vocoder.state_dict())
    alone.save_pretrained(tmp_path / "vocoder")
    same = vocoder(str(tmp_path / "vocoder"), 12, RATE, "evaluate.vocoder")(mels)
    np.testing.assert_allclose(same.samples, wave.samples, atol=1e-6)


def test_a_tokenizer_of_phonemes_names_the_package_that_it_needs(folder: Path, tmp_path: Path) -> None:
    if find_spec("g2p_en") is not None:
        pytest.skip("g2p-en is installed")
    reciters.reciter().save_pretrained(tmp_path)
    talkers.extractor().save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"<blank>": 0, "<unk>": 1, "AA0": 2, "<sos/eos>": 3}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "FastSpeech2ConformerTokenizer"}))
    with pytest.raises(CompatibilityError, match=r"pip install g2p-en.*Any other tokenizer"):
        understood(folder)[0].load(ModelSource(model=str(tmp_path)), labelled=True)
