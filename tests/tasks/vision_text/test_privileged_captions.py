"""Teachers that write about other pictures, or are asked other questions, than their students: the answers are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value

import stilla
from stilla import data
from stilla.errors import DataError
from stilla.recipe import ModelSource
from stilla.signals import Side
from stilla.tasks.base import Loaded
from stilla.tasks.forward import listen
from stilla.tasks.text.sequences import NO_ROW
from stilla.tasks.vision_text.image_text_to_text import ImageTextToText
from stilla.tasks.vision_text.sections import ImageTextToTextData
from tests.tasks.caches import _own_cache  # noqa: F401
from tests.tasks.vision_text import tellers
from tests.tasks.vision_text.setting import NAMES, picture

TOLD = {"image": ("large",), "prompt": ("english",)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """By what side of a picture they see, of which each 8 pixels are a token."""
    place = tmp_path_factory.mktemp("models")
    return {size: tellers.folder(place / str(size), size=size) for size in (16, 32)}


def _stored(some: list[bytes | None]) -> list[Any]:
    return [one and {"bytes": one, "path": None} for one in some]


def table(count: int = 4, *, first: int = 0, large: list[bytes | None] | None = None, several: bool = False) -> Dataset:
    """Small pictures with German questions, and large ones (two of each, with `several`) with English ones."""
    numbers = range(first, first + count)
    views = [[picture(number, 40), picture(number + 1, 40)] for number in numbers]
    sharp: list[Any] = [_stored(one) for one in views] if several else _stored(  # type: ignore[arg-type]
        [one[0] for one in views] if large is None else large)
    rows = {"image": _stored([picture(number, 10) for number in numbers]), "large": sharp, "question": ["Farbe?"] * count,
            "english": [f"Which colour, {number}?" for number in numbers],
            "answer": [NAMES[number % len(NAMES)] for number in numbers]}
    kinds = {"image": Image(), "large": List(Image()) if several else Image()}
    return Dataset.from_dict(rows, Features({name: kinds.get(name, Value("string")) for name in rows}))


def task_of(split: Dataset, told: dict[str, tuple[str, ...]] = TOLD, **more: Any) -> ImageTextToText:
    section = ImageTextToTextData.model_validate(
        {"train": "x", "image": "image", "prompt": "question", "completion": "answer", **more})
    return ImageTextToText.understand(section, {"train": split}).taught_from(told, {"train": split})


def loaded(task: ImageTextToText, place: str) -> Loaded:
    return task.load(ModelSource(model=place), labelled=True)


def both(task: ImageTextToText, models: dict[int, str]) -> tuple[ImageTextToText, Loaded, Loaded]:
    student, teacher = loaded(task, models[16]), loaded(task, models[32])
    return task.adapted_to(teacher).between(student, teacher), student, teacher


def read(made: Loaded, inputs: Any) -> list[str]:
    return [made.processor.tokenizer.decode(ids[mask.bool()].tolist())
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"])]


@pytest.mark.slow
def test_a_teacher_is_asked_in_its_words_about_its_pictures_and_the_same_answers_are_rows(models: dict[int, str]) -> None:
    split = table()
    task, student, teacher = both(task_of(split), models)
    prepared = task.prepare(split, student.processor, teacher.processor, training=True)
    batch = prepared.collate([2, 0])
    assert not prepared.aligned
    assert read(student, batch.student) == [
        "<user> " + "<image>" * 4 + f"Farbe?</s><assistant> {NAMES[number]}</s>" for number in (2, 0)]
    assert read(teacher, batch.teacher) == [
        "<user> " + "<image>" * 16 + f"Which colour, {number}?</s><assistant> {NAMES[number]}</s>" for number in (2, 0)]
    seen = teacher.processor.pixels([[split[number]["large"].convert("RGB")] for number in (2, 0)])["pixel_values"]
    torch.testing.assert_close(batch.teacher["pixel_values"], seen)
    with torch.no_grad():
        ours, theirs = (listen(one.model, task, batch, side)
                        for one, side in ((student, Side.STUDENT), (teacher, Side.TEACHER)))
    assert torch.equal(ours.labels, theirs.labels)  # type: ignore[arg-type]
    # by itself it is asked the same, and says the same of the same rows
    alone = task.of_teacher().prepare(split, teacher.processor, None, training=False).collate([2, 0])
    assert read(teacher, alone.student) == read(teacher, batch.teacher)
    torch.testing.assert_close(alone.student["pixel_values"], batch.teacher["pixel_values"])
    with torch.no_grad():
        again = listen(teacher.model, task, alone, Side.STUDENT)
    torch.testing.assert_close(again.logits.hidden, theirs.logits.hidden)  # type: ignore[union-attr]


def test_one_that_sees_and_is_asked_the_same_has_nothing_to_teach(models: dict[int, str]) -> None:
    split = table()
    same = split.remove_columns(["large", "english"])
    same = same.add_column("large", split.cast_column("image", Image(decode=False))["image"][:], feature=Image())
    same = same.add_column("english", split["question"][:])
    made = loaded(task := task_of(same), models[32])
    task = task.adapted_to(made)
    batch = task.prepare(same, made.processor, made.processor, training=True).collate(range(4))
    with torch.no_grad():
        ours, theirs = (listen(made.model, task, batch, side) for side in (Side.STUDENT, Side.TEACHER))
    torch.testing.assert_close(ours.logits.hidden, theirs.logits.hidden)  # type: ignore[union-attr]


@pytest.mark.slow
def test_what_is_stored_of_a_teacher_depends_on_its_own_pictures_and_questions(models: dict[int, str]) -> None:
    split = table()
    task, student, teacher = both(task_of(split), models)

    def content(some: Dataset) -> list[bytes]:
        batch = task.prepare(some, student.processor, teacher.processor, training=True).collate(range(4))
        return [one.content for one in task.segments(batch)]

    stored = split.cast_column("large", Image(decode=False))["large"][:]
    known = content(split)
    for changed, same in (
            (split.remove_columns(["image"]).add_column("image", stored, feature=Image()), True),
            (split.remove_columns(["large"]).add_column("large", stored[::-1], feature=Image()), False),
            (split.remove_columns(["english"]).add_column("english", ["So?"] * 4), False)):
        assert (content(changed) == known) is same


def test_a_teacher_may_see_more_pictures_than_its_student(models: dict[int, str]) -> None:
    split = table(several=True)
    task, student, teacher = both(task_of(split, {"image": ("large",)}), models)
    batch = task.prepare(split, student.processor, teacher.processor, training=True).collate([1])
    assert read(teacher, batch.teacher)[0].count("<image>") == 32
    assert read(student, batch.student)[0].count("<image>") == 4


@pytest.mark.slow
def test_texts_are_asked_for_in_the_teachers_words_and_learnt_after_the_students(models: dict[int, str]) -> None:
    split = table()
    task, _, teacher = both(task_of(split), models)
    for one in (task.teaching(), task.of_teacher()):
        asked = one.asked(split, teacher.processor)
        inputs = asked.tokens.batch([3])
        assert read(teacher, inputs) == ["<user> " + "<image>" * 16 + "Which colour, 3?</s><assistant> "]
        assert list(asked.references) == [NAMES[number] for number in range(4)]
    assert task.identity(teacher.processor) != task.teaching().identity(teacher.processor)
    written = task.answered(split, ["pink"] * 4, [False] * 4)
    batch = task.prepare(written, teacher.processor, teacher.processor, training=True).collate([0])
    assert [task.decoded(row[row != NO_ROW].tolist()) for row in batch.labels] == ["pink</s>"]  # type: ignore[union-attr]
    assert "Farbe?" in read(teacher, batch.student)[0]
    assert "Which colour, 0?" in read(teacher, batch.teacher)[0]


@pytest.mark.slow
def test_what_one_of_both_cannot_see_or_read_is_refused_or_left_out_for_both(models: dict[int, str]) -> None:
    large: list[bytes | None] = [picture(number, 40) for number in range(4)]
    large[1] = b"no picture"
    split = table(large=large).remove_columns(["english"]).add_column("english", ["a", "b", None, "d"])
    with pytest.raises(DataError, match="1 of 4 examples have pictures that cannot be read: row 1") as found:
        task_of(split)
    assert "'english' and 'answer' is null or empty in 1 of 4 examples" in str(found.value)
    task, student, teacher = both(task_of(split, broken="skip"), models)
    for one, theirs in ((task, teacher.processor), (task, None), (task.of_teacher(), None)):
        assert one.prepare(split, student.processor, theirs, training=True).keys.tolist() == [0, 3]
    assert task.asked(split, student.processor).keys.tolist() == [0, 3]
    assert len(task.usable(split)) == 2


@pytest.mark.parametrize(("told", "words"), [
    ({"image": ("answer",)}, "'answer' is the label"), ({"image": ("larger",)}, "Did you mean large"),
    ({"image": ("english",)}, "holds no pictures"), ({"text": ("english",)}, "got 'text'; expected image or prompt"),
    ({"prompt": ("question", "english")}, r"teacher\.data\.prompt: got 2 columns"),
    ({"prompt": ("answer",)}, "is the label")])
def test_what_no_such_teacher_can_read_is_refused(told: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        task_of(table(), told)


def test_where_no_column_asks_there_are_no_other_questions(tmp_path: Path) -> None:
    split = table().remove_columns(["question"])
    with pytest.raises(DataError, match="no column asks about these pictures"):
        task_of(split, prompt=None)
    assert task_of(split, {"image": ("large",)}, prompt=None).teachers is not None
    section = ImageTextToTextData(train=(place := tellers.talked(tmp_path, 2)), validation=place)
    talked = data.load(section, seed=0)["train"]
    task = ImageTextToText.understand(section, {"train": talked})
    with pytest.raises(DataError, match="conversations ask themselves"):
        task.taught_from({"prompt": ("messages",)}, {"train": talked})
    same = task_of(table(), {"image": ("image",), "prompt": ("question",)})
    assert same.teachers is None
    assert same.of_teacher() is same


@pytest.mark.slow
def test_unlabelled_pictures_need_what_both_read(models: dict[int, str]) -> None:
    split = table()
    task, student, teacher = both(task_of(split), models)
    assert set(task.beside(split).column_names) == set(split.column_names)
    pool = task.unlabelled(split.remove_columns(["answer"]), {})
    assert set(pool.column_names) == set(split.column_names)
    whole = data.joined(task.beside(split), pool)
    asked = task.teaching().asked(whole, teacher.processor)
    assert asked.keys.tolist() == [*range(8)]
    prepared = task.prepare(whole, student.processor, teacher.processor, training=True)
    assert np.array_equal(prepared.keys, range(4))
    for lacking in ("large", "english"):
        with pytest.raises(DataError, match=f"which column is '{lacking}'"):
            task.unlabelled(split.remove_columns(["answer", lacking]), {})


@pytest.mark.slow
def test_a_run_whose_teacher_learns_writes_and_is_measured_by_what_it_reads(models: dict[int, str], tmp_path: Path) -> None:
    for name, count, first in (("train", 8, 0), ("v", 4, 50), ("more", 4, 80)):
        table(count, first=first).to_parquet(tmp_path / f"{name}.parquet")
    run = stilla.distill({
        "task": "image-text-to-text", "output": str(tmp_path / "run"), "allow_weak_teacher": True,
        "data": {"train": str(tmp_path / "train.parquet"), "validation": str(tmp_path / "v.parquet"), "image": "image",
                 "prompt": "question", "completion": "answer", "unlabelled": str(tmp_path / "more.parquet")},
        "teacher": {"model": models[32], "data": {"image": "large", "prompt": "english"},
                    "train": {"max_steps": 2, "batch_size": 4}},
        "student": {"model": models[16]}, "completions": {"by": "teacher", "of": "unlabelled", "max_new_tokens": 4},
        "distill": {"max_steps": 2, "batch_size": 4, "precision": "float32"},
        "evaluate": {"resamples": 100, "speed": True, "generation": {"max_new_tokens": 4}}})
    assert run.scores.learnt["unlabelled"] == 4
    assert run.scores.subjects["teacher"].quality["validation"].keys() >= {"rougeL", "perplexity"}
    assert run.scores.student.kl is not None
