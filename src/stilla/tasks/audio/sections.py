"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stilla.recipe import Data
from stilla.tasks.shared.sections import Classified


class Sounds(Data):
    """Of sounds."""

    audio: str | None = None
    """The sound's column; only where names and types do not say it themselves."""
    window: float | None = Field(None, gt=0, le=120)
    """Longest piece that is heard at once, in seconds; longer sounds are cut into windows. By default what both models can
    hear, at most 30."""

    @property
    def text_unit(self) -> Literal["sound"]:
        return "sound"

    @property
    def unlabelled_unit(self) -> Literal["sound"]:
        return "sound"


class AudioClassificationData(Classified, Sounds):
    """Sounds with a class, several labels, or a number."""

    augment: Literal["auto", "none", "light"] = "auto"
    """`light` changes training sounds at random, the same for teacher and student: louder or softer, a little earlier or
    later, with some noise. `auto` is `none`."""


class SpeechRecognitionData(Sounds):
    """Sounds with what is said in them."""

    text: str | None = None
    """The transcript's column; only where the names do not say it themselves."""
    language: str | None = None
    """Its code (`en`), for models that write and know several (Whisper): their decoder is told it before the text."""
    frames: Literal["around", "spoken", "all"] = "around"
    """Of models with a class for every frame (CTC): at which frames a student is compared with its teacher. Those where the
    teacher hears a symbol and their neighbours, those alone, or all, most of which are blanks."""
