"""The families of models that speak, told apart in one place: those that make a frame of the frames before it, and those that
make all frames at once of how long each token lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoModelForTextToSpectrogram,
    AutoModelForTextToWaveform,
    FastSpeech2ConformerConfig,
    FastSpeech2ConformerModel,
    FastSpeech2ConformerWithHifiGanConfig,
    PreTrainedModel,
    SpeechT5Config,
    SpeechT5ForTextToSpeech,
)

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource
from stilla.tasks.audio import at_once, at_once_files, speaking, speaking_files
from stilla.tasks.audio.at_once_files import AtOnceFile
from stilla.tasks.audio.speaking_files import SpeakingFiles
from stilla.tasks.base import File, Graph
from stilla.tasks.shared import loading


@dataclass(frozen=True)
class Sizes:
    """Of a model: mel bins, frames that a step makes, numbers of a vector that says whose voice it is (0: it is told none),
    places for tokens and for steps; whether it makes all frames at once; how many speakers and languages it knows by number
    (0: it is told none)."""

    bins: int
    reduction: int
    width: int
    room: int
    steps: int
    at_once: bool = False
    speakers: int = 0
    languages: int = 0


def loaded(source: ModelSource) -> tuple[Any, Mapping[str, Any]]:
    """A model of the recipe's, and what transformers says of its loading. Of one with a vocoder it is the part in front.

    Raises:
        CompatibilityError: it is of another family.
    """
    config = loading.read_config(source)
    if not isinstance(config, SpeechT5Config | FastSpeech2ConformerConfig | FastSpeech2ConformerWithHifiGanConfig):
        raise CompatibilityError(f"{source.model!r} is a {config.model_type} model; text-to-speech takes SpeechT5 and "
                                 "FastSpeech2-Conformer, whose spectrograms are compared frame by frame. Why no VITS, and "
                                 "which models that speak in codes causal-lm takes, says docs/text-to-speech.md")
    if isinstance(config, FastSpeech2ConformerWithHifiGanConfig):
        whole, info = loading.from_pretrained(source, config, AutoModelForTextToWaveform)
        missing = [name.removeprefix("model.") for name in info["missing_keys"] if name.startswith("model.")]
        return whole.model, {**info, "missing_keys": missing}
    return loading.from_pretrained(source, config, AutoModelForTextToSpectrogram)


def makes_all_at_once(source: ModelSource) -> bool | None:
    """Whether it is told how long every token lasts; None where its config cannot be read, which loading it will say."""
    try:
        return str(loading.read_config(source).model_type).startswith(FastSpeech2ConformerConfig.model_type)
    except CompatibilityError:
        return None


def teachable(model: nn.Module, where: str) -> None:
    """Give a model the forward of its family that does not depend on chance or on padding, in place.

    Raises:
        CompatibilityError: it is of another family, or cannot be run as its config says.
    """
    if isinstance(model, SpeechT5ForTextToSpeech):
        return speaking.teachable(model, where)
    if isinstance(model, FastSpeech2ConformerModel):
        return at_once.teachable(model, where)
    raise CompatibilityError(f"{where!r} is a {type(model).__name__}; text-to-speech takes SpeechT5ForTextToSpeech and "
                             "FastSpeech2ConformerModel (alone, or in a FastSpeech2ConformerWithHifiGan)")


def sizes(model: nn.Module) -> Sizes:
    config: Any = model.config
    if isinstance(model, FastSpeech2ConformerModel):
        known = [one if one is not None and one > 1 else 0 for one in (config.num_speakers, config.num_languages)]
        return Sizes(int(config.num_mel_bins), 1, int(config.speaker_embed_dim or 0), int(config.max_source_positions),
                     int(config.max_source_positions), True, *known)
    return Sizes(int(config.num_mel_bins), int(config.reduction_factor), int(config.speaker_embedding_dim),
                 int(config.max_text_positions), int(config.max_speech_positions))


def speak(
    model: PreTrainedModel | AtOnceFile | SpeakingFiles, inputs: Mapping[str, Tensor], most: Sequence[int]
) -> list[Tensor]:
    """(frames, bins) that a model, or its files, make of every text by itself, as it would be alone; at most so many frames
    of each."""
    if isinstance(model, AtOnceFile | SpeakingFiles):
        return model.speak(inputs, most)
    if isinstance(model, FastSpeech2ConformerModel):
        return lasting(model, inputs, most)[0]
    return speaking.speak(model, inputs["input_ids"], inputs["attention_mask"], inputs["speaker_embeddings"], most)


def graphs_of(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Graph]:
    """What it is written as, by the names of the files."""
    if sizes(model).at_once:
        return at_once_files.graphs_of(model, batch)
    return speaking_files.graphs_of(model, batch)


def opened(name: str, files: Callable[[str], File]) -> AtOnceFile | SpeakingFiles:
    """Those files as one. `name`: of the first."""
    return AtOnceFile(files) if name == at_once_files.FILE else SpeakingFiles(files)


def lasting(
    model: nn.Module, inputs: Mapping[str, Tensor], most: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """The same of a model that makes all frames at once, and how many of them each token has."""
    return at_once.speak(model, {name: one for name, one in inputs.items() if name != "durations"}, most)
