"""Students of random weights: their queries say different things of a picture from the first step on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stilla.recipe import StudentSpec
from stilla.students import fresh
from stilla.tasks.shared.labels import Problem
from stilla.tasks.vision.beginnings import begin_apart
from stilla.tasks.vision.detection import Detection
from stilla.tasks.vision.image_segmentation import ImageSegmentation
from tests.tasks.vision import detecting, segmenting


def random(family: str) -> nn.Module:
    torch.manual_seed(0)
    if family == "maskformer":
        drawn: Any = segmenting.model(family)
        made: nn.Module = type(drawn)(drawn.config)
    else:
        made = detecting.CLASSES[family](detecting.config(family))
    return made.eval()


def apart(model: nn.Module) -> float:
    """How far the queries' classes lie apart, in log-odds."""
    with torch.no_grad():
        said: Any = model(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    logits = said.get("logits")
    logits = said["class_queries_logits"] if logits is None else logits
    return float(logits.std(1).mean())


@pytest.mark.parametrize("family", ["detr", "conditional", "dab", "maskformer", "yolos"])
def test_queries_that_transformers_begins_alike_say_different_things(family: str) -> None:
    model = random(family)
    assert apart(model) < 1e-5
    torch.manual_seed(1)
    begin_apart(model)
    assert apart(model) > 1e-4
    weights = {name: one.clone() for name, one in model.named_parameters()}
    torch.manual_seed(1)
    begin_apart(model)
    changed = [name for name, one in model.named_parameters() if not torch.equal(one, weights[name])]
    # by the seed alone; what YOLOS has drawn is no zero any more
    assert changed == []


def test_offsets_of_sampling_heads_and_backbones_begin_as_they_did() -> None:
    model = random("deformable")
    before = {name: one.clone() for name, one in model.named_parameters()}
    begin_apart(model)
    same = {name for name, one in model.named_parameters() if torch.equal(one, before[name])}
    for part in ("sampling_offsets.weight", "sampling_offsets.bias", "bbox_embed", "class_embed", "backbone"):
        some = {name for name in before if part in name}
        assert some
        assert some <= same
    assert not any("query_position_embeddings" in name or "fc1.weight" in name for name in same)


@pytest.mark.parametrize("family", ["rt-detr", "d-fine", "lw-detr"])
def test_others_are_left_as_they_are(family: str) -> None:
    model = random(family)
    before = {name: one.clone() for name, one in model.named_parameters()}
    begin_apart(model)
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("task", "family"), [(Detection, "detr"), (ImageSegmentation, "maskformer")])
def test_students_by_a_config_begin_apart_and_others_keep_their_weights(task: Any, family: str) -> None:
    teacher = random(family)
    bound = task(Problem("class", (), (), ()), queries=8)
    torch.manual_seed(2)
    changes = {"decoder_layers": 1} if family == "detr" else {"decoder_config": {"decoder_layers": 1}}
    student = fresh(teacher, changes).model
    assert apart(bound.started(student, StudentSpec(config=changes))) > 1e-4
    given = random(family)
    before = {name: one.clone() for name, one in given.named_parameters()}
    bound.started(given, StudentSpec(model="given"))
    assert all(torch.equal(one, before[name]) for name, one in given.named_parameters())
