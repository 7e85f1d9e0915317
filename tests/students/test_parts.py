"""Parts of a student as folders beside it: what transformers loads is what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from stilla.errors import CompatibilityError
from stilla.recipe import Lora
from stilla.students import numbers_of, part_of, read_part, write_part
from tests.tasks.tiny_lm import gpt2, llama

pytest.importorskip("peft")

IDS = torch.arange(3, 15)[None]


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def trained(shared: nn.Module, spec: Lora) -> nn.Module:
    torch.manual_seed(1)
    made = part_of(shared, spec, {}).model
    with torch.no_grad():
        for value in numbers_of(made).values():
            value.normal_(std=0.3)
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # peft's, where a tied layer is named
@pytest.mark.parametrize(("family", "spec"), [
    (llama, Lora(r=2)), (gpt2, Lora(r=2, alpha=3.0)), (llama, Lora(r=2, targets=("lm_head", "q_proj"))),
    (llama, Lora(r=2, targets=("embed_tokens",)))], ids=["llama", "gpt2", "head", "embedding"])
def test_transformers_loads_the_student_and_a_part_as_they_were_trained(family, spec: Lora, tmp_path: Path) -> None:
    shared = family()
    made = trained(shared, spec)
    write_part(made, spec, tmp_path / "part")
    shared.save_pretrained(tmp_path / "student")
    plain = type(shared).from_pretrained(tmp_path / "student")
    assert torch.equal(logits(plain), logits(shared))
    plain.load_adapter(str(tmp_path / "part"))
    assert (logits(plain) - logits(shared)).abs().max() > 0.01
    torch.testing.assert_close(logits(plain), logits(made), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(read_part(shared, tmp_path / "part")), logits(made), rtol=0, atol=1e-6)


def test_a_new_part_changes_nothing_and_the_shared_student_stays_as_it_is() -> None:
    shared = llama()
    before = {name: value.clone() for name, value in shared.state_dict().items()}
    made = part_of(shared, Lora(r=2), {}).model
    torch.testing.assert_close(logits(made), logits(shared), rtol=0, atol=0)
    assert {name for name, value in made.named_parameters() if value.requires_grad} == {
        name for name, _ in made.named_parameters() if ".lora_" in name}
    trained(shared, Lora(r=2))
    assert all(torch.equal(value, before[name]) for name, value in shared.state_dict().items())


@pytest.mark.slow
def test_a_part_of_another_student_is_refused(tmp_path: Path) -> None:
    write_part(trained(gpt2(), Lora(r=2)), Lora(r=2), tmp_path / "part")
    with pytest.raises(CompatibilityError, match="no part of this student can be read there"):
        read_part(llama(), tmp_path / "part")
    write_part(trained(llama(), Lora(r=2)), Lora(r=2), tmp_path / "other")
    wide = LlamaForCausalLM(type(llama().config)(**{**llama().config.to_dict(), "intermediate_size": 24}))
    with pytest.raises(CompatibilityError, match="no part of this student can be read there"):
        read_part(wide, tmp_path / "other")


def test_what_transformers_could_not_load_again_gets_no_part() -> None:
    with pytest.raises(CompatibilityError, match="Linear is no model of transformers"):
        part_of(nn.Linear(2, 2), Lora(r=1), {})
