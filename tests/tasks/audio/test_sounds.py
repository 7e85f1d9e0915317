"""Sounds: decoded, resampled, mixed, bounded; and what is broken is said."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Audio, Dataset

from stilla.tasks.audio import sounds
from stilla.tasks.audio.sounds import Sounds, Wave, decoded, light
from tests.tasks.audio.setting import soundfile, tone, wav


def stored(path: Path) -> dict[str, object]:
    return {"bytes": None, "path": str(path)}


def rows(*paths: Path, **columns: list[float]) -> Dataset:
    kind = Audio(decode=False).pa_type
    table = pa.table({"audio": pa.array([stored(path) for path in paths], kind), **columns})
    return Dataset(table).cast_column("audio", Audio(decode=False))


def peak(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()])


@pytest.mark.parametrize("rate", [44_100, 48_000, 22_050, 8_000, 11_025])
def test_a_tone_keeps_its_pitch_and_loudness_at_another_rate(tmp_path: Path, rate: int) -> None:
    time = np.arange(rate) / rate
    wave = decoded(stored(wav(tmp_path / "a.wav", np.sin(2 * np.pi * 440 * time), rate)))
    heard = wave.at(16_000)
    assert len(heard) == 16_000
    assert peak(heard, 16_000) == pytest.approx(440, abs=1.1)
    assert np.sqrt(np.mean(heard[2000:-2000] ** 2)) == pytest.approx(np.sqrt(0.5), rel=0.01)


def test_what_a_lower_rate_cannot_hold_does_not_come_back_as_another_tone(tmp_path: Path) -> None:
    time = np.arange(44_100) / 44_100
    wave = decoded(stored(wav(tmp_path / "a.wav", np.sin(2 * np.pi * 15_000 * time), 44_100)))
    assert np.abs(wave.at(16_000)[500:-500]).max() < 0.02  # 1,000 Hz if it were only thinned out


def test_several_channels_are_mixed_into_their_mean(tmp_path: Path) -> None:
    left, right = tone(300, 0.2), tone(700, 0.2)
    wave = decoded(stored(wav(tmp_path / "a.wav", np.stack([left, right], 1))))
    assert wave.channels == 2
    np.testing.assert_allclose(wave.samples, (left + right) / 2, atol=2e-4)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "W64"])
def test_formats_are_known_by_their_content_from_bytes_as_from_a_file(tmp_path: Path, kind: str) -> None:
    written = io.BytesIO()
    soundfile.write(written, tone(440, 0.5, 16_000), 16_000, format=kind)
    (tmp_path / "misnamed.raw").write_bytes(written.getvalue())
    ours = decoded({"bytes": written.getvalue(), "path": None})
    assert ours.rate == 16_000
    assert peak(ours.samples, 16_000) == pytest.approx(440, abs=3)
    np.testing.assert_array_equal(ours.samples, decoded(stored(tmp_path / "misnamed.raw")).samples)


def test_whatever_cannot_be_heard_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "cut.flac").write_bytes(wav(tmp_path / "w.flac", tone(300, 0.5)).read_bytes()[:60])
    os.mkfifo(tmp_path / "pipe.wav")
    noise = tone(300, 0.1)
    noise[5] = np.nan
    soundfile.write(tmp_path / "nan.wav", noise, 4000, subtype="FLOAT")
    wav(tmp_path / "empty.wav", np.zeros(0))
    wav(tmp_path / "slow.wav", tone(300, 0.1), 500)
    wav(tmp_path / "fine.wav", tone(300, 0.1))
    wav(tmp_path / "silent.wav", np.zeros(400))
    names = ("text.wav", "cut.flac", "pipe.wav", "nan.wav", "empty.wav", "slow.wav", "gone.wav", "fine.wav", "silent.wav")
    known = dict(zip(names, Sounds.of(rows(*(tmp_path / name for name in names)), "audio").check()))
    reasons = {"text.wav": "not a sound", "pipe.wav": "no such file", "nan.wav": "no numbers", "empty.wav": "not a single",
               "slow.wav": "a rate of 500 Hz", "gone.wav": "no such file"}
    for name, reason in reasons.items():
        assert reason in str(known[name].broken), name
    assert known["cut.flac"].broken is not None
    assert known["fine.wav"].broken is None
    assert not known["fine.wav"].silent
    assert known["silent.wav"].silent


def test_a_small_file_that_unfolds_into_hours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = wav(tmp_path / "bomb.flac", np.zeros(400_000, np.float32), 8000)
    assert bomb.stat().st_size < 2000
    monkeypatch.setattr(sounds, "MOST_SECONDS", 20)
    with pytest.raises(OSError, match=r"50 seconds of 1 channels are more than is decoded at once \(20 seconds"):
        decoded(stored(bomb))
    monkeypatch.setattr(sounds, "MOST_BYTES", 100)
    with pytest.raises(OSError, match="bytes are more than the 100 that are read"):
        decoded(stored(bomb))


def test_a_part_of_a_file_is_what_its_columns_say(tmp_path: Path) -> None:
    path = wav(tmp_path / "long.wav", np.concatenate([tone(300, 0.5), tone(1500, 0.5)]))
    found = Sounds.of(rows(path, path, path, offset=[0.0, 0.5, 0.9], duration=[0.5, 0.25, 0.5]), "audio")
    assert peak(found.wave(0).samples, 4000) == pytest.approx(300, abs=5)
    second = found.wave(1)
    assert second.seconds == 0.25
    assert peak(second.samples, 4000) == pytest.approx(1500, abs=5)
    assert "lie outside of its 1.00 seconds" in str(found.check()[2].broken)


def test_changes_at_random_come_from_the_seed_alone() -> None:
    wave = Wave(tone(300, 0.5), 4000)
    once, again, other = light(wave, (1, 0, 7)), light(wave, (1, 0, 7)), light(wave, (1, 1, 7))
    np.testing.assert_array_equal(once.samples, again.samples)
    assert np.abs(once.samples - other.samples).max() > 0.01
    assert len(once.samples) == len(wave.samples)
    assert once.samples.dtype == np.float32
    assert peak(once.samples, 4000) == pytest.approx(300, abs=5)


@pytest.mark.slow
def test_a_clip_for_a_page_is_small_and_can_be_played() -> None:
    uri = sounds.data_uri(Wave(tone(300, 60, 44_100), 44_100), 5.0)
    assert uri.startswith(("data:audio/mpeg;base64,", "data:audio/wav;base64,"))
    assert len(uri) < 60_000
