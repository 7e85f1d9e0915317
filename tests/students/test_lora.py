"""Students with adapters: what is trained, what is handed over, and how a later stage begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from stilla.check import check
from stilla.errors import CompatibilityError, ExportError
from stilla.export import huggingface, restore, save_student
from stilla.models.features import Recorder
from stilla.recipe import Lora, Recipe
from stilla.recipe.file import from_options
from stilla.run import run
from stilla.students import Student, by_layers, has_adapters, merged, with_adapters
from stilla.training.dropout import dropping
from tests.tasks.tiny_lm import byte_tokenizer, folder, gpt2, llama, sentences

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


@pytest.mark.slow
@pytest.mark.parametrize("family", [llama, gpt2])
def test_what_is_written_is_a_plain_model_with_the_adapters_merged(family, tmp_path: Path) -> None:
    made = trained(student(family))
    save_student(made.model, None, tmp_path / "student", example={"input_ids": IDS})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert not has_adapters(plain)
    assert torch.allclose(logits(plain), logits(made.model), atol=1e-5)
    assert not torch.allclose(logits(plain), logits(by_layers(family(), 2).model), atol=1e-2)
    assert has_adapters(made.model)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_merge_that_changes_what_is_computed_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trained(student())
    save_student(made.model, None, tmp_path / "student", example={"input_ids": IDS})

    def broken(model: torch.nn.Module) -> torch.nn.Module:
        whole = merged(model)
        with torch.no_grad():
            whole.model.layers[1].mlp.up_proj.weight *= 1.1
        return whole

    monkeypatch.setattr(huggingface, "merged", broken)
    with pytest.raises(ExportError, match="with its adapters merged the model answers an example differently"):
        save_student(made.model, None, tmp_path / "student", example={"input_ids": IDS})
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert torch.allclose(logits(kept), logits(made.model), atol=1e-4)


@pytest.mark.parametrize("own", [0.0, 0.5])
@pytest.mark.parametrize("of_the_model", [0.0, 0.3, None])
def test_adapters_keep_their_dropout_while_they_are_trained(own: float, of_the_model: float | None) -> None:
    made = trained(with_adapters(by_layers(llama(), 2), Lora(r=2, dropout=own))).model.train()
    before = made.state_dict()

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with torch.no_grad(), dropping(made, of_the_model):
            answer: torch.Tensor = made(input_ids=IDS).logits
        return answer

    chance = own > 0 or of_the_model == 0.3
    assert torch.equal(drawn(1), drawn(2)) is not chance
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_a_dropout_that_a_head_cannot_have_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"student\.lora\.dropout: got 0\.1; expected 0 where lm_head, the head, is"):
        with_adapters(by_layers(llama(), 2), Lora(dropout=0.1, targets=("q_proj", "lm_head")))
    assert has_adapters(with_adapters(by_layers(llama(), 2), Lora(dropout=0.1)).model)


def recipe(place: Path, lora: dict[str, Any], output: str, **training: Any) -> Recipe:
    data = place / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in sentences(60)), encoding="utf-8")
    return from_options({
        "task": "causal-lm", "data": {"train": str(data), "max_length": 48},
        "teacher": folder(place / "teacher", llama(), byte_tokenizer()), "student": {"layers": 1, "lora": {"r": 4, **lora}},
        "distill": {"epochs": 6, "precision": "float32", "batch_size": 4, "learning_rate": 3e-2, "group_by_length": False,
                    "objectives": [{"kind": "labels"}], "trainer": {"logging_steps": 1}, **training},
        "cache": "none", "allow_weak_teacher": True, "output": str(place / output),
        "evaluate": {"speed": False, "resamples": 100, "baseline": False}})


def losses(made: Path) -> list[float]:
    entries = [json.loads(line) for line in (made / "log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["embed_tokens"]])
def test_a_run_hands_over_what_it_trained_on_tied_weights(targets: list[str], tmp_path: Path) -> None:
    made = run(recipe(tmp_path, {"targets": targets}, "run"))
    perplexity = torch.tensor(losses(made.folder)[-4:]).mean().exp()
    assert made.scores.student["perplexity"] < 1.3 * perplexity < 100  # the teacher's at random: over 300


@pytest.mark.slow
def test_a_dropout_of_adapters_changes_training(tmp_path: Path) -> None:
    one, other = (losses(run(recipe(tmp_path, {"dropout": own}, f"run-{own}", max_steps=6)).folder) for own in (0.0, 0.5))
    assert one[0] == other[0]  # adapters add nothing yet
    assert one[-1] != other[-1]


def test_check_and_run_refuse_the_same_dropout(tmp_path: Path) -> None:
    wanted = recipe(tmp_path, {"dropout": 0.1, "targets": ["lm_head"]}, "run")
    (problem,) = check(wanted).problems
    assert "student.lora.dropout: got 0.1" in problem
    with pytest.raises(CompatibilityError, match=r"student\.lora\.dropout: got 0\.1"):
        run(wanted)


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(CompatibilityError, match=r"student\.lora\.targets: .*nothing_such"):
        with_adapters(by_layers(llama(), 2), Lora(targets=("nothing_such",)))


def test_a_student_from_random_weights_takes_no_adapters() -> None:
    with pytest.raises(Exception, match="nothing that adapters could build on"):
        from_options({"task": "causal-lm", "data": "x", "teacher": "y", "student": {"config": {}, "lora": {"r": 2}}})
