"""What text-to-speech needs around a model: tokens of texts, spectrograms of sounds, and the sizes that fit it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, SpeechT5FeatureExtractor, SpeechT5Processor

from stilla.errors import CompatibilityError
from stilla.recipe import ModelSource
from stilla.tasks.audio.hearing import extractor_for, quiet
from stilla.tasks.audio.sounds import Wave
from stilla.tasks.audio.talking import Sizes, sizes
from stilla.tasks.shared import loading
from stilla.tasks.text import tokens

_OF_FRAMES = ("sampling_rate", "num_mel_bins", "hop_length", "win_length", "win_function", "fmin", "fmax", "mel_floor")
_PHONEMES = "FastSpeech2ConformerTokenizer"
_TOKENIZER = "SpeechT5Tokenizer"
"""SpeechT5's own, beside which transformers has a processor for both; it needs sentencepiece."""


@dataclass(frozen=True)
class Voice:
    """A tokenizer and what makes spectrograms, as one model takes them.

    bins: of a frame.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    extractor: SpeechT5FeatureExtractor = field(repr=False)
    sizes: Sizes

    @classmethod
    def of(cls, source: ModelSource, model: Any) -> Voice:
        """Raises:
            CompatibilityError: there is no tokenizer or no feature extractor, or one of another model's, or what it is
                read with is not installed.
        """
        _refuse_unreadable(source)
        tokenizer = tokens.tokenizer_for(source, model)
        tokenizer.padding_side = "right"  # positions are counted from the first token of all
        extractor = extractor_for(source)
        if not isinstance(extractor, SpeechT5FeatureExtractor):
            raise CompatibilityError(f"{source.model!r} comes with a {type(extractor).__name__}; which spectrograms a model "
                                     "of text-to-speech makes is said by a SpeechT5FeatureExtractor. Name its own "
                                     "(processor:)")
        return cls.fitted(tokenizer, extractor, model, source.model)

    @classmethod
    def fitted(cls, tokenizer: PreTrainedTokenizerBase, extractor: Any, model: Any, where: str) -> Voice:
        """The same for another model, whose reduction factor or width of voices may be others."""
        found = sizes(model)
        if extractor.num_mel_bins != found.bins:
            raise CompatibilityError(f"{where!r}: the feature extractor makes {extractor.num_mel_bins} mel bins, and the "
                                     f"model speaks in {found.bins}: it is another model's. Name its own (processor:)")
        return cls(tokenizer, extractor, found)

    @property
    def reduction(self) -> int:
        """Frames that its decoder makes at each step."""
        return self.sizes.reduction

    @property
    def width(self) -> int:
        """Of the numbers that say whose voice it is."""
        return self.sizes.width

    @property
    def room(self) -> int:
        """Positions for tokens."""
        return self.sizes.room

    @property
    def at_once(self) -> bool:
        """Whether it is told how long every token lasts, and makes all frames at once."""
        return self.sizes.at_once

    @property
    def numbers(self) -> int:
        """Of a frame, as they are stored of a teacher: without and with the postnet, and its being the last, or what it
        thinks of a token."""
        return 2 * self.bins + (3 if self.at_once else 1)

    @property
    def rate(self) -> int:
        return int(self.extractor.sampling_rate)

    @property
    def bins(self) -> int:
        return int(self.extractor.num_mel_bins)

    @property
    def hop(self) -> int:
        """Samples from a frame to the next."""
        return int(self.extractor.sample_stride)

    @property
    def longest(self) -> int:
        """Frames that it can speak."""
        return self.sizes.steps * self.reduction

    def frames_in(self, seconds: float) -> int:
        """Of a sound's spectrogram."""
        # resampling rounds up; a product of fractions may lie a little above or below a whole number of samples
        return 1 + max(ceil(seconds * self.rate - 1e-6), self._least) // self.hop

    @property
    def _least(self) -> int:
        """Samples that the reflection at a spectrogram's ends needs."""
        return int(self.extractor.n_fft) // 2 + 1

    def spectrogram(self, wave: Wave) -> Float32[NDArray[np.float32], "frames bins"]:
        """log10 of the energies of mel bins, as the models of the family are trained on them."""
        samples = wave.at(self.rate)
        samples = np.pad(samples, (0, max(0, self._least - len(samples))))
        with quiet():
            made = self.extractor(audio_target=samples, sampling_rate=self.rate)
        return np.asarray(made["input_values"][0], np.float32)

    def unknown(self, texts: list[str]) -> tuple[int, list[str]]:
        """How many texts have a piece that no token stands for, and which characters have none by themselves."""
        mark = self.tokenizer.unk_token_id
        if mark is None:
            return 0, []
        said = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        odd = [text for text, ids in zip(texts, said, strict=True) if mark in ids]
        characters = sorted({one for text in odd[:1000] for one in text})
        return len(odd), [one for one in characters
                          if mark in self.tokenizer(one, add_special_tokens=False, verbose=False)["input_ids"]]

    def same_frames(self, other: Voice) -> bool:
        """Whether frame i of both is the same piece of a sound in the same numbers."""
        return self._frames() == other._frames()

    def same_positions(self, other: Voice) -> bool:
        """Whether position i of both models, of encoder and of decoder, is the same piece."""
        return self.reduction == other.reduction and tokens.same(self.tokenizer, other.tokenizer) and self.same_frames(other)

    def _frames(self) -> list[Any]:
        said = self.extractor.to_dict()
        return [said[name] for name in _OF_FRAMES]

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        if type(self.tokenizer).__name__ == _TOKENIZER:
            SpeechT5Processor(self.extractor, self.tokenizer).save_pretrained(folder)
        else:
            self.extractor.save_pretrained(folder, **options)
            self.tokenizer.save_pretrained(folder)

    def to_dict(self) -> dict[str, Any]:
        """What decides what a model reads and which frames it makes."""
        return {"frames": self._frames(), "tokens": tokens.fingerprint(self.tokenizer), "reduction": self.reduction,
                "width": self.width, **({"told": [self.sizes.speakers, self.sizes.languages]} if self.at_once else {})}


def _refuse_unreadable(source: ModelSource) -> None:
    """FastSpeech2-Conformer's own tokenizer makes phonemes of English, by a package; without it transformers says only that
    it knows no such tokenizer.

    Raises:
        CompatibilityError: the package is not there.
    """
    place = Path(loading.where_processor(source)[0]).expanduser()
    said = place / "tokenizer_config.json"
    if said.is_file() and _PHONEMES in said.read_text(encoding="utf-8") and find_spec("g2p_en") is None:
        raise CompatibilityError(f"{str(place)!r}: {_PHONEMES} needs the package g2p-en (pip install g2p-en), which makes "
                                 "phonemes of English and fetches NLTK's cmudict and averaged_perceptron_tagger when it is "
                                 "first used. Any other tokenizer of AutoTokenizer serves as well, of letters or phonemes "
                                 "that the texts are written in: name its place (processor:)")
