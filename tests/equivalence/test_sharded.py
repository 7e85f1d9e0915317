"""A student whose weights are spread over processes, by FSDP2 or DeepSpeed, is trained as one in a single process."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stilla import DistillationTrainer
from stilla.errors import CompatibilityError
from tests.equivalence import setting
from tests.equivalence.launching import launch
from tests.equivalence.setting import distance, losses
from tests.equivalence.sharded import FORMS, KINDS, MIDDLE, WELL, trainer

CLOSE = 5e-6
Made = tuple[Path, dict[str, Any], dict[str, Any]]
"""A folder, and what each of two processes has to say."""

kinds, well = pytest.mark.parametrize("kind", KINDS), pytest.mark.parametrize("kind", WELL)
forms = pytest.mark.parametrize("form", FORMS)
stages = pytest.mark.parametrize(("kind", "stage"), [*((kind, stage) for kind in WELL for stage in (1, 2, 3)), ("untied", 3)])
deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("fsdp") / "two"
    first, second = launch(folder, 2, "tests.equivalence.sharded", "two")
    return folder, first, second


@pytest.fixture(scope="module")
def zero(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("zero") / "two"
    first, second = launch(folder, 2, "tests.equivalence.sharded", "deepspeed", cpu=False)
    return folder, first, second


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DistillationTrainer]:
    """The same in this process."""
    made = {kind: trainer(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}
    for one in made.values():
        one.train()
    return made


def without_aliases(weights: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """A distiller's state dict has the first name of tied weights only."""
    assert like.keys() <= weights.keys()
    return {name: weights[name] for name in like}


def assert_equal_training(found: dict[str, Any], again: dict[str, Any], made: DistillationTrainer) -> None:
    weights = setting.weights(made)
    assert distance(without_aliases(found["weights"], weights), weights) < CLOSE
    for one, other, before in zip(found["losses"], again["losses"], losses(made), strict=True):
        assert one == other
        assert one == pytest.approx(before, abs=2e-5)


def assert_saved_whole(folder: Path, found: dict[str, Any], student: Any) -> None:
    loaded, said = type(student).from_pretrained(folder / "saved", output_loading_info=True)
    assert not any(said.values())
    inside = {name.removeprefix("student."): one for name, one in found["weights"].items() if name.startswith("student.")}
    assert distance(without_aliases(loaded.state_dict(), inside), inside) == 0


def assert_near(fast: dict[str, Any], exact: dict[str, Any]) -> None:
    """In bfloat16, but for the loss itself."""
    one, other = fast["losses"][-1]["loss"], exact["losses"][-1]["loss"]
    assert one == pytest.approx(other, rel=0.02)
    assert one != other
    assert torch.tensor(one).bfloat16().item() != one


# --- FSDP2 ---


@pytest.mark.slow
@kinds
def test_a_spread_student_equals_one_in_a_single_process(kind: str, fsdp: Made, alone: Any) -> None:
    _, first, second = fsdp
    for name in [f"{kind} {form}" for form in FORMS] + ([f"{kind} cut"] if kind in WELL else []):
        assert first[name]["spread"]
        assert_equal_training(first[name], second[name], alone[kind])


@pytest.mark.slow
@kinds
@forms
def test_a_spread_training_that_is_continued_equals_one_that_was_not_stopped(kind: str, form: str, fsdp: Made) -> None:
    found = fsdp[1][f"{kind} {form}"]
    assert distance(found["weights"], found["again"]) == 0


@pytest.mark.slow
@kinds
def test_a_spread_student_is_saved_whole(kind: str, fsdp: Made, alone: Any) -> None:
    assert_saved_whole(fsdp[0] / kind / FORMS[0], fsdp[1][f"{kind} {FORMS[0]}"], alone[kind].student)


@pytest.mark.slow
@well
def test_bfloat16_of_a_spread_student_is_near_float32(kind: str, fsdp: Made) -> None:
    assert_near(fsdp[1][f"{kind} halved"], fsdp[1][f"{kind} cut"])


@pytest.mark.slow
def test_a_spread_student_is_measured_within_its_wrapper(fsdp: Made, alone: Any) -> None:
    _, first, second = fsdp
    found, again = dict(first["measured"]), dict(second["measured"])
    torch.testing.assert_close(found.pop("predicted"), again.pop("predicted"), atol=0, rtol=0)
    assert found == again == pytest.approx(alone["classes"].evaluate(), abs=1e-5)
    assert distance(first["weights measured"]["weights"], first["classes FULL_STATE_DICT"]["weights"]) == 0


@pytest.mark.slow
def test_a_spread_teacher_equals_a_whole_one(fsdp: Made, alone: Any) -> None:
    found = fsdp[1]["taught"]
    assert found["teacher"]
    assert not found["spread"]
    assert_equal_training(found, fsdp[2]["taught"], alone["causal"])


@pytest.mark.slow
def test_three_processes_continue_what_two_have_begun(fsdp: Made, alone: Any) -> None:
    first, second, _ = launch(fsdp[0].parent / "three", 3, "tests.equivalence.sharded", "three")
    assert len(first) == len(WELL) * len(FORMS)
    for name in first:
        assert_equal_training(first[name], second[name], alone[name.split()[0]])


@pytest.mark.slow
def test_one_process_continues_what_two_have_begun(fsdp: Made, alone: Any, tmp_path: Path) -> None:
    made = trainer("classes", tmp_path)
    made.train(resume_from_checkpoint=str(fsdp[0] / "plain" / f"checkpoint-{MIDDLE}"))
    assert distance(setting.weights(made), setting.weights(alone["classes"])) < CLOSE


@pytest.mark.slow
def test_one_process_does_not_continue_what_was_spread(fsdp: Made, tmp_path: Path) -> None:
    checkpoint = fsdp[0] / "classes" / FORMS[0] / f"checkpoint-{MIDDLE}"
    with pytest.raises(CompatibilityError, match="it was made with `fsdp`, and its optimizer can only be read so"):
        trainer("classes", tmp_path).train(resume_from_checkpoint=str(checkpoint))


# --- DeepSpeed ---


@deepspeed
@pytest.mark.slow
@stages
def test_a_student_in_deepspeed_equals_one_in_a_single_process(kind: str, stage: int, zero: Made, alone: Any) -> None:
    _, first, second = zero
    name = f"{kind} {stage}"
    assert first[name]["spread"] == (stage == 3)
    assert_equal_training(first[name], second[name], alone[kind])
    if stage == 2:
        assert_equal_training(first[f"{kind} cut"], second[f"{kind} cut"], alone[kind])
    if kind == "classes":
        assert first[f"measured {stage}"] == pytest.approx(alone[kind].evaluate(), abs=1e-5)


@deepspeed
@pytest.mark.slow
@stages
def test_a_training_in_deepspeed_that_is_continued_equals_one_that_was_not_stopped(kind: str, stage: int, zero: Made) -> None:
    found = zero[1][f"{kind} {stage}"]
    assert distance(found["weights"], found["again"]) == 0


@deepspeed
@pytest.mark.slow
@stages
def test_a_student_in_deepspeed_is_saved_whole(kind: str, stage: int, zero: Made, alone: Any) -> None:
    assert_saved_whole(zero[0] / kind / str(stage), zero[1][f"{kind} {stage}"], alone[kind].student)


@deepspeed
@pytest.mark.slow
@well
def test_bfloat16_in_deepspeed_is_near_float32(kind: str, zero: Made) -> None:
    assert_near(zero[1][f"{kind} halved"], zero[1][f"{kind} cut"])


@deepspeed
@pytest.mark.slow
def test_a_teacher_spread_by_deepspeed_equals_a_whole_one(zero: Made, alone: Any) -> None:
    found = zero[1]["taught"]
    assert found["teacher"]
    assert not found["spread"]
    assert_equal_training(found, zero[2]["taught"], alone["untied"])
