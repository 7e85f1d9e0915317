"""The recipe: what a person asks for, as frozen sections with every default in one place.

Reading a recipe needs neither torch nor the network; what only code can know (an objective's options, a
model's layers) is checked by `check/`. What `data` and `evaluate` may say is declared by the task (`recipe/kinds.py`). The
fields' docstrings are what resolved recipes and the JSON schema show. `recipe/file.py` reads recipes, `recipe/written.py`
writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from stilla.recipe.data import Data
from stilla.recipe.evaluate import Evaluate
from stilla.recipe.kinds import Place, Sections, sections_or_any
from stilla.recipe.learning import Cache, Completions, Stage
from stilla.recipe.models import StudentSpec, Teacher
from stilla.recipe.paths import PathName
from stilla.recipe.personal import Personal
from stilla.recipe.search import Search
from stilla.recipe.section import SEED, Section, Strings, as_tuple
from stilla.recipe.width import of_all_kinds


class Recipe(Section):
    """The whole recipe."""

    task: str
    """What the model does (`stilla list tasks`)."""
    data: SerializeAsAny[Data]
    teacher: Teacher
    student: StudentSpec
    distill: Annotated[tuple[Stage, ...], Field(min_length=1), BeforeValidator(as_tuple)] = Field(
        default_factory=lambda: (Stage(),))
    """One stage, or a list of stages that follow each other."""
    personal: Personal | None = None
    """Parts of the student for groups of its examples, trained when it is done: `{by: segment}`."""
    completions: Completions | None = None
    """Let the teacher write the student's training texts; by default the data's own are learnt."""
    cache: Cache = Field(default_factory=Cache)
    """Store the teacher's answers while the student passes over the data for the first time, and read them from then
    on; `cache: none` switches it off."""
    evaluate: SerializeAsAny[Evaluate] = Field(default_factory=Evaluate)
    search: Search | None = None
    """What `stilla search` tries: values of fields, by their paths."""
    export: Strings = ()
    """Formats to write beside the Hugging Face folder: onnx, int8."""
    output: PathName
    """The run folder; by default `runs/<recipe name>`."""
    seed: int = Field(42, ge=0, le=SEED)
    """Of everything random."""
    allow_weak_teacher: bool = False
    """Go on with a teacher that is no better than chance on the validation data."""

    @property
    def by_name(self) -> Mapping[str, Recipe]:
        """By name the recipe of every task that is learnt, with the data of that task alone; of a single one, which has no
        name, this."""
        return {name: self.model_copy(update={
            "task": self.data.tasks[name], "data": section,
            "teacher": self.teacher.model_copy(update={"data": self.data.told.get(name, {})}),
        }) for name, section in self.data.each.items()} or {"": self}

    @property
    def all_written(self) -> bool:
        """Whether the teacher writes all texts that a student learns."""
        return self.completions is not None and self.completions.of == "all"

    @property
    def asks_for_a_ceiling(self) -> bool:
        """Whether the teacher is trained once more, to see how far what two of them rest on agrees."""
        asked = self.evaluate.saliency
        return asked is not None and asked.ceiling and self.teacher.train is not None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, plain: Any) -> Any:
        # said or not, it is the task's: a default could only be the common one
        return {"evaluate": {}, **long_form(plain)} if isinstance(plain, Mapping) else plain

    @field_validator("data", "evaluate", mode="wrap")
    @classmethod
    def _of_the_task(cls, value: Any, usual: object, info: ValidationInfo) -> Section:
        place: Place = "data" if info.field_name == "data" else "evaluate"
        return sections_or_any(info.data.get("task")).at(place).model_validate(value)


def recipe_for(task: object) -> type[Recipe]:
    """The recipe's model with the task's own sections in it, as `stilla list recipe` and an editor show it.

    `Recipe` itself takes any task, and its `data` and `evaluate` then are of the same sections.
    """
    return _with(sections_or_any(task))


@cache
def _with(sections: Sections) -> type[Recipe]:
    return create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, data=(sections.data, ...),
                        evaluate=(sections.evaluate, Field(default_factory=sections.evaluate)))


def long_form(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with its short forms written out, empty keys left out (they mean the default) unless nobody knows them.

    Short are `data: reviews.csv`, `data: {unlabelled: more.txt}`, `teacher: ./bert`, `student: ./small`, `student: 3`,
    `student: {vocabulary: data}`, `student: {width: 0.5}`, `completions: teacher`, `cache: top_k`, `personal: segment` and,
    for one stage, `distill: {...}`.
    """
    long = {name: value for name, value in plain.items() if value is not None or name not in Recipe.model_fields}
    for section, key in (("data", "train"), ("teacher", "model"), ("student", "model"), ("completions", "by"),
                         ("cache", "form"), ("personal", "by")):
        if isinstance(long.get(section), str):
            long[section] = {key: long[section]}
    if isinstance(long.get("student"), int) and not isinstance(long["student"], bool):
        long["student"] = {"layers": long["student"]}
    if isinstance(long.get("distill"), Mapping):
        long["distill"] = [long["distill"]]
    data = long.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("unlabelled"), str | list | tuple):
        long["data"] = {**data, "unlabelled": {"examples": data["unlabelled"]}}
    student = long.get("student")
    if isinstance(student, Mapping) and student.get("vocabulary") == "data":
        student = {**student, "vocabulary": {"data": True}}
    if isinstance(student, Mapping) and "width" in student:
        student = {**student, "width": of_all_kinds(student["width"])}
    if student is not None:
        long["student"] = student
    return long
