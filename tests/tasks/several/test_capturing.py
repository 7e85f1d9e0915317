"""What is stored of the teachers of several tasks: all examples, whatever an epoch takes of them, once for all students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stilla.cache import Store
from stilla.recipe import Recipe
from stilla.stages import cache_choice, caching
from stilla.stages.adapting import problems
from stilla.stages.caching import capture_all
from stilla.tasks.several.several import Several
from tests.tasks.several.test_unlabelled import Made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("capturing"))


def changed(made: Made, **section: Any) -> tuple[Recipe, Several]:
    data = made.recipe.data.model_copy(update=section)
    return made.recipe.model_copy(update={"data": data}), Several(made.task.parts, data, made.task.start)


@pytest.mark.slow
def test_how_often_a_task_comes_is_nothing_to_what_its_teacher_is_asked(made: Made) -> None:
    plain = caching.asked(made.recipe, made.task, made.teacher)
    assert caching.asked(*changed(made, temperature=5.0), made.teacher) == plain
    # but it is to a training
    assert caching.reading(*changed(made, temperature=5.0)) != caching.reading(made.recipe, made.task)
    lengths = {name: part.model_copy(update={"data": part.data.model_copy(update={"max_length": 7})})
               for name, part in made.recipe.data.parts.items()}
    assert caching.asked(*changed(made, parts=lengths), made.teacher) != plain


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_a_capture_asks_about_all_examples_once(made: Made, tmp_path: Path, temperature: float) -> None:
    recipe, task = changed(made, temperature=temperature)
    section = recipe.cache.model_copy(update={"form": "dense", "path": str(tmp_path / "cache")})
    recipe = recipe.model_copy(update={"cache": section})
    prepared = task.prepare(made.splits["train"], made.teacher.processor, made.teacher.processor, training=True, seed=3)
    assert (prepared.whole is None) == (temperature == 1)
    every = prepared.all_examples()
    assert sorted(every.keys) == list(range(168))
    first: list[dict[str, Any]] = []
    capture_all(made.teacher.model, task, every, recipe, caching.asked(recipe, task, made.teacher), {},
                log=first.append)
    assert first[-1]["asked"] > 0
    contents = {name: set[bytes]() for name in task.parts}
    for start in range(0, len(every), 16):
        batch = every.collate([every.examples[one] for one in range(start, min(start + 16, len(every)))])
        for name, own in task.parts_of(batch).items():
            contents[name] |= {segment.content for segment in task.parts[name].segments(own)}
    stored = {name: len(Store(tmp_path / "cache" / name)) for name in task.parts}
    assert stored == {name: len(some) for name, some in contents.items()}
    other, otherwise = changed(made, temperature=2.0)
    other = other.model_copy(update={"cache": recipe.cache, "seed": 9})
    again = otherwise.prepare(made.splits["train"], made.teacher.processor, made.teacher.processor, training=True, seed=9)
    asked: list[dict[str, Any]] = []
    capture_all(made.teacher.model, otherwise, again.all_examples(), other,
                caching.asked(other, otherwise, made.teacher), {}, log=asked.append)
    assert {name: len(Store(tmp_path / "cache" / name)) for name in task.parts} == stored
    assert asked[-1]["asked"] == 0


@pytest.mark.parametrize("form", ["top_k", "samples"])
def test_parts_of_distributions_of_other_classes_are_not_stored(made: Made, form: str) -> None:
    section = made.recipe.cache.model_copy(update={"form": form})
    prepared = made.task.prepare(made.splits["validation"], made.teacher.processor, made.teacher.processor, training=False)
    found = cache_choice.problems(made.recipe, section, made.task, prepared)
    assert f"cache.form: {form} stores the likeliest classes of a row, and every task's rows are of other" in found[0]


def test_no_quiz_is_set_apart_where_every_epoch_has_other_examples(made: Made) -> None:
    stage = made.recipe.distill[0].model_copy(update={"adapt": Recipe.model_validate(
        {**made.recipe.model_dump(mode="json"), "distill": {"adapt": {}}}).distill[0].adapt})
    for temperature, there in ((1.0, False), (2.0, True)):
        recipe, task = changed(made, temperature=temperature)
        found = "\n".join(problems(recipe.model_copy(update={"distill": (stage,)}), task))
        assert ("here an epoch has other examples than the one before; use data.temperature: 1" in found) == there
