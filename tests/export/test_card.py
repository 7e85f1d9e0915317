"""The model card says what was measured, in a form that the Hub reads, and nothing about anybody's disk."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from transformers.pipelines import SUPPORTED_TASKS

from stilla.export import model_card, plain_usage, save_student, transformers_usage, write_card
from stilla.recipe import ModelSource
from stilla.scores import Calibration, Cost, Interval, Measured, Scores
from stilla.signals import Dense, Side
from stilla.tasks import find, kinds
from tests.tasks.text import taggers

from . import setting
from .setting import Net, plain_student, text_student

TABLE = "|  | accuracy |\n| --- | ---: |\n| student | 91.0 % |\n"


def interval(value: float) -> Interval:
    return Interval(value, value - 0.01, value + 0.01)


def measured(accuracy: float) -> Measured:
    quality = {"accuracy": interval(accuracy), "macro_f1": interval(accuracy - 0.01), "matthews": interval(0.8)}
    return Measured({"validation": {"accuracy": interval(0.9)}, "test": quality}, Cost(100, 400),
                    calibration={"test": Calibration(0.034, ())})


SCORES = Scores(
    task="text-classification", metric="accuracy", higher_is_better=True, split="test", examples={"test": 2000},
    subjects={"teacher": measured(0.93), "student": measured(0.91)}, verdict="Keeps 97.8 % of its teacher.",
    notes=("The baseline was not trained.",), flipped={"lost": 60, "won": 20}, decided=2000)


def card(teacher: str = "bert-base-uncased", data: str = "glue") -> str:
    return model_card(SCORES, name="reviews", table=TABLE, teacher=teacher, student="3 of its 12 layers", data=data,
                      usage=transformers_usage(find("text-classification")), pipeline="text-classification")


def test_hub_reads_the_front_matter() -> None:
    data: Any = ModelCard(card()).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-classification"
    assert data.base_model == "bert-base-uncased"
    assert "knowledge-distillation" in data.tags
    found = {(one.dataset_split, one.metric_type, one.metric_name): one.metric_value for one in data.eval_results}
    assert found == {("validation", "accuracy", "accuracy"): 0.9, ("test", "accuracy", "accuracy"): 0.91,
                     ("test", "f1", "macro f1"): 0.9, ("test", "matthews_correlation", "matthews"): 0.8}


def test_tasks_are_called_as_the_hub_calls_them() -> None:
    scores = replace(SCORES, task="speech-recognition")
    data: Any = ModelCard(model_card(scores, name="x", table=TABLE, teacher="t", student="3 layers", data="d", usage="",
                                     pipeline=find(scores.task).called())).data
    assert data.pipeline_tag == "automatic-speech-recognition"
    assert {one.task_type for one in data.eval_results} == {"automatic-speech-recognition"}


def test_the_front_matter_is_of_the_datas_own_splits() -> None:
    student = SCORES.student
    beside = replace(student, quality={**student.quality, "shifted.typos": {"accuracy": interval(0.5)}})
    scores = replace(SCORES, subjects={**SCORES.subjects, "student": beside})
    data: Any = ModelCard(model_card(scores, name="reviews", table=TABLE, teacher="bert-base-uncased", student="3 layers",
                                     data="glue", usage="", pipeline="text-classification")).data
    assert {one.dataset_split for one in data.eval_results} == {"validation", "test"}


def test_a_baselines_card_says_that_it_was_not_distilled() -> None:
    scores = replace(SCORES, subjects={**SCORES.subjects, "baseline": measured(0.89)})
    whole = ModelCard(model_card(scores, subject="baseline", name="reviews, labels alone", table=TABLE, data="glue",
                                 teacher="bert-base-uncased", student="3 of its 12 layers", usage="",
                                 pipeline="text-classification",
                                 parts="## Slices\n\nx"))
    data: Any = whole.data
    assert data.tags == ["stilla"]
    assert {one.metric_value for one in data.eval_results if one.dataset_split == "test"} == {0.89, 0.88, 0.8}
    assert "trained on the labels of `glue` alone. It started from `bert-base-uncased`: 3 of its 12 layers." in whole.text
    assert "## Slices\n\nx" in whole.text
    assert "distilled" not in whole.text
    assert "its teacher gets wrong" not in whole.text


def test_card_says_what_was_measured_where_it_comes_from_and_its_limits() -> None:
    text = ModelCard(card()).text
    for part in ("# reviews", "Keeps 97.8 % of its teacher.", TABLE.strip(), "3 of its 12 layers", "`glue`",
                 "The baseline was not trained.", "on 80 of 2,000 examples (60 lost, 20 won)", "3.4 points"):
        assert part in text


def test_paths_are_not_published(tmp_path: Path) -> None:
    teacher = tmp_path / "secret" / "my-bert"
    teacher.mkdir(parents=True)
    text = card(teacher=str(teacher), data=str(tmp_path / "secret" / "reviews.csv"))
    assert "`my-bert`" in text
    assert "`reviews.csv`" in text
    assert "secret" not in text
    data: Any = ModelCard(text).data
    assert data.base_model is None


def test_usage_runs_on_the_saved_folder(tmp_path: Path) -> None:
    student = text_student()
    save_student(student.model, student.processor, tmp_path / "student")
    path = write_card(tmp_path / "student", card())
    (code,) = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    said: list[object] = []
    exec(code.replace("path/to/this/folder", str(path.parent)), {"print": said.append})
    assert "'label': 'good'" in str(said) or "'label': 'bad'" in str(said)


@pytest.mark.parametrize("kind", [one for one in kinds() if one != "several"])  # whose heads are others' pipelines
def test_every_task_is_asked_by_a_pipeline_that_there_is_or_says_how(kind: str) -> None:
    task = find(kind)
    compile(transformers_usage(task).removeprefix("```python\n").removesuffix("```\n"), kind, "exec")
    assert task.usage or task.called() in SUPPORTED_TASKS


def test_pictures_and_sounds_are_asked_of_as_such() -> None:
    assert 'model("picture.png")' in transformers_usage(find("image-classification"))
    assert 'model("sound.wav")' in transformers_usage(find("audio-classification"))


def test_the_answer_to_a_question_is_found_as_the_documentation_finds_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "question-answering.md").read_text()
    assert same_code(find("question-answering").usage) in same_code(page)


def same_code(text: str) -> str:
    """Without empty lines, and with one name for the folder."""
    return "\n".join(line for line in text.replace("runs/mine/student", "path/to/this/folder").splitlines() if line.strip())


def test_plain_usage_shows_a_persons_own_class_not_what_wraps_it() -> None:
    text = plain_usage(plain_student().model)
    assert f"from {setting.__name__} import Net" in text
    assert "`bad`, `good`" in text


def test_plain_usage_names_labels_as_they_are() -> None:
    text = plain_usage(Net(), ["a/b", "c"])
    assert "`a/b`, `c`" in text
    assert "load_state_dict" in text


def test_card_replaces_the_one_before_it_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_card(tmp_path, "old")
    write_card(tmp_path, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"README.md": "new"}


def test_a_student_that_answers_at_a_words_last_token_is_asked_there(tmp_path: Path) -> None:
    place = taggers.folder(tmp_path / "student", "qwen3")
    rows = taggers.sentences(12)
    section = find("token-classification").data_section.model_validate({"train": "x", "answers": "last"})
    (code,) = re.findall(r"```python\n(.*?)```", section.use, re.DOTALL)
    there: dict[str, Any] = {"print": len}
    exec(code.replace("path/to/this/folder", place), there)
    task = find("token-classification").understand(section, {"train": Dataset.from_dict(rows)})
    made = task.load(ModelSource(model=place), labelled=True)
    prepared = task.prepare(Dataset.from_dict(rows), made.processor, None, training=False)
    batch = prepared.collate(list(range(12)))
    with torch.no_grad():
        logits = task.signals(made.model(**batch.student), batch, Side.STUDENT).logits
    assert isinstance(logits, Dense)
    given = [there["tags"](" ".join(words)) for words in rows["tokens"]]
    assert [[word for word, _ in one] for one in given] == rows["tokens"]
    expected = [taggers.ENTITIES[number] for number in logits.logits.argmax(-1).tolist()]
    assert [tag for one in given for _, tag in one] == expected
    assert not section.model_copy(update={"answers": "first"}).use


def test_a_card_says_how_an_answer_was_measured() -> None:
    section = find("question-answering").data_section
    assert not section.model_validate({"train": "x"}).use
    said = section.model_validate({"train": "x", "max_length": 512, "longest_answer": 8}).use
    assert said == "It was measured with `answer(question, context, length=512, longest=8)`.\n\n"
