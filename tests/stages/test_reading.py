"""How data are read, as trainings and caches depend on it: `stages.caching.reading`."""

from __future__ import annotations

from datasets import Dataset

from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.stages.caching import reading
from stilla.tasks.language.masked_lm import MaskedLM

ROWS = Dataset.from_dict({"text": ["a b", "c d"]})


def recipe(**data: object) -> Recipe:
    return from_options({"task": "masked-lm", "data": {"train": "x.csv", **data}, "teacher": "./t", "student": 1})


def read(asked: Recipe) -> dict[str, object]:
    return reading(asked, MaskedLM.understand(asked.data, {"train": ROWS}))  # type: ignore[arg-type]


def test_a_reading_is_what_the_task_makes_of_the_data_wherever_they_lie() -> None:
    assert read(recipe()) == {"broken": "refuse", "text": ["text"], "max_length": None, "document": "paragraph", "mask": 0.15,
                              "whole_words": True, "fresh_masks": True}
    assert read(recipe(validation="v.csv", limit=3)) == read(recipe(text="text")) == read(recipe())
    assert read(recipe(mask=0.3)) != read(recipe())
