"""What recipes may tell a task that is made of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stilla.errors import all_of, one_of, short
from stilla.recipe import Data, ModelSource
from stilla.recipe.kinds import sections_or_any
from stilla.recipe.paths import PathName
from stilla.recipe.section import TEMPERATURE, Section
from stilla.recipe.told import Told

KINDS = ("text-classification", "token-classification")
"""The tasks that can be one of several: those whose models are an encoder with a head on it."""

NAME = r"^[a-z][a-z0-9_]{0,39}$"
"""A part's name: of a folder, and of a head within the model."""

_OF_THE_WHOLE = ("train", "validation", "test", "unlabelled", "shifted", "config", "revision", "header", "limit")


def _named_alone(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


class Part(Section):
    """One of several tasks."""

    task: str
    """What its head does: text-classification (classes, several labels, or a number) or token-classification."""
    data: SerializeAsAny[Data]
    """Its examples: all that a recipe of this task alone may say under `data`, unlabelled ones too; but for examples from
    elsewhere (`shifted`), and texts that are generated first."""
    teacher: Annotated[ModelSource | None, BeforeValidator(_named_alone, json_schema_input_type=ModelSource | str | None)] = (
        None)
    """The model that knows it; by default the recipe's teacher."""
    teacher_data: Told = Field(default_factory=dict)
    """What that model reads in place of its student, as `teacher.data` of a run of this task alone says it."""
    cache: PathName | None = None
    """Where what its teacher says lies, or is to lie: the cache of a run of this task alone, of which each reads what the
    other has stored. By default a folder of the part's name in the recipe's cache."""

    @field_validator("task")
    @classmethod
    def _with_a_head(cls, task: str) -> str:
        if task not in KINDS:
            raise ValueError(f"got {short(task, 80)!r}; expected {one_of(KINDS)}: only their models are an encoder with a "
                             "head, which others can share")
        return task

    @field_validator("data", mode="wrap")
    @classmethod
    def _of_its_task(cls, value: Any, usual: object, info: ValidationInfo) -> Data:
        section = sections_or_any(info.data.get("task")).data
        made = section.model_validate({"train": value} if isinstance(value, str) else value)
        if made.shifted:
            raise ValueError("got shifted; examples from elsewhere are not measured where several tasks are learnt at once. "
                             "Leave them out, and measure the head by itself: its folder lies in the student's")
        if made.unlabelled is not None and made.unlabelled.generate is not None:
            raise ValueError("got unlabelled.generate; texts are generated in a run of one task alone. Leave it out, or "
                             "name a file of such texts (unlabelled: texts.txt)")
        return made

    @field_validator("teacher")
    @classmethod
    def _of_the_library(cls, teacher: ModelSource | None) -> ModelSource | None:
        if teacher is not None and (":" in teacher.model or teacher.trust_remote_code):
            raise ValueError(f"got {teacher.model!r}, which is code; expected a folder or a Hugging Face name: a head is "
                             "made of the class that transformers has for it")
        return teacher


class SeveralData(Data):
    """Several tasks for one student: the examples of each, and how often each comes."""

    model_config = ConfigDict(json_schema_extra={})

    parts: Mapping[Annotated[str, Field(pattern=NAME)], Part] = Field(min_length=1)
    """By name the tasks: `{intents: {task: text-classification, data: intents.csv}, tags: {...}}`. Every name is a head of
    the student, and a folder in its folder."""
    temperature: float = Field(1.0, ge=1, le=TEMPERATURE)
    """How evenly tasks of different size come: an epoch has as many examples as there are, of which a task with n of them
    gets a share of n^(1/T). 1 passes over all equally often, larger numbers take more of the small ones."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> SeveralData:
        if said := [name for name in _OF_THE_WHOLE if getattr(self, name)]:
            raise ValueError(f"got {all_of(said)}; every task has data of its own: parts: {{name: {{task: ..., data: "
                             "{train: ...}}}")
        return self

    @classmethod
    def example(cls) -> Mapping[str, Any]:
        return {"parts": {"intents": {"task": "text-classification", "data": "intents.csv"}}}

    @property
    def redrawn(self) -> bool:
        return self.temperature > 1 and len(self.parts) > 1

    @property
    def stores(self) -> Mapping[str, str]:
        return {name: part.cache for name, part in self.parts.items() if part.cache is not None}

    @property
    def told(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: part.teacher_data for name, part in self.parts.items() if part.teacher_data}

    @property
    def each(self) -> Mapping[str, Data]:
        return {name: part.data for name, part in self.parts.items()}

    @property
    def tasks(self) -> Mapping[str, str]:
        return {name: part.task for name, part in self.parts.items()}

    @property
    def use(self) -> str:
        return "".join(f"Of `{name}`: {own.use.replace('path/to/this/folder', f'path/to/this/folder/{name}')}"
                       for name, own in self.each.items() if own.use)
