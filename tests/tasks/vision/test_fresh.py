"""Pictures changed and mixed at random: the same for both models, however a step is cut, answered by the teacher alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Image
from pydantic import ValidationError
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from stilla import DistillationTrainer, Term
from stilla.errors import CacheError, CompatibilityError
from stilla.objectives import Labels, Logits
from stilla.signals import Batch
from stilla.tasks.base import Prepared
from stilla.tasks.vision.fresh import Mix, View, changed
from stilla.tasks.vision.sections import STRONG, Augment, ImageClassificationData
from stilla.teachers import CapturingTeacher, Keep, LiveTeacher, capture
from tests.equivalence.pictures import vit
from tests.tasks.tiny import image_processor
from tests.tasks.vision.test_image_classification import rows_of, task_of

MIXING = {"crop": 0.5, "mixup": 0.5, "cutmix": 0.5}
PAIR = image_processor(8, image_mean=[0.1] * 3, image_std=[0.3] * 3), image_processor(8, image_mean=[0.7] * 3)


def prepared_of(augment: Any, count: int = 8, teacher: Any = PAIR[1], **section: Any) -> Prepared:
    rows = rows_of(count)
    return task_of(rows, augment=augment, **section).prepare(rows, PAIR[0], teacher, training=True, seed=3)


def back(pixels: torch.Tensor, processor: Any) -> torch.Tensor:
    """Bytes, from what a model sees."""
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (processor.image_mean, processor.image_std))
    return ((pixels * std + mean) * 255).round()


@pytest.mark.parametrize("augment", ["strong", MIXING, {"flip": True, "colour": 0.5}])
def test_both_models_get_the_same_mixture_each_normalised_in_its_own_way(augment: Any) -> None:
    batch = prepared_of(augment).collate(list(range(8)))
    ours, theirs = (one["pixel_values"] for one in (batch.student, batch.teacher))
    assert not torch.equal(ours, theirs)
    assert torch.equal(back(ours, PAIR[0]), back(theirs, PAIR[1]))


def test_a_blend_and_a_box_are_of_both_pictures_at_their_shares() -> None:
    one, other = PIL.Image.new("RGB", (20, 10), (200, 0, 0)), PIL.Image.new("RGB", (7, 5), (0, 100, 0))
    blend = np.asarray(Mix(0, share=0.25).of(one, other), float)
    np.testing.assert_allclose(blend, np.broadcast_to([50, 75, 0], blend.shape), atol=1)
    boxed = np.asarray(Mix(0, box=(0.5, 0.0, 1.0, 0.4)).of(one, other))
    assert (boxed[:4, 10:] == [0, 100, 0]).all()
    assert (boxed[4:] == [200, 0, 0]).all()
    assert (boxed[:, :10] == [200, 0, 0]).all()


def test_partner_share_and_box_follow_from_seed_view_and_key() -> None:
    how = Augment.model_validate(MIXING)
    drawn = [View(how, 1, 0, key).mix(key, 100) for key in range(400)]
    assert drawn == [View(how, 1, 0, key).mix(key, 100) for key in range(400)]
    for others in ([View(how, 2, 0, key).mix(key, 100) for key in range(400)],
                   [View(how, 1, 1, key).mix(key, 100) for key in range(400)]):
        assert sum(a == b for a, b in zip(drawn, others, strict=True)) < 5
    assert all((one is not None and one.partner != key % 100) or key >= 100 for key, one in enumerate(drawn))
    blends = [one.share for one in drawn if one is not None and one.share is not None]
    assert 150 < len(blends) < 250
    assert 0.4 < np.mean(blends) < 0.6
    few = [View(how.model_copy(update={"mixup": 0.1, "cutmix": 0.2}), 1, 0, key).mix(0, 100) for key in range(400)]
    assert 80 < sum(one is not None for one in few) < 160
    assert View(how, 1, 0, 0).mix(0, 1) is None  # nobody else is there


def test_a_mixed_picture_has_no_label_and_an_unmixed_one_its_own() -> None:
    prepared = prepared_of({"mixup": 0.5}, count=40)
    seen = set()
    for epoch in range(3):
        prepared.on_epoch(epoch)  # type: ignore[misc]
        labels = prepared.collate(list(range(40))).labels
        assert labels is not None
        assert set(labels[labels != -100].tolist()) == {0, 1}
        assert all(label in (-100, key % 2) for key, label in enumerate(labels.tolist()))
        seen.add(tuple((labels == -100).tolist()))
        assert 8 < int((labels == -100).sum()) < 32
    assert len(seen) == 3


def test_nothing_is_mixed_where_no_teacher_answers() -> None:
    alone = prepared_of(MIXING, teacher=None).collate(list(range(8)))
    assert alone.labels is not None
    assert (alone.labels >= 0).all()
    cropped = prepared_of({"crop": 0.5}, teacher=None).collate(list(range(8)))
    assert torch.equal(alone.student["pixel_values"], cropped.student["pixel_values"])


def test_a_crop_has_its_share_and_shape_and_only_flip_mirrors() -> None:
    ramp = PIL.Image.fromarray(np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))).convert("RGB")
    sizes, mirrored = [], 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        seen = np.asarray(changed(ramp, Augment(crop=0.35), draw), float)
        assert (np.diff(seen[len(seen) // 2, 2:-2, 0]) >= 0).all()
        sizes.append(seen.shape[0] * seen.shape[1] / 4800)
        assert 0.7 < seen.shape[1] / seen.shape[0] / (80 / 60) < 1.4
        turned = np.asarray(changed(ramp, Augment(flip=True), np.random.default_rng(seed)), float)
        mirrored += turned[0, 0, 0] > turned[0, -1, 0]
    assert 0.33 < min(sizes) < 0.45
    assert 0.9 < max(sizes) <= 1
    assert 15 < mirrored < 45


@pytest.mark.parametrize(("given", "words"), [
    ({"mixup": 0.7, "cutmix": 0.4}, "expected at most 1 together"), ({"crop": 1.0}, "nothing would change"),
    ({}, "nothing would change"),
    ({"rotate": 3}, "rotate"), ({"crop": 0}, "greater than 0")])
def test_what_makes_no_sense_is_refused(given: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ImageClassificationData.model_validate({"train": "x", "augment": given})


def test_strong_is_what_it_says_it_is() -> None:
    named = prepared_of(STRONG.model_dump()).collate(list(range(8)))
    assert torch.equal(named.student["pixel_values"], prepared_of("strong").collate(list(range(8))).student["pixel_values"])


def test_the_loaders_processes_and_any_order_see_the_same_mixtures() -> None:
    prepared = prepared_of(MIXING)
    prepared.on_epoch(2)  # type: ignore[misc]
    whole = prepared.collate(list(range(8))).student["pixel_values"]
    loader = DataLoader(prepared.examples, batch_sampler=[[5, 1], [7], [0, 2, 3], [6, 4]], num_workers=2,
                        collate_fn=prepared.collate)
    parts: list[Batch] = list(loader)
    order = torch.cat([batch["keys"] for batch in parts])
    assert torch.equal(torch.cat([batch.student["pixel_values"] for batch in parts]), whole[order])


# --- steps ---


def trainer(
    folder: Path, pieces: tuple[int, int], augment: Any = MIXING, terms: Any = None, **options: Any
) -> DistillationTrainer:
    torch.manual_seed(0)
    rows = rows_of(8)
    task = task_of(rows, augment=augment)
    student, teacher = (vit(layers) for layers in (1, 2))
    for model in (student, teacher):
        model.classifier = torch.nn.Linear(16, 2)
    return DistillationTrainer(
        student, teacher, terms=terms or [Term(Logits())], task=task,
        train_dataset=task.prepare(rows, *PAIR, training=True, seed=3),
        args=TrainingArguments(str(folder), per_device_train_batch_size=pieces[0], gradient_accumulation_steps=pieces[1],
                               num_train_epochs=3, learning_rate=0.05, optim="sgd", use_cpu=True, report_to=[],
                               disable_tqdm=True, **{"save_strategy": "no", **options}))


def weights(made: DistillationTrainer) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in made.student.parameters()])


@pytest.mark.slow
def test_eight_micro_batches_four_and_two_are_the_same_step_of_the_same_mixtures(tmp_path: Path) -> None:
    found = []
    for pieces in ((8, 1), (4, 2), (2, 4), (1, 8)):
        made = trainer(tmp_path, pieces)
        start = weights(made)
        made.train()
        found.append(weights(made))
        assert (found[-1] - start).abs().max() > 1e-3
    for one in found[1:]:
        torch.testing.assert_close(one, found[0], atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_a_resumed_training_sees_the_mixtures_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", (4, 1), "strong")
    whole.train()
    trainer(tmp_path / "parts", (4, 1), "strong", save_strategy="steps", save_steps=3).train()
    again = trainer(tmp_path / "parts", (4, 1), "strong", save_strategy="steps", save_steps=3)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert torch.equal(weights(whole), weights(again))


def test_labels_of_pictures_that_are_all_mixed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="where every picture is mixed, none has a label"):
        trainer(tmp_path, (8, 1), terms=[Term(Labels()), Term(Logits())])


# --- views ---


def capturing(folder: Path, task: Any, model: Any) -> CapturingTeacher:
    return CapturingTeacher(LiveTeacher(model, task), task, folder / "cache", Keep(), {"teacher": "a"})


def test_every_view_of_an_example_is_a_key_of_its_own_and_answered_once(tmp_path: Path) -> None:
    rows, views = rows_of(6), 3
    task = task_of(rows, augment="strong", views=views)
    prepared = task.prepare(rows, *PAIR, training=True, seed=3)
    assert prepared.views == views
    model = vit(1)
    model.classifier = torch.nn.Linear(16, 2)
    teacher = capturing(tmp_path, task, model)
    assert sum(capture(teacher, prepared, batch_size=4, device=torch.device("cpu"))) == views * 6
    assert teacher.answered == views * 6
    live = LiveTeacher(model, task)
    seen = []
    for epoch in range(2 * views):
        prepared.on_epoch(epoch)  # type: ignore[misc]
        batch = prepared.collate([4, 0, 2])
        seen.append(batch.teacher["pixel_values"])
        assert teacher.holds(batch)
        torch.testing.assert_close(teacher(batch).logits.logits, live(batch).logits.logits)  # type: ignore[union-attr]
        assert torch.equal(seen[epoch], seen[epoch % views])
    assert not torch.equal(seen[0], seen[1])
    assert teacher.answered == views * 6
    other = task.prepare(rows, *PAIR, training=True, seed=99)  # every student of a run learns from the same
    assert torch.equal(other.collate([4, 0, 2]).teacher["pixel_values"], seen[0])


def test_forms_without_end_are_not_captured(tmp_path: Path) -> None:
    rows = rows_of(6)
    task = task_of(rows, augment="strong")
    with pytest.raises(CacheError, match=r"Use data\.views: 8"):
        list(capture(capturing(tmp_path, task, vit(1)), task.prepare(rows, *PAIR, training=True), batch_size=4,
                     device=torch.device("cpu")))


def test_views_of_examples_that_do_not_change_are_refused() -> None:
    with pytest.raises(ValidationError, match="views: they are of examples that change"):
        ImageClassificationData.model_validate({"train": "x", "augment": "none", "views": 4})




# --- a teacher that sees another column ---


def test_a_teachers_own_pictures_are_mixed_like_the_students() -> None:
    rows = rows_of(8)
    stored = rows.cast_column("image", Image(decode=False))["image"]
    rows = rows.add_column("large", list(stored), feature=rows.features["image"])  # the same ones, to be compared
    task = replace(task_of(rows, augment=MIXING, image="image"), teachers="large")
    prepared = task.prepare(rows, *PAIR, training=True, seed=3)
    batch = prepared.collate([prepared.examples[index] for index in range(8)])
    assert torch.equal(back(batch.student["pixel_values"], PAIR[0]), back(batch.teacher["pixel_values"], PAIR[1]))
    assert batch.labels is None  # all are mixed
    assert torch.equal(batch.student["pixel_values"], prepared_of(MIXING).collate(list(range(8))).student["pixel_values"])
    assert not prepared.framed


# --- several forms of a pass ---


@pytest.mark.parametrize("augment", ["light", {"crop": 0.5, "mixup": 0.5}])
@pytest.mark.parametrize("column", ["image", "large"])
def test_each_picture_comes_in_the_form_that_was_chosen_for_it_to_both_models(augment: Any, column: str) -> None:
    rows = rows_of(8)
    stored = rows.cast_column("image", Image(decode=False))["image"]
    rows = rows.add_column("large", list(stored), feature=rows.features["image"])
    task = replace(task_of(rows, augment=augment, image="image"), teachers="" if column == "image" else column)
    prepared, seen = task.prepare(rows, *PAIR, training=True, seed=3), []
    for candidates in ([0] * 8, [1] * 8, [0, 1] * 4):
        for turns in prepared.turns:
            turns.choose(prepared.keys, np.array(candidates))
        batch = prepared.collate([prepared.examples[index] for index in range(8)])
        assert torch.equal(back(batch.student["pixel_values"], PAIR[0]), back(batch.teacher["pixel_values"], PAIR[1]))
        seen.append(batch)
    first, second, both = (batch.student["pixel_values"] for batch in seen)
    assert (first != second).flatten(1).any(1).all()
    assert torch.equal(both[::2], first[::2])
    assert torch.equal(both[1::2], second[1::2])
    assert all(torch.equal(batch.labels, seen[0].labels) for batch in seen)
    plain = task.prepare(rows, *PAIR, training=True, seed=3)
    assert torch.equal(plain.collate([plain.examples[index] for index in range(8)]).student["pixel_values"], first)
