"""Whole runs of rerankers: a student that sentence-transformers loads, its files and report; what a check says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.export import OnnxModel
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.views import Ranking, view_of
from tests.tasks.retrieval.rerankers import folder, lists, pairs, searched
from tests.tasks.retrieval.setting import lines, triples

QUICK: dict[str, Any] = {"distill": {"epochs": 2, "batch_size": 4, "precision": "float32", "learning_rate": 1e-3},
                         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


def recipe(place: Path, train: str = "lists", **changes: Any) -> dict[str, Any]:
    made = {"lists": lists, "pairs": pairs, "triples": triples}[train](place / f"{train}.jsonl")
    data = {"train": made, "validation": lists(place / "v.jsonl", seed=5)}
    return {"task": "reranking", "teacher": folder(place / "teacher"), "student": {"layers": 2},
            "output": str(place / "run"), **QUICK, **changes, "data": {**data, **changes.get("data", {})}}


@pytest.mark.slow
def test_a_student_puts_what_was_found_in_order(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    ask = recipe(tmp_path, "pairs", data={"test": searched(tmp_path / "search")}, export=["onnx", "int8"])
    run = stilla.distill(ask)
    assert (run.scores.metric, run.scores.split) == ("ndcg_at_10", "test")
    assert set(run.scores.subjects) == {"teacher", "student", "onnx", "int8"}
    assert run.scores.teacher.quality["test"]["teacher_kendall"].value == pytest.approx(1)
    assert run.scores.student.quality["test"]["teacher_kendall"].value < 1
    both = [("the new song", "a song of the band"), ("old match", "the team lost the match")]
    cross = library.CrossEncoder(str(run.student), device="cpu")
    ours = cross.predict(both)
    inputs = cross.tokenizer([one for one, _ in both], [other for _, other in both], padding=True, return_tensors="pt")
    file = OnnxModel(run.folder / "export/onnx/model.onnx")
    np.testing.assert_allclose(file(dict(inputs)).reshape(-1), ours, atol=1e-5)
    assert "CrossEncoder" in (run.student / "README.md").read_text()
    again = evaluate_run(run.folder, ask["data"]["test"])  # as other data, beside the same teacher
    assert {name: again.subjects[name].quality["search"]["teacher_kendall"].value for name in again.subjects} == {
        name: one.quality["test"]["teacher_kendall"].value for name, one in run.scores.subjects.items()}
    stages = json.loads((run.folder / "stages.json").read_text())
    stilla.distill(ask)  # finished: nothing is done again
    assert json.loads((run.folder / "stages.json").read_text()) == stages
    shown = [view_of(flip.shown) for flip in Scores.load(run.folder / "scores.json").flips]
    assert shown
    assert all(isinstance(one, Ranking) for one in shown)
    assert "✓" in run.report.read_text(encoding="utf-8")
    assert evaluate_run(run.folder, lists(tmp_path / "others.jsonl", labelled=False)).metric == "teacher_kendall"


@pytest.mark.slow
@pytest.mark.parametrize("train", ["lists", "pairs", "triples"])
def test_candidates_are_compared_and_students_with_labels_alone(tmp_path: Path, train: str) -> None:
    terms = [{"kind": "logits", "divergence": "mse"}, {"kind": "ranking"},
             {"kind": "ranking", "name": "m", "compare": "margin_mse"},
             {"kind": "ranking", "name": "o", "compare": "ranknet"}, {"kind": "labels"},
             {"kind": "hidden", "pooling": "mean"}]
    run = stilla.distill(recipe(tmp_path, train, distill={**QUICK["distill"], "objectives": terms}, cache={"form": "none"},
                                evaluate={**QUICK["evaluate"], "baseline": True}))
    assert set(run.scores.subjects) == {"teacher", "student", "baseline"}
    logged = json.loads((run.folder / "log.jsonl").read_text().splitlines()[0])
    assert set(logged["terms"]) == {"logits", "ranking", "m", "o", "labels", "hidden"}


@pytest.mark.slow
def test_labels_alone_keep_their_last_weights_where_validation_data_say_nothing_of_the_first_metric(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = {"validation": lists(tmp_path / "bare.jsonl", seed=5, labelled=False), "test": lists(tmp_path / "t.jsonl", seed=6)}
    run = stilla.distill(recipe(tmp_path, data=data, evaluate={**QUICK["evaluate"], "baseline": True}))
    assert run.scores.metric == "ndcg_at_10"
    assert "eval_ndcg_at_10 is not defined on these data" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"student": {"layers": 2, "lora": {"r": 2}}}, {"student": {"layers": 2, "vocabulary": "data"}},
    {"student": {"config": {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}}},
    {"student": {"size": 0.6}}, {"teacher": {"train": {"epochs": 1}}}, {"data": {"candidates": 2, "max_length": 12}},
], ids=["adapters", "vocabulary", "config", "size", "trained", "short"])
def test_students_of_every_kind_learn_scores(tmp_path: Path, changes: dict[str, Any]) -> None:
    pieces = changes.get("student", {}).keys() & {"vocabulary", "size"}
    made = recipe(tmp_path, **changes)
    teacher = {"model": folder(tmp_path / "other", pieces=bool(pieces)), **changes.get("teacher", {})}
    run = stilla.distill({**made, "teacher": teacher})
    cross = pytest.importorskip("sentence_transformers").CrossEncoder(str(run.student), device="cpu")
    assert isinstance(cross.activation_fn, torch.nn.Identity)
    assert cross.max_seq_length == changes.get("data", {}).get("max_length", 64)
    assert np.isfinite(cross.predict([("a song", "the band")])).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lists", "pairs"])
def test_unlabelled_candidates_stand_beside_others_and_alone(tmp_path: Path, kind: str) -> None:
    more = (lists if kind == "lists" else pairs)(tmp_path / "more.jsonl", seed=40, labelled=False)
    alone = {"train": None, "text": ["query", "documents" if kind == "lists" else "passage"]}
    for number, changes in enumerate(({}, alone, {"train": None})):
        run = stilla.distill(recipe(tmp_path / str(number), kind, data={"unlabelled": more, **changes}))
        assert run.scores.learnt["unlabelled"] > 0


@pytest.mark.slow
def test_unlabelled_queries_may_share_documents_with_what_is_measured_and_are_left_out_themselves(tmp_path: Path) -> None:
    folder = Path(searched(tmp_path / "search"))
    documents = [json.loads(line)["text"] for line in (folder / "corpus.jsonl").read_text().splitlines()][:4]
    asked = json.loads((folder / "queries.jsonl").read_text().splitlines()[0])["text"]
    rows = [{"query": query, "documents": documents} for query in ("what nobody has asked yet", "nor this", asked)]
    more = tmp_path / "more.jsonl"
    more.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = {"validation": str(folder), "test": str(folder), "unlabelled": str(more)}
    notes = check(from_options(recipe(tmp_path, data=data))).notes
    assert any("1 of 3 examples stand in validation or test data" in note for note in notes), notes


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "words"), [
    ({"teacher": "two"}, "has 2 outputs; expected one score"),
    ({"distill": {"objectives": [{"kind": "margins"}]}}, "use `ranking`"),
    ({"distill": {"objectives": [{"kind": "logits"}]}}, "Use `divergence: mse`"),
    ({"data": {"train": "search", "unlabelled": "more"}}, "these data are a folder for search"),
    ({"data": {"train": "unlabelled", "validation": "unlabelled"}, "evaluate": {"baseline": True}}, "evaluate.baseline"),
])
def test_what_makes_no_sense_is_said_before_a_run(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    made = {"two": lambda: folder(tmp_path / "two", outputs=2), "search": lambda: searched(tmp_path / "search"),
            "more": lambda: pairs(tmp_path / "more.jsonl", labelled=False),
            "unlabelled": lambda: lists(tmp_path / "u.jsonl", labelled=False)}
    data = {key: made[value]() for key, value in changes.get("data", {}).items()}
    teacher = {"teacher": made["two"]()} if "teacher" in changes else {}
    found = check(from_options(recipe(tmp_path, **{**changes, "data": data, **teacher})))
    assert any(re.search(words, one) for one in found.problems), found.problems


@pytest.mark.slow
def test_a_check_of_what_works_says_what_a_run_will_do(tmp_path: Path) -> None:
    found = check(from_options(recipe(tmp_path)))
    assert not found.problems
    assert any("logits × 1" in note for note in found.notes)
    assert found.estimate is not None


@pytest.mark.slow
def test_a_student_with_other_tokens_learns_its_teachers_order(tmp_path: Path) -> None:
    given = folder(tmp_path / "given", layers=1, seed=3, pieces=True, says=None)
    terms = [{"kind": "logits", "divergence": "mse"}, {"kind": "ranking"}]
    # a teacher of random weights has an order of these lists, and nothing that other lists would share
    many = lists(tmp_path / "many.jsonl", 40)
    found = {}
    for epochs in (0.1, 30):
        learning = {**QUICK["distill"], "epochs": epochs, "objectives": terms}
        made = recipe(tmp_path, student={"model": given}, distill=learning, output=str(tmp_path / str(epochs)),
                      data={"train": many, "validation": many})
        found[epochs] = stilla.distill(made).scores.student.quality["validation"]["teacher_kendall"].value
    assert found[30] > max(0.5, found[0.1] + 0.3)


@pytest.mark.slow
def test_the_teacher_is_asked_what_it_thinks_of_every_unlabelled_pair(tmp_path: Path) -> None:
    more = pairs(tmp_path / "more.jsonl", count=10, seed=40, labelled=False)
    run = stilla.distill(recipe(tmp_path, "pairs", data={"unlabelled": {"examples": [more], "near": 0.9}}))
    assert 0 < run.scores.learnt["unlabelled"] <= 40
    asked = recipe(tmp_path / "other", "pairs", data={"unlabelled": {"examples": [more], "min_confidence": 0.9}})
    assert any("the teacher's answer is a number" in one for one in check(from_options(asked)).problems)


@pytest.mark.slow
def test_long_lists_and_grades_of_a_file_can_be_named(tmp_path: Path) -> None:
    rows = [{"frage": "a song", "treffer": ["the band", "old match"], "noten": [2, 0]}] * 4
    file = lines(tmp_path / "named.jsonl", rows)
    asked = recipe(tmp_path, data={"train": file, "text": ["frage", "treffer"], "score": "noten"})
    assert not check(from_options(asked)).problems
