"""Sounds that are stored as their samples, as Hugging Face datasets hand them out: `{"array": ..., "sampling_rate": ...}`.

They become WAV files of 32-bit floats, whose samples are the same, so that nothing behind knows two kinds of sounds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from logging import WARNING
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Audio, Dataset, Features
from jaxtyping import Shaped
from numpy.typing import NDArray

from stilla.data.kept import Notes, kept
from stilla.errors import DataError

_FLOATS = 3  # as WAV numbers what samples are
_ROWS = 64
_BYTES = 2**26  # that the samples of a table are meant to take
_LOUD = 100.0  # no sound that was ever decoded; samples of 16 bits that were never divided by their range


def are_samples(kind: pa.DataType) -> bool:
    """Whether values of this type are samples with their rate: floats, or whole numbers of 16 or 32 bits, of one channel or a
    list for each."""
    if not pa.types.is_struct(kind):
        return False
    parts = {field.name: field.type for field in kind}
    if not {"array", "sampling_rate"} <= parts.keys() or not pa.types.is_integer(parts["sampling_rate"]):
        return False
    one = _item(parts["array"])
    one = one if one is None or _item(one) is None else _item(one)
    return one is not None and (pa.types.is_floating(one) or pa.types.is_int16(one) or pa.types.is_int32(one))


def as_files(split: Dataset) -> Dataset:
    """The same rows, with files in the place of samples, in every column that holds some."""
    schema = split.features.arrow_schema
    columns = [field.name for field in schema if are_samples(field.type)]
    if not columns:
        return split
    features = Features({**split.features, **dict.fromkeys(columns, Audio(decode=False))})

    def tables(notes: Notes) -> Iterator[pa.Table]:
        loudest = dict.fromkeys(columns, 0.0)
        rows = split.with_format("arrow")
        for start in range(0, len(split), _ROWS):
            table = rows[start : start + _ROWS]
            each = max(1, min(_ROWS, _BYTES * len(table) // max(table.nbytes, 1)))
            for first in range(0, len(table), each):
                some = table.slice(first, each)
                for name in columns:
                    stored = [_file(one, loudest, name) for one in some.column(name)]
                    place = some.column_names.index(name)
                    some = some.set_column(place, name, pa.array(stored, features.arrow_schema.field(name).type))
                yield some.cast(features.arrow_schema)
        notes += [(WARNING, f"{name!r}: its samples reach {most:,.0f}, and sounds lie within -1 and 1 as they are decoded: "
                            "divide them by their range") for name, most in loudest.items() if most > _LOUD]

    return kept(tables, [], ["samples", str(split._fingerprint), *columns])  # `datasets` has no public way to ask


def _item(kind: pa.DataType) -> pa.DataType | None:
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return kind.value_type if listed else None


def _file(stored: Any, loudest: dict[str, float], column: str) -> dict[str, Any] | None:
    """None of what is no sound: nothing, or samples without a rate."""
    if not stored.is_valid or not stored["array"].is_valid or not stored["sampling_rate"].is_valid:
        return None
    samples = _samples(stored["array"].values)
    if samples.size:
        loudest[column] = max(loudest[column], float(np.nan_to_num(np.abs(samples)).max()))
    path = stored["path"].as_py() if "path" in stored.keys() else None  # noqa: SIM118 -- a scalar of Arrow
    return {"bytes": wav(samples, stored["sampling_rate"].as_py()), "path": path}


def _samples(values: pa.Array) -> Shaped[NDArray[Any], "samples channels"]:
    """Floats; the shorter side of several lists are the channels."""
    if _item(values.type) is None:
        made = np.asarray(values.to_numpy(zero_copy_only=False))[:, None]
    else:
        lists = [np.asarray(one.values.to_numpy(zero_copy_only=False)) for one in values]
        if len({len(one) for one in lists}) > 1:
            raise DataError("a sound has channels of different lengths")
        made = np.stack(lists) if lists else np.zeros((0, 1))
        made = made.T if made.shape[0] <= made.shape[1] else made
    if made.dtype.kind == "i":
        return (made / np.float32(-float(np.iinfo(made.dtype).min))).astype(np.float32)
    return made.astype(np.float32)


def wav(samples: Shaped[NDArray[Any], "samples channels"], rate: int) -> bytes:
    """A file of these samples, whatever they are."""
    data = samples.astype("<f4").tobytes()
    channels = samples.shape[1]
    if len(data) + 36 >= 2**32 or not 0 <= rate < 2**32 // (4 * channels):
        raise DataError(f"a sound of {len(samples):,} samples, {channels} channels and {rate:,} Hz is none that a file can "
                        "hold")
    header = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, _FLOATS, channels, rate,
                         4 * channels * rate, 4 * channels, 32, b"data", len(data))
    return header + data
