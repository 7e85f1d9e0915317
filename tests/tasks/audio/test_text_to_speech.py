"""Texts that are spoken, from files to signals: what is learnt of a sound, and what is refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset
from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    SpeechT5ForTextToSpeech,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

from stilla import data
from stilla.errors import CompatibilityError, DataError
from stilla.objectives import find
from stilla.recipe import ModelSource, StudentSpec
from stilla.signals import Batch, Side, Signals
from stilla.students import by_layers
from stilla.tasks.answers import Answers
from stilla.tasks.audio.listening import listener
from stilla.tasks.audio.sections import TextToSpeechData, TextToSpeechEvaluate
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.spoken import Right
from stilla.tasks.audio.spoken_exam import FrameExam, Said, SpokenExam
from stilla.tasks.audio.text_to_speech import TextToSpeech
from stilla.tasks.audio.waves import vocoder
from stilla.tasks.base import Loaded
from stilla.teachers import LiveTeacher
from tests.tasks.audio import speakers, talkers
from tests.tasks.audio.setting import RATE, soundfile, tone, wav
from tests.tasks.audio.speakers import spoken


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("talkers")
    talkers.folder(place / "teacher")
    talkers.ljspeech(place / "lj", 8)
    return place


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Loaded:
    return bound(folder)[0].load(ModelSource(model=str(folder / "teacher")), labelled=True)


def bound(folder: Path, **section: Any) -> tuple[TextToSpeech, Dataset]:
    said = TextToSpeechData(**{"train": str(folder / "lj"), **section})
    rows = data.sources.read(said.train, document="sound")["train"]
    return TextToSpeech.understand(said, {"train": rows}), rows


def table(folder: Path, rows: list[dict[str, Any]]) -> Dataset:
    """Rows in memory, as any other reader gives them."""
    for number, row in enumerate(rows):
        path = wav(folder / f"{number}.wav", row.pop("samples", tone(500, 0.3)))
        row["audio"] = {"path": str(path), "bytes": None}
    return Dataset.from_list(rows).cast_column("audio", Audio(decode=False))


def understood(folder: Path, rows: list[dict[str, Any]], **section: Any) -> tuple[TextToSpeech, Dataset]:
    made = table(folder, rows)
    return TextToSpeech.understand(TextToSpeechData(train="made", **section), {"train": made}), made


# --- data ---


def test_ljspeech_is_read_as_it_is_unpacked_and_what_is_spoken_is_its_text_in_words(folder: Path) -> None:
    task, rows = bound(folder)
    assert (task.audio, task.text) == ("audio", "text")
    assert rows.column_names == ["audio", "text", "written", "id"]
    assert rows[0]["written"] == rows[0]["text"].upper()
    assert rows[0]["id"] == "LJ001-0000"


def test_a_teacher_says_the_text_that_its_student_says(folder: Path) -> None:
    task, split = bound(folder)
    assert task.taught_from({}, {"train": split}) is task
    with pytest.raises(CompatibilityError, match=r"teacher\.data: both models of `text-to-speech` say the same text"):
        task.taught_from({"text": ("text",)}, {"train": split})


@pytest.mark.parametrize(("line", "words"), [
    ("LJ001-0000|a|b|c|d", "line 1: has 5 columns"), ("LJ001-0000|a\nLJ009|b", "line 2: names 'LJ009'.*no wavs/LJ009.wav")])
def test_a_line_of_ljspeech_that_is_none_is_refused_by_its_number(tmp_path: Path, line: str, words: str) -> None:
    wav(tmp_path / "wavs" / "LJ001-0000.wav", tone(500, 0.2))
    (tmp_path / "metadata.csv").write_text(line)
    with pytest.raises(DataError, match=words):
        data.sources.read(str(tmp_path), document="sound")


def test_a_metadata_file_with_a_header_beside_wavs_is_still_one(tmp_path: Path) -> None:
    wav(tmp_path / "wavs" / "a.wav", tone(500, 0.2))
    (tmp_path / "metadata.csv").write_text("file_name,text\nwavs/a.wav,abc\n")
    rows = data.sources.read(str(tmp_path), document="sound")["train"]
    assert rows[0]["text"] == "abc"


def test_frames_are_the_feature_extractors_and_the_decoder_reads_those_before(folder: Path, teacher: Loaded) -> None:
    task, rows = bound(folder)
    prepared = task.prepare(rows, teacher.processor, teacher.processor, training=True)
    batch = prepared.collate([0, 1])
    made = AutoFeatureExtractor.from_pretrained(folder / "teacher")
    for row in (0, 1):
        samples, _ = soundfile.read(folder / "lj" / "wavs" / f"LJ001-000{row}.wav", dtype="float32")
        frames = made(audio_target=samples, sampling_rate=RATE)["input_values"][0]
        own = batch["labels"][row][batch["labels"][row, :, 0] != -100]
        assert np.array_equal(own[:, :-1].numpy(), frames)
        assert own[:, -1].tolist() == [0.0] * (len(frames) - 1) + [1.0]
        steps = -(-len(frames) // 2)  # no frame of an odd number of them is lost
        assert int(batch.student["decoder_attention_mask"][row].sum()) == steps
        read = batch.student["decoder_input_values"][row, :steps].numpy()
        assert not read[0].any()
        assert np.array_equal(read[1:], frames[1::2][: steps - 1])
        assert prepared.lengths is not None
        assert prepared.lengths[row] == len(frames)
    assert batch.teacher is batch.student
    assert task.counts(batch)["rows"] == int((batch["labels"][..., 0] != -100).sum())


def test_other_rates_and_channels_are_brought_to_the_models(tmp_path: Path, teacher: Loaded) -> None:
    stereo = np.stack([tone(500, 0.3, rate=8000)] * 2, 1)
    wav(tmp_path / "other.wav", stereo, 8000)
    rows = table(tmp_path, [{"text": "ab"}])
    rows = rows.map(lambda row: {"audio": {"path": str(tmp_path / "other.wav"), "bytes": None}}, features=rows.features)
    task = TextToSpeech.understand(TextToSpeechData(train="made"), {"train": rows})
    batch = task.prepare(rows, teacher.processor, None, training=True).collate([0])
    assert batch["labels"].shape[1] == 1 + round(0.3 * RATE) // teacher.processor.hop


@pytest.mark.parametrize(("rows", "section", "words"), [
    ([{"text": "abc"}, {"text": " "}], {}, "null or empty in 1 of 2"),
    ([{"text": "ab" * 30}], {}, r"more tokens than the 40 that a model has places for"),
    ([{"text": "ab", "samples": tone(500, 3.0)}], {}, "more frames than the 120 that a decoder has places for"),
    ([{"text": "ab", "samples": tone(500, 1.2)}], {"window": 1}, r"longer than 1 seconds \(data.window\)"),
    ([{"transcript": "a", "sentence": "b"}], {}, "which column is what is said"),
])
def test_what_cannot_be_spoken_is_refused_by_name(
    tmp_path: Path, teacher: Loaded, rows: list[dict[str, Any]], section: dict[str, Any], words: str
) -> None:
    def prepared() -> None:
        task, made = understood(tmp_path, [dict(one) for one in rows], **section)
        task.prepare(made, teacher.processor, None, training=True)

    with pytest.raises(DataError, match=words):
        prepared()


def test_what_is_too_long_is_left_out_where_the_recipe_says_so(tmp_path: Path, teacher: Loaded) -> None:
    task, rows = understood(tmp_path, [{"text": "ab" * 30}, {"text": "ab"}], broken="skip")
    assert task.prepare(rows, teacher.processor, None, training=True).keys.tolist() == [1]


@pytest.mark.parametrize(("rate", "samples"), [(RATE, 256_256), (3 * RATE, 3838), (3 * RATE, 3840), (RATE, 5)])
def test_frames_are_counted_of_a_sound_as_its_spectrogram_has_them(teacher: Loaded, rate: int, samples: int) -> None:
    wave = Wave(np.zeros(samples, np.float32), rate)
    assert teacher.processor.frames_in(wave.seconds) == len(teacher.processor.spectrogram(wave))


def test_characters_without_a_token_are_told(tmp_path: Path, teacher: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    task, rows = understood(tmp_path, [{"text": "ab 7"}, {"text": "ab"}])
    with caplog.at_level(logging.WARNING):
        task.prepare(rows, teacher.processor, None, training=True)
    assert "1 of 2 texts have pieces that the tokenizer has no token for ('7')" in caplog.text


# --- voices ---


VECTOR = [1.0, 2.0, -1.0, 0.5]


def test_a_voice_is_a_column_a_file_by_name_one_for_all_or_zeros(tmp_path: Path, teacher: Loaded) -> None:
    rows = [{"text": "ab", "speaker": "anna", "x": VECTOR}, {"text": "c", "speaker": "ben", "x": VECTOR[::-1]}]
    np.savez(tmp_path / "known.npz", anna=VECTOR, ben=VECTOR[::-1])
    np.save(tmp_path / "one.npy", np.array(VECTOR))
    for section, expected in (
        ({"speaker": "x"}, [VECTOR, VECTOR[::-1]]), ({}, [[0.0] * 4] * 2),
        ({"speaker": "speaker", "speakers": str(tmp_path / "known.npz")}, [VECTOR, VECTOR[::-1]]),
        ({"speakers": str(tmp_path / "one.npy")}, [VECTOR] * 2),
    ):
        task, made = understood(tmp_path, [dict(one) for one in rows], **section)
        batch = task.prepare(made, teacher.processor, None, training=True).collate([0, 1])
        assert batch.student["speaker_embeddings"].tolist() == expected


@pytest.mark.parametrize(("section", "words"), [
    ({"speaker": "speaker"}, r"holds names.*data.speakers: a file .npz"),
    ({"speaker": "speaker", "speakers": "known.npz"}, r"1 speakers have no vector in data.speakers: 'ben'"),
    ({"speaker": "absent"}, "no column"),
    ({"speaker": "odd"}, "have 1 and 4 numbers"),
    ({"speakers": "gone.npy"}, "no such file"),
    ({"speakers": "bad.npy"}, "expected vectors of finite numbers"),
])
def test_a_voice_that_is_none_is_refused(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "known.npz", anna=VECTOR)
    np.save(tmp_path / "bad.npy", np.full(4, np.nan))
    section = {**section, **({"speakers": str(tmp_path / section["speakers"])} if "speakers" in section else {})}
    rows = [{"text": "ab", "speaker": "anna", "odd": VECTOR}, {"text": "c", "speaker": "ben", "odd": [1.0]}]
    with pytest.raises(DataError, match=words):
        understood(tmp_path, rows, **section)


def test_voices_of_another_width_than_the_models_are_refused(tmp_path: Path, teacher: Loaded) -> None:
    task, rows = understood(tmp_path, [{"text": "ab", "x": [1.0, 2.0]}], speaker="x")
    with pytest.raises(DataError, match="voices have 2 numbers, and a model takes 4"):
        task.prepare(rows, teacher.processor, None, training=True)


@pytest.mark.parametrize(("section", "words"), [
    ({"speakers": "x.json"}, "expected a file .npz"), ({"speakers": "x.npy", "speaker": "who"}, "one voice for all"),
    ({"speakers": "x.npz"}, "has to name the column")])
def test_a_file_of_voices_that_fits_no_column_is_refused_in_the_recipe(section: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TextToSpeechData(train="x", **section)  # type: ignore[arg-type]


# --- signals ---


def both(folder: Path, teacher: Loaded, **changes: Any) -> tuple[TextToSpeech, Any, Any]:
    task, rows = bound(folder)
    task = task.adapted_to(teacher)
    return task, task.prepare(rows, teacher.processor, teacher.processor, training=True), teacher


def test_what_is_stored_of_a_teacher_is_read_back_as_it_said_it(folder: Path, teacher: Loaded) -> None:
    task, prepared, _ = both(folder, teacher)
    batch = prepared.collate([0, 1, 2])
    live = LiveTeacher(teacher.model, task)(batch)
    stored = task.remembered(live, batch)
    assert live.speech is not None
    assert stored.logits is not None
    assert stored.logits.logits.shape == (task.counts(batch)["rows"], task.teacher_classes())  # type: ignore[union-attr]
    _, back = task.align(Signals(), stored, batch)
    assert back.speech is not None
    for name in ("before", "after", "stop"):
        assert torch.equal(getattr(back.speech, name), getattr(live.speech, name))


def test_a_teachers_answer_is_known_by_text_voice_and_sound_whatever_stands_beside_it(folder: Path, teacher: Loaded) -> None:
    task, prepared, _ = both(folder, teacher)
    together = task.segments(prepared.collate([0, 3, 5]))
    apart = [task.segments(prepared.collate([one]))[0] for one in (0, 3, 5)]
    assert [one.content for one in together] == [one.content for one in apart]
    assert len({one.content for one in together}) == 3
    sizes = [one.rows.stop - one.rows.start for one in apart]
    assert [one.rows.start for one in together] == [0, sizes[0], sum(sizes[:2])]


def test_a_student_with_other_tokens_and_steps_learns_the_same_frames(tmp_path: Path, folder: Path, teacher: Loaded) -> None:
    talkers.talker(reduction_factor=3, speaker_embedding_dim=6).save_pretrained(tmp_path)
    talkers.tokenizer("edcba").save_pretrained(tmp_path)
    talkers.extractor().save_pretrained(tmp_path)
    task, rows = bound(folder)
    student = task.load(ModelSource(model=str(tmp_path)), labelled=False)
    prepared = task.prepare(rows, student.processor, teacher.processor, training=True)
    batch = prepared.collate([0, 1])
    assert not prepared.aligned
    assert not task.alike(student.processor, teacher.processor)
    assert task.comparable(student.processor, teacher.processor)
    said = [task.signals(one.model(**batch[side]), batch, side)
            for one, side in ((student, Side.STUDENT), (teacher, Side.TEACHER))]
    assert {len(one.speech.stop) for one in said if one.speech} == {task.counts(batch)["rows"]}
    assert find("frames")().total(said[0], said[1], 0.0).item() > 0  # type: ignore[operator]


def test_other_spectrograms_cannot_be_compared(tmp_path: Path, folder: Path, teacher: Loaded) -> None:
    talkers.talker().save_pretrained(tmp_path)
    talkers.tokenizer().save_pretrained(tmp_path)
    talkers.extractor(hop_length=32).save_pretrained(tmp_path)
    task, rows = bound(folder)
    student = task.load(ModelSource(model=str(tmp_path)), labelled=False)
    with pytest.raises(CompatibilityError, match=r"make other spectrograms.*hop"):
        task.prepare(rows, student.processor, teacher.processor, training=True)


@pytest.mark.parametrize(("changes", "config", "words"), [
    ({"num_mel_bins": 20}, {}, "makes 20 mel bins, and the model speaks in 12"),
    ({}, {"speech_decoder_prenet_dropout": 0.0}, "lets nothing of earlier frames through")])
def test_a_model_that_does_not_fit_its_files_is_refused(
    tmp_path: Path, folder: Path, changes: dict[str, Any], config: dict[str, Any], words: str
) -> None:
    talkers.talker(**config).save_pretrained(tmp_path)
    talkers.tokenizer().save_pretrained(tmp_path)
    talkers.extractor(**changes).save_pretrained(tmp_path)
    with pytest.raises(CompatibilityError, match=words.replace("the model", "the.*model")):
        bound(folder)[0].load(ModelSource(model=str(tmp_path)), labelled=True)


def test_a_recognisers_checkpoint_cannot_speak_yet(tmp_path: Path, folder: Path) -> None:
    whole = talkers.talker()
    state = {name: value for name, value in whole.state_dict().items() if "feat_out" not in name}
    whole.save_pretrained(tmp_path, state_dict=state)
    talkers.tokenizer().save_pretrained(tmp_path)
    talkers.extractor().save_pretrained(tmp_path)
    with pytest.raises(CompatibilityError, match=r"has not learnt to speak: its checkpoint lacks.*feat_out"):
        bound(folder)[0].load(ModelSource(model=str(tmp_path)), labelled=True)


def test_a_students_config_cannot_change_what_its_frames_are(folder: Path, teacher: Loaded) -> None:
    task, _ = bound(folder)
    with pytest.raises(CompatibilityError, match=r"student\.config\.num_mel_bins"):
        task.started(teacher.model, StudentSpec(config={"num_mel_bins": 40}))


def test_a_step_of_other_length_comes_with_the_student(folder: Path, teacher: Loaded) -> None:
    task, _ = bound(folder)
    model: Any = SpeechT5ForTextToSpeech(talkers.talker(reduction_factor=4).config)
    assert task.seeing(replace(teacher, model=model), StudentSpec(config={"reduction_factor": 4})).processor.reduction == 4


@pytest.mark.slow
def test_what_is_handed_over_is_read_by_transformers(tmp_path: Path, teacher: Loaded) -> None:
    student = by_layers(teacher.model, 1)
    student.model.save_pretrained(tmp_path)
    teacher.processor.save_pretrained(tmp_path)
    model = SpeechT5ForTextToSpeech.from_pretrained(tmp_path)
    tokens = AutoTokenizer.from_pretrained(tmp_path)("ab cd", return_tensors="pt")
    spoken = model.generate_speech(tokens["input_ids"], torch.zeros(1, 4), maxlenratio=2.0)
    assert spoken.shape[1] == AutoFeatureExtractor.from_pretrained(tmp_path).num_mel_bins


# --- exams ---


def test_next_frames_are_judged_by_their_distance_and_their_ends() -> None:
    right = Right(np.array([[0, 1, 0], [2, 3, 0], [4, 5, 1]], np.float32), "abc")
    said = np.array([[0, 1, -1], [2, 5, 2], [5, 5, 1]], np.float32)
    error, stops = FrameExam().metrics()
    assert error.compute([said], [right]) == pytest.approx((2 + 1) / 6)
    assert stops.compute([said], [right]) == pytest.approx(2 / 3)
    assert not error.higher_is_better
    assert error.compute([right.frames], [right]) == 0


def test_what_is_spoken_is_judged_whatever_its_pace_and_its_length_beside(folder: Path, teacher: Loaded) -> None:
    task, _ = bound(folder)
    exam, frames = task.adapted_to(teacher).exams(evaluate())
    assert isinstance(exam, SpokenExam)
    assert isinstance(frames, FrameExam)
    distance, length = exam.metrics()
    right = Right(np.random.default_rng(0).normal(size=(6, 13)).astype(np.float32), "abc")
    slow = np.repeat(right.frames[:, :-1], 2, 0)
    assert distance.compute([Said(slow)], [right]) == pytest.approx(0, abs=1e-4)
    assert length.compute([Said(slow)], [right]) == 1
    assert length.compute([Said(right.frames[:, :-1])], [right]) == 0


def evaluate(**said: Any) -> TextToSpeechEvaluate:
    return TextToSpeechEvaluate(**said)


def test_speaking_is_left_out_where_the_recipe_says_so(folder: Path, teacher: Loaded) -> None:
    task, _ = bound(folder)
    assert [type(one) for one in task.adapted_to(teacher).exams(evaluate(speaking=False))] == [FrameExam]


@pytest.mark.slow
def test_what_is_spoken_of_a_batch_is_what_is_spoken_of_each_alone(folder: Path, teacher: Loaded) -> None:
    task, prepared, _ = both(folder, teacher)
    exam = task.exams(evaluate(longest=0.5))[0]
    assert isinstance(exam, SpokenExam)
    torch.nn.init.constant_(teacher.model.speech_decoder_postnet.prob_out.bias, -20.0)  # type: ignore[union-attr, arg-type]
    together = exam.ask(teacher.model, prepared.collate([0, 1, 2]), Side.STUDENT)
    assert len({len(one) for one in together}) > 1
    for row, one in enumerate(together):
        alone = exam.ask(teacher.model, prepared.collate([row]), Side.STUDENT)[0]
        torch.testing.assert_close(one, alone, atol=1e-4, rtol=1e-4)
        frames = int((prepared.collate([row])["labels"][..., 0] != -100).sum())
        assert len(one) == pytest.approx(0.5 * frames + 0.5 * RATE / teacher.processor.hop, abs=2)


def test_a_person_hears_the_data_and_every_model(folder: Path, teacher: Loaded) -> None:
    task, rows = bound(folder)
    exam = task.adapted_to(teacher).exams(evaluate())[0]
    mels = teacher.processor.spectrogram(Wave(spoken("abc"), RATE))
    said = Answers(np.array([2]), [Said(mels)], [mels])
    view: Any = exam.view(rows, {"teacher": said, "student": said}, 0, 0)
    assert view.text == rows[2]["text"]
    assert list(view.said) == ["right", "teacher", "student"]
    assert all(one.startswith("data:audio/") for one in view.said.values())


def test_what_a_recogniser_hears_of_what_is_spoken_is_measured_in_characters(
    tmp_path: Path, folder: Path, teacher: Loaded
) -> None:
    name = speakers.folder(tmp_path / "recogniser")
    task, _ = bound(folder)
    exam = task.adapted_to(teacher).exams(evaluate(recogniser=name))[0]
    assert isinstance(exam, SpokenExam)
    assert [one.name for one in exam.metrics()] == ["mcd", "duration_error", "cer"]
    own = Wave(spoken("abcab"), RATE)
    mels = teacher.processor.spectrogram(own)
    (said,) = exam.given([torch.from_numpy(mels)], Batch(), None)
    assert said.heard == listener(name, "evaluate.recogniser")([exam.wave(mels)])[0]
    cer = exam.metrics()[2]
    right = Right(mels, "abcab")
    assert cer.compute([said._replace(heard="abab"), said._replace(heard="abcab")], [right, right]) == pytest.approx(0.1)
    assert cer.compute([Said(mels, "")], [right]) == 1


def test_what_a_recogniser_hears_is_what_it_hears_in_its_own_task(tmp_path: Path) -> None:
    name = speakers.folder(tmp_path / "recogniser")
    waves = [Wave(spoken(text, seed=len(text)), RATE) for text in ("abc", "de")]
    together = listener(name, "evaluate.recogniser")(waves)
    assert together == [listener(name, "evaluate.recogniser")([one])[0] for one in waves]
    assert any(together)
    talkers.folder(tmp_path / "talker")
    with pytest.raises(CompatibilityError, match=r"evaluate\.recogniser: .*no tokenizer|evaluate\.recogniser: .*CTC"):
        listener(str(tmp_path / "talker"), "evaluate.recogniser")


def test_a_vocoder_makes_the_waves_where_one_is_named(tmp_path: Path, folder: Path, teacher: Loaded) -> None:
    made = SpeechT5HifiGan(SpeechT5HifiGanConfig(
        model_in_dim=12, sampling_rate=RATE, upsample_initial_channel=8, upsample_rates=(4, 4), upsample_kernel_sizes=(8, 8),
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),)))
    made.save_pretrained(tmp_path / "vocoder")
    task, _ = bound(folder)
    exam = task.adapted_to(teacher).exams(evaluate(vocoder=str(tmp_path / "vocoder")))[0]
    assert isinstance(exam, SpokenExam)
    mels = np.random.default_rng(0).normal(size=(9, 12)).astype(np.float32)
    wave = exam.wave(mels)
    with torch.no_grad():
        expected = made.eval()(torch.from_numpy(mels)).numpy()
    assert (wave.rate, len(wave.samples)) == (RATE, 9 * 16)
    np.testing.assert_allclose(wave.samples, expected, atol=1e-6)
    with pytest.raises(DataError, match=r"evaluate\.vocoder.*takes 12 mel bins, and the models speak in 20"):
        vocoder(str(tmp_path / "vocoder"), 20, RATE, "evaluate.vocoder")


@pytest.mark.parametrize("field", ["recogniser", "vocoder"])
def test_what_is_measured_by_and_is_not_there_is_missed_before_any_training(
    folder: Path, teacher: Loaded, field: str
) -> None:
    task, _ = bound(folder)
    with pytest.raises(CompatibilityError, match=rf"evaluate\.{field}.*no such folder"):
        task.adapted_to(teacher).exams(evaluate(**{field: "./gone"}))
