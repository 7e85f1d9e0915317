"""What a teacher said to one of several tasks is what it says to that task by itself: either reads what the other stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stilla import data, tasks
from stilla.cache import Store
from stilla.check.found import Found
from stilla.check.places import look_at_output
from stilla.errors import CacheError
from stilla.recipe import Cache, Recipe
from stilla.recipe.file import from_options
from stilla.stages import cache_choice, caching
from stilla.tasks.base import Loaded, Prepared, Task
from stilla.tasks.several.model import SeveralModel
from tests.tasks.several import setting
from tests.tasks.several.test_unlabelled import Made

DENSE = Cache(form="dense")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("shared"))


def alone(made: Made, name: str, **changes: Any) -> tuple[Recipe, Task, Loaded, Prepared]:
    """A recipe of one of the tasks by itself, as a person writes it, and what it trains on."""
    plain = made.recipe.model_dump(mode="json")
    part = plain["data"]["parts"][name]
    recipe = Recipe.model_validate({
        "task": part["task"], "data": part["data"], "teacher": part["teacher"] or plain["teacher"],
        "student": {"layers": 1}, "distill": {"precision": "float32", "batch_size": 8}, "output": f"{plain['output']}-{name}",
        **changes})
    splits = data.load(recipe.data, seed=0)
    bound = tasks.of_recipe(recipe, splits)
    teacher = bound.load(recipe.teacher, labelled=True)
    task = bound.adapted_to(teacher)
    prepared = task.prepare(splits["train"], teacher.processor, teacher.processor, training=True, seed=5)
    return recipe, task, teacher, prepared


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """How often any model within is asked."""
    calls: list[int] = []
    inner = [one for one in model.modules() if type(one).__name__.startswith("BertFor")]
    assert inner
    hooks = [one.register_forward_hook(lambda *_: calls.append(1)) for one in inner]
    yield calls
    for hook in hooks:
        hook.remove()


def captured(recipe: Recipe, task: Task, teacher: Loaded, prepared: Prepared, **section: Any) -> list[str]:
    recipe = recipe.model_copy(update={"cache": DENSE.model_copy(update=section)})
    return caching.capture_all(teacher.model, task, prepared, recipe, caching.asked(recipe, task, teacher), {})


def whole(made: Made, **stores: str) -> tuple[Recipe, Task, Loaded, Prepared]:
    parts = {name: part.model_copy(update={"cache": stores.get(name)}) for name, part in made.recipe.data.parts.items()}
    section = made.recipe.data.model_copy(update={"parts": parts})
    task = replace(made.task, section=section)
    prepared = task.prepare(made.splits["train"], made.teacher.processor, made.teacher.processor, training=True, seed=3)
    return made.recipe.model_copy(update={"data": section}), task, made.teacher, prepared


@pytest.mark.slow
@pytest.mark.parametrize("name", ["topics", "words"])
def test_a_task_by_itself_reads_what_was_said_to_it_among_several(made: Made, tmp_path: Path, name: str) -> None:
    places = captured(*whole(made), path=str(tmp_path / "both"))
    assert places == [str(tmp_path / "both" / "topics"), str(tmp_path / "both" / "words")]
    own = alone(made, name)
    with counted(own[2].model) as calls:
        assert captured(*own, path=str(tmp_path / "both" / name)) == [str(tmp_path / "both" / name)]
    assert calls == []


@pytest.mark.slow
def test_so_it_is_of_one_teacher_with_a_head_for_each(made: Made, tmp_path: Path) -> None:
    """A folder of it is a plain model, which says what the whole says."""
    folder = str(tmp_path / "teacher")
    begun = made.task.pattern(made.teacher)
    begun.model.save_pretrained(folder)
    begun.processor.save_pretrained(folder)
    source = made.recipe.teacher.model_copy(update={"model": folder})
    section = made.recipe.data.model_copy(update={"parts": {
        name: part.model_copy(update={"teacher": None}) for name, part in made.recipe.data.parts.items()}})
    recipe = made.recipe.model_copy(update={"data": section, "teacher": source})
    task = replace(made.task, section=section)
    teacher = task.load(source, labelled=True)
    assert isinstance(teacher.model, SeveralModel)
    prepared = task.prepare(made.splits["train"], teacher.processor, teacher.processor, training=True, seed=3)
    captured(recipe, task, teacher, prepared, path=str(tmp_path / "both"))
    for name in ("topics", "words"):
        own = alone(made, name, teacher={"model": f"{folder}/{name}"})
        with counted(own[2].model) as calls:
            captured(*own, path=str(tmp_path / "both" / name))
        assert calls == []


@pytest.mark.slow
def test_several_tasks_read_what_was_said_to_each_by_itself(made: Made, tmp_path: Path) -> None:
    for name in ("topics", "words"):
        captured(*alone(made, name), path=str(tmp_path / name))
    there = {name: len(Store(tmp_path / name)) for name in ("topics", "words")}
    both = whole(made, topics=str(tmp_path / "topics"), words=str(tmp_path / "words"))
    with counted(made.teacher.model) as calls:
        places = captured(*both, path=str(tmp_path / "unused"))
    assert calls == []
    assert places == [str(tmp_path / "topics"), str(tmp_path / "words")]
    assert not (tmp_path / "unused").exists()
    assert {name: len(Store(tmp_path / name)) for name in ("topics", "words")} == there


@pytest.mark.slow
def test_only_the_part_is_asked_that_has_no_answers_yet(made: Made, tmp_path: Path) -> None:
    captured(*alone(made, "words"), path=str(tmp_path / "words"))
    recipe, task, teacher, prepared = whole(made, words=str(tmp_path / "words"))
    assert isinstance(teacher.model.head("words"), nn.Module)
    with counted(teacher.model.head("words")) as words, counted(teacher.model.head("topics")) as topics:
        captured(recipe, task, teacher, prepared, path=str(tmp_path / "both"))
    assert words == []
    assert topics != []


@pytest.mark.slow
def test_what_is_read_is_what_the_teachers_say(made: Made, tmp_path: Path) -> None:
    recipe, task, teacher, prepared = whole(made)
    captured(recipe, task, teacher, prepared, path=str(tmp_path / "both"))
    recipe = recipe.model_copy(update={"cache": DENSE.model_copy(update={"path": str(tmp_path / "both")})})
    terms = [one for stage in recipe.distill for one in cache_choice.terms_of(recipe, stage, task)]
    batch = prepared.collate([prepared.examples[one] for one in (0, 3, 119, 120, 150)])
    said = caching.LiveTeacher(teacher.model, task)(batch)
    with caching.remembering(teacher.model, task, terms, recipe, caching.asked(recipe, task, teacher),
                             cache_choice.States()) as remembers, counted(teacher.model) as calls:
        read = remembers(batch)
    assert calls == []
    assert set(read.parts) == {"topics", "words"}
    for name, one in said.parts.items():
        assert torch.allclose(read.parts[name].logits.logits, one.logits.logits, atol=1e-5)
    assert torch.allclose(read.logits.logits, said.logits.logits, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "told"), [
    ({"max_length": 7}, "preparation.max_length"),
    ({"task": "token-classification"}, "task"),
])
def test_other_questions_are_refused_by_name(made: Made, tmp_path: Path, changes: Mapping[str, Any], told: str) -> None:
    captured(*whole(made), path=str(tmp_path / "both"))
    recipe, task, teacher, prepared = alone(made, "topics")
    place = "topics"
    if "task" in changes:
        place = "words"
    else:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})
    with pytest.raises(CacheError, match=told):
        captured(recipe, task, teacher, prepared, path=str(tmp_path / "both" / place))


def test_a_place_for_one_part_makes_no_sense_where_nothing_is_stored(made: Made, tmp_path: Path) -> None:
    recipe, task, _, prepared = whole(made, topics=str(tmp_path / "topics"))
    found = cache_choice.problems(recipe, Cache(form="none"), task, prepared)
    assert any("data.parts.topics.cache" in one and "nothing is stored" in one for one in found)
    assert cache_choice.problems(recipe, DENSE, task, prepared) == []


def test_a_check_says_of_a_part_that_its_place_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plain = setting.recipe(tmp_path, own={"words": setting.tagger(tmp_path / "tagger")})
    plain["data"]["parts"]["words"]["cache"] = str(tmp_path / "file" / "cache")
    found = Found([])
    look_at_output(from_options(plain), found)
    (problem,) = found.problems
    assert problem.startswith("data.parts.words.cache: ")


def test_a_place_is_written_in_a_recipe(tmp_path: Path) -> None:
    plain = setting.recipe(tmp_path, own={"words": setting.tagger(tmp_path / "tagger")})
    plain["data"]["parts"]["words"]["cache"] = "runs/words/cache"
    recipe = from_options(plain)
    assert recipe.data.parts["words"].cache == "runs/words/cache"
    assert cache_choice.places_of(recipe) == {"topics": f"{recipe.output}/cache/topics", "words": "runs/words/cache"}
