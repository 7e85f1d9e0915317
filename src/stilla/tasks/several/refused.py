"""What makes no sense where several tasks are learnt at once, in words."""

from __future__ import annotations

from collections.abc import Mapping

from stilla.errors import all_of
from stilla.recipe import ModelSource, Teacher
from stilla.tasks.base import Task
from stilla.tasks.several.model import is_several
from stilla.tasks.several.sections import SeveralData
from stilla.tasks.text.proposals import Rewords


def problems(section: SeveralData, parts: Mapping[str, Task], teacher: ModelSource) -> list[str]:
    """All of them."""
    return [*_of_the_teachers(section, teacher), *_of_the_parts(parts)]


def _of_the_teachers(section: SeveralData, teacher: ModelSource) -> list[str]:
    own = [name for name, part in section.parts.items() if part.teacher is not None]
    found = []
    trained = isinstance(teacher, Teacher) and teacher.train is not None
    if own and (trained or is_several(teacher.model)):
        what = "is trained on all tasks" if trained else "has a head for every task"
        found.append(f"teacher: {teacher.model!r} {what}, and data.parts names teachers of {all_of(own)}: which "
                     "is meant? Leave one of the two out")
    if ":" in teacher.model:
        found.append(f"teacher: got {teacher.model!r}, which is code; expected a folder or a Hugging Face name: a "
                     "head is made of the class that transformers has for it")
    return found


def _of_the_parts(parts: Mapping[str, Task]) -> list[str]:
    return [f"data.parts.{name}.data.augment: contextual is for a task by itself; expected light or none"
            for name, task in parts.items() if isinstance(task, Rewords) and task.contextual is not None]
