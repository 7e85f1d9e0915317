"""How long and how fast a student learns where the recipe leaves it open."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import BertConfig, CLIPConfig, LlamaConfig, PreTrainedConfig, ResNetConfig, T5Config, ViTConfig

from stilla.errors import RecipeError
from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.stages.effort import BUDGETS, longer_by, rate_of, settled, width_of


class Configured(nn.Module):
    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config


def recipe(**distill: object) -> Recipe:
    return from_options({"task": "text-classification", "data": {"train": "x"}, "teacher": {"model": "t"},
                         "student": {"layers": 1}, "distill": distill})


@pytest.mark.parametrize(("effort", "examples", "passes"), [
    ("quick", 100, 10), ("quick", 4_000, 4), ("quick", 1_000_000, 3),
    ("standard", 700, 30), ("standard", 16_000, 8), ("standard", 16_001, 8), ("standard", 15_900, 9), ("standard", 9e6, 3),
    ("thorough", 700, 100), ("thorough", 16_000, 32), ("thorough", 9e6, 10),
])
def test_an_effort_is_about_so_many_steps_within_so_many_passes(effort: str, examples: float, passes: int) -> None:
    assert BUDGETS[effort].passes(examples, 32) == passes


def test_larger_batches_take_more_passes() -> None:
    model = Configured(BertConfig(hidden_size=384))
    alone, = settled(recipe(), model, 16_000).distill
    larger, = settled(recipe(batch_size=32, accumulate=2), model, 16_000).distill
    assert (alone.passes, larger.passes) == (8, 16)


def test_what_a_recipe_says_stays() -> None:
    model = Configured(BertConfig(hidden_size=64))
    said, = settled(recipe(epochs=2.5, learning_rate=2e-5, effort="thorough"), model, 700).distill
    assert (said.epochs, said.learning_rate) == (2.5, 2e-5)
    stepped, = settled(recipe(max_steps=7), model, 700).distill
    assert (stepped.epochs, stepped.max_steps, stepped.learning_rate) == (None, 7, 4.2e-4)


def test_a_number_is_so_many_passes_at_the_rate_of_its_own() -> None:
    said, = settled(recipe(effort=12), Configured(BertConfig(hidden_size=64)), 700).distill
    assert (said.effort, said.epochs, said.learning_rate) == (None, 12, 4.2e-4)
    with pytest.raises(RecipeError, match=r"effort: got 12 passes, and max_steps beside them; leave one of the two out"):
        recipe(effort=12, max_steps=7)
    with pytest.raises(RecipeError, match="effort: got 0; expected quick, standard or thorough, or a number"):
        recipe(effort=0)


@pytest.mark.parametrize(("width", "rate"), [(64, 1e-3), (128, 9e-4), (384, 3e-4), (768, 1.5e-4), (8192, 5e-5)])
def test_wider_models_learn_more_slowly(width: int, rate: float) -> None:
    assert rate_of(recipe().student, Configured(BertConfig(hidden_size=width)), 4_000) == rate


@pytest.mark.parametrize(("examples", "rate"), [(50, 5e-5), (700, 1.3e-4), (1_000, 1.5e-4), (4_000, 3e-4), (9e6, 3e-4)])
def test_a_cut_student_learns_more_slowly_from_few_examples_and_a_fresh_one_does_not(examples: float, rate: float) -> None:
    assert rate_of(recipe().student, Configured(BertConfig(hidden_size=384)), examples) == rate
    fresh = recipe().student.model_copy(update={"layers": None, "config": {"hidden_size": 8}})
    assert rate_of(fresh, Configured(BertConfig()), examples) == 1e-3


@pytest.mark.parametrize(("hidden", "rate"), [(0.5, 3e-4), (512, 2.2e-4), (1.0, 1.5e-4)])
def test_of_a_student_with_a_narrower_state_its_own_width_counts(hidden: float, rate: float) -> None:
    narrow = from_options({"task": "text-classification", "data": {"train": "x"}, "teacher": {"model": "t"},
                           "student": {"width": {"ffn": 0.5, "hidden": hidden}}}).student
    assert rate_of(narrow, Configured(BertConfig(hidden_size=768)), 4_000) == rate


@pytest.mark.parametrize(("width", "passes"), [(64, 24), (128, 24), (256, 12), (384, 8), (768, 8), (8192, 8)])
def test_narrower_models_learn_longer(width: int, passes: int) -> None:
    learns, = settled(recipe(), Configured(BertConfig(hidden_size=width)), 16_000).distill
    assert learns.passes == passes


@pytest.mark.parametrize(("student", "longer"), [
    ({"layers": 1}, 1.0), ({"width": {"ffn": 0.5, "hidden": 0.25}}, 2.0), ({"config": {"num_hidden_layers": 1}}, 1.0),
    ({"config": {"hidden_size": 96, "num_attention_heads": 3}}, 3.0), ({"config": {"hidden_size": 192}}, 2.0)])
def test_of_a_narrower_student_its_own_width_says_how_long(student: dict[str, object], longer: float) -> None:
    one = from_options({"task": "text-classification", "data": {"train": "x"}, "teacher": {"model": "t"}, "student": student})
    assert longer_by(one.student, Configured(BertConfig(hidden_size=768))) == longer


def test_the_widest_part_counts_with_what_a_student_says_of_others() -> None:
    model = Configured(CLIPConfig(text_config={"hidden_size": 512}, vision_config={"hidden_size": 768}))
    assert width_of(model) == 768
    assert width_of(model, {"vision_config": {"hidden_size": 64}}) == 512
    assert width_of(model, {"vision_config": {"hidden_size": 64}, "text_config": {"hidden_size": 32}}) == 64
    assert width_of(Configured(T5Config(d_model=40)), {"hidden_size": 8}) == 8


def test_modules_without_a_config_learn_as_long_as_usual() -> None:
    assert longer_by(recipe().student, nn.Linear(2, 2)) == 1


def test_random_weights_learn_faster_and_other_modules_as_usual() -> None:
    fresh = recipe().student.model_copy(update={"layers": None, "config": {"hidden_size": 8}})
    assert rate_of(fresh, Configured(BertConfig()), 4_000) == 1e-3
    assert rate_of(recipe().student, nn.Linear(2, 2), 4_000) == 3e-4


@pytest.mark.parametrize(("config", "width"), [
    (BertConfig(hidden_size=48), 48), (T5Config(d_model=40), 40), (LlamaConfig(hidden_size=64), 64),
    (ViTConfig(hidden_size=24), 24), (ResNetConfig(hidden_sizes=[8, 16, 32, 64]), 64)])
def test_the_width_is_found_by_whatever_name_a_config_has_for_it(config: PreTrainedConfig, width: int) -> None:
    assert width_of(Configured(config)) == width
