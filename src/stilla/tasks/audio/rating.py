"""How natural a sound is to people, as DNSMOS P.835 predicts it without a right one to compare with (Reddy et al. 2022,
arXiv:2110.01763): by the file that its authors give, offline."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from stilla.errors import CompatibilityError
from stilla.tasks.audio.sounds import Wave

_RATE = 16_000
_SECONDS = 9.01  # that it listens to at a time, a second apart
_FILE = ("dnsmos_models", "sig_bak_ovr.onnx")
_PACKAGE = "speechmos"
# what its authors fit to people's ratings, highest power first
_FITTED = {"voice": (-0.08397278, 1.22083953, 0.0052439), "background": (-0.13166888, 1.60915514, -0.39604546),
           "overall": (-0.06766283, 1.11546468, 0.04602535)}


class Rating(NamedTuple):
    """From 1 to 5."""

    overall: float
    voice: float
    background: float


@cache
def rater(named: str) -> Callable[[Wave], Rating]:
    """Rates waves, each by itself; loaded once in a process. `named`: a file, or the package that brings it.

    Raises:
        CompatibilityError: it is not there, cannot be run, or is another model.
    """
    path = _place(named)
    try:
        import onnxruntime
    except ImportError as error:
        raise CompatibilityError("evaluate.dnsmos: needs onnxruntime: pip install \"stilla[dnsmos]\"") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class
        raise CompatibilityError(f"evaluate.dnsmos: onnxruntime cannot read {str(path)!r}: {error}") from error
    (wanted, *more), (given, *others) = session.get_inputs(), session.get_outputs()
    if more or others or len(wanted.shape) != 2 or given.shape[-1] != 3:
        raise CompatibilityError(f"evaluate.dnsmos: {str(path)!r} is another model than DNSMOS P.835, which takes "
                                 f"(1, samples) of {_SECONDS} seconds and gives 3 numbers (sig_bak_ovr.onnx)")

    def rated(wave: Wave) -> Rating:
        pieces = windows(np.clip(wave.at(_RATE), -1, 1))
        said = np.concatenate([np.asarray(session.run([given.name], {wanted.name: one[None]})[0]) for one in pieces])
        return _fitted(said)

    return rated


def windows(samples: Float32[NDArray[np.float32], "samples"]) -> list[Float32[NDArray[np.float32], "window"]]:
    """What it listens to, as its authors have it: a sound is repeated until it is long enough, and heard from each second."""
    if not len(samples):
        samples = np.zeros(1, np.float32)
    length = int(_SECONDS * _RATE)
    while len(samples) < length:
        samples = np.concatenate([samples, samples])
    starts = range(int(np.floor(len(samples) / _RATE) - _SECONDS) + 1)
    pieces = [samples[one * _RATE : int((one + _SECONDS) * _RATE)] for one in starts]
    return [one.astype(np.float32) for one in pieces if len(one) >= length]


def _fitted(said: NDArray[Any]) -> Rating:
    """The mean over windows of what people would say."""
    voice, background, overall = (
        float(np.polyval(fit, said[:, place].astype(np.float64)).mean())
        for place, fit in enumerate((_FITTED["voice"], _FITTED["background"], _FITTED["overall"])))
    return Rating(overall, voice, background)


def _place(named: str) -> Path:
    path = Path(named).expanduser()
    if path.is_file():
        return path
    found = find_spec(_PACKAGE) if named == _PACKAGE else None
    if found is None or found.origin is None:
        way = f'pip install "stilla[dnsmos]" brings the package {_PACKAGE}, of which dnsmos: {_PACKAGE} takes it'
        raise CompatibilityError(f"evaluate.dnsmos: {named!r}: no such file or package. Name the path of sig_bak_ovr.onnx "
                                 f"(DNSMOS P.835); {way}")
    # the package itself is not imported: it needs librosa, for what is not measured here
    return Path(found.origin).parent.joinpath(*_FILE)
