"""Sounds of a column: decoded with soundfile, checked, mixed down, and shown."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, Value
from jaxtyping import Float32
from numpy.typing import NDArray
from scipy.signal import resample_poly

from stilla.data import rows_as_read
from stilla.errors import DataError, brief
from stilla.runtime.narrate import tracked

MOST_SECONDS = 4 * 3600
"""Of a sound, as it is decoded: more is refused. An hour at 16 kHz takes 230 MB."""
MOST_BYTES = 2**30
"""Of a file."""
MOST_NUMBERS = 2**29
"""Of a sound with all its channels: 2 GB."""
RATES = (1_000, 768_000)
"""Between which a sound's rate has to lie, in Hz."""

_AT_ONCE = 64
_REMEMBERED = 16  # splits
_BLOCK = 2**16


def holds_sounds(feature: Any) -> bool:
    """A sound column of `datasets`, encoded bytes, or `{bytes, path}` as other tools write them."""
    if isinstance(feature, dict):
        return "bytes" in feature
    if isinstance(feature, Value):
        return feature.dtype in ("binary", "large_binary")
    return isinstance(feature, Audio)


@dataclass(frozen=True)
class Wave:
    """One channel of a sound. `channels`: that were mixed into it."""

    samples: Float32[NDArray[np.float32], "samples"]
    rate: int
    channels: int = 1

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def at(self, rate: int) -> Float32[NDArray[np.float32], "samples"]:
        """Resampled: a polyphase filter that lets through what lies below half of both rates."""
        if rate == self.rate:
            return self.samples
        common = gcd(rate, self.rate)
        made: NDArray[np.float32] = resample_poly(self.samples, rate // common, self.rate // common).astype(np.float32)
        return made

    def part(self, start: float, seconds: float) -> Wave:
        first = round(start * self.rate)
        return Wave(self.samples[first : first + round(seconds * self.rate)], self.rate, self.channels)


@dataclass(frozen=True)
class Known:
    """What checking a sound says of it."""

    seconds: float = 0.0
    rate: int = 0
    channels: int = 1
    silent: bool = False
    broken: str | None = None


_checked: dict[tuple[str, str], list[Known]] = {}


@dataclass(frozen=True)
class Sounds:
    """The encoded sounds of a split; of each all, or from `offset` for `duration` seconds, where the split has such
    columns."""

    rows: Dataset
    """{bytes, path} in a column, and offset and duration in others."""
    column: str
    parts: bool

    @classmethod
    def of(cls, split: Dataset, column: str) -> Sounds:
        parts = has_parts(split)
        rows = split.select_columns([column, *(("offset", "duration") if parts else ())]).with_format(None)
        return cls(rows.cast_column(column, Audio(decode=False)), column, parts)

    def __len__(self) -> int:
        return len(self.rows)

    def wave(self, row: int) -> Wave:
        """One sound, all its channels mixed into one.

        Raises:
            OSError: it cannot be read.
        """
        return _cut(self.rows[int(row)], self.column)

    def check(self) -> list[Known]:
        """Every sound is decoded; of the same rows once in a process."""
        known = (str(self.rows._fingerprint), self.column)  # `datasets` has no public way to ask
        if known not in _checked:
            if len(_checked) >= _REMEMBERED:
                _checked.pop(next(iter(_checked)))
            _checked[known] = self._check()
        return _checked[known]

    def _check(self) -> list[Known]:
        found: list[Known] = []
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # soundfile decodes outside the interpreter's lock
            for start in tracked(range(0, len(self), _AT_ONCE), "checking sounds"):
                some = self.rows[start : start + _AT_ONCE]
                stored = [dict(zip(some, values)) for values in zip(*some.values())]
                found += pool.map(lambda one: _known(one, self.column), stored)
        return found

    def digests(self) -> Iterator[bytes]:
        """A hash of every sound's rate and samples, however it is stored."""
        for row in tracked(range(len(self)), "looking for sounds that are measured"):
            try:
                wave = self.wave(row)
            except OSError:
                yield b"broken"
                continue
            yield hashlib.blake2b(f"{wave.rate} ".encode() + wave.samples.tobytes(), digest_size=16).digest()

    def name(self, row: int) -> str:
        """Where the sound came from, as far as the data say."""
        stored = self.rows[int(row)][self.column]
        path = f" ({stored['path']})" if stored and stored["path"] else ""
        return f"row {rows_as_read(self.rows, [row])[0]}{path}"


def has_parts(split: Dataset) -> bool:
    """Whether rows are parts of sounds: columns `offset` and `duration` of numbers, as in manifests and Kaldi's segments."""
    return all(name in split.column_names and isinstance(split.features[name], Value)
               and split.features[name].dtype.startswith(("float", "int")) for name in ("offset", "duration"))


def _cut(row: dict[str, Any], column: str) -> Wave:
    wave = decoded(row[column])
    start, seconds = row.get("offset"), row.get("duration")
    if start is None and seconds is None:
        return wave
    start = 0.0 if start is None else float(start)
    seconds = wave.seconds - start if seconds is None else float(seconds)
    if not (start >= 0 and seconds > 0 and start + seconds <= wave.seconds + 0.05):
        raise OSError(f"offset {start:g} and duration {seconds:g} lie outside of its {wave.seconds:.2f} seconds")
    return wave.part(start, seconds)


def decoded(stored: dict[str, Any] | None) -> Wave:
    """A stored sound, decoded block by block, so that no header decides how much memory is taken.

    Raises:
        OSError: it cannot be read, is empty, holds what is no number, or more than is decoded.
    """
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(_opened(stored)) as sound:
            return _mixed(sound)
    except soundfile.SoundFileError as error:
        words = str(error).partition(": ")[2] or str(error)
        raise OSError(f"not a sound that can be decoded: {brief(words, 120)}") from error


def _mixed(sound: Any) -> Wave:
    rate, channels = int(sound.samplerate), int(sound.channels)
    if not RATES[0] <= rate <= RATES[1]:
        raise OSError(f"a rate of {rate:,} Hz; expected {RATES[0]:,} to {RATES[1]:,}")
    if (sound.frames > MOST_SECONDS * rate or sound.frames * channels > MOST_NUMBERS) and sound.seekable():
        raise OSError(f"{sound.frames / rate:,.0f} seconds of {channels} channels are more than is decoded at once "
                      f"({MOST_SECONDS:,} seconds, {MOST_NUMBERS:,} numbers); cut it")
    parts, total = [], 0
    for block in sound.blocks(_BLOCK, dtype="float32", always_2d=True):
        total += len(block)
        if total > MOST_SECONDS * rate or total * channels > MOST_NUMBERS:
            raise OSError(f"it is longer than the {MOST_SECONDS:,} seconds that are decoded at once; cut it")
        parts.append(block.mean(1) if channels > 1 else block[:, 0].copy())
    if not total:
        raise OSError("there is not a single sample in it")
    samples = np.concatenate(parts)
    if not np.isfinite(samples).all():
        raise OSError("it holds values that are no numbers")
    return Wave(samples, rate, channels)


def _opened(stored: dict[str, Any] | None) -> BytesIO:
    """As a stream: the end of a name would be taken for more than it says."""
    if stored is None or (stored["bytes"] is None and stored["path"] is None):
        raise OSError("there is no sound")
    if stored["bytes"] is not None:
        return BytesIO(stored["bytes"])
    path = Path(stored["path"])
    if not path.is_file():
        raise OSError("there is no such file")
    if path.stat().st_size > MOST_BYTES:
        raise OSError(f"{path.stat().st_size:,} bytes are more than the {MOST_BYTES:,} that are read; cut it")
    return BytesIO(path.read_bytes())


def _known(row: dict[str, Any], column: str) -> Known:
    try:
        wave = _cut(row, column)
    except DataError:
        raise
    except Exception as error:  # of a damaged file, libsndfile's words or anything else
        return Known(broken=brief(str(error) or repr(error), 200))
    return Known(wave.seconds, wave.rate, wave.channels, silent=not wave.samples.any())


def _soundfile() -> Any:
    try:
        return importlib.import_module("soundfile")
    except (ImportError, OSError) as error:  # OSError: without its own library
        raise DataError(f'sounds are decoded with soundfile, which is not there: pip install "stilla[audio]" ({error})'
                        ) from error


def data_uri(wave: Wave, seconds: float) -> str:
    """For a page: the beginning, at most so long, as MP3 of one channel; where that cannot be written, three seconds at most
    as WAV at 8 kHz, so that a page of sixty stays small."""
    soundfile = _soundfile()
    mp3 = "MP3" in soundfile.available_formats()
    rate = 16_000 if mp3 and wave.rate > 8_000 else 8_000
    kind, mime, most = ("MP3", "mpeg", seconds) if mp3 else ("WAV", "wav", min(seconds, 3.0))
    written = BytesIO()
    soundfile.write(written, np.clip(wave.part(0, most).at(rate), -1, 1), rate, format=kind)
    return f"data:audio/{mime};base64,{base64.b64encode(written.getvalue()).decode()}"


def light(wave: Wave, seed: tuple[int, ...]) -> Wave:
    """Louder or softer by up to 6 dB, moved by up to a twentieth of its length, with noise 20 to 50 dB below it: drawn from
    the seed and nothing else."""
    draw = np.random.default_rng(seed)
    samples = wave.samples * np.float32(10 ** (draw.uniform(-6, 6) / 20))
    moved = int(draw.integers(-(len(samples) // 20), len(samples) // 20 + 1))
    samples = np.roll(samples, moved)
    samples[: max(moved, 0)] = 0
    samples[len(samples) + min(moved, 0) :] = 0
    loudness = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    noise = draw.standard_normal(len(samples), np.float32) * np.float32(loudness * 10 ** (-draw.uniform(20, 50) / 20))
    return Wave(samples + noise, wave.rate, wave.channels)
