"""Whose voice an example is: a vector of its row, of a file by the speaker's name, or zeros."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, LargeList, List, Value
from jaxtyping import Float32
from numpy.typing import NDArray

from stilla.errors import DataError, all_of, quoted
from stilla.tasks.audio.sections import TextToSpeechData
from stilla.tasks.shared.columns import existing, is_text, values

logger = logging.getLogger(__name__)

Vector = Float32[NDArray[np.float32], "width"]


@dataclass(frozen=True)
class Voices:
    """column: of vectors, or of names; None where there is none. known: vectors by name; of one for all by the name ""."""

    column: str | None
    known: dict[str, Vector]

    @classmethod
    def of(cls, section: TextToSpeechData, train: Dataset) -> Voices:
        """Raises:
            DataError: no such column or file, or one that holds no vectors.
        """
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
        return cls(existing("speaker", (section.speaker,), train, _holds_vectors, "vectors of numbers")[0], known)

    def refuse_unknown(self, name: str, split: Dataset) -> None:
        """Raises:
            DataError: rows without a voice.
        """
        if self.column is None:
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

    def vectors(self, split: Dataset, width: int) -> Float32[NDArray[np.float32], "rows width"]:
        """One for every row, as wide as a model takes them.

        Raises:
            DataError: they have another width.
        """
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
                            "(speaker_embedding_dim); give those that it was made for.")
        return found


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
