"""A hash of what a dataset says: the same for the same rows on any machine, whatever files they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Audio, ClassLabel, Dataset, Image, List

if TYPE_CHECKING:
    from hashlib import blake2b

_ROWS = (
    1000  # hashed at once; part of the fingerprint's definition, so never taken from how a file was chunked
)


def of_splits(splits: Mapping[str, Dataset]) -> str:
    """32 hexadecimal digits over the splits' names, columns, label names and rows, in order.

    Independent of paths, file formats, time stamps, chunks and index mappings: a Parquet and a JSON file with
    the same rows agree. Pictures and sounds that are stored as paths count with their file's bytes.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for name in sorted(splits):
        split = splits[name].with_format("arrow")
        columns = sorted(split.column_names)
        _say(hasher, name, len(split))
        for column in columns:
            feature = split.features[column]
            _say(hasher, column, tuple(feature.names) if isinstance(feature, ClassLabel) else None)
        for start in range(0, len(split), _ROWS):
            rows: pa.Table = split[start : start + _ROWS]
            for column in columns:
                array = pa.concat_arrays(rows.column(column).chunks)
                if isinstance(split.features[column], Image):
                    array = _picture_bytes(array)
                elif isinstance(split.features[column], List) and isinstance(split.features[column].feature, Image):
                    array = _several_pictures(array)
                elif isinstance(split.features[column], Audio):
                    array = _sound_bytes(array)
                _hash(hasher, array)
    return hasher.hexdigest()


def _say(hasher: blake2b, *words: Any) -> None:
    hasher.update((repr(words) + "\n").encode())


def _picture_bytes(array: pa.StructArray) -> pa.Array:
    pictures = array.to_pylist()
    return pa.array(
        [
            one and _as_seen(one["bytes"] if one["bytes"] is not None else _file_bytes(one["path"]))
            for one in pictures
        ],
        pa.large_binary(),
    )


def _several_pictures(array: pa.ListArray) -> pa.Array:
    """A digest of each, as of sounds."""
    kept = [None if some is None else [one and _file_digest(one) for one in some] for some in array.to_pylist()]
    return pa.array(kept, pa.list_(pa.large_binary()))


def _file_digest(stored: dict[str, Any]) -> bytes | None:
    raw = stored["bytes"] if stored["bytes"] is not None else _file_bytes(stored["path"])
    return None if raw is None else hashlib.blake2b(raw, digest_size=16).digest()


def _sound_bytes(array: pa.StructArray) -> pa.Array:
    """A digest of each: an hour of sound is a hundred times a picture."""
    return pa.array([one and _file_digest(one) for one in array.to_pylist()], pa.large_binary())


def _as_seen(picture: bytes | None) -> bytes | None:
    """With a mark where such pictures were once seen otherwise: what a cache knows of those is not believed."""
    once_cut_off = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"P5", b"Pf")  # TIFF, and PGM: deep greys are scaled since
    return b"scaled" + picture if picture is not None and picture.startswith(once_cut_off) else picture


def _file_bytes(path: str) -> bytes | None:
    return Path(path).read_bytes() if Path(path).is_file() else None


def _hash(hasher: blake2b, array: pa.Array) -> None:
    """By meaning, not by buffer: nulls hold zeros, offsets start anywhere, strings are large or small."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    kind = array.type
    _say(hasher, len(array), array.null_count)
    if array.null_count:
        hasher.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_struct(kind):
        for field, values in zip(kind, array.flatten()):
            _say(hasher, field.name)
            _hash(hasher, values)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        _hash(hasher, pc.cast(pc.list_value_length(array), pa.int64()))
        _hash(hasher, array.flatten())
    elif _is_text(kind):
        whole = pa.concat_arrays(
            [pc.cast(pc.fill_null(array, b"" if _is_binary(kind) else ""), pa.large_binary())]
        )
        _, offsets, data = whole.buffers()
        ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
        hasher.update(np.diff(ends).tobytes())
        if data is not None:
            hasher.update(memoryview(data)[ends[0] : ends[-1]])
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        hasher.update(
            pc.cast(pc.fill_null(array, False if pa.types.is_boolean(kind) else 0), pa.int64())
            .to_numpy(zero_copy_only=False)
            .tobytes()
        )
    elif pa.types.is_floating(kind):
        hasher.update(
            pc.cast(pc.fill_null(array, 0.0), pa.float64()).to_numpy(zero_copy_only=False).tobytes()
        )
    else:
        _say(hasher, *array.to_pylist())


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(_is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))
