"""Students with adapters: what is trained, what is handed over, and how a later stage begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from stilla.errors import CompatibilityError
from stilla.export import restore, save_student
from stilla.features import Recorder
from stilla.recipe import Lora
from stilla.recipe_file import from_options
from stilla.students import Student, by_layers, has_adapters, merged, with_adapters
from tests.tasks.language import gpt2, llama

pytest.importorskip("peft")

IDS = torch.arange(3, 15)[None]


def student(family=llama) -> Student:
    return with_adapters(by_layers(family(), 2), Lora(r=2))


def trained(one: Student) -> Student:
    """Adapters that add something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in one.model.named_parameters():
            if ".lora_" in name:
                value.normal_(std=0.5)
    return one


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("family", [llama, gpt2])
def test_at_first_adapters_change_nothing_and_they_alone_are_trained(family) -> None:
    made = student(family)
    assert torch.equal(logits(made.model), logits(by_layers(family(), 2).model))
    assert all(".lora_" in name for name, value in made.model.named_parameters() if value.requires_grad)
    assert type(made.model) is type(family())
    assert Recorder(made.model).stacks[0].depth == 2


@pytest.mark.parametrize("family", [llama, gpt2])
def test_what_is_written_is_a_plain_model_with_the_adapters_merged(family, tmp_path: Path) -> None:
    made = trained(student(family))
    save_student(made.model, None, tmp_path / "student", example={"input_ids": IDS})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert not has_adapters(plain)
    assert torch.allclose(logits(plain), logits(made.model), atol=1e-5)
    assert not torch.allclose(logits(plain), logits(by_layers(family(), 2).model), atol=1e-2)
    assert has_adapters(made.model)


def test_a_stage_begins_from_the_merged_weights_with_new_adapters(tmp_path: Path) -> None:
    made = trained(student())
    save_student(made.model, None, tmp_path / "stage")
    torch.manual_seed(3)
    restore(made.model, tmp_path / "stage")
    first = {name: value.clone() for name, value in made.model.state_dict().items()}
    again = trained(student())
    torch.manual_seed(4)
    restore(again.model, tmp_path / "stage")
    assert all(torch.equal(value, first[name]) for name, value in again.model.state_dict().items())
    assert torch.allclose(logits(merged(made.model)), logits(made.model), atol=1e-6)
    assert not torch.allclose(logits(made.model), logits(by_layers(llama(), 2).model), atol=1e-2)


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(CompatibilityError, match=r"student\.lora\.targets: .*nothing_such"):
        with_adapters(by_layers(llama(), 2), Lora(targets=("nothing_such",)))


def test_a_student_from_random_weights_takes_no_adapters() -> None:
    with pytest.raises(Exception, match="nothing that adapters could build on"):
        from_options({"task": "causal-lm", "data": "x", "teacher": "y", "student": {"config": {}, "lora": {"r": 2}}})
