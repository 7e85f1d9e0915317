"""Teachers of vectors that read captions in another language, or see other pictures, than their students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, Image, List, Value

import stilla
from stilla.errors import DataError
from stilla.objectives import Contrastive
from stilla.signals import Side
from stilla.tasks.vision_text.image_text import ImageText
from stilla.tasks.vision_text.sections import ImageTextData
from tests.tasks.vision_text.setting import clip_folder, loaded, picture, siglip_folder

TOLD = {"text": ("english",), "image": ("large",)}
SAID = ["rot", "grau, grau", "blau", "rot"]
ENGLISH = ["a red square", "a grey one", "a blue one", "red, again"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(clip_folder(tmp_path_factory.mktemp("clip")))


def task_of(
    said: list[Any] = SAID, english: list[Any] = ENGLISH, told: dict[str, tuple[str, ...]] = TOLD, **section: Any
) -> tuple[ImageText, Dataset]:
    kind = List(Value("string")) if isinstance(said[0], list) else Value("string")
    rows = {"image": [{"bytes": picture(number), "path": None} for number in range(len(said))],
            "large": [{"bytes": picture(number + 50, 40), "path": None} for number in range(len(said))],
            "caption": said, "english": english}
    split = Dataset.from_dict(rows, Features({"image": Image(), "large": Image(), "caption": kind, "english": kind}))
    asked = ImageTextData.model_validate({"train": "x", "image": "image", "text": "caption", **section})
    return ImageText.understand(asked, {"train": split}).taught_from(told, {"train": split}), split


def texts(processor: Any, inputs: Any, batch: Any) -> list[str]:
    read = processor.tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=True)
    return [read[one].strip() for one in batch["texts"]]


def test_a_teacher_reads_its_own_captions_of_its_own_pictures_row_by_row(clip: Any) -> None:
    task, split = task_of()
    prepared = task.prepare(split, clip.processor, clip.processor, training=True)
    batch = prepared.collate([2, 0, 3, 1])
    plain = clip.processor.tokenizer
    for inputs, column in ((batch.student, "caption"), (batch.teacher, "english")):
        wanted = plain([split[column][row] for row in (2, 0, 3, 1)])["input_ids"]
        read = plain.batch_decode(wanted, skip_special_tokens=True)
        assert texts(clip.processor, inputs, batch) == [one.strip() for one in read]
    assert not torch.equal(batch.student["pixel_values"], batch.teacher["pixel_values"])
    assert not prepared.aligned
    alone = task.of_teacher().prepare(split, clip.processor, None, training=False).collate([2, 0, 3, 1])
    torch.testing.assert_close(alone.student["pixel_values"], batch.teacher["pixel_values"])
    assert texts(clip.processor, alone.student, alone) == texts(clip.processor, batch.teacher, batch)


def test_what_a_student_reads_alike_is_one_text_whatever_its_teacher_reads(clip: Any) -> None:
    task, split = task_of()
    batch = task.prepare(split, clip.processor, clip.processor, training=True).collate([0, 1, 2, 3])
    said = task.signals(clip.model(**batch.student), batch, Side.STUDENT)
    assert said.pairs is not None
    assert said.pairs.second[0] == said.pairs.second[3]  # "rot" twice: no negatives of each other
    assert len(set(said.pairs.second.tolist())) == 3
    entries = Contrastive().entries(said, None, 0.0)
    assert torch.isfinite(Contrastive().loss(entries, 0.0))
    right = task.prepare(split, clip.processor, None, training=False).references
    assert right is not None
    assert right[0].pictures == (frozenset({0, 3}),)
    of_teacher = task.of_teacher().prepare(split, clip.processor, None, training=False).references
    assert list(of_teacher) == list(right)  # both are asked about the same texts


def test_other_tokens_and_several_captions_belong_together(clip: Any, tmp_path: Path) -> None:
    siglip = loaded(siglip_folder(tmp_path / "siglip"))
    said, english = [["rot", "ein rotes"], ["blau", "blau"]], [["red", "a red one"], ["blue", "very blue"]]
    task, split = task_of(said, english)
    batch = task.prepare(split, clip.processor, siglip.processor, training=True).collate([1, 0])
    assert texts(siglip.processor, batch.teacher, batch) == ["blue", "red", "a red one"]  # of one text twice, the first
    for odd in (["blue"], ["", "blue"], []):
        with pytest.raises(DataError, match=r"'english' has not one text for each of 'caption' in 1 of 2 .* \(row 1\)"):
            task_of(said, [["red", "a red one"], odd])


def test_texts_of_two_languages_belong_together_by_their_places_not_by_their_number(clip: Any) -> None:
    task, split = task_of([["rot", "", "rund"], [""]], [["red", " ", "round"], [None]], broken="skip")
    assert task.said is not None
    assert task.said.pairs(split) == [(("rot", "red"), ("rund", "round")), ()]
    with pytest.raises(DataError, match=r"'english' has not one text for each of 'caption' in 1 of 2 .* \(row 0\)"):
        task_of([["rot", "", "rund"], [""]], [["", "red", "round"], [None]], broken="skip")


def test_what_a_teacher_that_learns_reads_alike_is_one_text(clip: Any) -> None:
    task, split = task_of(["rot", "rötlich", "blau", "rot"], ["red", "red", "blue", "red, again"])
    for one, training, same in ((task.of_teacher(), True, (0, 1)), (task, True, (0, 3)), (task.of_teacher(), False, (0, 3))):
        numbers = one.prepare(split, clip.processor, None, training=training).collate([0, 1, 2, 3])["numbers"].tolist()
        assert numbers[same[0]] == numbers[same[1]]
        assert len(set(numbers)) == 3


@pytest.mark.parametrize(("told", "words"), [
    ({"caption": ("english",)}, r"got 'caption'; expected image or text"),
    ({"text": ("english", "caption")}, "got 2 columns of captions in place of 1"),
    ({"image": ("english",)}, "'english' of data.train holds no pictures"),
    ({"text": ("large",)}, "'large' of data.train holds no texts"),
    ({"text": ("englisch",)}, "there is no column 'englisch'")])
def test_what_no_teacher_can_read_is_refused(told: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        task_of(told=told)


def test_unlabelled_pictures_and_captions_need_what_both_read() -> None:
    task, split = task_of()
    assert set(task.beside(split).column_names) == {"image", "large", "caption", "english"}
    assert set(task.unlabelled(split.remove_columns(["caption", "english"]), {}).column_names) == {"image", "large"}
    alone = split.remove_columns(["image", "large"])
    assert set(task.unlabelled(alone, {}).column_names) == {"caption", "english"}
    with pytest.raises(DataError, match="which column is 'english'"):
        task.unlabelled(alone.remove_columns(["english"]), {})


@pytest.mark.slow
def test_a_run_with_captions_and_pictures_that_only_the_teacher_knows(tmp_path: Path) -> None:
    _, split = task_of(SAID * 4, ENGLISH * 4)
    split.to_parquet(tmp_path / "all.parquet")
    split.select_columns(["caption", "english"]).select(range(5)).to_parquet(tmp_path / "texts.parquet")
    run = stilla.distill(None, task="image-text", data={
        "train": str(tmp_path / "all.parquet"), "validation": str(tmp_path / "all.parquet"), "image": "image",
        "text": "caption", "unlabelled": str(tmp_path / "texts.parquet")}, output=str(tmp_path / "run"),
        teacher={"model": clip_folder(tmp_path / "teacher"), "data": {"text": "english", "image": "large"}},
        student={"layers": {"text": 1, "vision": 2}}, cache="dense", allow_weak_teacher=True,
        distill={"max_steps": 3, "batch_size": 8, "precision": "float32"}, evaluate={"resamples": 100, "speed": False})
    assert run.scores.learnt.keys() == {"labelled", "unlabelled"}
    teacher = run.scores.teacher.quality["validation"]
    assert teacher["text_to_image_recall_at_1"].value is not None
    assert run.report.is_file()
