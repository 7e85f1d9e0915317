"""Recipes with objectives that not every task and not every cache can serve: whole runs, and refusals before any."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from stilla.check import check
from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.recipe.yaml import load
from stilla.run import run
from tests import markdown, tiny
from tests.tasks.tiny import labels_of, vit_folder
from tests.tasks.tiny_lm import byte_tokenizer, folder, llama, sentences

pytestmark = pytest.mark.slow

NEW = [{"kind": "labels", "weight": 0.3}, {"kind": "dkd", "weight": {"linear": [0.0, 1.0]}, "beta": 2.0},
       {"kind": "dist", "weight": 0.5}]
STANDARDISED = {"kind": "logits", "standardise": True, "divergence": "jsd"}
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}


def plain(folder: Path, output: str, **changes: Any) -> Recipe:
    return from_options({"evaluate": {"speed": False, "resamples": 100, "baseline": True}, "allow_weak_teacher": True,
                         "output": str(folder / output), **changes})


def texts(folder: Path, output: str = "run", **changes: Any) -> Recipe:
    return plain(folder, output, **{
        "task": "text-classification", "data": tiny.texts(folder / "data"), "student": {"layers": 2},
        "teacher": tiny.bert(folder / "teacher", dropout=0.0),
        "distill": {"epochs": 2, "learning_rate": 1e-3, "precision": "float32", "objectives": NEW}, **changes})


def pictures(folder: Path, output: str = "run", **changes: Any) -> Recipe:
    for name, colour in COLOURS.items():
        (folder / "pictures" / name).mkdir(parents=True, exist_ok=True)
        for number in range(12):
            shade = tuple(min(255, one + 4 * number) for one in colour)
            PIL.Image.new("RGB", (8, 8), shade).save(folder / "pictures" / name / f"{number}.png")
    return plain(folder, output, **{
        "task": "image-classification", "data": str(folder / "pictures"), "student": {"layers": 1},
        "teacher": str(vit_folder(folder / "teacher", num_labels=4, **labels_of(*sorted(COLOURS)))),
        "distill": {"epochs": 2, "precision": "float32", "batch_size": 8, "accumulate": 2,
                    "objectives": [*NEW, STANDARDISED]},
        **changes})


def words(folder_: Path, output: str = "run", **changes: Any) -> Recipe:
    file = folder_ / "texts.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in sentences(60)), encoding="utf-8")
    objectives = [{"kind": "logits", "standardise": True}, {"kind": "dkd"}]
    return plain(folder_, output, **{
        "task": "causal-lm", "data": str(file), "teacher": folder(folder_ / "teacher", llama(), byte_tokenizer()),
        "student": {"layers": 2}, "distill": {"epochs": 2, "precision": "float32", "objectives": objectives}, **changes})


def terms(folder: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry["terms"] for entry in entries if "terms" in entry and entry["stage"] == "student"]


def test_labels_first_and_then_few_of_them_as_the_page_has_it(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "objectives.md"
    (part,) = [load(block, page.name) for block in markdown.blocks(page, "yaml") if "kind: labels, weight: {steps" in block]
    distill = {**part["distill"], "max_steps": 60, "batch_size": 8, "precision": "float32", "learning_rate": 1e-3,
               "trainer": {"logging_steps": 1}}
    made = run(texts(tmp_path, distill=distill, data={**tiny.texts(tmp_path / "data"), "augment": "none"},
                     teacher={"model": tiny.bert(tmp_path / "start"),
                              "train": {"epochs": 4, "batch_size": 8, "learning_rate": 5e-3, "precision": "float32"}}))
    entries = [json.loads(line) for line in (made.folder / "log.jsonl").read_text().splitlines()]
    said = [entry for entry in entries if "terms" in entry and entry["stage"] == "student"]
    assert len(said) == 60
    for step, entry in enumerate(said):
        labels, logits = (1.0, 0.0) if step < 3 else (0.1, 0.9)  # a twentieth of 60
        assert entry["terms"]["logits"] > 0
        assert entry["loss"] == pytest.approx(labels * entry["terms"]["labels"] + logits * entry["terms"]["logits"], rel=1e-4)


def test_texts_of_which_some_have_no_label_are_learnt(tmp_path: Path) -> None:
    """`augment: light` is the default here: three of four texts are changed, and have the teacher's answer alone."""
    made = run(texts(tmp_path))
    said = terms(made.folder)
    assert set(said[0]) == {"labels", "dkd", "dist"}
    assert all(math.isfinite(value) for entry in said for value in entry.values())
    assert all(max(entry[name] for entry in said) > 1e-9 for name in said[0])
    assert "augment: light" in (made.folder / "recipe.yaml").read_text()


def test_pictures_are_learnt_from_a_cache_as_from_the_teacher(tmp_path: Path) -> None:
    live, stored = (terms(run(pictures(tmp_path, form, cache=form)).folder) for form in ("none", "dense"))
    assert set(live[0]) == {"labels", "dkd", "dist", "logits"}
    assert len(live) == len(stored)
    for one, other in zip(live, stored, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_words_are_learnt_from_a_cache_as_from_the_teacher(tmp_path: Path) -> None:
    live, stored = (terms(run(words(tmp_path, form, cache=form)).folder) for form in ("none", "hidden"))
    assert set(live[0]) == {"logits", "dkd"}
    for one, other in zip(live, stored, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("form", ["top_k", "samples"])
def test_a_cache_of_parts_is_refused_by_name_before_anything_is_trained(form: str, tmp_path: Path) -> None:
    problems = check(words(tmp_path, cache=form)).problems
    assert any(f"`logits` cannot use cache.form: {form}" in one and "leave `standardise` out" in one for one in problems)
    assert any(f"`dkd` cannot use cache.form: {form}" in one and "use `logits`" in one for one in problems)


def test_what_a_task_cannot_serve_is_found_by_a_check(tmp_path: Path) -> None:
    distill = {"precision": "float32", "objectives": [STANDARDISED]}
    (problem,) = check(texts(tmp_path, distill=distill)).problems
    assert problem.startswith("distill.objectives[0] (logits): standardise: a row of 3 classes")
    (problem,) = check(words(tmp_path, distill={"objectives": [{"kind": "dist"}]}, cache="none")).problems
    assert problem.startswith("distill.objectives[0] (dist): compares the rows of a step with each other, and over a vocab")
