"""Distributions of edges: what D-FINE and DEIMv2 say of them, layer by layer; what a cache keeps; what check says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stilla
from stilla.check import check
from stilla.objectives import Edges, Queries, Term
from stilla.objectives._matching import corners
from stilla.recipe.file import from_options
from stilla.signals import Batch, Dense, Detections, Side
from stilla.tasks.base import Loaded
from stilla.tasks.vision import detectors
from stilla.tasks.vision.detection import Detection
from tests.tasks.vision.detecting import FAMILIES, folder, model
from tests.tasks.vision.test_detection_runs import recipe

WITH_EDGES = ("d-fine", "deimv2")


def _drawn(family: str, **changes: Any) -> nn.Module:
    """Whose edges lie elsewhere than where they begin, all in the middle bin."""
    made = model(family, **changes)
    torch.manual_seed(7)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "bbox_embed" in name:
                weight.normal_(0, 0.5)
    return made


def _said(made: nn.Module, side: Side = Side.STUDENT, pictures: int = 2) -> Detections:
    torch.manual_seed(3)
    inputs = {"pixel_values": torch.rand(pictures, 3, 64, 64)}
    with torch.no_grad():
        said = Detection.of_model(made).signals(made(**inputs), Batch(student=inputs, teacher=inputs), side)
    assert said.detections is not None
    return said.detections


@pytest.mark.slow
@pytest.mark.parametrize("family", WITH_EDGES)
@pytest.mark.parametrize("training", [True, False])
def test_every_layers_distributions_mean_its_own_boxes(family: str, training: bool) -> None:
    """In training there are first boxes without a distribution, then layer by layer, and what the encoder proposes."""
    made = _drawn(family, reg_scale=3.0, up=0.75)
    with torch.no_grad():  # as in a checkpoint whose config says something else
        for name, weight in made.named_parameters():
            if name.endswith("reg_scale"):
                weight.fill_(5.0)
    bins = torch.tensor(detectors.bins_of(made))
    assert len(bins) == 9
    torch.testing.assert_close(bins[[0, -1]], torch.tensor([-1.5, 1.5]))  # 2 · up
    said = _said(made.train(training))
    layers = [*said.earlier, said]
    assert [one.edges is not None for one in layers] == ([False, True, False, True] if training else [False, True])
    for one in layers:
        if one.edges is None:
            continue
        reference = one.edges.reference
        out, side = torch.tensor([-1, -1, 1, 1]), reference[..., 2:].repeat(1, 1, 2)
        far = one.edges.logits.softmax(-1) @ bins
        torch.testing.assert_close(corners(reference) + out * far * side, corners(one.boxes))
        assert (one.edges.logits.softmax(-1).amax(-1) > 0.2).any()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_other_detectors_have_no_bins(family: str) -> None:
    assert bool(detectors.bins_of(model(family))) == (family in WITH_EDGES)


@pytest.mark.slow
@pytest.mark.parametrize(("student", "learnt"), [("d-fine", True), ("d-fine", False), ("rt-detr", True)])
def test_a_cache_keeps_distributions_for_students_that_learn_them(student: str, learnt: bool) -> None:
    made = _drawn("d-fine")
    teacher, other = Loaded(made, None, ""), Loaded(model(student), None, "")
    terms = [Term(Queries()), *([Term(Edges())] if learnt else [])]
    task = replace(Detection.of_model(made), queries=8).between(other, teacher).remembering(terms)
    beside = 4 + 4 * 9 if learnt and student == "d-fine" else 0
    assert task.teacher_classes() == 8 * (3 + 4 + beside)
    assert task.kept_beside == ({"edges": 9} if beside else {})
    inputs = {"pixel_values": torch.rand(3, 3, 64, 64)}
    batch = Batch(student=inputs, teacher=inputs)
    with torch.no_grad():
        live = task.signals(made(**inputs), batch, Side.TEACHER)
    kept = task.remembered(live, batch)
    assert isinstance(kept.logits, Dense)
    assert kept.logits.logits.shape == (3, task.teacher_classes())
    again, said = task.align(live, kept, batch)[1].detections, live.detections
    assert again is not None
    assert said is not None
    torch.testing.assert_close(again.boxes, said.boxes, rtol=0, atol=0)
    torch.testing.assert_close(again.independent(), said.independent(), rtol=0, atol=0)
    assert (again.edges is not None) == bool(beside)
    if again.edges is not None and said.edges is not None:
        torch.testing.assert_close(again.edges.logits, said.edges.logits, rtol=0, atol=0)
        torch.testing.assert_close(again.edges.reference, said.edges.reference, rtol=0, atol=0)


_LEARNING: dict[str, Any] = {"epochs": 2, "batch_size": 4, "precision": "float32", "learning_rate": 1e-3, "objectives": [
    {"kind": "objects"}, {"kind": "queries"}, {"kind": "edges", "temperature": 2.0}]}


@pytest.mark.slow
def test_a_student_with_other_bins_learns_them_from_a_cache_as_from_a_live_teacher(tmp_path: Path) -> None:
    student = folder(tmp_path / "student", "d-fine", seed=4, max_num_bins=16, reg_scale=8.0)
    logs = []
    for cache in ({"form": "dense"}, {"form": "none"}):
        made = recipe(tmp_path, "d-fine", student={"model": student}, distill=_LEARNING, cache=cache)
        run = stilla.distill({**made, "output": str(tmp_path / cache["form"])})
        logs.append((run.folder / "log.jsonl").read_text().splitlines())
    live, cached = ([[line for line in log if '"edges"' in line] for log in logs])
    assert live
    assert len(live) == len(cached)
    losses = [[_edges(line) for line in some] for some in (live, cached)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert min(losses[0]) > 0


def _edges(line: str) -> float:
    return float(json.loads(line)["terms"]["edges"])


@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "student", "words"), [
    ("d-fine", "detr", "the student has none: D-FINE and DEIMv2"), ("detr", "d-fine", "the teacher has none"),
    ("d-fine", "d-fine", "")])
def test_check_says_who_has_no_distributions(tmp_path: Path, teacher: str, student: str, words: str) -> None:
    made = recipe(tmp_path, teacher, student={"model": folder(tmp_path / "student", student, seed=3)}, distill=_LEARNING)
    found = check(from_options(made)).problems
    assert [one for one in found if "(edges)" in one and words in one] if words else not found, found
