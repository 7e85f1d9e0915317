"""Whose voice an example is: a vector of its row, of a file by the speaker's name, or zeros."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, LargeList, List, Value
from jaxtyping import Float32
from numpy.typing import NDArray

from stilla.errors import DataError, all_of, quoted
from stilla.tasks.audio.sections import TextToSpeechData
from stilla.tasks.audio.talking import Sizes
from stilla.tasks.shared.columns import existing, is_text, values

logger = logging.getLogger(__name__)

Vector = Float32[NDArray[np.float32], "width"]


@dataclass(frozen=True)
class Voices:
    """column: of vectors, of names, or of numbers that models know speakers by; None where there is none. known: vectors by
    name; of one for all by the name "". language: the column of numbers that they know languages by."""

    column: str | None
    known: dict[str, Vector]
    language: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All that say it."""
        return tuple(one for one in (self.column, self.language) if one is not None)

    @classmethod
    def of(cls, section: TextToSpeechData, train: Dataset) -> Voices:
        """Raises:
            DataError: no such column or file, or one that holds no vectors.
        """
        language = None if section.language is None else \
            existing("language", (section.language,), train, _is_number, "whole numbers, as the model counts languages")[0]
        return replace(cls._by_speaker(section, train), language=language)

    @classmethod
    def _by_speaker(cls, section: TextToSpeechData, train: Dataset) -> Voices:
        known = {} if section.speakers is None else _read(section.speakers)
        if section.speaker is None:
            if not known:
                logger.info("data.speaker: no column of voices is named: all of it is one voice (zeros)")
            return cls(None, known)
        if known:
            return cls(existing("speaker", (section.speaker,), train, is_text, "names of speakers")[0], known)
        fits = train.features.get(section.speaker)
        if fits is not None and is_text(fits):
            raise DataError(f"data.speaker: the column {section.speaker!r} holds names; say which voice each has: "
                            "data.speakers: a file .npz with a vector for every name.")
        return cls(existing("speaker", (section.speaker,), train, lambda one: _holds_vectors(one) or _is_number(one),
                            "vectors of numbers, or whole numbers as the model counts speakers")[0], known)

    def refuse_unknown(self, name: str, split: Dataset) -> None:
        """Raises:
            DataError: rows without a voice.
        """
        if self.column is None or _is_number(split.features[self.column]):
            return
        found = values(split, self.column)
        if self.known:
            odd = sorted({str(one) for one in found if one not in self.known})
            if odd:
                raise DataError(f"data.{name}: {len(odd)} speakers have no vector in data.speakers: "
                                f"{all_of([quoted(one) for one in odd[:5]])}. It has {all_of([*self.known][:8])}.")
            return
        bad = [row for row, one in enumerate(found) if one is None or not len(one) or not np.isfinite(one).all()]
        if bad:
            raise DataError(f"data.{name}: {len(bad)} of {len(found)} vectors in {self.column!r} are empty or hold what is "
                            f"no number, first in row {bad[0]}.")
        lengths = {len(one) for one in found}
        if len(lengths) > 1:
            sizes = all_of([str(one) for one in sorted(lengths)][:5])
            raise DataError(f"data.{name}: vectors in {self.column!r} have {sizes} numbers; expected as many in all.")

    def inputs(self, split: Dataset, sizes: Sizes) -> dict[str, NDArray[Any]]:
        """What a model is told of whose voice every row is, and in which language; by the names that it has for it.

        Raises:
            DataError: the data do not say what it is told, or say what it is not told.
        """
        if not sizes.at_once:
            return {"speaker_embeddings": self.vectors(split, sizes.width)}
        if (self.column or self.known) and not (sizes.width or sizes.speakers):
            raise DataError("data.speaker: the model has one voice (num_speakers and speaker_embed_dim are not set), so that "
                            "nobody can tell it whose voice it is. Leave it out, and give sounds of one voice")
        found: dict[str, NDArray[Any]] = {}
        if sizes.width:
            found["speaker_embedding"] = self.vectors(split, sizes.width)
        if sizes.speakers:
            found["speaker_ids"] = _numbers(split, "speaker", self.column, sizes.speakers, "num_speakers")
        if sizes.languages:
            found["lang_ids"] = _numbers(split, "language", self.language, sizes.languages, "num_languages")
        elif self.language is not None:
            raise DataError("data.language: the model knows one language (num_languages is not set). Leave it out")
        return found

    def vectors(self, split: Dataset, width: int) -> Float32[NDArray[np.float32], "rows width"]:
        """One for every row, as wide as a model takes them.

        Raises:
            DataError: they have another width.
        """
        if self.column is not None and _is_number(split.features[self.column]):
            raise DataError(f"data.speaker: {self.column!r} holds numbers of speakers, and a model takes vectors of {width} "
                            "numbers; name a column of those.")
        if self.column is None and not self.known:
            return np.zeros((len(split), width), np.float32)
        if self.column is None:
            found = np.repeat(self.known[""][None], len(split), 0)
        elif self.known:
            found = np.stack([self.known[str(one)] for one in values(split, self.column)])
        else:
            found = np.array(values(split, self.column), np.float32)
        if found.shape[1] != width:
            raise DataError(f"data.speaker: voices have {found.shape[1]} numbers, and a model takes {width} "
                            "(speaker_embedding_dim, speaker_embed_dim); give those that it was made for.")
        return found


def _numbers(split: Dataset, field: str, column: str | None, known: int, setting: str) -> NDArray[np.int64]:
    """transformers leaves out without a word what a model is not told."""
    if column is None or not _is_number(split.features[column]):
        raise DataError(f"data.{field}: the model knows {known} by number ({setting}), and no column of whole numbers says "
                        f"which it is; name one, of 0 to {known - 1}.")
    found = values(split, column)
    odd = sorted({str(one) for one in found if one is None or not 0 <= one < known})
    if odd:
        raise DataError(f"data.{field}: the model knows {known} by number ({setting}), 0 to {known - 1}, and {column!r} "
                        f"holds {all_of(odd[:5])}.")
    return np.array(found, np.int64)


def _is_number(feature: Any) -> bool:
    return isinstance(feature, ClassLabel) or (isinstance(feature, Value) and feature.dtype.startswith(("int", "uint")))


def _holds_vectors(feature: Any) -> bool:
    return isinstance(feature, List | LargeList) and isinstance(feature.feature, Value) \
        and feature.feature.dtype in ("float32", "float64", "float16", "int64", "int32")


def _read(file: str) -> dict[str, Vector]:
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"data.speakers: {file!r}: no such file.")
    try:
        stored = np.load(path, allow_pickle=False)
        found = {"": stored} if isinstance(stored, np.ndarray) else dict(stored)
    except (OSError, ValueError) as error:
        raise DataError(f"data.speakers: {file!r} cannot be read as NumPy writes it: {error}") from error
    shapes = {name: one.shape for name, one in found.items()}
    odd = [name for name, one in found.items() if one.ndim != 1 or not one.size or one.dtype.kind not in "fiu"
           or not np.isfinite(one).all()]
    if odd or not found or len(set(shapes.values())) > 1:
        which = f"; first {quoted(odd[0])} of shape {shapes[odd[0]]}" if odd else ""
        raise DataError(f"data.speakers: {file!r}: expected vectors of finite numbers, of one length{which}.")
    return {name: one.astype(np.float32) for name, one in found.items()}
