"""What recipes may tell the tasks of this wing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stilla.recipe import Data, Evaluate
from stilla.recipe.paths import PathName
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


class TextToSpeechData(Sounds):
    """Texts with the sounds of their being spoken."""

    window: float | None = Field(None, gt=0, le=120)
    """Longest sound that is learnt, in seconds, by default 30; longer ones are refused, or left out (`broken: skip`)."""
    text: str | None = None
    """The column of what is spoken; only where the names do not say it themselves. Numbers and signs stand in it in words."""
    speaker: str | None = None
    """Whose voice it is: a column of vectors, as the models take them (x-vectors), or one of names, for which `speakers` has
    vectors. By default all of it is one voice, a vector of zeros."""
    speakers: PathName | None = None
    """A file of voices: `.npz` with a vector for every name in the column `speaker`, or `.npy` with one vector for all."""

    @model_validator(mode="after")
    def _voices(self) -> Self:
        if self.speakers is not None and not self.speakers.endswith((".npz", ".npy")):
            raise ValueError(f"speakers: got {self.speakers!r}; expected a file .npz (a vector for every name in the column "
                             "`speaker`) or .npy (one for all)")
        if self.speakers is not None and self.speakers.endswith(".npy") and self.speaker is not None:
            raise ValueError("speakers: a file .npy has one voice for all, and speaker: names whose it is. Leave one of them "
                             "out, or give .npz")
        if self.speakers is not None and self.speakers.endswith(".npz") and self.speaker is None:
            raise ValueError("speakers: a file .npz has voices by name; speaker: has to name the column of names")
        return self


class TextToSpeechEvaluate(Evaluate):
    """What is measured of models that speak."""

    speaking: bool = True
    """Let every model speak all texts by itself, measure what it says, and put some of it into the report. Without, only the
    next frame is measured, of the data's own sounds."""
    longest: float = Field(2.0, gt=0, le=10)
    """A model that does not end is cut at so many times the length of the data's own sound, and half a second."""
    recogniser: PathName | None = None
    """A folder or the Hub's name of a recogniser of frames (CTC), which writes down what is spoken: adds the character error
    rate against the text."""
    vocoder: PathName | None = None
    """A folder or the Hub's name of SpeechT5's HiFi-GAN, which makes waves of spectrograms for the report and the recogniser;
    by default Griffin and Lim's algorithm does, which sounds rough."""
