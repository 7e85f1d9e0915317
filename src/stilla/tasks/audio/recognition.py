"""What recognisers of speech have in common, whatever they make of a sound: its column, and the one of what is said in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from datasets import Dataset
from torch import nn

from stilla.errors import CompatibilityError, DataError, all_at_once, all_of
from stilla.tasks.audio.privileged import sounds_of_teacher
from stilla.tasks.audio.reading import audio_column, checked
from stilla.tasks.audio.sections import SpeechRecognitionData
from stilla.tasks.audio.sounds import Sounds, data_uri
from stilla.tasks.audio.unlabelled import beside, traces, unlabelled, usable
from stilla.tasks.audio.usage import HEARING
from stilla.tasks.base import Task
from stilla.tasks.language.sections import WritingEvaluate
from stilla.tasks.shared import columns as _columns
from stilla.tasks.shared.broken import refuse_empty
from stilla.tasks.shared.classification import attempt

TRANSCRIPTS = ("transcription", "transcript", "text", "sentence", "normalized_text", "transcripts", "words")
_SHOWN = 15.0  # seconds


@dataclass(frozen=True)
class Recognition(Task[SpeechRecognitionData]):
    """A task that is bound to sounds and their transcripts. `audio`, `text`: the columns. `teachers`: the one that teachers
    hear instead of `audio`, empty: the same. `also`: one that others hear, of the examples that can be heard."""

    section: SpeechRecognitionData
    audio: str = ""
    text: str = ""
    teachers: str = ""
    also: str = ""

    kind: ClassVar[str] = "speech-recognition"
    pipeline = "automatic-speech-recognition"
    given = '"sound.wav"'
    preparing = HEARING
    data_section = SpeechRecognitionData
    evaluate_section = WritingEvaluate

    @classmethod
    def understand(cls, section: SpeechRecognitionData, splits: Mapping[str, Dataset]) -> Self:
        train = splits.get("train", next(iter(splits.values())))
        problems: list[str] = []
        audio = attempt(problems, audio_column, section, train)
        text = attempt(problems, text_column, section.text, train)
        absent = _columns.missing([one for one in (audio, text) if one], splits)
        if not absent:
            for name, split in splits.items():
                if audio:
                    attempt(problems, checked, section, name, split, audio)
                if text:
                    attempt(problems, refuse_empty, section, name, split, [_columns.values(split, text)], repr(text))
        problems += absent
        if problems or audio is None or text is None:
            raise all_at_once(problems, DataError)
        return cls(section=section, audio=audio, text=text)

    @classmethod
    def of_model(cls, model: nn.Module) -> Self:
        raise CompatibilityError("speech-recognition: which frames are a sound's own, and what its classes stand for, is "
                                 "known only of data that Stilla reads itself. Use a recipe (`stilla.distill`).")

    def taught_from(self, columns: Mapping[str, tuple[str, ...]], splits: Mapping[str, Dataset]) -> Self:
        return replace(self, teachers=sounds_of_teacher(columns, self.section, self.audio, splits, (self.text,)))

    def of_teacher(self) -> Self:
        return replace(self, audio=self.teachers, teachers="", also=self.audio) if self.teachers else self

    @property
    def heard(self) -> tuple[str, ...]:
        """All columns that models hear."""
        return (self.audio, self.teachers) if self.teachers else (self.audio,)

    def resolved(self, section: SpeechRecognitionData) -> SpeechRecognitionData:
        return section.model_copy(update={"audio": self.audio, "text": self.text})

    # --- without labels ---

    def unlabelled(self, pool: Dataset, called: Mapping[str, str]) -> Dataset:
        return unlabelled(pool, self.heard, called, (self.text,))

    def usable(self, pool: Dataset) -> Dataset:
        return usable(self.section, pool, self.heard)

    def beside(self, split: Dataset) -> Dataset:
        return beside(split, self.heard, (self.text,))

    def traces(self, split: Dataset) -> Iterable[tuple[bytes]]:
        return traces(split, self.audio)

    def show(self, split: Dataset, key: int) -> str:
        return data_uri(Sounds.of(split.select([int(key)]), self.audio).wave(0), _SHOWN)


def text_column(wanted: str | None, train: Dataset) -> str:
    """The column of what is said in a sound: the recipe's, or the only one with a usual name.

    Raises:
        DataError: no such column, or the names leave it open.
    """
    if wanted is not None:
        return _columns.existing("text", (wanted,), train, _columns.is_text, "text")[0]
    lower = {name.lower(): name for name in reversed(train.column_names) if _columns.is_text(train.features[name])}
    usual = [lower[name] for name in TRANSCRIPTS if name in lower]
    if len(usual) == 1:
        return str(usual[0])
    why = f"{all_of(usual)} could be it" if usual else "no column is called text, sentence, transcription or the like"
    raise DataError(f"data.text: which column is what is said? {why}. {_columns.columns_of(train)} Set data.text.")
