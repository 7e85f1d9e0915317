"""Parts of a student that keep their weights: a stack with all around it, and nothing that the rest shares."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from stilla.errors import CompatibilityError
from stilla.students import automatic_layer_map, by_layers, freeze
from stilla.students.student import Student
from tests.tasks import pairs
from tests.tasks.audio import writers


def held(student: Student) -> set[str]:
    return {name for name, one in student.model.named_parameters(remove_duplicate=False) if not one.requires_grad}


def test_an_encoder_is_held_with_its_convolutions_and_norms_and_the_decoder_learns() -> None:
    teacher = writers.whisper()
    student = by_layers(teacher, {"encoder": 2, "decoder": 1})
    freeze(student.model, ["encoder"])
    names = {name for name, _ in student.model.named_parameters(remove_duplicate=False)}
    assert held(student) == {name for name in names if name.startswith("model.encoder.")}
    with torch.no_grad():
        heard = torch.randn(1, 16, 100 * writers.SECONDS)
        ours, theirs = (model.get_encoder()(heard).last_hidden_state for model in (student.model, teacher))
    assert torch.equal(ours, theirs)


def test_embeddings_that_a_decoder_shares_are_trained() -> None:
    model = pairs.model("t5", layers=2)
    student = Student(model, automatic_layer_map(model, model))
    freeze(student.model, ["encoder"])
    assert model.shared.weight.requires_grad
    assert "encoder.block.0.layer.0.SelfAttention.q.weight" in held(student)
    assert not any(name.startswith("decoder.") for name in held(student))


def test_a_tower_is_held_with_what_is_embedded_before_it_and_normed_behind_it() -> None:
    """The module around its layers is one of several in the tower."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPModel(CLIPConfig(text_config={**sizes, "vocab_size": 20, "max_position_embeddings": 8},
                                 vision_config={**sizes, "image_size": 16, "patch_size": 8}, projection_dim=8))
    freeze(model, ["vision"])
    names = {name for name, _ in model.named_parameters()}
    assert {name for name, one in model.named_parameters() if not one.requires_grad} == {
        name for name in names if name.startswith("vision_model.")}


def test_a_stack_that_is_not_there_is_refused() -> None:
    with pytest.raises(CompatibilityError, match=r"freeze: 'encoders' matches no weight of .*encoder.*Did you mean"):
        freeze(pairs.model("t5", layers=2), ["encoders"])
