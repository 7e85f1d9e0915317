"""The mel-cepstral distance and the warping that it is measured along; waves of spectrograms."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from stilla.tasks.audio.cepstra import mel_cepstra, mel_cepstral_distance, warped
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.waves import griffin_lim
from tests.tasks.audio.setting import RATE, tone
from tests.tasks.audio.talkers import extractor


def frames(number: int = 12, bins: int = 20, seed: int = 0) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).normal(0, 0.2, (number, bins)), 0)


def test_a_sound_is_at_no_distance_from_itself_slower_or_louder() -> None:
    one = frames()
    assert mel_cepstral_distance(one, one) == 0
    assert mel_cepstral_distance(np.repeat(one, 3, 0), one) == pytest.approx(0, abs=1e-9)
    assert mel_cepstral_distance(one + 0.7, one) == pytest.approx(0, abs=1e-9)


def test_a_frame_late_is_nearer_than_another_sound() -> None:
    one = frames()
    late = np.concatenate([one[:1], one[:-1]])
    assert 0 < mel_cepstral_distance(late, one) < 0.5 * mel_cepstral_distance(frames(seed=1), one)


@pytest.mark.parametrize("order", [1, 13])
def test_a_ripple_over_the_bins_is_as_far_as_its_root_mean_square_in_decibels(order: int) -> None:
    """20 log10 of energies that differ by a cosine of amplitude a: a / √2, in decibels."""
    one, bins = frames(), 20
    ripple = 0.3 * np.cos(np.pi * order * (np.arange(bins) + 0.5) / bins)
    assert mel_cepstral_distance(one[:1] + ripple, one[:1]) == pytest.approx(20 * 0.3 / math.sqrt(2), rel=1e-12)
    assert mel_cepstra(ripple[None])[0, order - 1] == pytest.approx(0.3 * math.log(10), rel=1e-12)


def test_the_warping_is_the_best_of_all_paths() -> None:
    apart = np.random.default_rng(3).random((4, 5))

    def paths(row: int, column: int) -> list[list[tuple[int, int]]]:
        if (row, column) == (0, 0):
            return [[(0, 0)]]
        before = [(row - 1, column), (row, column - 1), (row - 1, column - 1)]
        return [[*path, (row, column)] for a, b in before if a >= 0 and b >= 0 for path in paths(a, b)]

    best = min(paths(3, 4), key=lambda path: sum(apart[one] for one in path))
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(best))
    total, steps = warped(apart)
    assert total == pytest.approx(sum(apart[one] for one in best), rel=1e-12)
    assert steps == len(best)


def test_a_wave_made_of_a_tones_spectrogram_is_of_its_pitch() -> None:
    made = extractor(num_mel_bins=20)
    mels = made(audio_target=tone(700.0, 0.5), sampling_rate=RATE)["input_values"][0]
    wave = griffin_lim(mels, made)
    assert isinstance(wave, Wave)
    assert wave.rate == RATE
    assert len(wave.samples) == pytest.approx(0.5 * RATE, abs=made.sample_stride)
    pitch = np.abs(np.fft.rfft(wave.samples)).argmax() * RATE / len(wave.samples)
    assert pitch == pytest.approx(700, abs=60)
    again = made(audio_target=wave.samples, sampling_rate=RATE)["input_values"][0]
    assert mel_cepstral_distance(again, mels) < 6
