"""Transcripts with times: written by the teacher, learnt in a share of the examples, measured without."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import stilla
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate.generate import Decoding, writer
from stilla.recipe import Completions, ModelSource, StudentSpec
from stilla.signals import Side
from stilla.stages import completions
from stilla.stages.parts import Parts
from stilla.stages.starting import start_student
from stilla.tasks.audio import timed
from stilla.tasks.base import Loaded
from stilla.tasks.forward import listen
from stilla.tasks.text.sequences import NO_ROW
from tests.tasks.audio import speakers, writers
from tests.tasks.audio.test_dictation import ready, understood
from tests.tasks.caches import _own_cache  # noqa: F401

Ready = tuple[Any, dict[str, Dataset], Loaded]
TIMED = "<|0.00|> ab<|0.40|><|0.52|> cd<|1.00|>"


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> str:
    return speakers.utterances(tmp_path_factory.mktemp("speech"), 6)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    return writers.folder(tmp_path_factory.mktemp("whisper"), times=True)


@pytest.fixture(scope="module")
def half(speech: str, whisper: str) -> Ready:
    return ready(speech, whisper, language="en", timestamps=0.5)


def named(made: Loaded, *names: str) -> list[int]:
    vocabulary = made.processor.tokenizer.get_vocab()
    return [vocabulary[name] for name in names]


def test_times_leave_what_was_said() -> None:
    assert timed.plain(TIMED) == "ab cd"
    assert timed.plain(" one, 0.40 two ") == " one, 0.40 two "
    assert timed.plain("<|0.00|><|1.00|>") == ""


def test_timed_tokens_come_back_as_the_text_that_they_were(half: Ready) -> None:
    writes = half[2].processor
    ids = writes.timed_ids(TIMED)
    assert ids is not None
    assert ids[0] == named(half[2], "<|0.00|>")[0]
    assert writes.timed_text([*ids, writes.end]) == TIMED
    assert writes.ids(TIMED) == writes.ids("ab cd")  # without times, where none are to be learnt
    assert writes.timed_ids("ab cd") is None
    assert writes.timed_ids("<|0.00|> ab<|99.00|>") is None  # no time of a window that this model hears


def test_a_share_learns_times_behind_the_prompt_that_asks_for_them(half: Ready) -> None:
    task, splits, made = half
    split = task.answered(splits["train"], [TIMED] * len(splits["train"]), [False] * len(splits["train"]))
    prepared = task.prepare(split, made.processor, made.processor, training=True)
    batch = prepared.collate(range(len(prepared.keys)))
    assert batch.labels is not None
    writes = made.processor
    prompt, quiet, text = list(writes.prompt[:-1]), writes.prompt[-1], writes.timed_ids(TIMED)
    forms = []
    for labels, told in zip(batch.labels, batch.student["decoder_input_ids"], strict=True):
        learnt, read = labels[labels != NO_ROW].tolist(), told.tolist()
        with_times = learnt == [*text, writes.end]
        forms.append(with_times)
        before = prompt if with_times else [*prompt, quiet]
        assert with_times or learnt == [*writes.ids("ab cd"), writes.end]
        assert read[: len(before) + len(learnt) - 1] == [*before, *learnt[:-1]]
        assert labels[: len(before) - 1].tolist() == [NO_ROW] * (len(before) - 1)
    assert 0 < sum(forms) < len(forms)
    again = task.prepare(split, made.processor, made.processor, training=True, seed=7).collate(range(len(forms)))
    assert torch.equal(batch.labels, again.labels)  # a cache is of one form of every example
    measured = task.prepare(split, made.processor, None, training=False).collate(range(len(forms)))
    assert measured.student["decoder_input_ids"][:, : len(prompt) + 1].tolist() == [[*prompt, quiet]] * len(forms)
    counted = task.counts(batch)
    assert counted["rows"] == sum(len(text) + 1 if one else len(writes.ids("ab cd")) + 1 for one in forms)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_none_or_all_is_none_or_all(speech: str, whisper: str, share: float) -> None:
    task, splits, made = ready(speech, whisper, language="en", timestamps=share)
    split = task.answered(splits["train"], [TIMED] * len(splits["train"]), [False] * len(splits["train"]))
    batch = task.prepare(split, made.processor, None, training=True).collate(range(len(split)))
    quiet = made.processor.prompt[-1]
    assert [quiet in row for row in batch.student["decoder_input_ids"].tolist()] == [not share] * len(split)


def test_a_batch_of_both_forms_teaches_what_each_alone_does(half: Ready) -> None:
    task, splits, made = half
    split = task.answered(splits["train"], [TIMED] * len(splits["train"]), [False] * len(splits["train"]))
    prepared = task.prepare(split, made.processor, made.processor, training=True)
    rows = list(range(len(prepared.keys)))
    together = listen(made.model, task, prepared.collate(rows), Side.STUDENT)
    alone = [listen(made.model, task, prepared.collate([one]), Side.STUDENT) for one in rows]
    whole = torch.cat([one.labels for one in alone])
    assert torch.equal(together.labels, whole)
    segments = task.segments(prepared.collate(rows))
    assert [one.content for one in segments] == [task.segments(prepared.collate([one]))[0].content for one in rows]


def test_other_numbers_of_times_are_matched_by_name(speech: str, whisper: str, tmp_path: Path) -> None:
    """large-v3 has a language more, and every time another number."""
    later = writers.folder(tmp_path / "later", ("en", "fr", "zh"), times=True)
    task, splits, teacher = ready(speech, later, language="en", timestamps=1.0)
    student = task.load(ModelSource(model=whisper), labelled=True)
    split = task.answered(splits["train"], [TIMED] * len(splits["train"]), [False] * len(splits["train"]))
    batch = task.prepare(split, student.processor, teacher.processor, training=True).collate([0])
    ours, theirs = (one["decoder_input_ids"][0].tolist() for one in (batch.student, batch.teacher))
    assert ours != theirs
    assert student.processor.tokenizer.convert_ids_to_tokens(ours) == \
        teacher.processor.tokenizer.convert_ids_to_tokens(theirs)


def test_a_teacher_writes_times_by_whispers_rules_and_is_held_to_the_words_alone(half: Ready) -> None:
    task, splits, made = half
    teaching = task.teaching()
    asked = teaching.asked(splits["train"], made.processor)
    inputs = asked.tokens.batch([0, 1])
    assert inputs["decoder_input_ids"].tolist() == [list(made.processor.prompt[:-1])] * 2
    written = writer(made.model)(inputs, asked.options, Decoding(12))
    first = named(made, "<|0.00|>")[0]
    for one in written:
        times = [token - first for token in one.ids if token >= first]
        assert one.ids[0] >= first
        assert times == sorted(times)
        text = teaching.text_of(made.processor, one.ids)
        assert re.match(r"<\|\d\.\d\d\|>", text)
    assert len(completions.confidences(made.model, task, made.processor, inputs, written)) == 2
    own = str(splits["train"]["transcription"][0])
    section = Completions(by="teacher", max_wer=0.1)
    row = {"key": 0, "text": f"<|0.00|> {own}<|1.00|>", "tokens": 3, "log_probability": -0.1, "cut": False}
    assert completions._left_out(section, task, splits["train"], row) is None
    assert completions._left_out(section, task, splits["train"], {**row, "text": "<|0.00|><|1.00|>"}) == "empty"
    assert teaching.identity(made.processor) != task.identity(made.processor)
    assert task.asked(splits["train"], made.processor).options == {}  # what is measured has no times


def test_references_are_compared_without_their_times(half: Ready) -> None:
    task, splits, made = half
    split = task.answered(splits["train"], [TIMED] * len(splits["train"]), [False] * len(splits["train"]))
    assert set(task.asked(split, made.processor).references) == {"ab cd"}
    assert task.own_text(split, 0) == "ab cd"


def test_times_are_refused_of_models_that_write_none(speech: str, whisper: str, tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match=r"data\.timestamps: a MoonshineForConditionalGeneration writes no times"):
        ready(speech, writers.moonshine_folder(tmp_path / "moon"), timestamps=0.2)
    with pytest.raises(DataError, match=r"data\.timestamps: is of models that write"):
        understood(speech, speakers.folder(tmp_path / "frames"), timestamps=0.2)


def test_a_student_of_times_writes_them_with_plain_transformers(half: Ready, tmp_path: Path) -> None:
    task, splits, made = half
    _, student = start_student(StudentSpec(layers={"encoder": 2, "decoder": 1}), task, made)
    inputs = task.asked(splits["test"], student.processor).tokens.batch([0])
    ids = student.model.generate(input_features=inputs["input_features"], return_timestamps=True, max_new_tokens=8)
    first = named(made, "<|0.00|>")[0]
    assert (np.array(ids[0].tolist()) >= first).any()


@pytest.mark.slow
def test_a_run_learns_the_times_that_its_teacher_writes(
    speech: str, whisper: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = stilla.distill({
        "task": "speech-recognition", "teacher": whisper, "student": {"layers": {"encoder": 2, "decoder": 1}},
        "data": {"train": speech, "language": "en", "timestamps": 0.5}, "allow_weak_teacher": True,
        "completions": {"by": "teacher", "max_new_tokens": 12}, "evaluate": {"resamples": 100, "speed": False},
        "distill": {"max_steps": 4, "batch_size": 4, "precision": "float32", "dropout": 0.0,
                    "objectives": [{"kind": "labels"}, {"kind": "logits"}]},
        "output": str(tmp_path / "run")})
    written = Parts(run.folder / "completions", completions.SCHEMA).rows()
    assert written
    assert all(timed.TIME.match(row["text"]) for row in written)
    assert "is learnt with times" not in caplog.text
    assert run.scores.metric == "wer"
