"""Every number of a recipe has a least and a largest value, and what cannot be meant is refused."""

import dataclasses
import math
import typing
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import TypeAdapter, ValidationError

from stilla import objectives
from stilla.errors import RecipeError
from stilla.objectives import KINDS as OBJECTIVES
from stilla.objectives.base import options_model
from stilla.recipe import ObjectiveSpec, Recipe, Section
from stilla.recipe.file import from_options
from stilla.recipe.kinds import KINDS, sections

SMALL = {"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 3}
OTHERWISE = {
    "cache.temperatures": "by a validator", "distill.objectives.weight": "by a validator",
    "personal.objectives.weight": "by a validator",
    "distill.unlabelled": "by a validator",
    "student.config": "by the architecture's config", "teacher.config": "by the architecture's config",
    "teacher.api.body": "by the server: they are fields of its protocol",
    "teacher.train.trainer": "by training/ranges.py",
    "distill.trainer": "by training/ranges.py", "personal.trainer": "by training/ranges.py",
}
"""Fields whose numbers pydantic does not bound, and what does."""
BEYOND = (-(10**30), 10**30, -1e30, 1e30, math.nan, math.inf, -math.inf, 10**400)


def of_section(section: type[Section], place: str) -> typing.Iterator[tuple[str, Any]]:
    """Every field below, with its type as it has to be valid."""
    for name, field in section.model_fields.items():
        here = f"{place}.{name}".removeprefix(".")
        inner = list(inner_sections(field.annotation))
        for one in inner:
            yield from of_section(one, here)
        if not inner or has_numbers(field.annotation):
            yield here, Annotated[field.annotation, field] if not inner else field.annotation


def inner_sections(annotation: Any) -> typing.Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, tuple, list):
        for inner in get_args(annotation):
            yield from inner_sections(inner)


def has_numbers(annotation: Any) -> bool:
    return annotation in (int, float, Any) or any(has_numbers(one) for one in get_args(annotation))


def every_field() -> dict[str, Any]:
    found = {place: kind for place, kind in of_section(Recipe, "") if not place.startswith(("data.", "evaluate."))}
    for task in KINDS:
        for place in ("data", "evaluate"):
            found |= dict(of_section(sections(task).at(place), place))
    return {place: kind for place, kind in found.items() if has_numbers(kind)}


def test_all_numbers_are_found():
    found = every_field()
    for place in ("seed", "distill.epochs", "teacher.train.batch_size", "student.lora.r", "student.layers", "data.max_length",
                  "data.max_target_length", "data.mask", "data.validation.split", "evaluate.generation.num_beams",
                  "completions.min_log_probability", "cache.k", "distill.dropout", "distill.objectives.weight"):
        assert place in found
    assert len(found) > 45
    assert set(OTHERWISE) <= set(found)


@pytest.mark.parametrize("place", [place for place in every_field() if place not in OTHERWISE])
def test_every_number_has_a_least_and_a_largest_value(place):
    takes = TypeAdapter(every_field()[place])
    for value in BEYOND:
        for form in (value, {"keep": value}, {"keep": [value]}):
            with pytest.raises((ValidationError, OverflowError)):
                takes.validate_python(form, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("distill.epochs", 1e12, "got 1000000000000.0; expected at most 100000"),
        ("distill.learning_rate", 1e9, "expected at most 10"),
        ("distill.batch_size", 10**9, "got 1000000000; expected at most 100000"),
        ("distill.batch_size", 1e30, "got 1e+30; expected a whole number"),
        ("distill.batch_size", 10**30, "a whole number that is too large to be meant"),
        ("distill.max_steps", 10**12, "expected at most 100000000"),
        ("distill.weight_decay", -1, "expected at least 0"),
        ("distill.warmup", 1.5, "expected less than 1"),
        ("distill.profile", 10**9, "expected at most 10000"),
        ("teacher.train.accumulate", 10**7, "expected at most 100000"),
        ("seed", -1, "got -1; expected at least 0"),
        ("seed", 2**31, "expected at most 2147483647"),
        ("student.layers", 0, "student.layers: got 0; expected"),
        ("student.layers", -3, "student.layers: got -3; expected"),
        ("student.layers.keep", [0, -1], "student.layers.keep[1]: got -1; expected at least 0"),
        ("evaluate.seeds", 10**6, "expected at most 1000"),
        ("evaluate.resamples", 10**9, "expected at most 1000000"),
        ("cache.k", 10**9, "expected at most 1000000"),
        ("cache.temperatures", [1e9], "expected numbers above 0, up to 10000"),
        ("cache.temperatures", [-1.0], "expected numbers above 0, up to 10000"),
        ("data.max_length", 10**12, "expected at most 10000000"),
        ("data.limit", 0, "expected at least 1"),
        ("completions", {"by": "teacher", "num_beams": 10**6}, "expected at most 1000"),
        ("completions", {"by": "teacher", "min_tokens": 9, "max_tokens": 8}, "min_tokens is 9, and no text is longer than 8"),
        ("completions", {"by": "teacher", "min_tokens": 200}, "no text is longer than 128"),
        ("completions", {"by": "teacher", "min_log_probability": -1e9}, "expected at least -1000"),
    ],
)
def test_what_cannot_be_meant_is_refused(place, value, said):
    options = {**SMALL, "student": {"layers": 3}}
    *parents, last = place.split(".")
    node: dict = options
    for step in parents:
        inner = node.get(step)
        node[step] = dict(inner) if isinstance(inner, dict) else {}
        if step == "teacher":
            node[step]["model"] = "./bert"
        if step == "data":
            node[step]["train"] = "x.csv"
        node = node[step]
    node[last] = value
    with pytest.raises(RecipeError) as caught:
        from_options(options)
    assert said in str(caught.value)
    assert place.split(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (1e9, "expected at most 1,000,000"),
        ({"linear": [0.0, 1e9]}, "expected at most 1,000,000"),
        ({"cosine": [-1.0, 1.0]}, "expected 0 or more"),
        ({"linear": [1.0]}, "expected linear: [from, to]"),
        ({"linear": [1.0, "x"]}, "expected a finite number"),
        ({"linear": [1.0, True]}, "expected a finite number"),
        ({"steps": []}, "expected [[progress, value], ...]"),
        ({"steps": [[0.0, 1.0], [1.5, 0.0]]}, "expected rising numbers from 0.0 to at most 1.0"),
        ({"steps": [[0.0, 1.0], [0.5, 0.0], [0.2, 1.0]]}, "expected rising numbers"),
        ({"steps": [[0.0, 1.0], [0.5, 0.0], [0.5, 1.0]]}, "expected rising numbers"),
        ({"steps": [[0.1, 1.0]]}, "expected rising numbers from 0.0"),
        ({"steps": [[-0.1, 1.0]]}, "expected rising numbers from 0.0"),
        ({"liner": [1.0, 0.0]}, "Did you mean linear?"),
        ({"linear": [1.0, 0.0], "cosine": [1.0, 0.0]}, "expected a number or one of"),
        ({7: [1.0, 0.0]}, "expected linear, cosine or steps"),
    ],
)
def test_a_schedule_without_sense_is_refused(weight, said):
    with pytest.raises(RecipeError) as caught:
        from_options({**SMALL, "distill": {"objectives": [{"kind": "labels", "weight": weight}]}})
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_number_of_an_objectives_options_has_bounds(kind):
    """Numbers and schedules; layers are looked for in the models (`Objective.problems`)."""
    for name, field in options_model(objectives.find(kind)).model_fields.items():
        if name == "layer_map" or not has_numbers(field.annotation):
            continue
        for value in (-(10.0**30), 10.0**30, {"linear": [1.0, 1e30]}):
            assert objectives.problems(ObjectiveSpec(kind=kind, **{name: value})), (name, value)


@pytest.mark.parametrize("kind", [kind for kind in OBJECTIVES
                                  if "temperature" in options_model(objectives.find(kind)).model_fields])
def test_every_temperature_is_refused_in_the_same_words(kind):
    (said,) = objectives.problems(ObjectiveSpec(kind=kind, temperature=0.0))
    assert "temperature: got 0.0; expected numbers above 0, up to 10000" in said


def test_every_number_of_the_trainers_fields_has_bounds():
    from transformers import TrainingArguments

    from stilla.training.arguments import INSTEAD, REFUSED, _kinds
    from stilla.training.ranges import RANGES, outside

    types = typing.get_type_hints(TrainingArguments)
    numbers = {field.name for field in dataclasses.fields(TrainingArguments) if field.init
               and field.name not in (*INSTEAD, *REFUSED) and {int, float} & set(_kinds(types[field.name]))}
    assert numbers == set(RANGES)
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    for name in RANGES:
        assert outside(name, -1), name
        assert outside(name, 1e30), name
        assert outside(name, math.nan), name
        assert not outside(name, defaults[name]), name


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("save_steps", -0.5, "got -0.5; expected a whole number from 1 to 100000000, or a fraction of the steps"),
     ("save_steps", 0, "expected a whole number from 1"), ("logging_steps", 1.5, "expected a whole number from 1"),
     ("adam_beta1", 1, "expected a number from 0 to below 1"), ("adam_epsilon", 0, "expected a number above 0 to 1"),
     ("dataloader_num_workers", -1, "expected a number from 0 to 1024"), ("save_total_limit", 0, "expected a number from 1"),
     ("max_grad_norm", -1, "expected a number from 0 to 1000000")],
)  # fmt: skip
def test_a_number_of_the_trainer_that_cannot_be_meant_is_refused(field, value, said):
    from stilla.training.arguments import problems

    training = from_options({**SMALL, "distill": {"trainer": {field: value}}}).distill[0]
    (problem,) = problems(training, "distill")
    assert problem.startswith(f"distill.trainer.{field}: got ")
    assert said in problem


def test_what_papers_and_people_use_is_taken():
    recipe = from_options({**SMALL, "seed": 0, "student": {"layers": {"keep": [0, 11]}}, "distill": {
        "epochs": 1000, "batch_size": 4096, "learning_rate": 1.0, "weight_decay": 0.5, "warmup": 0,
        "objectives": [{"kind": "hidden", "weight": 30_000}, {"kind": "logits", "temperature": 20.0, "weight": 0}]}})
    assert recipe.distill[0].objectives[0].weight(0) == 30_000
