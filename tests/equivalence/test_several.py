"""The same step however it is cut, for two tasks at once, and however the teachers' answers come."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stilla.cache import Store
from stilla.recipe import StudentSpec
from stilla.teachers import Keep, LiveTeacher, capturing
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses, weights
from tests.equivalence.several import POOLS, trainer
from tests.equivalence.test_resume import StopAt

pytestmark = pytest.mark.slow

CLOSE = 3e-6
BOTH = ("rows", "over steps")


@pytest.mark.parametrize("name", BOTH)
def test_four_micro_batches_equal_one_batch(tmp_path: Path, name: str) -> None:
    """Some of them hold examples of one task alone."""
    one = trainer(tmp_path / "one", name)
    four = trainer(tmp_path / "four", name, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    start = weights(one)
    one.train()
    four.train()
    assert distance(start, weights(one)) > 1e-3
    assert distance(weights(one), weights(four)) < CLOSE
    for a, b in zip(losses(one), losses(four), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.several", 8, 1, "over steps")
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.several", 2, 2, "over steps")
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("stop", [2, 7])  # within the first epoch, and the second
def test_stop_and_resume_equals_uninterrupted(tmp_path: Path, stop: int) -> None:
    """An epoch takes other examples than the one before, and the second is the second also after a stop."""
    whole = trainer(tmp_path / "whole", max_steps=9)
    whole.train()
    first = trainer(tmp_path / "parts", max_steps=9, callbacks=[StopAt(stop)])
    first.train()
    assert first.state.global_step == stop
    torch.manual_seed(99)
    second = trainer(tmp_path / "parts", max_steps=9)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    assert distance(weights(whole), weights(second)) == 0
    assert losses(second)[stop:] == losses(whole)[stop:]


ADAPTED = StudentSpec.model_validate({"layers": 1, "lora": {"r": 2}})


@pytest.mark.parametrize("share", [None, {"linear": [0.2, 0.9]}])
@pytest.mark.parametrize("student", [None, ADAPTED], ids=["whole", "adapters"])
def test_with_examples_that_nobody_has_labelled_too(tmp_path: Path, share: object, student: StudentSpec | None) -> None:
    kind = {"unlabelled": POOLS, "share": share, "student": student}
    one = trainer(tmp_path / "one", **kind)
    four = trainer(tmp_path / "four", per_device_train_batch_size=2, gradient_accumulation_steps=4, **kind)
    start = weights(one)
    one.train()
    four.train()
    assert distance(start, weights(one)) > 1e-3
    assert distance(weights(one), weights(four)) < CLOSE
    for a, b in zip(losses(one), losses(four), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
    first = trainer(tmp_path / "parts", callbacks=[StopAt(4)], **kind)
    first.train()
    torch.manual_seed(99)
    second = trainer(tmp_path / "parts", **kind)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-4"))
    assert distance(weights(one), weights(second)) == 0
    assert losses(second)[4:] == losses(one)[4:]


def test_a_label_of_what_is_unlabelled_has_no_part_in_a_step(tmp_path: Path) -> None:
    """What labels teach is of the labelled examples alone, whatever stands beside them."""
    made = trainer(tmp_path, unlabelled=POOLS)
    data = made.train_dataset
    known = [place for place in range(len(data)) if not data.unlabelled[place]]
    counts = {name: made.task.counts(data.collate([data.examples[place] for place in some]))
              for name, some in (("all", range(len(data))), ("known", known))}
    assert len(known) < len(data)
    for part in ("topics", "words"):
        assert counts["all"][f"{part}/labelled"] == counts["known"][f"{part}/labelled"]
        assert counts["all"][f"{part}/rows"] > counts["known"][f"{part}/rows"]


def test_two_processes_equal_one_with_unlabelled_examples_and_adapters(tmp_path: Path) -> None:
    ((alone, said_alone),) = launch(tmp_path / "one", 1, "tests.equivalence.several", 8, 1, "rows", "unlabelled")
    (first, said), (second, _) = launch(tmp_path / "two", 2, "tests.equivalence.several", 2, 2, "rows", "unlabelled")
    assert distance(first, second) == 0
    assert distance(alone, first) < CLOSE
    for a, b in zip(said_alone, said, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_answers_from_a_cache_teach_as_the_teachers_themselves(tmp_path: Path, precision: str) -> None:
    def remembering(model, task):
        places = {name: str(tmp_path / "cache" / name) for name in task.by_name}
        made_from = {name: {} for name in places}
        return capturing(LiveTeacher(model, task), task, places, Keep("dense", dtype=precision), made_from)

    live = trainer(tmp_path / "live", max_steps=14)
    stored = trainer(tmp_path / "stored", max_steps=14, teacher=remembering)
    live.train()
    stored.train()
    stored.teacher.close()
    asked = {name: one.answered for name, one in stored.teacher.parts.items()}
    assert sum(asked.values()) <= 29 + 12  # once, though most came in two epochs
    assert {name: len(Store(tmp_path / "cache" / name)) for name in asked} == asked
    assert distance(weights(live), weights(stored)) < (1e-6 if precision == "float32" else 1e-3)


def test_one_task_alone_is_learnt_as_by_the_task_itself(tmp_path: Path) -> None:
    several = trainer(tmp_path / "several", "of one", names=["topics"], temperature=3.0)
    alone = trainer(tmp_path / "several", "of one", alone=True)
    several.train()
    alone.train()
    for ours, theirs in zip(losses(several), losses(alone), strict=True):
        assert {name.replace("topics/", ""): value for name, value in ours.items()} == theirs
    head, model = several.student.alone("topics").state_dict(), alone.student.state_dict()
    assert distance(dict(head), dict(model)) == 0
