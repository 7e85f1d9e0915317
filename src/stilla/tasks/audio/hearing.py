"""What models hear of sounds: feature extractors, frames, and batches in which no sound has an influence on another.

A model hears waves (wav2vec2 and its kin), or a spectrogram of a fixed length (AST, Whisper) or of any (w2v-BERT, Parakeet).
What an extractor makes of one sound is made of that sound alone; sounds of different lengths are padded behind, with a mask.
Where a group norm over time would see the padding, it is marked and left out (`norms.py`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    PreTrainedConfig,
    SeamlessM4TFeatureExtractor,
    WhisperFeatureExtractor,
)
from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderSubsamplingConv2D

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource
from stilla.tasks.audio.norms import leave_padding_out, normalises_whole_sounds
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.shared import loading

_FRAMES = 12
"""That a training batch has at least, by padding: SpecAugment masks spans of ten frames, and fails where there are fewer."""
_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Frames:
    """How a model makes frames of a wave's samples: convolutions one after the other, and maybe a pooling (SEW).

    by_stride: whether a model takes every so many-th place of a mask of samples for the mask of its frames (Moonshine).
    hop: samples from a column of a spectrogram to the next, where the convolutions fold that (Parakeet); 0 where they fold
    the wave. padding: zeros at either end of what each folds. made: whether the extractor itself makes the frames of the wave
    (w2v-BERT), so that its features are frames already.
    """

    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    pooled: int = 1
    by_stride: bool = False
    hop: int = 0
    padding: int = 0
    made: bool = False

    @classmethod
    def of(cls, model: nn.Module, extractor: Any) -> Frames | None:
        """None of a model whose config names none, and whose convolutions are not known."""
        folding = next((one for one in model.modules() if isinstance(one, ParakeetEncoderSubsamplingConv2D)), None)
        if folding is not None:
            hop = extractor.to_dict().get("hop_length")
            steps = [one for one in folding.layers if isinstance(one, nn.Conv2d) and one.stride != (1, 1)]
            kernels, strides = (tuple(getattr(one, name)[0] for one in steps) for name in ("kernel_size", "stride"))
            return None if hop is None else cls(kernels, strides, hop=int(hop), padding=int(folding.padding))
        whole = next((one for one in model.modules() if normalises_whole_sounds(one)), None)
        if whole is not None:
            inside = dict(whole.named_children())
            convs: list[Any] = [inside[f"conv{place}"] for place in (1, 2, 3)]
            return cls(tuple(one.kernel_size[0] for one in convs), tuple(one.stride[0] for one in convs), by_stride=True)
        if isinstance(extractor, SeamlessM4TFeatureExtractor):
            # its windows are 400 samples every 160 whatever the rate, and a frame is some of them beside each other
            return cls((400, extractor.stride), (160, extractor.stride), made=True)
        config = model.config if isinstance(model.config, PreTrainedConfig) else None
        said = vars(config) if isinstance(config, PreTrainedConfig) else {}
        if not {"conv_kernel", "conv_stride"} <= said.keys():
            return None
        return cls(tuple(said["conv_kernel"]), tuple(said["conv_stride"]), int(said.get("squeeze_factor", 1)))

    def number(self, samples: int) -> int:
        """Of frames that leave the convolutions."""
        return self._folded(samples // self.hop if self.hop else samples)

    def _folded(self, places: int) -> int:
        """Of so many samples, or columns of a spectrogram."""
        for kernel, stride in zip(self.kernels, self.strides):
            places = max(0, (places + 2 * self.padding - kernel) // stride + 1)
        return places

    def masked(self, places: int) -> int:
        """Places that are 1 in a mask of a sound's samples, or columns."""
        return (self._folded(places) - 1) * math.prod(self.strides) + 1 if self.by_stride else places

    def own(self, mask: Int[Tensor, "batch places"], *, pooled: bool = True) -> Bool[Tensor, "batch frames"]:
        """Which frames such masks leave a sound; of a model that pools them, those that it answers (`pooled`: no)."""
        if self.made:
            return mask.bool()
        size = self.pooled if pooled else 1
        whole = self._folded(mask.shape[1]) // size
        if self.by_stride:
            return mask[:, :: math.prod(self.strides)][:, :whole].bool()
        own = torch.tensor([self._folded(int(length)) // size for length in mask.sum(1)])
        return torch.arange(whole) < own[:, None]

    def least(self, frames: int) -> int:
        """Samples that so many frames need."""
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides)):
            frames = (frames - 1) * stride + kernel - 2 * self.padding
        # a spectrogram of one column has no variance to be divided by
        return max(frames, 2) * self.hop if self.hop else frames


class Ear:
    """A feature extractor, and what of its model's config says how its features become frames.

    marked: whether padding of waves is marked by NaN, for a model that leaves it out by this mark.
    """

    def __init__(self, extractor: Any, frames: Frames | None, *, marked: bool) -> None:
        self.extractor, self.frames, self.marked = extractor, frames, marked
        self.rate = int(extractor.sampling_rate)
        self.name = str(extractor.model_input_names[0])

    @property
    def window(self) -> float | None:
        """Seconds that are heard at most; what is longer would be cut off. None where there is no limit."""
        if isinstance(self.extractor, ASTFeatureExtractor):
            # frames of 25 ms every 10 ms
            return float((self.extractor.max_length - 1) * 0.01 + 0.025)
        if isinstance(self.extractor, WhisperFeatureExtractor):
            return float(self.extractor.n_samples / self.rate)
        return None

    def features(self, wave: Wave) -> NDArray[np.float32]:
        """Of one sound by itself: (samples,), or (frames, bins) in the model's own order of axes."""
        samples = wave.at(self.rate)
        if self.frames is not None and len(samples) < (least := self.frames.least(self.frames.pooled)):
            samples = np.pad(samples, (0, least - len(samples)))
        with quiet():
            made = self.extractor(samples, sampling_rate=self.rate, return_tensors="np")
        found: NDArray[np.float32] = np.asarray(made[self.name][0], np.float32)
        if (mask := made.get("attention_mask")) is not None and found.ndim == 2 and len(mask[0]) == len(found):
            found = found[np.asarray(mask[0], bool)]
        return found

    @property
    def fixed(self) -> bool:
        """Whether all sounds become features of one shape, so that nothing is padded and nothing masked."""
        return self.window is not None

    def batch(self, features: Sequence[NDArray[np.float32]], *, training: bool = False) -> dict[str, Tensor]:
        """Inputs of a forward: padded behind, with a mask, where lengths may differ. `training`: to at least as many frames
        as SpecAugment needs."""
        if self.fixed:
            return {self.name: torch.from_numpy(np.stack(features))}
        lengths = [len(one) for one in features]
        least = 1
        if training and self.frames is not None and not self.frames.hop:
            least = _FRAMES if self.frames.made else self.frames.least(_FRAMES)
        shape = (len(features), max(*lengths, least), *features[0].shape[1:])
        padded = np.full(shape, np.nan if self.marked else 0.0, np.float32)
        mask = np.zeros(shape[:2], np.int64)
        for row, one in enumerate(features):
            padded[row, : len(one)] = one
            mask[row, : len(one) if self.frames is None else self.frames.masked(len(one))] = 1
        return {self.name: torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask)}

    def valid(self, inputs: Mapping[str, Tensor]) -> Bool[Tensor, "batch frames"] | None:
        """Which frames of hidden states are of the sound; None where all are, or where nobody knows."""
        mask = inputs.get("attention_mask")
        if mask is None:
            return None
        if self.frames is None:
            return mask.bool() if self.name != "input_values" else None
        return self.frames.own(mask)

    def said(self, inputs: Mapping[str, Tensor]) -> Bool[Tensor, "batch frames"] | None:
        """The same of what is said of every frame (CTC), where layers pool frames and their answers are of all (SEW)."""
        mask = inputs.get("attention_mask")
        return self.valid(inputs) if mask is None or self.frames is None else self.frames.own(mask, pooled=False)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        self.extractor.save_pretrained(folder, **options)

    def to_dict(self) -> dict[str, Any]:
        """What decides which values a model hears."""
        said = {name: value for name, value in self.extractor.to_dict().items() if not name.startswith("_")}
        return {**said, "frames": str(self.frames)}


def extractor_for(source: ModelSource) -> Any:
    """The feature extractor of a model of sounds.

    Raises:
        CompatibilityError: there is none, or it is none of sounds.
    """
    place, options = loading.where_processor(source)
    folder = Path(place).expanduser()
    if folder.is_dir() and not any((folder / name).is_file() for name in _FILES):
        raise CompatibilityError(f"{place!r} holds no feature extractor; copy its preprocessor_config.json there, or name "
                                 "its place: processor.")
    with loading.explained(place, "processor"), quiet():
        extractor = AutoFeatureExtractor.from_pretrained(place, **options)
    said = extractor.to_dict()
    if "sampling_rate" not in said:
        raise CompatibilityError(f"processor: {place!r} holds a {type(extractor).__name__}, which is none of sounds (it says "
                                 "no sampling_rate).")
    return extractor


def ear_for(source: ModelSource, model: nn.Module) -> Ear:
    """The extractor of a model, which from here on leaves padding out of its norms.

    Raises:
        CompatibilityError: as for `extractor_for`.
    """
    return ear_of(extractor_for(source), model)


def ear_of(extractor: Any, model: nn.Module) -> Ear:
    return Ear(extractor, Frames.of(model, extractor), marked=leave_padding_out(model))


def same(one: Any, other: Any) -> bool:
    """Whether both hear the same values in the same frames."""
    return isinstance(one, Ear) and isinstance(other, Ear) and one.to_dict() == other.to_dict() \
        and one.marked == other.marked


def same_frames(one: Any, other: Any) -> bool:
    """Whether frame i of both is the same piece of the sound."""
    if not (isinstance(one, Ear) and isinstance(other, Ear)):
        return False
    values = ("do_normalize", "mean", "std", "padding_value", "return_attention_mask")
    ours, theirs = ({name: value for name, value in ear.to_dict().items() if name not in values} for ear in (one, other))
    return ours == theirs


def sample(ear: Ear) -> dict[str, Tensor]:
    """Two made-up sounds of different lengths, as inputs."""
    draw = np.random.default_rng(0)
    waves = [Wave(draw.standard_normal(length, np.float32) * np.float32(0.1), ear.rate)
             for length in (ear.rate // 2, ear.rate // 4)]
    return ear.batch([ear.features(wave) for wave in waves])


@contextmanager
def quiet() -> Iterator[None]:
    """Extractors warn of mel filters without a value, of their own making."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
        yield


