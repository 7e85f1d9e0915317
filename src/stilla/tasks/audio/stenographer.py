"""What encoder-decoders that write down what they hear (Whisper, Moonshine) need around their models: features of sounds, the
tokens that their decoders begin with, and those of transcripts.

Whisper's decoder is told what to do by tokens before the text: the language, the task, and that no times are written, unless
they are. They stand before everything that is learnt or written here, and are never learnt themselves.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, WhisperFeatureExtractor

from stilla.errors import CompatibilityError, DataError, did_you_mean, one_of
from stilla.tasks.audio import timed
from stilla.tasks.audio.hearing import Ear, same_frames
from stilla.tasks.audio.sections import SpeechRecognitionData
from stilla.tasks.text import tokens

logger = logging.getLogger(__name__)

_TRANSCRIBE, _NO_TIMES = "<|transcribe|>", "<|notimestamps|>"
_OLD = "forced_decoder_ids"
"""What old checkpoints of Whisper name their prompt by; transformers knows it no more, or warns of it."""


@dataclass(frozen=True)
class Stenographer:
    """`prompt`: what a decoder has read before the first token of a text. `end`: the token after its last. `room`: positions
    of the decoder. `positions`: of the encoder's hidden states, where every sound has as many; else the ear knows them.
    `times`: the tokens of times by number, of models that write them unless the prompt ends with a token against it.
    """

    ear: Ear
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    prompt: tuple[int, ...]
    end: int
    room: int
    positions: int | None
    times: Mapping[int, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, ear: Ear, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, section: SpeechRecognitionData | None
    ) -> Stenographer:
        """Raises:
            CompatibilityError: how the model makes frames of a sound is not known, the feature extractor or the tokenizer is
                another model's, or it does not say what its decoder begins with.
            DataError: the recipe's language is none that the model knows, or it knows several and the recipe names none.
        """
        config: Any = model.config
        where = type(model).__name__
        positions = vars(config).get("max_source_positions") if ear.fixed else None
        if positions is None and ear.frames is None:
            raise CompatibilityError(f"how a {where} makes frames of a sound is not known. Known are Whisper and Moonshine, "
                                     "and for frames that each stand for a symbol (CTC) those that hear waves")
        _refuse_other_features(ear, model)
        ends = _ends(model)
        if tokenizer.eos_token_id not in ends:
            raise CompatibilityError(f"the tokenizer ends texts with {tokenizer.eos_token_id}, and the {where} with "
                                     f"{one_of(list(map(str, ends))) or 'nothing'}: it is another model's. Name its own "
                                     "(processor:)")
        room = next((one for one in map(vars(config).get, ("max_target_positions", "max_position_embeddings"))
                     if isinstance(one, int)), 2**20)
        prompt = _prompt(tokenizer, model, None if section is None else section.language)
        vocabulary = tokenizer.get_vocab()
        times = {number: name for name, number in vocabulary.items() if timed.TIME.fullmatch(name)}
        times = times if vocabulary.get(_NO_TIMES) == min(times, default=0) - 1 else {}
        if section is not None and section.timestamps is not None and not times:
            raise CompatibilityError(f"data.timestamps: a {where} writes no times: its tokenizer has no tokens for them "
                                     f"behind {_NO_TIMES}. Leave it out")
        return cls(ear, tokenizer, prompt, int(tokenizer.eos_token_id), room, positions, times)

    @property
    def open_prompt(self) -> tuple[int, ...]:
        """The prompt of a transcript with times."""
        return self.prompt[:-1]

    @property
    def untimed(self) -> int:
        """Which token stands before a transcript without times."""
        return self.prompt[-1]

    @property
    def padding(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def longest(self) -> int:
        """Tokens that a transcript may have with its end, so that all of it has a position."""
        return self.room - len(self.prompt) + 1

    def ids(self, text: str) -> list[int]:
        """A transcript's tokens without its end, and without its times if it has any."""
        return self._ids(self._untimed(text))

    def read(self, text: str) -> list[str]:
        """What the tokenizer gets of a transcript: all of it without its times, and if it has some, what stands between."""
        parts = timed.TIME.split(text.strip())
        return [self._untimed(text), *(parts[::2] if len(parts) > 1 else ())]

    def _untimed(self, text: str) -> str:
        text = timed.plain(text).strip()
        # OpenAI's transcripts begin with a space, which its byte-level tokenizer does not write by itself
        return f" {text}" if _NO_TIMES in self.tokenizer.get_vocab() else text

    def timed_ids(self, text: str) -> list[int] | None:
        """The same with its times; None where it has none, or such as the model cannot write."""
        numbers = {name: number for number, name in self.times.items()}
        parts = timed.TIME.split(text.strip())  # every other is a time
        if len(parts) == 1 or any(one not in numbers for one in parts[1::2]):
            return None
        return [token for place, part in enumerate(parts) for token in ([numbers[part]] if place % 2 else self._ids(part))]

    def timed_text(self, ids: Sequence[int]) -> str:
        """What tokens say, with their times."""
        text, run = "", list[int]()
        for one in [*ids, None]:
            if one is not None and one not in self.times:
                run.append(one)
                continue
            text += str(self.tokenizer.decode(run, skip_special_tokens=True)) if run else ""
            text, run = text + (self.times[one] if one is not None else ""), []
        return text.strip()

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []
        return found

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def frames(self, inputs: Mapping[str, Tensor]) -> Bool[Tensor, "batch frames"]:
        """Which of the encoder's hidden states are of the sound; of a window that is always filled up, all."""
        valid = self.ear.valid(inputs)
        if valid is not None:
            return valid
        assert self.positions is not None  # refused where neither is known
        return torch.ones(len(inputs[self.ear.name]), self.positions, dtype=torch.bool)

    def hears_in_step_with(self, other: Stenographer) -> bool:
        """Whether hidden state p of both encoders is of the same piece of a sound, in however many mel bins it came."""
        if self.positions is None or other.positions is None:
            return same_frames(self.ear, other.ear)
        return (self.positions, self.ear.window) == (other.positions, other.ear.window)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        self.ear.save_pretrained(folder, **options)
        self.tokenizer.save_pretrained(folder)

    def to_dict(self) -> dict[str, Any]:
        """What decides which values a model hears, and what its tokens are."""
        return {**self.ear.to_dict(), "tokens": self.identity()}

    def identity(self) -> str:
        return tokens.fingerprint(self.tokenizer, self.prompt, self.end, json.dumps(self.ear.to_dict(), sort_keys=True,
                                                                                    default=str))


def tidied(model: PreTrainedModel, writes: Stenographer) -> None:
    """What a model is written out with says what was taught: the language in words, and no forced tokens of old checkpoints,
    which would stand against it. What is never written (`suppress_tokens`) stays."""
    settings: Any = model.generation_config
    for place in (settings, model.config):
        if _OLD in vars(place):
            delattr(place, _OLD)
    settings.decoder_start_token_id = writes.prompt[0]
    known = vars(settings).get("lang_to_id") or {}
    spoken = next((name for name, number in known.items() if number in writes.prompt[1:2]), None)
    if spoken is not None:
        settings.language, settings.task = spoken, "transcribe"
    _without_lost_heads(model, settings)


def _without_lost_heads(model: PreTrainedModel, settings: Any) -> None:
    """Attention heads by which words get times, where layers with some of them are gone."""
    layers = vars(model.config).get("decoder_layers")
    heads = vars(settings).get("alignment_heads")
    if heads and layers is not None and max(layer for layer, _ in heads) >= layers:
        del settings.alignment_heads
        logger.info("alignment_heads are left out of generation_config.json: they name decoder layers that are not there")


def _ends(model: PreTrainedModel) -> tuple[int, ...]:
    said: Any = [vars(one).get("eos_token_id") for one in (model.generation_config, model.config)]
    first = next((one for one in said if one is not None), ())
    return (first,) if isinstance(first, int) else tuple(first)


def _refuse_other_features(ear: Ear, model: PreTrainedModel) -> None:
    if not isinstance(ear.extractor, WhisperFeatureExtractor):
        return
    config: Any = model.config
    made = (ear.extractor.feature_size, ear.extractor.nb_max_frames)
    takes = (config.num_mel_bins, 2 * config.max_source_positions)
    if made != takes:
        raise CompatibilityError(f"the feature extractor makes {made[0]} mel bins of {made[1]} frames, and the "
                                 f"{type(model).__name__} hears {takes[0]} of {takes[1]}: it is another model's. Name its "
                                 "own (processor:)")


def _prompt(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, language: str | None) -> tuple[int, ...]:
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    said = vars(model.generation_config)
    start = next((one for one in (said.get("decoder_start_token_id"), vars(model.config).get("decoder_start_token_id"))
                  if one is not None), None)
    if start is None:
        raise CompatibilityError(f"{type(model).__name__} does not say what its decoder begins with: set "
                                 "decoder_start_token_id in its config.json")
    spoken = _language(vocabulary, said, language, type(model).__name__)
    named = [] if spoken is None else [spoken, _TRANSCRIBE]
    wanted = [*named, *([_NO_TIMES] if _NO_TIMES in vocabulary else [])]
    if lacking := [one for one in wanted if one not in vocabulary]:
        raise CompatibilityError(f"the tokenizer has no {lacking[0]!r}, which {type(model).__name__} is told by to write "
                                 "down what is said in the language in which it is said")
    return (int(start), *(int(vocabulary[one]) for one in wanted))


def _language(vocabulary: Mapping[str, int], said: Mapping[str, Any], language: str | None, name: str) -> str | None:
    """The token of the language; None where a model is told of none."""
    several = said.get("is_multilingual")
    own = said.get("language")
    language = language or (str(own).strip("<|>") if own else None)
    if several is False:
        if language not in (None, "en"):
            raise DataError(f"data.language: got {language!r}, and this {name} knows English alone; leave it out")
        return None
    codes = sorted(token[2:-2] for token in vocabulary if token.startswith("<|") and token.endswith("|>")
                   and 2 <= len(token) - 4 <= 3 and token[2:-2].isalpha())
    if language is None:
        if several:
            raise DataError(f"data.language: this {name} knows several languages; say which is spoken, for example "
                            f"{one_of(codes[:3])}")
        return None
    if f"<|{language}|>" not in vocabulary:
        what = f"expected one of {one_of(codes[:10])}{' ...' if len(codes) > 10 else ''}" if codes else \
            f"this {name} is told of no language; leave it out"
        raise DataError(f"data.language: got {language!r}; {what}.{did_you_mean(language, codes)}")
    return f"<|{language}|>"
