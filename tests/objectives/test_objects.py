"""The set criterion against transformers' own on a single batch, and where that one depends on how a step is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DeformableDetrConfig, DetrConfig
from transformers.loss.loss_deformable_detr import DeformableDetrForObjectDetectionLoss
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

from stilla.errors import CompatibilityError, RecipeError
from stilla.objectives import Objects
from stilla.objectives._matching import giou, pairs
from stilla.signals import Detections, Signals

CLASSES, QUERIES = 5, 12


def labels(counts: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    torch.manual_seed(seed)
    made = torch.zeros(len(counts), max(1, *counts), 5, dtype=dtype)
    made[..., 0] = -100
    for row, count in zip(made, counts):
        row[:count, 0] = torch.randint(0, CLASSES, (count,)).to(dtype)
        row[:count, 1:3] = torch.rand(count, 2, dtype=dtype) * 0.6 + 0.2
        row[:count, 3:] = torch.rand(count, 2, dtype=dtype) * 0.3 + 0.05
    return made


def found(batch: int, *, exclusive: bool, seed: int = 1) -> Detections:
    torch.manual_seed(seed)
    logits = torch.randn(batch, QUERIES, CLASSES + exclusive, dtype=torch.float64) * 2
    boxes = torch.rand(batch, QUERIES, 4, dtype=torch.float64) * 0.5 + 0.2
    return Detections(logits.requires_grad_(), boxes.requires_grad_(), exclusive)


def as_transformers_has_them(target: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [{"class_labels": row[row[:, 0] >= 0, 0].long(), "boxes": row[row[:, 0] >= 0, 1:]} for row in target]


def in_float(said: Detections, target: torch.Tensor) -> tuple[Any, ...]:
    """Its buffers are float32."""
    return said.logits.float(), as_transformers_has_them(target.float()), "cpu", said.boxes.float()


def parts(said: Detections, target: torch.Tensor) -> dict[str, float]:
    """Each of the three by itself."""
    alone = {"classes": 0.0, "l1": 0.0, "giou": 0.0}
    both = Signals(detections=said, labels=target)
    return {name: Objects(**{**alone, name: 1.0}).total(both, 0.0).item() for name in alone}


def test_softmax_losses_are_those_of_transformers_on_one_batch() -> None:
    target, said = labels((3, 0, 6)), found(3, exclusive=True)
    _, theirs, _ = ForObjectDetectionLoss(*in_float(said, target),
                                          DetrConfig(num_labels=CLASSES, use_timm_backbone=False, backbone_config={
                                              "model_type": "resnet", "out_features": ["stage4"]}, backbone=None))
    ours, count = parts(said, target), 9
    assert ours["l1"] / count == pytest.approx(theirs["loss_bbox"].item(), rel=1e-6)
    assert ours["giou"] / count == pytest.approx(theirs["loss_giou"].item(), rel=1e-6)
    weights = count + 0.1 * (3 * QUERIES - count)  # by which they divide cross-entropies
    assert ours["classes"] / weights == pytest.approx(theirs["loss_ce"].item(), rel=1e-6)


def test_sigmoid_losses_are_those_of_transformers_on_one_batch() -> None:
    target, said = labels((3, 1, 6)), found(3, exclusive=False)
    config = DeformableDetrConfig(num_labels=CLASSES, use_timm_backbone=False, backbone=None,
                                  backbone_config={"model_type": "resnet", "out_features": ["stage4"]})
    _, theirs, _ = DeformableDetrForObjectDetectionLoss(*in_float(said, target), config)
    ours, count = parts(said, target), 10
    assert ours["l1"] / count == pytest.approx(theirs["loss_bbox"].item(), rel=1e-6)
    assert ours["giou"] / count == pytest.approx(theirs["loss_giou"].item(), rel=1e-6)
    assert ours["classes"] / count == pytest.approx(theirs["loss_ce"].item(), rel=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_sum_of_parts_is_that_of_the_whole(exclusive: bool) -> None:
    target, said = labels((3, 0, 6, 1)), found(4, exclusive=exclusive)

    def total(rows: slice) -> torch.Tensor:
        some = Detections(said.logits[rows], said.boxes[rows], exclusive)
        return Objects().total(Signals(detections=some, labels=target[rows]), 0.0)

    assert total(slice(0, 4)).item() == pytest.approx(sum(total(slice(one, one + 1)).item() for one in range(4)), rel=1e-12)


def test_pictures_that_nobody_has_labelled_teach_nothing_and_empty_ones_do() -> None:
    target, said = labels((2, 0)), found(2, exclusive=False)
    unknown = target.clone()
    unknown[1, :, 0] = torch.nan
    both, one = (Objects().total(Signals(detections=said, labels=each), 0.0) for each in (target, unknown))
    assert both.item() > one.item() > 0
    (gradient,) = torch.autograd.grad(one, said.logits)
    assert gradient[1].abs().max() == 0
    assert gradient[0].abs().max() > 0
    unknown[0, :, 0] = torch.nan
    nothing = Objects().total(Signals(detections=said, labels=unknown), 0.0)
    nothing.backward()  # a zero, with a way for gradients
    assert nothing.item() == 0


def test_what_earlier_layers_find_is_learnt_too() -> None:
    target, said, before = labels((2, 3)), found(2, exclusive=False), found(2, exclusive=False, seed=4)
    alone = [Objects().total(Signals(detections=one, labels=target), 0.0).item() for one in (said, before)]
    both = Detections(said.logits, said.boxes, earlier=(before,))
    assert Objects().total(Signals(detections=both, labels=target), 0.0).item() == pytest.approx(sum(alone))


def test_generalised_iou_is_that_of_its_paper() -> None:
    one = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2]])
    other = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.6, 0.5, 0.2, 0.2], [0.9, 0.9, 0.2, 0.2]])
    assert giou(one, other).tolist() == pytest.approx([1, 1 / 3, -(1 - 0.08)], abs=1e-6)


def test_pairs_are_found_where_a_cost_is_no_number() -> None:
    ours, theirs = pairs(torch.tensor([[float("nan"), 1.0], [0.0, float("inf")]]))
    assert sorted(zip(ours.tolist(), theirs.tolist())) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("options", [{"classes": -1.0}, {"l1": 1e12}, {"nothing": float("nan")}])
def test_weights_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        Objects(**options)


def test_a_batch_without_objects_is_refused_in_words() -> None:
    with pytest.raises(CompatibilityError, match="no detections"):
        Objects().total(Signals(labels=labels((1,))), 0.0)
    with pytest.raises(CompatibilityError, match="no labels"):
        Objects().total(Signals(detections=found(1, exclusive=True)), 0.0)
