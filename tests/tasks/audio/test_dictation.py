"""Recognisers that write: prompts, ends, features of either side, what is left out, what a deployed folder says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import WhisperForConditionalGeneration, pipeline

from stilla import data
from stilla.data import joined
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate.generate import Decoding, generate, read_before, writer
from stilla.recipe import Completions, Generation, ModelSource, StudentSpec
from stilla.rows import row_measures
from stilla.signals import Side
from stilla.stages import completions
from stilla.stages.starting import start_student
from stilla.tasks.answers import Answers
from stilla.tasks.audio.dictation import Dictation
from stilla.tasks.audio.sections import SpeechRecognitionData
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.speech_exam import DictationExam
from stilla.tasks.audio.speech_recognition import SpeechRecognition
from stilla.tasks.base import Loaded
from stilla.tasks.forward import listen
from stilla.tasks.language.translations import CUT, prompted
from stilla.tasks.shared.transcripts import word_error_rate
from stilla.tasks.text.sequences import NO_ROW
from stilla.teachers import LiveTeacher
from stilla.views import Sound
from tests.tasks.audio import speakers, writers
from tests.tasks.audio.setting import RATE, tone, wav
from tests.tasks.caches import _own_cache  # noqa: F401


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> str:
    return speakers.utterances(tmp_path_factory.mktemp("speech"), 6)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    return writers.folder(tmp_path_factory.mktemp("whisper"))


def understood(
    place: str, teacher: str, student: StudentSpec | None = None, **section: Any
) -> tuple[Any, dict[str, Dataset]]:
    told = SpeechRecognitionData(train=place, **section)
    splits = data.load(told, seed=0)
    task = SpeechRecognition.understand(told, splits)
    return task.settled(ModelSource(model=teacher), student or StudentSpec(layers=1)), splits


def ready(place: str, teacher: str, **section: Any) -> tuple[Any, dict[str, Dataset], Loaded]:
    task, splits = understood(place, teacher, **section)
    made = task.load(ModelSource(model=teacher), labelled=True)
    return task.adapted_to(made), splits, made


Ready = tuple[Any, dict[str, Dataset], Loaded]


@pytest.fixture(scope="module")
def english(speech: str, whisper: str) -> Ready:
    return ready(speech, whisper, language="en")


@pytest.fixture(scope="module")
def moonshine(speech: str, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return ready(speech, writers.moonshine_folder(tmp_path_factory.mktemp("moonshine")))


def test_the_form_is_known_from_the_models_class(speech: str, whisper: str, tmp_path: Path) -> None:
    frames = speakers.folder(tmp_path / "frames")
    assert isinstance(understood(speech, whisper, language="en")[0], Dictation)
    assert type(understood(speech, frames)[0]) is SpeechRecognition
    with pytest.raises(CompatibilityError, match=r"has a symbol for every frame \(CTC\), and the teacher writes"):
        understood(speech, whisper, StudentSpec(model=frames))
    with pytest.raises(DataError, match=r"data\.language: is told to models that write"):
        understood(speech, frames, language="en")
    with pytest.raises(DataError, match=r"data\.frames: got 'all', and this teacher writes tokens"):
        understood(speech, whisper, frames="all")


def test_a_prompt_is_what_transformers_makes_of_language_and_task(speech: str, whisper: str) -> None:
    _, _, made = ready(speech, whisper, language="zh")
    tokenizer = writers.tokenizer()
    forced = [token for _, token in tokenizer.get_decoder_prompt_ids(language="zh", task="transcribe")]
    assert list(made.processor.prompt[1:]) == forced
    assert made.processor.prompt[0] == made.model.config.decoder_start_token_id
    assert (made.model.generation_config.language, made.model.generation_config.task) == ("<|zh|>", "transcribe")


@pytest.mark.slow
@pytest.mark.parametrize(("several", "language", "said"), [
    (True, None, "knows several languages; say which"), (True, "fr", "got 'fr'; expected one of "),
    (False, "zh", "knows English alone")])
def test_a_language_is_refused_that_a_model_does_not_know(
    speech: str, tmp_path: Path, several: bool, language: str | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        ready(speech, writers.folder(tmp_path / "w", several=several), language=language)


def test_prompts_are_read_and_not_learnt_and_ends_are(speech: str, whisper: str) -> None:
    """Whisper pads with its end: what masks labels by the padding's number loses it."""
    task, splits, made = ready(speech, whisper, language="en")
    batch = task.prepare(splits["train"], made.processor, None, training=True).collate([0, 1, 2])
    assert batch.labels is not None
    tokenizer, prompt = made.processor.tokenizer, list(made.processor.prompt)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    for text, labels, told in zip(splits["train"]["transcription"], batch.labels, batch.student["decoder_input_ids"],
                                  strict=False):
        ids = [*tokenizer(f" {text}", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        assert labels[labels != NO_ROW].tolist() == ids
        assert labels[: len(prompt) - 1].tolist() == [NO_ROW] * (len(prompt) - 1)
        assert told[: len(prompt) + len(ids) - 1].tolist() == [*prompt, *ids[:-1]]


def test_losses_are_those_of_logits_without_a_prompts_rows(english: Ready) -> None:
    task, splits, made = english
    batch = task.prepare(splits["train"], made.processor, None, training=True).collate([0, 1, 2])
    said = listen(made.model, task, batch, Side.STUDENT)
    with torch.no_grad():
        logits = made.model(**batch.student).logits[..., : task.classes]
    ours = row_measures(task.alone(said, batch).logits, said.labels).nll.sum()
    expected = F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=NO_ROW, reduction="sum")
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["english", "moonshine"])
def test_a_batch_has_no_influence_on_what_one_sound_is_answered(kind: str, request: pytest.FixtureRequest) -> None:
    """Moonshine normalises over all of a sound's time, its padding included, where nothing is done about it."""
    task, splits, made = request.getfixturevalue(kind)
    prepared = task.prepare(splits["train"], made.processor, None, training=False)
    whole, first = listen(made.model, task, prepared.collate(range(5)), Side.STUDENT).logits, 0
    for one in range(5):
        alone = listen(made.model, task, prepared.collate([one]), Side.STUDENT).logits
        rows = len(alone.hidden)
        assert (whole.hidden[first : first + rows] - alone.hidden).abs().max() < 1e-5
        first += rows
    asked = task.asked(splits["test"], made.processor)
    texts = [generate(made.model, task, asked, made.processor, Decoding(6), batch_size=size).answers.given for size in (1, 5)]
    assert texts[0] == texts[1]


def test_moonshine_alone_hears_what_transformers_lets_it_hear(moonshine: Ready) -> None:
    task, splits, made = moonshine
    batch = task.prepare(splits["train"], made.processor, None, training=False).collate([0])
    plain = writers.moonshine()
    with torch.no_grad():
        expected = plain(input_values=batch.student["input_values"],
                         decoder_input_ids=batch.student["decoder_input_ids"]).logits
        assert (made.model(**batch.student).logits - expected).abs().max() < 1e-5


@pytest.mark.slow
def test_teacher_and_student_hear_their_own_mel_bins_and_number_tokens_as_they_do(speech: str, tmp_path: Path) -> None:
    """As large-v3 and v2: 128 bins and 80, and a language more, after which all tokens have other numbers."""
    teacher = writers.folder(tmp_path / "v3", ("en", "zh", "yue"), bins=24)
    small = writers.folder(tmp_path / "v2", seed=1)
    task, splits, theirs = ready(speech, teacher, language="en")
    ours = task.load(ModelSource(model=small), labelled=False)
    task = task.between(ours, theirs)
    prepared = task.prepare(splits["train"], ours.processor, theirs.processor, training=True)
    assert prepared.aligned  # in time
    batch = prepared.collate([0, 1])
    assert (batch.student["input_features"].shape[1], batch.teacher["input_features"].shape[1]) == (16, 24)
    told_both = (inputs["decoder_input_ids"].flatten().tolist() for inputs in (batch.student, batch.teacher))
    names = [one.processor.tokenizer.convert_ids_to_tokens for one in (ours, theirs)]
    told = {(names[0](a), names[1](b), a == b) for a, b in zip(*told_both, strict=True)}
    assert all(a == b for a, b, _ in told)
    assert ("<|notimestamps|>", "<|notimestamps|>", False) in told
    student, answer = (listen(one.model, task, batch, side) for one, side in ((ours, Side.STUDENT), (theirs, Side.TEACHER)))
    student, answer = task.align(student, answer, batch)
    assert student.logits is not None
    assert answer.logits is not None
    assert student.logits.dense().logits.shape == answer.logits.dense().logits.shape


def test_a_student_that_is_its_teacher_has_nothing_to_learn_at_any_row(english: Ready) -> None:
    task, splits, made = english
    batch = task.prepare(splits["train"], made.processor, made.processor, training=True).collate([0, 1, 2])
    both = [listen(made.model, task, batch, side) for side in (Side.STUDENT, Side.TEACHER)]
    student, teacher = task.align(*both, batch)
    apart = row_measures(student.logits, student.labels, teacher.logits).kl
    assert apart is not None
    assert apart.shape == (task.counts(batch)["rows"],)
    assert float(apart.abs().max()) < 1e-6


def test_prompts_of_different_lengths_are_refused(speech: str, tmp_path: Path) -> None:
    task, splits, theirs = ready(speech, writers.folder(tmp_path / "several"), language="en")
    ours = task.load(ModelSource(model=writers.folder(tmp_path / "english", several=False)), labelled=False)
    assert not task.comparable(ours.processor, theirs.processor)
    with pytest.raises(CompatibilityError, match="begins with 2 tokens, the teacher's with 4"):
        task.prepare(splits["train"], ours.processor, theirs.processor, training=True)


@pytest.mark.parametrize(("broken", "kept"), [("refuse", 0), ("skip", 2)])
def test_what_is_too_long_is_refused_or_counted_and_never_cut(
    whisper: str, tmp_path: Path, broken: str, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["file_name,transcription"]
    for index, (seconds, text) in enumerate([(0.3, "ab"), (writers.SECONDS + 0.5, "cd"), (0.4, "e" * 50), (0.5, "e")]):
        for split in ("train", "validation"):
            wav(tmp_path / "d" / split / f"{index}.wav", tone(500, seconds))
        lines.append(f"{index}.wav,{text}")
    for split in ("train", "validation"):
        (tmp_path / "d" / split / "metadata.csv").write_text("\n".join(lines) + "\n")
    task, splits, made = ready(str(tmp_path / "d"), whisper, language="en", broken=broken)
    train = splits["train"]
    if broken == "refuse":
        with pytest.raises(DataError, match="1 of 4 examples: each is longer than the 2 seconds that are heard at once"):
            task.prepare(train, made.processor, None, training=True)
        return
    assert len(task.prepare(train, made.processor, None, training=True)) == kept
    assert "has a transcript of more than the 36 tokens" in caplog.text


def test_windows_of_long_unlabelled_sounds_are_heard_one_by_one(speech: str, whisper: str, tmp_path: Path) -> None:
    whole = tone(500, 4.5)
    wav(tmp_path / "more" / "long.wav", whole)
    task, splits, made = ready(speech, whisper, language="en", window=writers.SECONDS)
    pool = task.usable(task.unlabelled(data.load_one(str(tmp_path / "more"), task.section), {}))
    assert list(zip(pool["offset"], pool["duration"], strict=True)) == [(0.0, 2.0), (1.25, 2.0), (2.5, 2.0)]
    both = joined(task.beside(splits["train"]), pool)
    asked = task.asked(both, made.processor)
    assert len(asked) == 9
    inputs = asked.tokens.batch([7])
    expected = made.processor.ear.features(Wave(whole, RATE).part(1.25, 2))
    assert float((inputs["input_features"][0] - torch.from_numpy(expected)).abs().max()) < 0.05  # 16 bits of a file
    assert inputs["decoder_input_ids"].tolist() == [list(made.processor.prompt)]


def test_a_text_that_was_cut_teaches_no_end(english: Ready) -> None:
    task, splits, made = english
    split = task.answered(splits["train"], ["ab", "cd", "e", "a", "b", "c"], [False, True, False, False, False, False])
    assert CUT in split.column_names
    batch = task.prepare(split, made.processor, None, training=True).collate([0, 1])
    ends = [labels[labels != NO_ROW].tolist()[-1] == made.processor.end for labels in batch.labels]
    assert ends == [True, False]


def test_written_texts_are_measured_by_the_rows_that_a_model_wrote(english: Ready) -> None:
    task, splits, made = english
    asked = task.asked(splits["test"], made.processor)
    inputs = asked.tokens.batch([0, 1])
    assert read_before(made.model, inputs) == len(made.processor.prompt)
    written = writer(made.model)(inputs, asked.options, Decoding(5))
    suppressed = set(made.model.generation_config.suppress_tokens)
    assert all(len(one.ids) <= 5 and not suppressed & set(one.ids) for one in written)
    batch = task.continued(made.processor, inputs, [one.ids for one in written])
    assert batch.labels[batch.labels != NO_ROW].tolist() == [token for one in written for token in one.ids]
    assert len(completions.confidences(made.model, task, made.processor, inputs, written)) == 2


@pytest.mark.slow
def test_a_deployed_student_writes_with_plain_transformers_what_was_measured(english: Ready, tmp_path: Path) -> None:
    task, splits, made = english
    _, student = start_student(StudentSpec(layers={"encoder": 2, "decoder": 1}), task, made)
    student.model.save_pretrained(tmp_path / "s")
    student.processor.save_pretrained(tmp_path / "s")
    plain = WhisperForConditionalGeneration.from_pretrained(tmp_path / "s")
    asked = task.asked(splits["test"], student.processor)
    inputs = asked.tokens.batch([0])
    ours = task.text_of(student.processor, writer(student.model)(inputs, {}, Decoding(8))[0].ids)
    ids = plain.generate(input_features=inputs["input_features"], max_new_tokens=8)
    assert student.processor.tokenizer.decode(ids[0], skip_special_tokens=True).strip() == ours
    assert "alignment_heads" not in vars(plain.generation_config)  # of a decoder layer that is not there
    assert "alignment_heads" in vars(made.model.generation_config)
    hears = pipeline("automatic-speech-recognition", str(tmp_path / "s"))
    source = task.asked(splits["test"], student.processor).tokens.source
    wave = source.wave(0, source.sounds).at(16_000)
    assert hears({"raw": wave, "sampling_rate": 16_000}, generate_kwargs={"max_new_tokens": 8})["text"].strip() == ours


def test_forced_tokens_of_old_checkpoints_are_left_out_and_suppressed_ones_stay(speech: str, tmp_path: Path) -> None:
    place = writers.folder(tmp_path / "old")
    settings = Path(place) / "generation_config.json"
    settings.write_text(settings.read_text().replace("{", '{"forced_decoder_ids": [[1, 259], [2, 261]],', 1))
    _, _, made = ready(speech, place, language="en")
    kept = vars(made.model.generation_config)
    assert "forced_decoder_ids" not in kept
    assert kept["suppress_tokens"]
    assert made.processor.prompt[1] == 258


def test_features_of_another_model_are_refused(speech: str, tmp_path: Path) -> None:
    place = writers.folder(tmp_path / "w")
    writers.extractor(24).save_pretrained(place)
    with pytest.raises(CompatibilityError, match=r"24 mel bins of 200 frames, and the Whisper.* hears 16"):
        ready(speech, place, language="en")


def test_equal_pieces_are_equal_bytes_in_any_batch(moonshine: Ready) -> None:
    task, splits, made = moonshine
    prepared = task.prepare(splits["train"], made.processor, made.processor, training=True)
    whole = task.segments(prepared.collate([0, 1, 2, 3]))
    alone = [task.segments(prepared.collate([one]))[0] for one in range(4)]
    assert [one.content for one in whole] == [one.content for one in alone]
    assert len({one.content for one in whole}) == 4
    assert [one.rows.stop - one.rows.start for one in whole] == [one.rows.stop for one in alone]


def test_the_word_error_filter_keeps_the_exact_text_and_drops_what_was_never_said(
    english: Ready
) -> None:
    task, splits, _ = english
    split = splits["train"]
    own = str(split["transcription"][0])
    rows = [{"key": 0, "text": text, "tokens": 3, "log_probability": -0.1, "cut": False}
            for text in (own, own.upper() + ".", "THANK YOU FOR WATCHING", "")]
    section = Completions(by="teacher", max_wer=0.1)
    why = [completions._left_out(section, task, split, row) for row in rows]
    assert why == [None, None, "heard otherwise than the data say it (max_wer)", "empty"]
    assert word_error_rate("", "") == 0
    assert word_error_rate("words", "...") == float("inf")
    nobody = split.map(lambda _: {"transcription": None}, features=split.features)
    assert completions._left_out(section, task, nobody, rows[2]) is None


def test_words_are_decided_and_shown_with_the_sound(english: Ready) -> None:
    task, splits, _ = english
    exam = task.written_exam(Generation(metrics=("wer", "cer")))
    assert isinstance(exam, DictationExam)
    said = splits["test"]["transcription"][:2]
    answers = Answers(np.arange(2), [said[0], "zz"], said)
    first, second = (metric.compute(answers.given, answers.references) for metric in exam.metrics())
    words = [len(one.split()) for one in said]
    assert first == pytest.approx(words[1] / sum(words))
    assert 0 < second <= 1
    decided = exam.decisions(answers)
    assert len(decided) == sum(words)
    shown = exam.view(splits["test"], {"student": answers}, 1, 0)
    assert isinstance(shown, Sound)
    assert set(shown.texts) == {"right", "student"}
    assert exam.constant(answers) == ["", ""]


def test_a_prompt_of_one_token_is_what_decoders_of_texts_begin_with() -> None:
    labels = torch.tensor([[5, 6, 7], [8, 9, NO_ROW]])
    whole, before = prompted(labels, (3,), 0)
    assert torch.equal(whole, labels)
    assert before.tolist() == [[3, 5, 6], [3, 8, 9]]


def test_a_teacher_in_bfloat16_hears_sounds_of_float32(speech: str, whisper: str) -> None:
    source = ModelSource(model=whisper, precision="bfloat16")
    task, splits = understood(speech, whisper, language="en")
    made = task.load(source, labelled=True)
    task = task.adapted_to(made)
    batch = task.prepare(splits["train"], made.processor, made.processor, training=True).collate([0, 1])
    said = LiveTeacher(made.model, task)(batch)
    assert len(said.labels) == task.counts(batch)["rows"]
    asked = task.asked(splits["test"], made.processor)
    assert len(generate(made.model, task, asked, made.processor, Decoding(3)).answers) == len(splits["test"])
