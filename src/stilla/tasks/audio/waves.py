"""Waves of spectrograms, to be listened to: by a vocoder, or without one by Griffin and Lim's algorithm."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import FastSpeech2ConformerHifiGan, FastSpeech2ConformerWithHifiGan, SpeechT5HifiGan

from stilla.errors import DataError
from stilla.recipe import ModelSource
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.voice import Voice
from stilla.tasks.base import Graph
from stilla.tasks.shared import loading

VOCODER = "vocoder.onnx"
_ROUNDS = 40
_MOMENTUM = 0.99

Frames = Float[NDArray[np.floating], "frames bins"]


def griffin_lim(frames: Frames, extractor: Any) -> Wave:
    """A wave whose spectrogram is near to these frames: magnitudes by the pseudo-inverse of the mel filters, phases by turns
    of making a wave and looking at its own (Griffin and Lim 1984, doi:10.1109/TASSP.1984.1164317; with the momentum of
    Perraudin et al. 2013, doi:10.1109/WASPAA.2013.6701851)."""
    filters: NDArray[np.float64] = np.asarray(extractor.mel_filters, np.float64)
    magnitudes = np.maximum(10 ** np.asarray(frames, np.float64) @ np.linalg.pinv(filters), 1e-10)
    window = np.zeros(extractor.n_fft)
    window[: extractor.sample_size] = extractor.window
    hop = int(extractor.sample_stride)
    draw = np.random.default_rng(0)
    phases = np.exp(2j * np.pi * draw.random(magnitudes.shape))
    before = np.zeros_like(phases)
    for _ in range(_ROUNDS):
        now = _spectrum(_wave(magnitudes * phases, window, hop), window, hop, len(magnitudes))
        phases = now + _MOMENTUM / (1 + _MOMENTUM) * (now - before)
        phases /= np.maximum(np.abs(phases), 1e-12)
        before = now
    made = _wave(magnitudes * phases, window, hop)
    return Wave((made / max(1.0, float(np.abs(made).max(initial=0)))).astype(np.float32), int(extractor.sampling_rate))


def _wave(
    spectrum: NDArray[np.complex128], window: NDArray[np.float64], hop: int
) -> Float[NDArray[np.float64], "samples"]:
    """Frames added where they overlap, and divided by the squares of their windows; from the middle of the first to that of
    the last."""
    pieces = np.fft.irfft(spectrum, len(window), axis=1) * window
    total = np.zeros(hop * (len(pieces) - 1) + len(window))
    weight = np.zeros_like(total)
    for place, piece in enumerate(pieces):
        total[place * hop : place * hop + len(window)] += piece
        weight[place * hop : place * hop + len(window)] += window**2
    half = len(window) // 2
    found: NDArray[np.float64] = (total / np.maximum(weight, 1e-8))[half : len(total) - half]
    return found


def _spectrum(
    wave: Float[NDArray[np.float64], "samples"], window: NDArray[np.float64], hop: int, frames: int
) -> NDArray[np.complex128]:
    padded = np.pad(wave, len(window) // 2)
    padded = np.pad(padded, (0, max(0, hop * (frames - 1) + len(window) - len(padded))))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::hop][:frames]
    found: NDArray[np.complex128] = np.fft.rfft(pieces * window, axis=1)
    return found


def to_wave(frames: Frames, voice: Voice, named: str | None, field: str) -> Wave:
    """By the vocoder that is `named` in `field` of a recipe, else by Griffin and Lim."""
    if named is not None:
        return vocoder(named, voice.bins, voice.rate, field)(frames)
    return griffin_lim(frames, voice.extractor)


@cache
def vocoder(name: str, bins: int, rate: int, field: str) -> Callable[[Frames], Wave]:
    """The same by a HiFi-GAN of SpeechT5's or of FastSpeech2-Conformer's, alone or behind a model; loaded once in a process.

    Args:
        rate: samples a second, for those that do not say it.
        field: of the recipe, that names it.

    Raises:
        CompatibilityError: it cannot be loaded.
        DataError: it is made for other frames.
    """
    model = hifigan(name, bins, field)
    spoken_at = rate_of(model, rate)

    @torch.no_grad()
    def made(frames: Frames) -> Wave:
        return Wave(model(torch.from_numpy(np.asarray(frames, np.float32))).numpy(), spoken_at)

    return made


def hifigan(name: str, bins: int, field: str) -> Any:
    """The model itself. Raises as `vocoder` does."""
    loading.check_place(name, field)
    source = ModelSource(model=name)
    with loading.explained(name, field):
        kind = loading.read_config(source).model_type
        options: dict[str, Any] = {"use_safetensors": True, **loading.where(source)}
        if kind == "fastspeech2_conformer_with_hifigan":
            model: Any = FastSpeech2ConformerWithHifiGan.from_pretrained(name, **options).vocoder
        elif kind == "fastspeech2_conformer_hifigan":
            model = FastSpeech2ConformerHifiGan.from_pretrained(name, **options)
        else:
            model = SpeechT5HifiGan.from_pretrained(name, **options)
    model.eval()
    if model.config.model_in_dim != bins:
        raise DataError(f"{field}: {name!r} takes {model.config.model_in_dim} mel bins, and the models speak in {bins}; "
                        "leave it out, or name theirs.")
    return model


def rate_of(model: Any, rate: int) -> int:
    """Samples a second that it makes; `rate` where it does not say."""
    return int(model.config.sampling_rate) if isinstance(model, SpeechT5HifiGan) else rate


class Waving(nn.Module):
    """It as what is written of it as a file."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Tensor) -> Tensor:
        (spectrogram,) = values
        made: Tensor = self.model(spectrogram)
        return made


def graph_of(model: nn.Module, frames: Float[Tensor, "batch frames bins"]) -> Graph:
    """Not quantised: what it makes is heard as it is, and measured by nobody."""
    return Graph(Waving(model).eval(), {"spectrogram": frames}, {"spectrogram": {0: "batch", 1: "frames"}}, ("waveform",),
                 exact=True)
