"""Whole runs over vectors of texts: a student that sentence-transformers loads, its files and report; what a check says."""

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
from stilla.errors import RecipeError, StillaError
from stilla.export import OnnxModel
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.tasks.retrieval.told import embed
from stilla.training import adapting
from stilla.views import Ranking, view_of
from tests.tasks.retrieval.setting import (
    encoder,
    folder,
    lines,
    loaded,
    scored,
    search,
    sentences,
    spelling,
    texts,
    tokenizer,
    triples,
)

QUICK: dict[str, Any] = {"distill": {"epochs": 2, "batch_size": 8, "precision": "float32", "learning_rate": 1e-3},
                         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


def recipe(place: Path, train: str = "texts", **changes: Any) -> dict[str, Any]:
    made = {"texts": texts, "scored": scored, "triples": triples}[train](place / f"{train}.jsonl")
    data = {"train": made, "validation": scored(place / "v.jsonl"), "score_range": [0, 5]}
    return {"task": "embedding", "teacher": folder(place / "teacher", prompts={"query": "the "}), "student": {"layers": 2},
            "output": str(place / "run"), **QUICK, **changes, "data": {**data, **changes.get("data", {})}}


@pytest.mark.slow
def test_a_student_of_texts_alone_searches(tmp_path: Path) -> None:
    asked = recipe(tmp_path, data={"test": search(tmp_path / "search")}, export=["onnx", "int8"])
    run = stilla.distill(asked)
    assert run.scores.metric == "ndcg_at_10"
    assert run.scores.split == "test"
    assert set(run.scores.subjects) == {"teacher", "student", "onnx", "int8"}
    assert not [note for note in run.scores.notes if "not defined" in note and "retention" not in note]
    student, said = loaded(run.student), sentences(8, 7)
    ours = embed(student, said, [None] * 8)
    found = pytest.importorskip("sentence_transformers").SentenceTransformer(str(run.student), device="cpu")
    np.testing.assert_allclose(ours, found.encode(said), atol=1e-6)
    file = OnnxModel(run.folder / "export/onnx/model.onnx")
    assert file.output == "sentence_embedding"
    inputs = student.processor.tokenizer(said, padding=True, return_tensors="pt")
    np.testing.assert_allclose(file(dict(inputs)), ours, atol=1e-5)
    assert 'print(sentence_embedding)' in (run.folder / "export/onnx/README.md").read_text()
    assert "SentenceTransformer" in (run.student / "README.md").read_text()
    stages = json.loads((run.folder / "stages.json").read_text())
    stilla.distill(asked)  # finished: nothing is done again
    assert json.loads((run.folder / "stages.json").read_text()) == stages
    shown = [view_of(flip.shown) for flip in Scores.load(run.folder / "scores.json").flips]
    rankings = [view for view in shown if isinstance(view, Ranking)]
    assert rankings
    assert {"teacher", "student"} <= set(rankings[0].lists)
    assert "✓" in run.report.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("train", "objectives"), [
    ("scored", ["embedding", {"kind": "labels"}, {"kind": "logits", "divergence": "mse"}]),
    ("triples", ["embedding", "similarities", "margins", {"kind": "logits", "temperature": 1.0}, "labels"])])
def test_what_stands_beside_a_text_is_learnt_too_and_compared_with_labels_alone(
    tmp_path: Path, train: str, objectives: list[Any]
) -> None:
    terms = [{"kind": one} if isinstance(one, str) else one for one in objectives]
    run = stilla.distill(recipe(tmp_path, train, distill={**QUICK["distill"], "objectives": terms},
                                evaluate={**QUICK["evaluate"], "baseline": True}))
    assert set(run.scores.subjects) == {"teacher", "student", "baseline"}
    assert run.scores.metric == "spearman"
    again = evaluate_run(run.folder, tmp_path / "v.jsonl")  # as other data, of the training's columns or of others
    assert again.student["spearman"] == pytest.approx(run.scores.student["spearman"], abs=1e-6)
    logged = json.loads((run.folder / "log.jsonl").read_text().splitlines()[0])
    assert set(logged["terms"]) == {term["kind"] for term in terms}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"student": {"layers": 2, "lora": {"r": 2}}},
    {"student": {"layers": 2, "vocabulary": "data"}, "cache": {"form": "none"}},
    {"student": {"config": {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}}},
    {"data": {"dimensions": 8}},
    {"student": {"layers": 1}, "data": {"dimensions": 16, "matryoshka": [4, 8], "max_length": 12}},
    {"distill": {**QUICK["distill"], "objectives": [{"kind": "embedding"}, {"kind": "hidden", "pooling": "mean"}]}},
], ids=["adapters", "vocabulary", "config", "dimensions", "beginnings", "hidden"])
def test_students_of_every_kind_learn_vectors(tmp_path: Path, changes: dict[str, Any]) -> None:
    teacher = {"teacher": spelling(tmp_path / "spelling")} if "vocabulary" in changes.get("student", {}) else {}
    run = stilla.distill({**recipe(tmp_path, **changes), **teacher})
    student = loaded(run.student)
    width = changes.get("data", {}).get("dimensions", 32)
    assert student.model.width == width
    measured = {f"spearman_first_{size}" for size in changes.get("data", {}).get("matryoshka", ())}
    assert measured == {name for name in run.scores.subjects["student"].quality[run.scores.split] if "first" in name}
    found = pytest.importorskip("sentence_transformers").SentenceTransformer(str(run.student), device="cpu")
    said = sentences(6, 9)
    np.testing.assert_allclose(embed(student, said, [None] * 6), found.encode(said), atol=1e-6)


@pytest.mark.slow
def test_unlabelled_texts_stand_beside_others_and_alone(tmp_path: Path) -> None:
    more = texts(tmp_path / "more.jsonl", 30, 11)
    for number, changes in enumerate(({}, {"train": None})):
        run = stilla.distill(recipe(tmp_path / str(number), data={"unlabelled": more, **changes}))
        assert run.scores.learnt["unlabelled"] > 0


@pytest.mark.slow
def test_a_given_student_with_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    encoder(2, 16, 5).save_pretrained(tmp_path / "given")
    other = tokenizer()
    other.padding_side = "left"
    other.save_pretrained(tmp_path / "given")
    run = stilla.distill(recipe(tmp_path, student={"model": str(tmp_path / "given")}))
    assert loaded(run.student).model.width == 32


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "words"), [
    ({"evaluate": {"baseline": True}}, "evaluate.baseline: learns from labels alone"),
    ({"distill": {"objectives": [{"kind": "labels"}]}}, "these data say of no example what is right"),
    ({"distill": {"objectives": [{"kind": "logits"}]}}, "is made of logits, and these examples have none"),
    ({"distill": {"objectives": [{"kind": "margins"}]}}, "is made of logits, and these examples have none"),
    ({"distill": {"objectives": [{"kind": "dist"}]}}, "is made of logits, and these examples have none"),
    ({"cache": {"form": "top_k"}}, "cache.form: top_k stores a part of a distribution, and a vector is none"),
    ({"cache": {"form": "hidden"}}, "cache.form: hidden"),
    ({"data": {"pooling": "max"}}, r"data\.pooling: got 'max'.*says 'mean'"),
    ({"data": {"dimensions": 99}}, r"data\.dimensions: got 99"),
    ({"teacher": "tests.tasks.own_models:made"}, "a model by import path"),
])
def test_what_makes_no_sense_is_said_before_a_run(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    found = check(from_options(recipe(tmp_path, **changes)))
    assert found.problems
    assert any(re.search(words, one) for one in found.problems), found.problems


def test_filters_by_what_the_teacher_thinks_are_refused(tmp_path: Path) -> None:
    more = texts(tmp_path / "more.jsonl", 30, 11)
    asked = recipe(tmp_path, data={"unlabelled": {"examples": [more], "min_confidence": 0.5}})
    assert any("the teacher's answer is a vector" in one for one in check(from_options(asked)).problems)


@pytest.mark.slow
def test_a_check_of_what_works_says_what_a_run_will_do(tmp_path: Path) -> None:
    found = check(from_options(recipe(tmp_path)))
    assert not found.problems
    assert any("embedding × 1" in note for note in found.notes)
    assert found.estimate is not None


@pytest.mark.slow
def test_units_that_matter_less_are_left_out_where_scores_say_which(tmp_path: Path) -> None:
    narrow = {"layers": 2, "width": {"ffn": 0.5}}
    with pytest.raises(StillaError, match=r"student\.width: what a unit matters is seen by the loss of labels"):
        stilla.distill(recipe(tmp_path / "texts", student=narrow))
    run = stilla.distill(recipe(tmp_path / "pairs", "scored", student=narrow))
    assert loaded(run.student).model.config.intermediate_size == 32


@pytest.mark.slow
def test_queries_with_one_answer_each_are_learnt_from_alone_and_teach_a_teacher(tmp_path: Path) -> None:
    """Beside the other answers of a step: the baseline, and a teacher that is trained first."""
    rows = [json.loads(line) for line in Path(triples(tmp_path / "triples.jsonl", 24)).read_text().splitlines()]
    pairs = lines(tmp_path / "pairs.jsonl", [{name: row[name] for name in ("query", "positive")} for row in rows])
    asked = recipe(tmp_path, data={"train": pairs, "validation": pairs, "test": pairs}, evaluate={"baseline": True})
    asked["teacher"] = {"model": asked["teacher"], "train": {"epochs": 1.0}}
    run = stilla.distill(asked)
    logged = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    for stage in ("teacher", "baseline"):
        assert {name for one in logged if one["stage"] == stage for name in one.get("terms", ())} == {"contrastive"}
    assert {"teacher", "student", "baseline"} <= {*run.scores.subjects}


@pytest.mark.slow
def test_a_teacher_that_learns_from_pairs_first_finds_what_does_not_answer(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(triples(tmp_path / "triples.jsonl", 24)).read_text().splitlines()]
    pairs = lines(tmp_path / "pairs.jsonl", [{name: row[name] for name in ("query", "positive")} for row in rows])
    asked = recipe(tmp_path, data={"train": pairs, "validation": pairs, "negatives": {"mined": 2}})
    asked["teacher"] = {"model": asked["teacher"], "train": {"epochs": 1.0}}
    run = stilla.distill(asked)
    logged = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert {name for one in logged if one["stage"] == "student" for name in one.get("terms", ())} == {"embedding", "logits"}


@pytest.mark.slow
def test_a_teacher_is_adapted_by_what_answers_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its direction is that of the quiz, which is of more than rounding."""
    lengths = list[float]()
    real = adapting.Adapting._crossed

    def crossed(self: adapting.Adapting, batch: Any, own: Any, direction: Any, step: Any) -> Any:
        lengths.append(float(torch.stack([one.norm() for one in direction]).norm()))
        return real(self, batch, own, direction, step)

    monkeypatch.setattr(adapting.Adapting, "_crossed", crossed)
    adapted = {**QUICK["distill"], "objectives": [{"kind": "logits", "temperature": 1.0}, {"kind": "embedding"}],
               "adapt": {"quiz": 0.3, "batch_size": 4, "learning_rate": 1e-3}}
    stilla.distill(recipe(tmp_path, "triples", distill=adapted, cache={"form": "none"}))
    assert lengths
    assert min(lengths) > 1e-3


def test_a_run_refuses_a_baseline_of_texts_too(tmp_path: Path) -> None:
    with pytest.raises((RecipeError, StillaError), match=r"evaluate\.baseline: learns from labels alone"):
        stilla.distill(recipe(tmp_path, evaluate={"baseline": True}))


@pytest.mark.slow
def test_a_given_student_makes_vectors_in_its_own_way(tmp_path: Path) -> None:
    given = folder(tmp_path / "given", pooling="first", normalised=False, left=True)
    run = stilla.distill(recipe(tmp_path, student={"model": given}, distill={**QUICK["distill"], "max_steps": 2}))
    assert loaded(run.student).model.shape.pooling == "first"  # its teacher's is mean
    again = evaluate_run(run.folder, tmp_path / "v.jsonl")  # as other data
    assert again.student["spearman"] == pytest.approx(run.scores.student["spearman"], abs=1e-6)


@pytest.mark.slow
def test_a_run_can_be_measured_on_other_data_of_any_kind(tmp_path: Path) -> None:
    run = stilla.distill(recipe(tmp_path))
    found = evaluate_run(run.folder, search(tmp_path / "search"))
    assert found.metric == "ndcg_at_10"
    scores = evaluate_run(run.folder, texts(tmp_path / "others.jsonl", 20, 21))
    assert scores.metric == "teacher_cosine"
    assert scores.teacher.quality["others"]["teacher_cosine"].value == pytest.approx(1, abs=1e-6)
    assert 0 < scores.student.quality["others"]["teacher_cosine"].value < 1
