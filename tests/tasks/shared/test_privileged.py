"""Teachers that read what their students never see."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, Value

import stilla
from stilla.errors import CompatibilityError, DataError
from stilla.signals import Batch
from stilla.tasks.base import Prepared
from stilla.tasks.language.masked_lm import MaskedLM
from stilla.tasks.language.sections import MaskedLMData
from stilla.tasks.retrieval.embedding import Embedding
from stilla.tasks.retrieval.sections import EmbeddingData
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.tasks.vision.image_classification import ImageClassification
from stilla.tasks.vision.sections import ImageClassificationData
from tests import tiny as runs
from tests.tasks import tiny
from tests.tasks.retrieval.setting import folder, loaded

ROWS = {"text": ["a b", "b", "c"], "hint": ["good", "bad film", "very good"], "label": ["x", "y", "x"]}
TOLD = {"text": ("hint",)}


def text_task(
    rows: dict[str, list[Any]] = ROWS, told: dict[str, tuple[str, ...]] = TOLD, **section: Any
) -> TextClassification:
    splits = tiny.splits_of(rows)
    asked = TextClassificationData.model_validate({"train": "x", "text": "text", "label": "label", **section})
    return TextClassification.understand(asked, splits).taught_from(told, splits)


def whole(prepared: Prepared) -> Batch:
    return prepared.collate([prepared.examples[one] for one in range(len(prepared))])


def tokens(inputs: Any) -> list[list[int]]:
    return [row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"])]


@pytest.mark.parametrize("training", [True, False])
def test_a_teacher_reads_its_own_column_and_a_student_its_own(training: bool) -> None:
    tokenizer, split = tiny.bert_tokenizer(), Dataset.from_dict(ROWS)
    prepared = text_task().prepare(split, tokenizer, tokenizer, training=training)
    batch = whole(prepared)
    assert tokens(batch.student) == [tokenizer(one)["input_ids"] for one in ROWS["text"]]
    assert tokens(batch.teacher) == [tokenizer(one)["input_ids"] for one in ROWS["hint"]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 0]
    assert not prepared.aligned
    alone = whole(text_task().of_teacher().prepare(split, tokenizer, None, training=False))
    assert tokens(alone.student) == tokens(batch.teacher)
    student = whole(text_task().prepare(split, tokenizer, None, training=training))
    assert tokens(student.student) == tokens(batch.student)


def test_a_teacher_may_read_a_pair_where_its_student_reads_one_text() -> None:
    tokenizer, split = tiny.bert_tokenizer(), Dataset.from_dict(ROWS)
    batch = whole(text_task(told={"text": ("text", "hint")}).prepare(split, tokenizer, tokenizer, training=True))
    assert tokens(batch.teacher) == [tokenizer(*pair)["input_ids"] for pair in zip(ROWS["text"], ROWS["hint"])]


def test_a_teacher_may_read_more_of_a_text_than_its_student() -> None:
    tokenizer, split = tiny.bert_tokenizer(), Dataset.from_dict({**ROWS, "text": ["a b c a b c", "b", "c a b c"]})
    task = text_task(told={}, max_length=4).taught_at_length(7)
    prepared = task.prepare(split, tokenizer, tokenizer, training=True)
    batch = whole(prepared)
    assert [len(one) for one in tokens(batch.student)] == [4, 3, 4]
    assert tokens(batch.teacher) == [tokenizer(one, truncation=True, max_length=7)["input_ids"] for one in split["text"]]
    assert not prepared.aligned
    assert tokens(whole(task.of_teacher().prepare(split, tokenizer, None, training=True)).student) == tokens(batch.teacher)
    plain = text_task(told={}, max_length=4)
    assert plain.taught_at_length(4) is plain
    with pytest.raises(DataError, match=r"data\.augment: light .* the teacher reads something else"):
        text_task(told={}, augment="light").taught_at_length(7)


def test_similar_words_are_for_teachers_that_read_the_same() -> None:
    plain = text_task(told={}, augment="light", max_length=7)
    assert plain.taught_at_length(7) is plain
    assert text_task(told={"text": ("text",)}, augment="light", max_length=7) == plain
    with pytest.raises(DataError, match=r"data\.augment: light .* the teacher reads something else"):
        text_task(augment="light")


@pytest.mark.parametrize(("told", "words"), [
    ({"txt": ("hint",)}, r"teacher\.data: got 'txt'; expected text"),
    ({"text": ("label",)}, r"teacher\.data: 'label' is the label: the teacher would read the answer"),
    ({"text": ("hints",)}, r"teacher\.data: data\.train: there is no column 'hints'.*Did you mean hint"),
])
def test_columns_that_are_not_there(told: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        text_task(told=told)


def test_an_example_that_one_of_them_cannot_read_is_refused() -> None:
    task = text_task({**ROWS, "hint": ["good", "", "bad"]}, broken="skip")
    tokenizer = tiny.bert_tokenizer()
    with pytest.raises(DataError, match=r"1 example can be read by one of the models only \(rows 1\)"):
        task.prepare(Dataset.from_dict({**ROWS, "hint": ["good", "", "bad"]}), tokenizer, tokenizer, training=True)


def test_tokens_cannot_be_taught_by_a_teacher_that_reads_others() -> None:
    splits = tiny.splits_of({"text": ["a b"], "other": ["c"]})
    task = MaskedLM.understand(MaskedLMData.model_validate({"train": "x", "text": "text"}), splits)
    assert task.taught_from({}, splits) is task
    with pytest.raises(CompatibilityError, match=r"teacher\.data: rows of `masked-lm` are pieces of what both models read"):
        task.taught_from({"text": ("other",)}, splits)
    with pytest.raises(CompatibilityError, match=r"teacher\.data\.max_length: a teacher of `masked-lm` reads as much as "
                                                r"its students\. Leave it out, or set data\.max_length for both$"):
        task.taught_at_length(100)


def test_a_length_for_both_is_advised_where_the_data_have_one() -> None:
    split = Dataset.from_dict({"image": [picture(8, 1), picture(8, 2)], "label": ["x", "y"]}).cast_column("image", Image())
    task = ImageClassification.understand(ImageClassificationData(train="x"), {"train": split})
    with pytest.raises(CompatibilityError, match=r"a teacher of `image-classification` reads .* Leave it out$"):
        task.taught_at_length(100)


def test_unlabelled_examples_need_both_columns() -> None:
    task = text_task()
    pool = Dataset.from_dict({"text": ["b"], "hint": ["good"], "label": ["?"]})
    assert task.unlabelled(pool, {}).column_names == ["text", "hint"]
    with pytest.raises(DataError, match=r"which column is 'hint'\?"):
        task.unlabelled(Dataset.from_dict({"text": ["b"], "other": ["c"], "third": ["d"]}), {})
    assert set(task.beside(Dataset.from_dict(ROWS)).column_names) == {"text", "hint", "label"}


@pytest.mark.parametrize("kind", [TextClassification, Embedding])
def test_a_column_without_texts_is_refused_before_anything_reads_it(kind: Any) -> None:
    splits = tiny.splits_of({"text": ["a b", "b", "c"], "number": [1, 2, 3], "label": ["x", "y", "x"]})
    section = kind.data_section.model_validate({"train": "x", "text": "text"})
    with pytest.raises(DataError, match=r"teacher\.data: 'number' of data\.train holds no text\. The columns are"):
        kind.understand(section, splits).taught_from({"text": ("number",)}, splits)


# --- pictures ---


def picture(size: int, shade: int) -> dict[str, Any]:
    file = io.BytesIO()
    PIL.Image.new("RGB", (size, size), (shade, 2 * shade, 0)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def test_a_teacher_sees_another_picture() -> None:
    features = Features({"small": Image(decode=False), "large": Image(decode=False), "label": Value("string"),
                         "note": Value("string")})
    sizes = {"small": [picture(4, one) for one in (10, 20)], "large": [picture(16, one) for one in (90, 100)]}
    split = Dataset.from_dict({**sizes, "label": ["x", "y"], "note": ["x", "y"]}, features=features)
    section = ImageClassificationData.model_validate({"train": "x", "image": "small", "label": "label"})
    task = ImageClassification.understand(section, {"train": split}).taught_from({"image": ("large",)}, {"train": split})
    small, large = tiny.image_processor(4), tiny.image_processor(16)
    batch = whole(task.prepare(split, small, large, training=True))
    assert batch.student["pixel_values"].shape == (2, 3, 4, 4)
    assert batch.teacher["pixel_values"].shape == (2, 3, 16, 16)
    assert (batch.teacher["pixel_values"].mean((1, 2, 3)) > batch.student["pixel_values"].mean((1, 2, 3))).all()
    assert set(task.beside(split).column_names) == {"small", "large", "label"}
    with pytest.raises(DataError, match=r"'note' of data\.train holds no pictures"):
        task.taught_from({"image": ("note",)}, {"train": split})


# --- vectors ---


def test_a_sentence_is_taught_the_vector_of_its_translation(tmp_path: Path) -> None:
    teacher = loaded(folder(tmp_path / "teacher"))
    split = Dataset.from_dict({"text": ["a cat", "the dog"], "english": ["the dog", "a cat"]})
    section = EmbeddingData.model_validate({"train": "x", "text": "text"})
    task = Embedding.understand(section, {"train": split}).taught_from({"text": ("english",)}, {"train": split})
    task = task.adapted_to(teacher)
    batch = whole(task.prepare(split, teacher.processor, teacher.processor, training=True))
    with torch.no_grad():
        own, theirs = (task.outputs(teacher.model(**inputs)) for inputs in (batch.student, batch.teacher))
    np.testing.assert_allclose(own.flip(0), theirs, atol=1e-6)
    assert not np.allclose(own, theirs, atol=1e-3)
    with pytest.raises(DataError, match="got 2 columns for the 1 texts of an example"):
        task.taught_from({"text": ("english", "text")}, {"train": split})


# --- a whole run ---


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "dense"])
def test_a_run_whose_teacher_is_told_what_it_is_about(tmp_path: Path, cache: str) -> None:
    recipe = runs.recipe(tmp_path)
    for file in recipe["data"].values():
        rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
        hints = [" ".join(runs.TOPICS[row["topic"]][:2]) for row in rows]
        Path(file).write_text("".join(json.dumps({"text": row["text"], "topic": row["topic"], "hint": hint}) + "\n"
                                      for row, hint in zip(rows, hints)))
    recipe["data"] |= {"text": "text", "label": "topic"}
    recipe["teacher"]["data"] = {"text": "hint"}
    run = stilla.distill({**recipe, "cache": cache, "distill": {"epochs": 2, "learning_rate": 1e-3, "precision": "float32"}})
    # the hint says the topic, some of the texts another one: no model that reads texts reaches it
    assert run.scores.subjects["teacher"]["accuracy"] == 1.0
    assert run.scores.subjects["student"]["accuracy"] < 1.0
    if cache == "none":
        return
    again = stilla.evaluate_run(run.folder, recipe["data"]["validation"])
    assert again.subjects["teacher"]["accuracy"] == 1.0
    few = [{"text": json.loads(line)["text"], "topic": json.loads(line)["topic"]}
           for line in Path(recipe["data"]["test"]).read_text().splitlines()]
    with pytest.raises(DataError, match="there is no column 'hint'"):
        stilla.evaluate_run(run.folder, few)
