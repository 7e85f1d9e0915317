"""What teachers that write about pictures see and are asked in place of what their students are: the answers are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from datasets import Dataset

from stilla.errors import DataError
from stilla.tasks.shared.privileged import columns_of_teacher
from stilla.tasks.vision_text.album import holds_album
from stilla.tasks.vision_text.questions import Layout

_FIELDS = ("image", "prompt")


def layout(own: Layout, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Layout:
    """Where it stands what a teacher reads; `own` where that is the same. `columns`: of the recipe, by the field that names
    the student's.

    Raises:
        DataError: see `columns_of_teacher`; several columns in place of one, or other questions where no column asks.
    """
    asks = own.source == "questions"
    if "prompt" in columns and not asks:
        why = ("conversations ask themselves, and what is asked between their answers stays" if own.source == "messages" else
               "no column asks about these pictures (data.prompt)")
        raise DataError(f"teacher.data.prompt: {why}. Give the teacher other pictures (teacher.data: {{image: ...}}), or "
                        "leave it out.")
    labels = own.columns[-1:]
    images = columns_of_teacher(columns, "image", splits, labels, fits=holds_album, what="pictures", beside=_FIELDS[1:])
    asked = columns_of_teacher(columns, "prompt", splits, labels, beside=_FIELDS[:1]) if asks else ()
    for name, found in (("image", images), ("prompt", asked)):
        if len(found) > 1:
            raise DataError(f"teacher.data.{name}: got {len(found)} columns; expected one.")
    image, *question = (*(images or (own.image,)), *asked)
    return replace(own, image=image, columns=(*question, *labels) if question else own.columns)
