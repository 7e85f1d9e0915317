"""The model card says what was measured, in a form that the Hub reads, and nothing about anybody's disk."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from scipy.special import softmax
from transformers.pipelines import SUPPORTED_TASKS

from stilla.evaluate import Asked, examine
from stilla.export import model_card, plain_usage, save_student, transformers_usage, write_card
from stilla.recipe import ModelSource
from stilla.scores import Calibration, Cost, Interval, Measured, Scores
from stilla.signals import Dense, Side
from stilla.tasks import find, kinds
from stilla.tasks.text.answering import ABSENT
from tests.tasks.text import answerers, taggers

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


@pytest.mark.parametrize("kind", ["question-answering", "token-classification"])
def test_the_documentation_asks_as_a_card_does(kind: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / f"{kind}.md").read_text(encoding="utf-8")
    assert same_code(find(kind).usage) in same_code(page)


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


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["first", "last"])
@pytest.mark.parametrize(("family", "length"), [("qwen3", 64), ("bert", 8), ("roberta", 12)])
def test_words_are_tagged_as_the_card_says_as_they_are_measured(
    tmp_path: Path, answers: str, family: str, length: int
) -> None:
    """At once, and in windows."""
    rows = taggers.sentences(12)
    if length < 64:
        rows = {name: [[one for row in column[at : at + 4] for one in row] for at in (0, 4, 8)]
                for name, column in rows.items()}
    task = find("token-classification")
    section = task.data_section.model_validate({"train": "x", "answers": answers, "max_length": length, "overlap": 0.5})
    task = task.understand(section, {"train": Dataset.from_dict(rows)})
    made = task.load(ModelSource(model=taggers.folder(tmp_path / "start", family)), labelled=True)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():  # what stands around a word says much of its tag
        for weight in made.model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.5, generator=draw)
    task.inscribe(made.model, made.processor, None)
    save_student(made.model, made.processor, tmp_path / "student")
    there: dict[str, Any] = {"print": str}
    exec(task.usage.replace("path/to/this/folder", str(tmp_path / "student")), there)
    assert there["how"]["length"] == length
    prepared = task.prepare(Dataset.from_dict(rows), made.processor, None, training=False)
    assert len(prepared) == len(rows["tokens"]) if length == 64 else len(prepared) > 9
    batch = prepared.collate(list(range(len(prepared))))
    with torch.no_grad():
        logits = task.signals(made.model(**batch.student), batch, Side.STUDENT).logits
    assert isinstance(logits, Dense)
    given = [there["tags"](" ".join(words)) for words in rows["tokens"]]
    assert [[word for word, _ in one] for one in given] == rows["tokens"]
    expected = [taggers.ENTITIES[number] for number in logits.logits.argmax(-1).tolist()]
    assert len(set(expected)) > 1
    assert [tag for one in given for _, tag in one] == expected
    assert there["tags"]("") == []


def test_a_card_tells_of_pipelines_where_they_say_what_is_measured() -> None:
    section = find("token-classification").data_section.model_validate({"train": "x"})
    (code,) = re.findall(r"```python\n(.*?)```", section.use, re.DOTALL)
    assert "stride=32" in code
    for changes in ({"answers": "last"}, {"scheme": "none"}):
        assert "```" not in section.model_copy(update=changes).use


def test_a_folder_says_how_its_answers_were_measured(tmp_path: Path) -> None:
    task = find("question-answering")
    section = task.data_section.model_validate({"train": "x", "max_length": 40, "longest_answer": 8})
    one = task.understand(section, {"train": Dataset.from_dict(answerers.rows(12))})
    made = one.load(ModelSource(model=answerers.folder(tmp_path / "start")), labelled=True)
    one.inscribe(made.model, made.processor, None)
    assert made.model.config.answering == {"length": 40, "overlap": 0.33, "longest": 8}
    short = copy.deepcopy(made.processor)
    short.model_max_length = 30
    one.inscribe(made.model, made.processor, short)  # the same tokens: each is read by itself
    assert made.model.config.answering["length"] == 40
    one.inscribe(made.model, made.processor, taggers.byte_level())
    assert made.model.config.answering["length"] == 40


@pytest.mark.slow
@pytest.mark.parametrize(("family", "begins", "left"), [
    ("bert", True, False), ("llama", True, True), ("llama", False, False), ("llama", False, True), ("t5", False, False)])
def test_the_best_answers_are_those_that_were_measured_with_their_confidence(
    tmp_path: Path, family: str, begins: bool, left: bool
) -> None:
    """Of several windows, and with a threshold; also where no token stands for the whole text."""
    folder = answerers.folder(tmp_path / "start", hidden_size=32) if family == "bert" else \
        answerers.of_a_language_model(tmp_path / "start", family, begins=begins, left=left)
    task, rows = find("question-answering"), answerers.rows(12)
    section = task.data_section.model_validate({"train": "x", "max_length": 14 if family == "bert" else 17, "overlap": 0.5,
                                                "longest_answer": 3})
    split = Dataset.from_dict(rows)
    one = task.understand(section, {"train": split})
    made = one.load(ModelSource(model=folder), labelled=True)
    prepared = one.prepare(split, made.processor, None, training=False)
    assert len(prepared) > len(split)
    exam = one.exam()
    said = examine(exam, {"student": Asked(made.model)}, prepared)["student"]
    one.settle(made.model, said)
    one.inscribe(made.model, made.processor, None)
    save_student(made.model, made.processor, tmp_path / "student")
    there: dict[str, Any] = {"print": str}
    exec(task.usage.replace("path/to/this/folder", str(tmp_path / "student")), there)
    settled = exam.settled(said, said)
    sure = exam.decisions(settled).confidence
    assert sure is not None
    for given, context, question, first in zip(settled.given, rows["context"], rows["question"], sure):
        found = there["answers"](question, context)
        pieces = [(score, context[int(start):int(end)]) for score, start, end in given[1:] if score > ABSENT]
        expected = sorted([*pieces, (given[0, 0], None)], key=lambda one: -one[0])
        weights = softmax([one for one, _ in expected])
        wanted = sorted(((text or "", float(weight)) for (_, text), weight in zip(expected, weights)))
        got = sorted((one["answer"] or "", one["probability"]) for one in found)
        assert [text for text, _ in got] == [text for text, _ in wanted]
        assert [one for _, one in got] == pytest.approx([one for _, one in wanted], abs=1e-5)
        assert found[0]["probability"] == pytest.approx(first, abs=1e-5)
        assert sum(one["probability"] for one in found) == pytest.approx(1)
