"""How answers of every pixel are judged: against other libraries, and at the pictures' own resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, jaccard_score
from transformers import SegformerImageProcessor

from stilla.evaluate.asking import Asked, examine
from stilla.evaluate.chance import is_weak
from stilla.report.views import draw
from stilla.signals import Batch, Side
from stilla.tasks.answers import NO_ANSWER, Answers
from stilla.tasks.vision.masks import Packed
from stilla.tasks.vision.overlays import colours
from stilla.tasks.vision.segmentation_exam import POINTS, SegmentationExam, areas, likeliest
from stilla.views import Overlays, plain, view_of
from tests.tasks.vision.scenes import NAMES, loaded, segformer
from tests.tasks.vision.test_segmentation import bound

CLASSES = 5


def masks(seed: int, shapes: tuple[tuple[int, int], ...] = ((30, 20), (17, 41), (8, 8))) -> list[NDArray[Any]]:
    """Of classes 0, 1, 2 and 4: 3 is absent."""
    generator = np.random.default_rng(seed)
    return [np.array([0, 1, 2, 4])[generator.integers(0, 4, shape)] for shape in shapes]


def answers(said: list[NDArray[Any]], truth: list[NDArray[Any]]) -> Answers:
    sizes = [int(np.minimum(one.shape, POINTS).prod()) for one in said]
    given = [{"classes": Packed.of(one), "sure": np.full(size, 0.5, np.float32)} for one, size in zip(said, sizes)]
    return Answers(np.arange(len(said)), given, [Packed.of(one) for one in truth])


def exam() -> SegmentationExam:
    def shown(*_: Any) -> Overlays:
        raise AssertionError

    return SegmentationExam(tuple("abcde"), shown)


def _near_by_hand(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """The pixels of a mask with another pixel, or the end of the picture, no further away than that in rows and columns."""
    found = np.zeros_like(mask)
    for row, column in zip(*np.nonzero(mask)):
        around = [(row + down, column + right) for down in range(-distance, distance + 1)
                  for right in range(-distance, distance + 1)]
        found[row, column] = any(not (0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]) or not mask[y, x] for y, x in around)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 30), (100, 70)])
def test_boundaries_are_those_of_the_slow_definition(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(3)
    said, truth = ([np.zeros(shape, int) for _ in range(2)] for _ in range(2))
    for one in (*said, *truth):
        for kind in (1, 2, 4):
            top, left = (int(draw.integers(0, side - 20)) for side in shape)
            one[top : top + 18, left : left + 16] = kind
    truth[0][5:20, 5:20] = NO_ANSWER
    distance = max(1, round(0.02 * float(np.hypot(*shape))))
    hits, union = np.zeros(CLASSES), np.zeros(CLASSES)
    for ours, theirs in zip(said, truth):
        known = theirs != NO_ANSWER
        for kind in range(CLASSES):
            one, other = (_near_by_hand((some == kind) & known, distance) for some in (ours, theirs))
            hits[kind] += (one & other).sum()
            union[kind] += (one | other).sum()
    made = answers(said, truth)
    (metric,) = [one for one in exam().metrics() if one.name == "boundary_iou"]
    seen = union > 0
    assert metric.compute(made.given, made.references) == pytest.approx((hits[seen] / union[seen]).mean(), abs=1e-12)
    right = answers(truth[1:], truth[1:])
    assert metric.compute(right.given, right.references) == 1.0


def test_measures_are_those_of_the_summed_confusion_matrix() -> None:
    """With a class that is absent, one that is said and absent, and answers where nothing is labelled."""
    said, truth = masks(0), masks(1)
    said[0][:3, :3] = 3  # never there
    truth[1][:, :10] = NO_ANSWER
    said[1][:5, :5] = 3
    kept = [(s[t != NO_ANSWER], t[t != NO_ANSWER]) for s, t in zip(said, truth)]
    matrix = confusion_matrix(*(np.concatenate([one[side] for one in kept]) for side in (1, 0)), labels=range(CLASSES))
    hits, there, spoken = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    union = there + spoken - hits
    expected = {"mean_iou": (hits[union > 0] / union[union > 0]).mean(), "pixel_accuracy": hits.sum() / matrix.sum(),
                "mean_accuracy": (hits[there > 0] / there[there > 0]).mean()}
    made = answers(said, truth)
    found = {one.name: one.compute(made.given, made.references) for one in exam().metrics()}
    assert found.pop("boundary_iou") == pytest.approx(expected["mean_iou"], abs=0.02)  # of noise, all lies near a boundary
    assert found == pytest.approx(expected)
    by_class = exam().by_class(made)
    assert by_class.names == ("a", "b", "c", "e")
    np.testing.assert_allclose(by_class.values, (hits / np.maximum(union, 1))[[0, 1, 2, 4]])
    np.testing.assert_array_equal(by_class.support, there[[0, 1, 2, 4]])


def test_mean_iou_is_that_of_scikit_learn_over_the_classes_that_occur() -> None:
    said, truth = masks(0), masks(1)
    truth[0][0] = NO_ANSWER
    known = [(s[t != NO_ANSWER], t[t != NO_ANSWER]) for s, t in zip(said, truth)]
    flat = [np.concatenate([pair[side] for pair in known]) for side in (1, 0)]
    made = answers(said, truth)
    expected = jaccard_score(*flat, labels=[0, 1, 2, 4], average="macro")
    assert exam().metrics()[0].compute(made.given, made.references) == pytest.approx(expected)


def test_what_is_said_where_nothing_is_labelled_changes_no_measure() -> None:
    said, truth = masks(0), masks(1)
    truth[0][:10] = NO_ANSWER
    garbage = [one.copy() for one in said]
    garbage[0][:10] = 3
    known = [Packed.of(one) for one in truth]
    before, after = (areas(answers(one, truth).given, known, classes=CLASSES) for one in (said, garbage))
    np.testing.assert_array_equal(before, after)
    empty = areas(answers(said, [np.full_like(one, NO_ANSWER) for one in truth]).given,
                  [Packed.of(np.full_like(one, NO_ANSWER)) for one in truth], classes=CLASSES)
    assert not empty.any()
    assert np.isnan(exam().metrics()[0].of(empty))


def test_iou_is_of_all_pictures_together_and_not_the_mean_of_theirs() -> None:
    said, truth = masks(0), masks(1)
    metric = exam().metrics()[0]
    made = answers(said, truth)
    apart = [metric.compute(made.given[place : place + 1], made.references[place : place + 1]) for place in range(3)]
    assert abs(metric.compute(made.given, made.references) - np.mean(apart)) > 1e-3


def test_answers_are_the_masks_that_transformers_makes_of_the_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, 8, 9, generator=generator)
    sizes = [(40, 56), (7, 5)]
    expected = SegformerImageProcessor().post_process_semantic_segmentation(type("Said", (), {"logits": logits})(), sizes)
    batch = Batch(student={}, teacher={}, sizes=torch.tensor(sizes))
    given = exam().given(logits, batch, None)
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_array_equal(one["classes"].whole(), other.numpy())
    assert [len(one["sure"]) for one in given] == [POINTS * POINTS, 35]


def test_classes_that_are_made_some_at_a_time_give_the_same_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(CLASSES, 8, 9, generator=torch.Generator().manual_seed(0))
    whole = likeliest(logits, (33, 47))
    monkeypatch.setattr("stilla.tasks.vision.segmentation_exam._AT_ONCE", 2 * 33 * 47)
    assert torch.equal(likeliest(logits, (33, 47)), whole)


def test_points_are_what_a_resized_map_has_there() -> None:
    logits, teacher = (torch.randn(1, CLASSES, 8, 9, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    size = (70, 50)
    batch = Batch(student={}, teacher={}, sizes=torch.tensor([size]))
    one = exam().given(logits, batch, teacher)[0]
    whole = [torch.nn.functional.interpolate(some, size=size, mode="bilinear")[0] for some in (logits, teacher)]
    q, p = (some.log_softmax(0) for some in whole)
    rows, columns = (((np.arange(POINTS) + 0.5) * side / POINTS).astype(int) for side in size)
    places = np.ix_(rows, columns)
    np.testing.assert_allclose(one["sure"], q.amax(0).exp().numpy()[places].reshape(-1), rtol=1e-4)
    divergence = (p.exp() * (p - q)).sum(0).numpy()[places].reshape(-1)
    np.testing.assert_allclose(one["divergence"], divergence, rtol=1e-3, atol=1e-6)


def test_decisions_are_about_the_labelled_points_and_the_same_for_all_models() -> None:
    said, truth = masks(0), masks(1)
    truth[1][:] = NO_ANSWER
    one, other = (exam().decisions(answers(some, truth)) for some in (said, truth))
    assert one.matches(other, 3).tolist()[1] == [0, 0]
    assert set(one.example.tolist()) == {0, 2}
    np.testing.assert_array_equal(one.references[one.example == 2], truth[2].reshape(-1))
    np.testing.assert_array_equal(one.decided[one.example == 2], said[2].reshape(-1))
    assert exam().named(np.int64(2)) == "c"


def test_a_model_knows_more_than_the_most_frequent_class_if_it_is_better_than_that() -> None:
    truth = masks(1)
    assert is_weak(exam(), answers([np.zeros_like(one) for one in truth], truth))
    assert not is_weak(exam(), answers(truth, truth))


@pytest.mark.slow
def test_models_are_asked_at_the_resolution_of_the_pictures(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 5)
    one = loaded(task, segformer(tmp_path / "t", std=0.3))
    prepared = task.prepare(split, one.processor, None, training=False)
    both = {"teacher": Asked(one.model, Side.STUDENT), "student": Asked(one.model)}
    said = examine(task.exam(), both, prepared, batch_size=2)
    assert [one["classes"].shape for one in said["student"].given] == [(40, 56)] * 5
    assert [one.shape for one in said["student"].references] == [(40, 56)] * 5
    divergence = task.exam().divergence(said["teacher"], said["student"])
    assert divergence is not None
    assert len(divergence) == len(task.exam().decisions(said["student"]))
    assert divergence.max() < 1e-6
    assert task.exam().divergence(said["teacher"], said["teacher"]) is None
    said["student"].check_finite("student")
    with torch.no_grad():
        one.model.decode_head.classifier.bias[0] = float("nan")  # type: ignore[union-attr, index, operator]
    broken = examine(task.exam(), {"student": Asked(one.model)}, prepared)["student"]
    with pytest.raises(Exception, match="5 of 5 predictions are NaN"):
        broken.check_finite("student")


def test_a_page_shows_label_teacher_and_student_side_by_side(tmp_path: Path) -> None:
    task, split = bound(tmp_path, 3)
    one = loaded(task, segformer(tmp_path / "t", std=0.3))
    prepared = task.prepare(split, one.processor, None, training=False)
    said = examine(task.exam(), {"teacher": Asked(one.model), "student": Asked(one.model)}, prepared)
    view = task.exam().view(split, said, 1, 5)
    assert isinstance(view, Overlays)
    assert list(view.said) == ["", "teacher", "student"]
    assert {name for name, _ in view.legend} <= set(NAMES)
    assert view_of(plain(view)) == view
    html = str(draw(view, "sky").html)
    assert html.count("<img") == 4
    assert all(title in html for title in ("the data", "teacher", "student", "the picture"))
    evil = Overlays(view.uri, {"": "javascript:x", "student": view.uri}, (('<b>"', "#000000"), ("x", "url(evil)")))
    drawn = str(draw(evil, "<i>").html)
    assert "javascript" not in drawn
    assert "<b>" not in drawn
    assert "evil" not in drawn


def test_neighbouring_classes_have_colours_far_from_each_other() -> None:
    made = colours(19).astype(int)
    assert np.abs(made[1:] - made[:-1]).sum(1).min() > 80
    assert len({tuple(one) for one in made.tolist()}) == 19
