"""Adapters on the encoder that several heads share: what is trained, and what is handed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stilla.export import restore, save_student
from stilla.recipe import StudentSpec
from stilla.stages.starting import start_student
from stilla.students import Student, merged
from stilla.tasks.base import Loaded
from stilla.tasks.several.model import SeveralModel
from tests.tasks.several.test_several import Made, batch_of

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("adapters"))


def started(made: Made, **lora: object) -> tuple[Student, Loaded]:
    torch.manual_seed(0)
    spec = StudentSpec.model_validate({"layers": 2, "lora": {"r": 2, **lora}})
    return start_student(spec, made.task, made.teacher)


def trained(model: torch.nn.Module) -> None:
    """Adapters that add something, and heads that have learnt."""
    torch.manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.normal_(std=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [{}, {"targets": ["query", "dense"]}])
def test_the_encoder_learns_through_adapters_and_every_head_itself(made: Made, lora: dict[str, object]) -> None:
    student, _ = started(made, **lora)
    assert isinstance(student.model, SeveralModel)
    learns = {name for name, value in student.model.named_parameters() if value.requires_grad}
    assert learns
    for name in learns:
        assert ".lora_" in name if name.startswith("encoder.") else name.startswith("heads.")
    own = {name for name, _ in student.model.named_parameters() if name.startswith("heads.")}
    assert own < learns
    assert not any(".lora_" in name for name in own)
    batch = batch_of(made, [0, 41, 3])
    plain, _ = start_student(StudentSpec(layers=2), made.task, made.teacher)
    with torch.no_grad():
        assert torch.equal(student.model.eval()(**batch.student)["logits"], plain.model.eval()(**batch.student)["logits"])


@pytest.mark.slow
def test_they_are_merged_into_the_whole_and_the_folder_of_every_head(made: Made, tmp_path: Path) -> None:
    student, loaded = started(made)
    trained(student.model)
    batch = batch_of(made, [0, 41, 3, 50])
    with torch.no_grad():
        said = student.model.eval()(**batch.student)
    save_student(student.model, loaded.processor, tmp_path, example=batch.student)
    again = SeveralModel.from_pretrained(tmp_path)
    assert not any(".lora_" in name for name, _ in again.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(again(**batch.student)["logits"], said["logits"], atol=1e-5, rtol=1e-5)
    for name, task in made.task.parts.items():
        own = {key.removeprefix(f"{name}/"): value for key, value in batch.student.items() if key.startswith(f"{name}/")}
        alone = task.load(made.recipe.teacher.model_copy(update={"model": str(tmp_path / name)}), labelled=True)
        with torch.no_grad():
            torch.testing.assert_close(alone.model(**own)["logits"], said["parts"][name]["logits"], atol=1e-5, rtol=1e-5)
    # the heads of the copy are around the copy's encoder
    whole = merged(student.model)
    assert whole.head("words").bert is whole.encoder is not student.model.encoder


@pytest.mark.slow
def test_a_later_stage_begins_with_what_an_earlier_one_has_merged(made: Made, tmp_path: Path) -> None:
    student, loaded = started(made)
    trained(student.model)
    batch = batch_of(made, [0, 41, 3])
    save_student(student.model, loaded.processor, tmp_path, example=batch.student)
    with torch.no_grad():
        said = student.model.eval()(**batch.student)["logits"]
    fresh, _ = started(made)
    restore(fresh.model, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(fresh.model.eval()(**batch.student)["logits"], said, atol=1e-5, rtol=1e-5)
    assert any(".lora_" in name for name, _ in fresh.model.named_parameters())
