"""Recognisers: symbols, frames that are compared, what is left out and said, both sides of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from transformers import AutoModelForCTC

from stilla import data
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate.asking import Asked, examine
from stilla.evaluate.cost import workload
from stilla.objectives import CTC, Logits
from stilla.recipe import ModelSource, StudentSpec
from stilla.rows import row_loss
from stilla.signals import Dense, Samples, Side, TopK
from stilla.students import by_layers
from stilla.tasks import of_model
from stilla.tasks.answers import Answers
from stilla.tasks.audio.frames import best_of, chosen, needed, renumbered, some_of
from stilla.tasks.audio.letters import Scribe
from stilla.tasks.audio.sections import SpeechRecognitionData
from stilla.tasks.audio.speech_exam import SpeechExam
from stilla.tasks.audio.speech_recognition import SpeechRecognition
from stilla.tasks.base import Loaded
from stilla.tasks.forward import listen
from stilla.views import Sound
from tests.tasks.audio.setting import RATE, wav
from tests.tasks.audio.speakers import OTHER_ORDER, folder, recogniser, spoken, symbols, utterances


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def understood(place: str, **section: Any) -> tuple[SpeechRecognition, dict[str, Dataset]]:
    told = SpeechRecognitionData(train=place, **section)
    splits = data.load(told, seed=0)
    return SpeechRecognition.understand(told, splits), splits


def loaded(task: SpeechRecognition, place: str, *, labelled: bool = True) -> Loaded:
    return task.load(ModelSource(model=place), labelled=labelled)


def test_frames_become_rows_and_the_loss_is_ctc_of_each_utterance_alone(tmp_path: Path) -> None:
    task, splits = understood(utterances(tmp_path / "d"))
    made = loaded(task, folder(tmp_path / "m"))
    task = task.adapted_to(made)
    prepared = task.prepare(splits["train"], made.processor, None, training=True)
    batch = prepared.collate([0, 1, 2, 3])
    said = listen(made.model, task, batch, Side.STUDENT)
    counts = task.counts(batch)
    assert said.logits is not None
    assert len(said.logits) == counts["rows"] < batch["frames"]["student"].numel()
    own = listen(made.model, task, batch, Side.STUDENT)
    total = CTC().total(own, own, 0.0).detach()
    expected = torch.zeros(())
    for row in range(4):
        length = int(batch.student["attention_mask"][row].sum())
        target = batch.labels[row][batch.labels[row] != -100]
        with torch.no_grad():
            logits = made.model(batch.student["input_values"][row : row + 1, :length])["logits"]
        expected = expected + F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), target[None],
                                         torch.tensor([logits.shape[1]]), torch.tensor([len(target)]), reduction="sum")
    assert counts["symbols"] == int((batch.labels != -100).sum())
    assert float(total) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_a_teacher_with_another_order_of_symbols_teaches_the_same(tmp_path: Path) -> None:
    task, splits = understood(utterances(tmp_path / "d"))
    student = loaded(task, folder(tmp_path / "s", norm="layer"))
    losses = []
    for name, names in (("t", None), ("u", OTHER_ORDER)):
        teacher = loaded(task, folder(tmp_path / name, **({} if names is None else {"names": names})))
        between = task.adapted_to(teacher).between(student, teacher)
        batch = between.prepare(splits["train"], student.processor, teacher.processor, training=True).collate([0, 1, 2])
        ours, theirs = between.align(listen(student.model, between, batch, Side.STUDENT),
                                     listen(teacher.model, between, batch, Side.TEACHER), batch)
        loss, _ = row_loss([(Logits(temperature=1.0), 1.0)], ours.logits, theirs.logits, None, 0.0)
        losses.append(float(loss.detach()))
        said = examine(between.exam(), {"teacher": Asked(teacher.model, Side.TEACHER), "student": Asked(student.model)},
                       between.prepare(splits["test"], student.processor, teacher.processor, training=False))
        losses.append([heard for heard, _ in said["teacher"].given])
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    assert losses[0] > 1e-3
    assert losses[1] == losses[3]
    assert any(losses[1])


@pytest.mark.slow
def test_a_model_that_is_its_own_teacher_has_nothing_to_learn_from_it(tmp_path: Path) -> None:
    task, splits = understood(utterances(tmp_path / "d"))
    made = loaded(task, folder(tmp_path / "m"))
    task = task.adapted_to(made)
    prepared = task.prepare(splits["train"], made.processor, made.processor, training=True)
    said = examine(task.exam(), {"teacher": Asked(made.model, Side.TEACHER), "student": Asked(made.model)}, prepared)
    assert [heard for heard, _ in said["student"].given] == [heard for heard, _ in said["teacher"].given]
    assert any(heard for heard, _ in said["student"].given)
    assert all(far == pytest.approx(0, abs=1e-6) for _, far in said["student"].given)


def test_frames_are_chosen_by_the_teacher_within_an_utterance() -> None:
    own = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], dtype=torch.bool)
    heard = torch.tensor([0, 0, 0, 0, 1, 0, 0, 1, 0, 0], dtype=torch.bool)  # the last of the first two; none in the third
    assert chosen(heard, own, "spoken").int().tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 1, 1]
    assert chosen(heard, own, "around").int().tolist() == [0, 0, 0, 1, 1, 0, 1, 1, 1, 1]
    assert chosen(heard, own, "all").all()


@pytest.mark.slow
def test_what_cannot_be_learnt_is_refused_or_left_out_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Path(utterances(tmp_path / "d"))
    lines = (place / "train" / "metadata.csv").read_text()
    wav(place / "train" / "short.wav", spoken("a"))
    wav(place / "train" / "long.wav", np.tile(spoken("abc"), 12))
    wav(place / "train" / "q.wav", spoken("abc"))
    (place / "train" / "metadata.csv").write_text(
        lines + "short.wav,abcdeabcdeabcde\nlong.wav,abc\nq.wav,a%q\nq.wav,\n")
    with pytest.raises(DataError, match=r"data\.train: 'transcription' is null or empty in 1 of 16 examples"):
        understood(str(place))
    task, splits = understood(str(place), broken="skip", window=1.5)
    made = loaded(task, folder(tmp_path / "m"))
    task = task.adapted_to(made)
    caplog.clear()
    prepared = task.prepare(splits["train"], made.processor, None, training=True)
    assert len(prepared) == 12
    for words in ("is longer than 1.5 seconds", "have no symbol for", "more symbols in its transcript than frames"):
        assert words in caplog.text
    strict = SpeechRecognition(task.section.model_copy(update={"broken": "refuse"}), task.audio, task.text)
    with pytest.raises(DataError, match="nobody knows where its transcript could be cut"):
        strict.prepare(splits["train"], made.processor, None, training=True)


def test_a_part_of_a_distribution_is_renumbered_and_chosen_as_all_of_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, order = torch.randn(6, 5, generator=generator), torch.tensor([3, 0, 4, 1, 2])
    logs, ids = logits.log_softmax(-1).topk(3)
    ids, places = ids.sort(-1)
    logs = logs.gather(-1, places)
    few = TopK(ids, logs, torch.log1p(-logs.exp().sum(-1)))
    ours, part = renumbered(Dense(logits), order), renumbered(few, order)
    assert isinstance(ours, Dense)
    assert isinstance(part, TopK)
    assert (part.ids.diff(dim=-1) > 0).all()
    torch.testing.assert_close(ours.logits.log_softmax(-1).gather(-1, part.ids), part.log_probs)
    assert torch.equal(best_of(ours), best_of(part))
    drawn = renumbered(Samples(ids, logs.exp(), torch.zeros(6)), order)
    assert torch.equal(best_of(drawn), best_of(part))
    kept = torch.tensor([1, 0, 0, 1, 1, 0], dtype=torch.bool)
    assert torch.equal(best_of(some_of(part, kept)), best_of(part)[kept])
    assert torch.equal(best_of(some_of(drawn, kept)), best_of(part)[kept])


def test_repeated_symbols_need_a_frame_more() -> None:
    assert needed([]) == 0
    assert needed([1, 2, 3]) == 3
    assert needed([1, 1, 2, 2]) == 6


def test_symbols_are_read_in_the_case_that_a_model_knows(tmp_path: Path) -> None:
    scribe = Scribe(None, symbols(tmp_path, ("<pad>", "<s>", "</s>", "<unk>", "|", "A", "B")))  # type: ignore[arg-type]
    assert scribe.case_of(["a b", "ab"]) == "upper"
    ids = scribe.ids("  a  b a", "upper")
    assert scribe.written(ids) == "A B A"
    assert not scribe.unknown(ids)
    assert scribe.unknown(scribe.ids("axb", "upper"))
    repeats = scribe.ids("aab", "upper")
    assert scribe.written(repeats) == "AAB"
    assert scribe.heard(np.array([0, 5, 5, 0, 5, 6, 6, 0, 4, 0, 6])) == "AAB B"


def test_punctuation_without_a_symbol_is_left_out_and_letters_without_one_are_not(tmp_path: Path) -> None:
    scribe = Scribe(None, symbols(tmp_path, ("<pad>", "<s>", "</s>", "<unk>", "|", "'", *"ABé")))  # type: ignore[arg-type]
    for text, spelled in (("A, b.", "A B"), ("«a-b»!", "A B"), ("a’b", "A'B"), ("a – b…", "A B"), ("...", "")):
        case = scribe.case_of([text])
        assert scribe.written(scribe.ids(text, case)) == spelled, text
        assert not scribe.unknown(scribe.ids(text, case))
    assert not scribe.unknown(scribe.ids("Ae\u0301", "as it is"))
    assert scribe.unknown(scribe.ids("ac.", "upper"))
    assert scribe.unknown(scribe.ids("a1", "upper"))
    assert scribe.left_out("a, b. c1") == {",", "."}


def test_common_voices_sentences_are_learnt_without_their_punctuation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "dev", "test"):
        lines = ["client_id\tpath\tsentence"]
        for index in range(4):
            wav(tmp_path / "cv" / "clips" / f"{split}{index}.wav", spoken("ab de", seed=index))
            lines.append(f"x\t{split}{index}.wav\tAb, de." if index else f"x\t{split}{index}.wav\t...")
        (tmp_path / "cv" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    task, splits = understood(str(tmp_path / "cv"), broken="skip")
    made = loaded(task, folder(tmp_path / "m"))
    with caplog.at_level("INFO"):
        prepared = task.adapted_to(made).prepare(splits["train"], made.processor, None, training=True)
    assert "4 of 4 transcripts hold punctuation that the models have no symbol for (',' and '.')" in caplog.text
    assert "1 of 4 examples: each has characters in its transcript" in caplog.text
    labels = prepared.collate(range(3))["labels"]
    assert [made.processor.written(row[row >= 0].tolist()) for row in labels] == ["ab de"] * 3
    assert prepared.seconds is not None
    each = len(spoken("ab de")) / RATE
    assert list(prepared.seconds) == pytest.approx([each] * 3)
    assert workload(prepared, Side.STUDENT, batch_size=5).seconds == pytest.approx(5 * each)


@pytest.mark.slow
def test_two_models_that_cannot_be_compared_frame_by_frame_are_refused_in_words(tmp_path: Path) -> None:
    task, splits = understood(utterances(tmp_path / "d"))
    made = loaded(task, folder(tmp_path / "m"))
    fewer = loaded(task, folder(tmp_path / "f", ("<pad>", "<s>", "</s>", "<unk>", "|", "a", "b", "c", "d")))
    other = loaded(task, folder(tmp_path / "o", conv_stride=(5, 4, 2)))
    for student, words in ((fewer, r"other symbols \('e' in one of them only\)"), (other, "make other frames of a sound")):
        assert not task.comparable(student.processor, made.processor)
        with pytest.raises(CompatibilityError, match=words):
            task.prepare(splits["train"], student.processor, made.processor, training=True)


@pytest.mark.slow
def test_a_model_without_symbols_of_its_own_is_refused(tmp_path: Path) -> None:
    task, _ = understood(utterances(tmp_path / "d"))
    place = folder(tmp_path / "m")
    symbols(tmp_path / "m", ("<pad>", "<unk>", "|", *"abcdefghijklm")).save_pretrained(tmp_path / "m")
    with pytest.raises(CompatibilityError, match="gives 10 classes with 0 for the blank, and its tokenizer has"):
        loaded(task, place)
    for path in tmp_path.glob("m/*token*"):
        path.unlink()
    (tmp_path / "m" / "vocab.json").unlink()
    with pytest.raises(CompatibilityError, match="holds no tokenizer, which says what a recogniser's classes are"):
        loaded(task, place)
    with pytest.raises(CompatibilityError, match="Use a recipe"):
        of_model(recogniser())


@pytest.mark.slow
def test_a_new_head_is_made_for_other_symbols(tmp_path: Path) -> None:
    task, _ = understood(utterances(tmp_path / "d"))
    place = folder(tmp_path / "m")
    symbols(tmp_path / "m", ("<unk>", "<pad>", "|", *"abcdefg")).save_pretrained(tmp_path / "m")
    torch.manual_seed(1)
    made = task.load(ModelSource(model=place), labelled=False)
    classes = len(made.processor.symbols)
    assert made.model.lm_head.weight.shape[0] == classes
    assert made.model.config.pad_token_id == made.processor.blank


def test_a_sound_is_shown_with_what_every_model_heard() -> None:
    exam = SpeechExam(None, lambda split, key: f"data:audio/wav;base64,{key}")
    said = {name: Answers(np.array([7]), [(text, 0.0)], ["A quick fox!"]) for name, text in
            (("teacher", "a quick fox"), ("student", "quack box fox"))}
    decisions = {name: exam.decisions(one) for name, one in said.items()}
    assert decisions["teacher"].decided.tolist() == ["a", "quick", "fox"]
    assert decisions["student"].decided.tolist() == ["quack", "box", "fox"]
    assert decisions["student"].differs(decisions["teacher"]).tolist() == [True, True, False]
    view = exam.view(Dataset.from_dict({"a": [0]}), said, 0, 1)
    assert isinstance(view, Sound)
    assert view.texts["right"].text == "a quick fox"
    assert [(one.start, one.end) for one in view.texts["right"].marks] == [(2, 7)]
    assert [view.texts["student"].text[one.start : one.end] for one in view.texts["student"].marks] == ["quack", "box"]
    assert not view.texts["teacher"].marks
    assert exam.metrics()[0].compute(exam.constant(said["student"]), said["student"].references) == 1


@pytest.mark.slow
def test_a_student_is_a_plain_folder_that_hears_one_sound_as_it_does_here(tmp_path: Path) -> None:
    task, splits = understood(utterances(tmp_path / "d"))
    made = loaded(task, folder(tmp_path / "m"))
    task = task.adapted_to(made)
    student = task.started(by_layers(made.model, 1).model, StudentSpec(layers=1))
    batch = task.prepare(splits["train"], made.processor, None, training=False).collate(range(6))
    with torch.no_grad():
        said = task.exam().ask(student, batch, Side.STUDENT)
        student.save_pretrained(tmp_path / "s")
        made.processor.save_pretrained(tmp_path / "s")
        again = AutoModelForCTC.from_pretrained(tmp_path / "s")
        for row, own in enumerate(batch["frames"]["student"].sum(1).tolist()):
            mask = batch.student["attention_mask"][row].bool()
            alone = again(batch.student["input_values"][row, mask][None])["logits"][0]
            assert len(alone) == own
            assert (said[row, :own] - alone).abs().max() < 1e-4
