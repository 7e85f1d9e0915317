"""Whole runs: a student that transformers loads as its teacher's class, its files and report; what a check says."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, Value

import stilla
from stilla.after import evaluate_run
from stilla.check import check
from stilla.export import main_file
from stilla.export.running import OnnxTowers, open_exported
from stilla.recipe.file import from_options
from stilla.scores import Scores
from stilla.views import Ranking, view_of
from tests.tasks.vision_text.setting import NAMES, captioned, classed, clip_folder, picture, siglip_folder

QUICK: dict[str, Any] = {"distill": {"epochs": 2, "batch_size": 8, "precision": "float32", "learning_rate": 1e-3},
                         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


def recipe(place: Path, made: Any = captioned, family: Any = clip_folder, **changes: Any) -> dict[str, Any]:
    data = {"train": made(place / "train.parquet", 16), "validation": made(place / "validation.parquet", 8, 16)}
    return {"task": "image-text", "teacher": family(place / "teacher"), "student": {"layers": {"text": 1, "vision": 2}},
            "output": str(place / "run"), **QUICK, **changes, "data": {**data, **changes.get("data", {})}}


@pytest.mark.slow
@pytest.mark.parametrize("family", [clip_folder, siglip_folder])
def test_a_student_is_what_its_teacher_is_to_transformers(tmp_path: Path, family: Any) -> None:
    from transformers import AutoModel, AutoProcessor, pipeline

    clip = family is clip_folder
    ask = recipe(tmp_path, classed, family, export=["onnx", "int8"] if clip else ["onnx"],
                 evaluate={**QUICK["evaluate"], "baseline": clip}, data={"template": ["a {label}", "{label}."]})
    run = stilla.distill(ask)
    assert run.scores.metric == "zero_shot_accuracy"
    assert set(run.scores.subjects) == {"teacher", "student", "onnx", *(("baseline", "int8") if clip else ())}
    model, processor = AutoModel.from_pretrained(run.student), AutoProcessor.from_pretrained(run.student)
    assert type(model).__name__ == ("CLIPModel" if clip else "SiglipModel")
    assert [len(one.encoder.layers) for one in (model.text_model, model.vision_model)] == [1, 2]
    seen = PIL.Image.open(BytesIO(picture(5)))
    texts = [f"a {name}" for name in NAMES]
    padding: Any = True if clip else "max_length"
    inputs = dict(processor(images=[seen.convert("RGB")], text=texts, return_tensors="pt", padding=padding, truncation=True))
    with torch.no_grad():
        said = model.eval()(**inputs)
    file = open_exported(main_file(run.folder / "export/onnx"))  # type: ignore[arg-type]
    assert isinstance(file, OnnxTowers)
    whole = file(inputs)
    np.testing.assert_allclose(whole[:1], said.image_embeds, atol=1e-4)
    np.testing.assert_allclose(whole[1:], said.text_embeds, atol=1e-4)
    np.testing.assert_allclose(file({"pixel_values": inputs["pixel_values"]}), said.image_embeds, atol=1e-4)
    found = pipeline("zero-shot-image-classification", model=str(run.student))(seen, candidate_labels=list(NAMES),
                                                                               hypothesis_template="a {}")
    best = int(said.logits_per_image.argmax())
    assert found[0]["label"] == NAMES[best]
    stages = json.loads((run.folder / "stages.json").read_text())
    stilla.distill(ask)
    assert json.loads((run.folder / "stages.json").read_text()) == stages  # finished: nothing is done again


@pytest.mark.slow
def test_captions_are_found_and_shown(tmp_path: Path) -> None:
    terms = [{"kind": one} for one in ("embedding", "affinities", "interactive", "contrastive")]
    run = stilla.distill(recipe(
        tmp_path, lambda path, *numbers: captioned(path, *numbers, each=3),
        student={"config": {"projection_dim": 16, "text_config": {"num_hidden_layers": 1},
                            "vision_config": {"hidden_size": 16}}},
        distill={**QUICK["distill"], "objectives": terms}))
    assert run.scores.metric == "image_to_text_recall_at_1"
    logged = json.loads((run.folder / "log.jsonl").read_text().splitlines()[0])
    assert set(logged["terms"]) == {"embedding", "affinities", "interactive", "contrastive"}
    shown = [view_of(flip.shown) for flip in Scores.load(run.folder / "scores.json").flips]
    assert all(isinstance(one, Ranking) and one.picture.startswith("data:image/") for one in shown)
    page = run.report.read_text(encoding="utf-8")
    assert page.count("<img") >= len(shown)
    assert len(page) < 2_000_000
    again = evaluate_run(run.folder, captioned(tmp_path / "others.parquet", 6, 30, each=2))
    assert again.metric == run.scores.metric


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"student": {"layers": {"text": 1, "vision": 1}, "lora": {"r": 2}}}, {"teacher": {"train": {"epochs": 1}}},
    {"cache": {"form": "dense", "precision": "float16"}}, {"cache": {"form": "none"}},
], ids=["adapters", "trained", "float16", "live"])
def test_what_other_tasks_have_works_here(tmp_path: Path, changes: dict[str, Any]) -> None:
    ask = recipe(tmp_path)
    more = {**changes, "teacher": {"model": ask["teacher"], **changes.get("teacher", {})}}
    run = stilla.distill({**ask, **more})
    assert run.scores.student is not None


@pytest.mark.slow
def test_a_student_of_another_family_reads_the_same_pictures_and_texts(tmp_path: Path) -> None:
    run = stilla.distill(recipe(tmp_path, student={"model": siglip_folder(tmp_path / "siglip", trained=False)},
                                distill={**QUICK["distill"], "objectives": [{"kind": "affinities"}]}))
    assert (run.student / "config.json").read_text().count("siglip")


@pytest.mark.slow
def test_a_student_with_fewer_tokens_gives_the_vectors_of_its_teacher(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoProcessor

    ask = recipe(tmp_path, student={"layers": {"text": 3, "vision": 3}, "vocabulary": "data"},
                 distill={**QUICK["distill"], "epochs": 1, "max_steps": 1, "learning_rate": 1e-12},
                 family=lambda path: clip_folder(path, merges=30))
    run = stilla.distill(ask)
    assert run.scores.student.quality == run.scores.teacher.quality
    vectors, sizes = [], []
    for folder in (ask["teacher"], run.student):
        model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        inputs = processor(text=["a red square, number", "a blue one"], return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            vectors.append(model.eval().get_text_features(**inputs).pooler_output)
        sizes.append(model.config.text_config.vocab_size)
    assert sizes[1] < sizes[0]
    torch.testing.assert_close(vectors[1], vectors[0], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_pictures_and_texts_by_themselves_are_learnt_from_the_teacher(tmp_path: Path, kind: str) -> None:
    pool = tmp_path / "pool.parquet"
    rows = range(40, 52)
    if kind == "pictures":
        pictures = {"image": [{"bytes": picture(number), "path": None} for number in rows]}
        Dataset.from_dict(pictures, Features({"image": Image()})).to_parquet(pool)
    else:
        Dataset.from_dict({"caption": [f"text {number}" for number in rows]},
                          Features({"caption": Value("string")})).to_parquet(pool)
    run = stilla.distill(recipe(tmp_path, data={"unlabelled": str(pool)}))
    assert run.scores.learnt["unlabelled"] == 12


def problems(ask: dict[str, Any]) -> str:
    return "\n".join(check(from_options(ask)).problems)


@pytest.mark.slow
def test_a_check_says_what_makes_no_sense_here(tmp_path: Path) -> None:
    ask = recipe(tmp_path)

    def with_terms(*kinds: str, **changes: Any) -> str:
        terms = [{"kind": kind} for kind in kinds]
        return problems({**ask, "distill": {**QUICK["distill"], "objectives": terms}, **changes})

    assert "is made of logits, and these examples have none" in with_terms("logits")
    assert "is made of logits, and these examples have none" in with_terms("labels")
    assert "compares examples with each other" in problems({**ask, "student": {"width": 0.5}})
    assert "`interactive`: the student's vectors have 32 numbers, the teacher's 24" in with_terms(
        "interactive", student={"config": {"projection_dim": 32}})
    said = problems({**ask, "student": {"layers": 1}})
    assert "student layers: got 1; CLIPModel has text (3 layers), vision (3 layers)" in said
    assert not with_terms("embedding", "affinities", "interactive", "contrastive")
