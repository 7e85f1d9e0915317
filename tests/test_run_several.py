"""A whole run of two tasks: what is made, how it is measured and reported, and what a person can do with it afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer, pipeline

import stilla
from stilla.after import evaluate_run, export_run
from stilla.cache import Store
from stilla.check import check
from stilla.export import OnnxModel
from stilla.recipe.file import from_options, read
from stilla.tasks.several.model import SeveralModel
from stilla.teachers import LiveTeacher
from tests import tiny
from tests.tasks.several import setting

pytestmark = pytest.mark.slow

QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 2e-3, "precision": "float32"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> stilla.Run:
    """Two teachers, stored answers, small tasks more often."""
    folder = tmp_path_factory.mktemp("run")
    plain = recipe(folder)
    return stilla.distill(plain)


def recipe(folder: Path) -> dict[str, Any]:
    plain = setting.recipe(folder, own={"words": setting.tagger(folder / "tagger")}, allow_weak_teacher=True, export=["onnx"],
                           distill={**QUICK, "objectives": [
                               {"kind": "logits", "temperature": 2.0},
                               {"kind": "labels", "part": "topics", "weight": {"linear": [0.0, 1.0]}},
                               {"kind": "labels", "part": "words", "weight": 0.5}]})
    plain["data"]["temperature"] = 2.0
    plain["data"]["parts"]["topics"]["data"]["augment"] = "none"
    return plain


def test_every_task_has_scores_of_its_own_and_all_have_one(run: stilla.Run) -> None:
    scores = run.scores
    assert scores.metric == "mean_retention"
    assert scores.teacher["mean_retention"] == pytest.approx(1.0)
    kept = [one.student[one.metric] / one.teacher[one.metric] for one in scores.parts.values()]
    assert scores.student["mean_retention"] == pytest.approx(float(np.mean(kept)))
    assert {name: one.metric for name, one in scores.parts.items()} == {"topics": "accuracy", "words": "word_accuracy"}
    assert scores.parts["words"].units == "words"
    assert [one.name for one in scores.parts["words"].classes] == list(setting.TAGS)
    assert scores.student["words/word_accuracy"] == pytest.approx(scores.parts["words"].student["word_accuracy"])
    assert set(scores.subjects) == set(scores.parts["topics"].subjects) == {"teacher", "student", "baseline", "onnx"}
    assert stilla.Run.load(run.folder).scores == scores


def test_the_report_has_a_section_and_a_page_for_each(run: stilla.Run) -> None:
    page = run.report.read_text(encoding="utf-8")
    for name in ("topics", "words"):
        assert f"<h3>{name}</h3>" in page
        assert f'href="report/{name}.html"' in page
        assert "Decisions that changed" in (run.folder / "report" / f"{name}.html").read_text(encoding="utf-8")


def test_every_head_is_a_plain_folder_that_answers_as_the_student(run: stilla.Run) -> None:
    whole = SeveralModel.from_pretrained(run.student)
    texts = AutoModelForSequenceClassification.from_pretrained(run.student / "topics")
    words = AutoModelForTokenClassification.from_pretrained(run.student / "words")
    inputs = AutoTokenizer.from_pretrained(run.student / "words")(["old bread and salt"], return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        said = whole(**{f"{name}/{key}": value for name in ("topics", "words") for key, value in inputs.items()})["parts"]
        assert torch.allclose(texts(**inputs).logits, said["topics"]["logits"], atol=1e-6)
        assert torch.allclose(words(**inputs).logits, said["words"]["logits"], atol=1e-6)
    (topic,) = pipeline("text-classification", model=str(run.student / "topics"))("old bread")
    assert topic["label"] in tuple(tiny.TOPICS)
    found = pipeline("token-classification", model=str(run.student / "words"))("old bread")
    assert {one["entity"] for one in found} <= set(setting.TAGS)
    assert words.config.tagging["words"] == r"\S+"
    assert not hasattr(texts.config, "tagging")


def test_every_exported_head_answers_as_its_folder(run: stilla.Run) -> None:
    listed = json.loads((run.folder / "export" / "onnx" / "heads.json").read_text(encoding="utf-8"))
    assert set(listed) == {"topics", "words"}
    for name, auto in (("topics", AutoModelForSequenceClassification), ("words", AutoModelForTokenClassification)):
        tokenizer = AutoTokenizer.from_pretrained(run.student / name)
        made = tokenizer(["old bread", "a drum of salt"], padding=True, return_tensors="pt")
        inputs = {one: made[one] for one in ("input_ids", "attention_mask", "token_type_ids") if one in made}
        with torch.no_grad():
            expected = auto.from_pretrained(run.student / name)(**inputs).logits
        file = OnnxModel(run.folder / "export" / "onnx" / listed[name])
        assert torch.allclose(file(inputs), expected, atol=1e-4)


def test_the_teachers_answers_were_stored_once(run: stilla.Run) -> None:
    assert {name: len(Store(run.folder / "cache" / name)) <= most for name, most in (("topics", 120), ("words", 48))} == {
        "topics": True, "words": True}


def refuse(*_: Any) -> Any:
    raise AssertionError("asked again")


def stored(run: stilla.Run) -> dict[str, list[tuple[str, int]]]:
    """By task the files of its store; the folder around them is none."""
    return {name: sorted((one.name, one.stat().st_size) for one in (run.folder / "cache" / name).iterdir())
            for name in ("topics", "words")}


@pytest.mark.parametrize("name", ["topics", "words"])
def test_a_run_of_one_of_them_alone_asks_its_teacher_nothing(
    run: stilla.Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveTeacher, "__call__", refuse)
    whole = read(run.folder / "recipe.yaml")
    part, place = whole.data.parts[name], run.folder / "cache" / name
    before = sorted((one.name, one.stat().st_size) for one in place.iterdir())
    alone = stilla.distill({
        "task": part.task, "data": part.data.model_dump(mode="json"), "teacher": (part.teacher or whole.teacher).model,
        "student": {"layers": 1}, "distill": {**QUICK, "objectives": [{"kind": "logits", "temperature": 1.0}]},
        "cache": {"form": "dense", "path": str(place)}, "evaluate": {"baseline": False, "resamples": 100, "speed": False},
        "allow_weak_teacher": True, "output": str(tmp_path / "alone")})
    assert alone.student.is_dir()
    assert sorted((one.name, one.stat().st_size) for one in place.iterdir()) == before


def test_it_can_be_measured_and_exported_again(run: stilla.Run) -> None:
    again = evaluate_run(run.folder)
    assert again.student["mean_retention"] == pytest.approx(run.scores.student["mean_retention"])
    assert set(export_run(run.folder, ["int8"])) == {"int8"}
    assert {"onnx", "int8"} < set(stilla.Run.load(run.folder).scores.subjects)


def test_what_is_finished_is_skipped(run: stilla.Run, capsys: pytest.CaptureFixture[str]) -> None:
    stilla.distill(read(run.folder / "recipe.yaml"))
    said = capsys.readouterr().err
    assert "student: finished before, skipped" in said
    assert "training" not in said


def test_the_card_says_how_each_head_is_loaded(run: stilla.Run) -> None:
    card = (run.student / "README.md").read_text(encoding="utf-8")
    assert 'words = pipeline("token-classification", model="path/to/this/folder/words")' in card
    assert 'AutoModelForTokenClassification.from_pretrained("path/to/this/folder/words")' in card
    assert "pipeline_tag" not in card


def test_new_data_of_one_table_are_refused_in_words(run: stilla.Run, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    file.write_text(json.dumps({"text": "old bread", "topic": "food"}) + "\n", encoding="utf-8")
    with pytest.raises(stilla.DataError, match="which of several tasks"):
        evaluate_run(run.folder, str(file))


def test_a_check_finds_what_a_run_would_not_do(tmp_path: Path) -> None:
    plain = recipe(tmp_path)
    plain["distill"]["objectives"] = [
        {"kind": "labels", "part": "topics"}, {"kind": "hidden"}, {"kind": "dist", "part": "words"}]
    found = "\n".join(check(from_options(plain)).problems)
    assert "`hidden` compares hidden states" in found
    assert "correlates the classes of a row" in found


def test_one_teacher_is_trained_with_a_head_for_each(tmp_path: Path) -> None:
    plain = setting.recipe(tmp_path, allow_weak_teacher=True, distill=QUICK, evaluate={"resamples": 100, "speed": True})
    plain["teacher"]["train"]["epochs"] = 1
    plain["data"]["parts"]["topics"]["data"]["augment"] = "none"
    run = stilla.distill(plain)
    teacher = SeveralModel.from_pretrained(run.folder / "teacher")
    assert set(teacher.config.heads) == {"topics", "words"}
    assert run.scores.student.cost.latency_median_ms is not None
    # which can teach again
    plain = {**plain, "teacher": {"model": str(run.folder / "teacher")}, "output": str(tmp_path / "again")}
    assert stilla.distill(plain).scores.parts.keys() == {"topics", "words"}


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe whose teacher has learnt both tasks from all labels, and whose student gets a handful of them."""
    folder = tmp_path_factory.mktemp("knowing")
    plain = setting.recipe(folder, distill=QUICK, evaluate={"resamples": 100, "speed": False})
    plain["teacher"]["train"]["epochs"] = 12
    plain["data"]["parts"]["topics"]["data"]["augment"] = "none"
    first = stilla.distill(plain)
    few = setting.recipe(folder, student={"config": {"encoder": {"num_hidden_layers": 1}}},
                         evaluate={"resamples": 100, "speed": False, "baseline": True})
    for name, limit in (("topics", 6), ("words", 3)):
        few["data"]["parts"][name]["data"]["limit"] = limit
    few["data"]["parts"]["topics"]["data"]["augment"] = "none"
    return {**few, "teacher": {"model": str(first.folder / "teacher")}}


def with_the_rest(plain: dict[str, Any], **filters: Any) -> dict[str, Any]:
    parts = {name: {**one, "data": {**one["data"], "unlabelled": {"rest": True, **filters}}}
             for name, one in plain["data"]["parts"].items()}
    return {**plain, "data": {**plain["data"], "parts": parts}}


def test_texts_that_nobody_has_labelled_help(knowing: dict[str, Any], tmp_path: Path) -> None:
    """As many steps on nine labelled examples, and on these among the 159 others."""
    without = stilla.distill({**knowing, "distill": {**QUICK, "max_steps": 88}, "output": str(tmp_path / "without")})
    run = stilla.distill({**with_the_rest(knowing), "distill": {**QUICK, "max_steps": 88}, "output": str(tmp_path / "with")})
    assert run.scores.learnt == {"labelled": 9, "unlabelled": 159}
    assert run.scores.student["mean_retention"] > without.scores.student["mean_retention"] + 0.15
    assert run.scores.student["mean_retention"] > run.scores.baseline["mean_retention"] + 0.15
    assert "9 labelled and 159 unlabelled examples" in (run.student / "README.md").read_text(encoding="utf-8")


def test_filters_and_shares_are_of_every_task_and_what_is_finished_is_skipped(
    knowing: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = with_the_rest(knowing, max_entropy=0.3, near=0.9)
    plain = {**plain, "distill": {**QUICK, "unlabelled": 0.5}, "student": {"layers": 2, "lora": {"r": 4}},
             "output": str(tmp_path / "run")}
    plain["data"]["temperature"] = 2.0
    found = check(from_options(plain))
    assert not found.problems
    assert "unlabelled: 114 of topics, 45 of words" in found.notes
    run = stilla.distill(plain)
    left_out = {why: count for why, count in run.scores.learnt.items() if why.startswith("left out")}
    assert any(why.startswith("left out: topics, ") for why in left_out)
    assert any(why.startswith("left out: words, ") for why in left_out)
    assert 0 < run.scores.learnt["unlabelled"] <= 159 - sum(left_out.values())
    assert not any("lora" in name for name, _ in SeveralModel.from_pretrained(run.student).named_parameters())
    capsys.readouterr()
    stilla.distill(read(run.folder / "recipe.yaml"))
    said = capsys.readouterr().err
    for stage in ("unlabelled.topics", "unlabelled.words", "student", "baseline"):
        assert f"{stage}: finished before, skipped" in said


def test_a_second_student_of_the_same_teachers_asks_nothing(
    run: stilla.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another size, from other weights, of other objectives, with another seed and tasks that come otherwise often."""
    monkeypatch.setattr(LiveTeacher, "__call__", refuse)
    plain = read(run.folder / "recipe.yaml").model_dump(mode="json")
    plain["data"]["temperature"] = 5.0
    plain["student"] = {"config": {"encoder": {"num_hidden_layers": 1, "hidden_size": 16}}}
    plain |= {"cache": {"form": "dense", "path": str(run.folder / "cache")}, "seed": 7, "output": str(tmp_path / "second"),
              "distill": {**QUICK, "epochs": 1, "objectives": [
                  {"kind": "dkd", "part": "topics"}, {"kind": "logits", "part": "words"}]},
              "evaluate": {"baseline": False, "resamples": 100, "speed": False}, "export": []}
    before = stored(run)
    places = [str(run.folder / "cache" / name) for name in before]
    # all examples of both: what small tasks' shares left out of one pass came in the next
    assert stilla.capture({**plain, "output": str(tmp_path / "captured")}) == places
    second = stilla.distill(plain)
    assert second.scores.parts.keys() == before.keys()
    assert stored(run) == before
