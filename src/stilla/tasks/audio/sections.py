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
    def unlabelled_unit(self) -> Literal["paragraph", "line", "file", "sound"]:
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
    timestamps: float | None = Field(None, ge=0, le=1)
    """Of models that write times where they are asked for them (Whisper): the share of transcripts that is learnt with their
    times, as distil-whisper does (its is 0.2). The teacher writes them (`completions: {by: teacher}`), or they stand in the
    data (`<|0.00|> said<|1.20|>`). Measured are words alone."""
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
    """Whose voice it is: a column of vectors, as the models take them (x-vectors), one of names, for which `speakers` has
    vectors, or one of whole numbers, of models that know speakers by number. By default all of it is one voice, a vector of
    zeros."""
    speakers: PathName | None = None
    """A file of voices: `.npz` with a vector for every name in the column `speaker`, or `.npy` with one vector for all."""
    language: str | None = None
    """The column of languages, whole numbers, of models that know several by number (`num_languages`)."""
    durations: str | None = None
    """The column of how many frames each token of the text lasts, the tokenizer's own ones included, of models that make all
    frames at once (FastSpeech2-Conformer). By default the teacher says it: where its own speech of the text lies along the
    sound."""
    recogniser: PathName | None = None
    """A folder or the Hub's name of a recogniser of frames (CTC), which listens to the teacher's own speech of the texts that
    are to be learnt: see `max_cer`."""
    max_cer: float | None = Field(None, ge=0, le=1000)
    """Leave out texts that the recogniser hears otherwise than the teacher was to speak them: a character error rate above
    (0.1 is one in ten)."""
    vocoder: PathName | None = None
    """What makes the waves that the recogniser listens to, as `evaluate.vocoder`."""

    @property
    def unlabelled_unit(self) -> Literal["paragraph", "line", "file"]:
        """Of texts that the teacher speaks."""
        said = None if self.unlabelled is None else self.unlabelled.document
        return said or "line"

    @model_validator(mode="after")
    def _listening(self) -> Self:
        if (self.recogniser is None) != (self.max_cer is None):
            lacking, there = ("recogniser", "max_cer") if self.recogniser is None else ("max_cer", "recogniser")
            raise ValueError(f"{there}: needs {lacking}: texts are left out that a recogniser hears otherwise, by a "
                             "character error rate above max_cer. Give both, or neither")
        if self.vocoder is not None and self.recogniser is None:
            raise ValueError("vocoder: makes waves for a recogniser, and none is named; leave it out, or give recogniser and "
                             "max_cer. Of what is measured it is evaluate.vocoder")
        return self

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
    """A folder or the Hub's name of a HiFi-GAN, SpeechT5's or FastSpeech2-Conformer's, which makes waves of spectrograms for
    the report and the recogniser; by default Griffin and Lim's algorithm does, which sounds rough."""
    dnsmos: PathName | None = None
    """How natural what is spoken sounds, from 1 to 5, by Microsoft's DNSMOS P.835: the path of its `sig_bak_ovr.onnx`, or
    `speechmos`, which is a package that brings it (`pip install "stilla[dnsmos]"`)."""
