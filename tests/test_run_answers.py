"""Whole runs over questions and passages: from files to a student, its files, its report, and a function that answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForQuestionAnswering

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.recipe.file import from_options
from stilla.tasks.text.answer_texts import normalised
from stilla.tasks.text.question_answering import THRESHOLD
from tests import markdown
from tests.tasks.text import answerers, taggers

pytestmark = pytest.mark.slow

QUICK = {"batch_size": 8, "precision": "float32"}
PAGE = Path(__file__).parents[1] / "docs" / "question-answering.md"


def recipe(folder: Path, *, maybe_none: bool = True, **changes: Any) -> dict[str, Any]:
    files = {split: answerers.squad(folder / f"{split}.json", size, seed, maybe_none=maybe_none, longest=12)
             for seed, (split, size) in enumerate((("train", 160), ("validation", 60), ("test", 60)))}
    return {
        "task": "question-answering", "data": {**files, "max_length": 32, "longest_answer": 4},
        "teacher": {"model": answerers.folder(folder / "start", layers=4, hidden_size=32, intermediate_size=64),
                    "train": {**QUICK, "epochs": 12, "learning_rate": 5e-3}},
        "student": {"layers": 2}, "distill": {**QUICK, "epochs": 3, "learning_rate": 3e-3},
        "evaluate": {"baseline": True, "resamples": 100, "speed": False}, "output": str(folder / "run"), **changes}


def test_answers_are_learnt_exported_shown_and_given(tmp_path: Path) -> None:
    run = stilla.distill(**recipe(tmp_path, export=["onnx", "int8"]))
    scores = run.scores
    assert (scores.metric, scores.units) == ("f1", "questions")
    assert scores.teacher["f1"] > 0.9
    assert scores.student["f1"] > 0.8
    assert scores.subjects["onnx"]["f1"] == pytest.approx(scores.student["f1"], abs=1e-6)
    assert scores.subjects["int8"]["f1"] > 0.7
    assert {"has_answer_f1", "no_answer_accuracy"} <= set(scores.student.quality["test"])
    thresholds = [getattr(AutoConfig.from_pretrained(path), THRESHOLD, None)
                  for path in (run.student, run.report.parent / "export" / "onnx")]
    assert thresholds[0] is not None
    assert thresholds[0] == thresholds[1]
    assert getattr(AutoConfig.from_pretrained(tmp_path / "start"), THRESHOLD, None) is None
    page = run.report.read_text(encoding="utf-8")
    assert not scores.flips or re.search(r"<mark", page)
    (code,) = markdown.blocks(PAGE, "python")
    space: dict[str, Any] = {}
    exec(code.replace("runs/mine/student", str(run.student)).partition("\nprint(")[0], space)
    rows = answerers.rows(60, 2, longest=12)
    right = 0
    for context, question, said in zip(*(rows[one] for one in ("context", "question", "answers"))):
        given = space["answer"](question, context)
        right += normalised(given or "") == normalised((said["text"] or [""])[0])
    assert right / 60 == pytest.approx(scores.student["exact_match"], abs=1e-6)
    assert "answer(question, context)" in (run.student / "README.md").read_text(encoding="utf-8")
    for path in (run.student, run.report.parent / "export" / "onnx", run.folder / "teacher"):
        assert AutoConfig.from_pretrained(path).answering == {"length": 32, "overlap": 0.33, "longest": 4}
    # other questions, and such as all have answers, are answered as it was measured, with the threshold that was chosen
    again = evaluate_run(run.folder, tmp_path / "test.json")
    assert {one: again.subjects[one]["f1"] for one in ("teacher", "student", "onnx")} == {
        one: scores.subjects[one]["f1"] for one in ("teacher", "student", "onnx")}
    some = answerers.rows(40, 5, maybe_none=False, longest=12)
    file = answerers.squad(tmp_path / "answered.json", 40, 5, maybe_none=False, longest=12)
    given = [space["answer"](question, context) or ""
             for context, question in zip(some["context"], some["question"])]
    right = sum(normalised(one) == normalised(said["text"][0]) for one, said in zip(given, some["answers"]))
    assert right / 40 == pytest.approx(evaluate_run(run.folder, file).student["exact_match"], abs=1e-6)


def test_a_student_learns_from_a_cache_what_it_learns_live(tmp_path: Path) -> None:
    objectives = [{"kind": "labels"}, {"kind": "logits"}, {"kind": "dkd"}, {"kind": "hidden", "layer_map": [1, 3]}]
    distill = {**QUICK, "epochs": 2, "objectives": objectives}
    losses = []
    for cache in ("none", "dense"):
        (tmp_path / cache).mkdir()
        ask = recipe(tmp_path / cache, maybe_none=False, cache=cache, distill=distill)
        start = AutoConfig.from_pretrained(ask["teacher"]["model"])  # which was once another run's student
        start.update({THRESHOLD: -3.0})
        start.save_pretrained(ask["teacher"]["model"])
        run = stilla.distill(**ask)
        assert set(run.scores.student.quality["test"]) == {"f1", "exact_match"}
        assert not hasattr(AutoConfig.from_pretrained(run.student), THRESHOLD)
        losses.append(run.scores.student.kl["test"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_student_with_fewer_tokens_learns_from_questions_that_nobody_has_answered(tmp_path: Path) -> None:
    asked = recipe(tmp_path, student={"layers": 2, "vocabulary": "data"})
    asked["teacher"]["train"] |= {"data": asked["data"]["train"]}
    asked["data"] |= {"limit": 24, "unlabelled": {"rest": True}}
    asked["distill"] |= {"epochs": 6}
    run = stilla.distill(**asked)
    assert run.scores.learnt
    assert run.scores.teacher["f1"] > 0.8
    difference = run.scores.difference
    assert difference is not None
    assert difference.value > 0.05


def test_a_student_with_other_tokens_learns_where_its_teacher_answers(tmp_path: Path) -> None:
    tokenizer = taggers.byte_level()
    config = taggers.config("roberta", len(tokenizer), ("start", "end"), hidden_size=32, intermediate_size=64)
    AutoModelForQuestionAnswering.from_config(config).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    objectives = [{"kind": "labels", "weight": 0.1}, {"kind": "logits", "temperature": 2.0}]
    distill = {**QUICK, "epochs": 10, "learning_rate": 5e-3, "objectives": objectives}
    whole = recipe(tmp_path, student={"model": str(tmp_path / "small")}, distill=distill, cache="dense")
    assert not check(from_options(whole)).problems
    hidden = {**distill, "objectives": [*objectives, {"kind": "hidden"}]}
    assert any("hidden" in one and "token" in one for one in check(from_options({**whole, "distill": hidden})).problems)
    scores = stilla.distill(**whole).scores
    assert scores.teacher["f1"] > 0.9
    assert scores.student["f1"] > 0.8
    assert 0 < scores.student.kl["test"] < scores.subjects["baseline"].kl["test"]


def test_check_says_what_makes_no_sense(tmp_path: Path) -> None:
    whole = recipe(tmp_path)
    assert not check(from_options(whole)).problems
    for changes, said in (
        ({"distill": {**QUICK, "objectives": [{"kind": "dist"}]}}, "(dist): compares what the rows of a step have"),
        ({"cache": "top_k"}, "fewer places than these; use dense"),
    ):
        found = check(from_options({**whole, **changes}))
        assert any(said in one for one in found.problems), (said, found.problems)
    (tmp_path / "more.txt").write_text("Ann\nBern\n")
    found = check(from_options({**whole, "data": {**whole["data"], "unlabelled": str(tmp_path / "more.txt")}}))
    assert any("data.unlabelled: which column is 'context'?" in one for one in found.problems)
    wrong = json.loads(Path(whole["data"]["train"]).read_text())
    asked = wrong["data"][0]["paragraphs"][0]["qas"][0]
    asked |= {"answers": [{"text": "nowhere", "answer_start": 3}], "is_impossible": False}
    Path(whole["data"]["train"]).write_text(json.dumps(wrong))
    found = check(from_options(whole))
    assert any("does not stand in 'context' where it says" in one for one in found.problems)
