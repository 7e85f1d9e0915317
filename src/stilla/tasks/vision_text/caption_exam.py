"""What is said of pictures, judged as texts, and shown beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset

from stilla.tasks.answers import Answers, Decisions
from stilla.tasks.exam import any_of
from stilla.tasks.language.writing import WrittenExam
from stilla.tasks.vision.pictures import data_uri
from stilla.tasks.vision_text.album import Album
from stilla.views import Picture

_SHOWN = 320  # pixels


@dataclass(frozen=True)
class CaptionExam(WrittenExam):
    """A decision is a whole text: models agree where they say the same, but for spaces. `image`: the column."""

    image: str

    units: ClassVar[str] = "texts"

    def decisions(self, answers: Answers) -> Decisions:
        said, right = ([" ".join(str(one).split()) for one in texts] for texts in (answers.given, answers.references))
        return Decisions.of_examples(_texts(said), _texts(right))

    def view(self, split: Dataset, answers: Mapping[str, Answers], example: int, place: int) -> Picture:
        """The first picture that was asked about."""
        key = int(any_of(answers).keys[example])
        seen, _ = Album.of(split.select([key]), self.image).look(0)
        return Picture(data_uri(seen[0], _SHOWN))

    def named(self, decision: Any) -> str:
        return str(decision) or "(nothing)"


def _texts(said: list[str]) -> Any:
    return np.array(said, object)
