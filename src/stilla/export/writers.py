"""Exported files that write, run by onnxruntime: whole texts for measuring losses, token by token for writing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    ForcedBOSTokenLogitsProcessor,
    GenerationConfig,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from stilla.errors import ExportError
from stilla.evaluate.generate import Decoding, Writer, Written, ends, split_at_ends, with_settings
from stilla.export import EMBED, ENCODER, MERGED, VISION
from stilla.export.session import Session

Inputs = Mapping[str, Tensor]
Arrays = dict[str, NDArray[Any]]

DECODER, WITH_PAST = "decoder_model.onnx", "decoder_with_past_model.onnx"
TOLD, MASK = "decoder_input_ids", "encoder_attention_mask"
"""What a decoder has read before it writes, among the inputs of a model; and what it may look at of the encoder's states."""
PLACE = "image_token_id"
"""By which name a file says what number stands for pictures among tokens."""
_RULES = "logits_processor"
"""Among the options of a task: of what may follow what."""


class OnnxWriter:
    """What encoder-decoders and causal decoders share: greedy writing. `bytes`: of all files that are needed for it."""

    path: Path
    bytes: int

    def start(self, inputs: Inputs, first: NDArray[np.int64]) -> tuple[Tensor, Any]:
        """Logits of the last position of the text so far, and what later steps need."""
        raise NotImplementedError

    def step(self, tokens: NDArray[np.int64], state: Any) -> tuple[Tensor, Any]:
        """The same one token later."""
        raise NotImplementedError

    def before(self, inputs: Inputs, start: int | None) -> NDArray[np.int64]:
        """What stands before the first new token: a prompt, or the decoder's start."""
        raise NotImplementedError

    def writer(self, settings: GenerationConfig, room: int | None = None) -> Writer:
        """Greedy texts by these files, with the settings of the model that they were written from. `room`: how many
        positions its decoder has; None: more than are asked for.

        Raises:
            ExportError: when it is called with a beam search, which is not done here.
        """

        def write(inputs: Inputs, options: Mapping[str, Any], decoding: Decoding) -> list[Written]:
            if decoding.num_beams > 1:
                raise ExportError(f"{self.path}: a beam search through exported files is not done here; measure them with "
                                  "num_beams: 1")
            own = {name: value for name, value in options.items() if name != _RULES}
            config = with_settings(settings, own, decoding)
            return self._greedy(inputs, config, options.get(_RULES) or (), decoding.max_new_tokens, room)

        return write

    def _greedy(
        self, inputs: Inputs, config: GenerationConfig, rules: Iterable[Any], most: int, room: int | None
    ) -> list[Written]:
        text = self.before(inputs, config.decoder_start_token_id)
        given = text.shape[1]
        most = most if room is None else min(most, room - given)
        allowed, end = LogitsProcessorList([*_processors(config, given), *rules]), ends(config)
        logits, state = self.start(inputs, text)
        done = np.zeros(len(text), np.bool_)
        for _ in range(most):
            tokens = allowed(torch.from_numpy(text), logits).argmax(-1).numpy()
            tokens[done] = end[0] if end else 0
            text = np.concatenate([text, tokens[:, None]], axis=1)
            done |= np.isin(tokens, end)
            if done.all() or text.shape[1] - given == most:
                break
            logits, state = self.step(tokens[:, None], state)
        return list(split_at_ends(torch.from_numpy(text[:, given:]), end))


def _processors(config: GenerationConfig, given: int) -> Any:
    """The settings that change what the likeliest next token is, as transformers applies them."""
    found = LogitsProcessorList()
    end = list(ends(config))
    if config.repetition_penalty not in (None, 1.0):
        found.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.bad_words_ids:
        found.append(NoBadWordsLogitsProcessor(config.bad_words_ids, end))
    if config.min_length and end:
        found.append(MinLengthLogitsProcessor(config.min_length, end))
    if config.min_new_tokens and end:
        found.append(MinNewTokensLengthLogitsProcessor(given, config.min_new_tokens, end))
    if config.forced_bos_token_id is not None:
        found.append(ForcedBOSTokenLogitsProcessor(config.forced_bos_token_id))
    if config.suppress_tokens:
        found.append(SuppressTokensLogitsProcessor(config.suppress_tokens))
    if config.begin_suppress_tokens:
        first = given if given > 1 or config.forced_bos_token_id is None else given + 1  # as transformers counts it
        found.append(SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, first))
    return found


class OnnxPair(OnnxWriter):
    """An encoder, a decoder and a decoder that goes on. `path`: the encoder's, which stands for all three."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ENCODER
        self.encoder, self.decoder, self.later = (Session(folder / name) for name in (ENCODER, DECODER, WITH_PAST))
        self.inputs = (*self.encoder.inputs, TOLD)
        self.bytes = self.encoder.bytes + self.decoder.bytes + self.later.bytes

    def __call__(self, inputs: Inputs) -> Tensor:
        """(batch, positions, classes)."""
        logits, _, _ = self._read(inputs, inputs[TOLD].cpu().numpy())
        return torch.from_numpy(logits)

    def last_by_steps(self, inputs: Inputs) -> Tensor:
        """(batch, classes) of the last position, when only its token is given and the rest as keys and values."""
        text = inputs[TOLD].cpu().numpy()
        text = text if text.shape[1] > 1 else np.concatenate([text, text], axis=1)
        _, state = self.start(inputs, text[:, :-1])
        return self.step(text[:, -1:], state)[0]

    def before(self, inputs: Inputs, start: int | None) -> NDArray[np.int64]:
        if TOLD in inputs:
            return np.asarray(inputs[TOLD].cpu().numpy())
        if start is None:
            raise ExportError(f"{self.path}: what the decoder begins with is not known (decoder_start_token_id)")
        return np.full((len(inputs[self.encoder.inputs[0]]), 1), start, np.int64)

    def start(self, inputs: Inputs, first: NDArray[np.int64]) -> tuple[Tensor, Any]:
        logits, mask, past = self._read(inputs, first)
        return torch.from_numpy(logits[:, -1]), (mask, past)

    def step(self, tokens: NDArray[np.int64], state: Any) -> tuple[Tensor, Any]:
        mask, past = state
        out = self.later.run({**mask, "input_ids": tokens, **past})
        logits = out.pop("logits")
        return torch.from_numpy(logits[:, -1]), (mask, {**past, **_as_past(out)})

    def _read(self, inputs: Inputs, text: NDArray[np.int64]) -> tuple[NDArray[Any], Arrays, Arrays]:
        """Logits, what of the source may be looked at (nothing, where all may), and keys and values."""
        given = {name: inputs[name].cpu().numpy() for name in self.encoder.inputs if name in inputs}
        said = self.encoder.run(given)
        hidden, mask = said.pop("last_hidden_state"), said
        if not mask and MASK in self.decoder.inputs:
            mask = {MASK: given["attention_mask"]}
        out = self.decoder.run({**mask, "input_ids": text, "encoder_hidden_states": hidden})
        return out.pop("logits"), mask, _as_past(out)


class OnnxSteps(OnnxWriter):
    """A decoder that takes keys and values from before; the first step gives it none."""

    def __init__(self, path: Path, session: Session) -> None:
        self.path, self.session, self.bytes = path, session, session.bytes
        self.inputs: tuple[str, ...] = ("input_ids", "attention_mask")

    def reads(self, ids: NDArray[np.int64], inputs: Inputs) -> Arrays:
        """What the decoder is given of tokens. `inputs`: of the model, what is no text among them; nothing in later steps."""
        raise NotImplementedError

    def __call__(self, inputs: Inputs) -> Tensor:
        """(batch, positions, classes)."""
        ids = inputs["input_ids"].cpu().numpy()
        logits, _ = self._read(self.reads(ids, inputs), self._mask(inputs), self._nothing(len(ids)))
        return torch.from_numpy(logits)

    def last_by_steps(self, inputs: Inputs) -> Tensor:
        ids, mask = inputs["input_ids"].cpu(), torch.from_numpy(self._mask(inputs))
        before = {**inputs, "input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}
        _, (_, past) = self.start(before, ids[:, :-1].numpy())
        logits, _ = self._read(self.reads(ids[:, -1:].numpy(), {}), mask.numpy(), past)
        return torch.from_numpy(logits[:, -1])

    def before(self, inputs: Inputs, start: int | None) -> NDArray[np.int64]:
        return np.asarray(inputs["input_ids"].cpu().numpy())

    def start(self, inputs: Inputs, first: NDArray[np.int64]) -> tuple[Tensor, Any]:
        mask = self._mask(inputs)
        logits, past = self._read(self.reads(first, inputs), mask, self._nothing(len(first)))
        return torch.from_numpy(logits[:, -1]), (mask, past)

    def step(self, tokens: NDArray[np.int64], state: Any) -> tuple[Tensor, Any]:
        mask, past = state
        mask = np.concatenate([mask, np.ones_like(mask[:, :1])], axis=1)
        logits, past = self._read(self.reads(tokens, {}), mask, past)
        return torch.from_numpy(logits[:, -1]), (mask, past)

    def _read(self, read: Arrays, mask: NDArray[np.int64], past: Arrays) -> tuple[NDArray[Any], Arrays]:
        given = {**read, "attention_mask": mask, **past}
        if "position_ids" in self.session.inputs:
            (length,) = {one.shape[1] for one in read.values()}
            given["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)[:, -length:]
        out = self.session.run(given)
        return out.pop("logits"), _as_past(out)

    def _mask(self, inputs: Inputs) -> NDArray[np.int64]:
        given = inputs.get("attention_mask")
        return np.asarray((torch.ones_like(inputs["input_ids"]) if given is None else given).cpu().numpy())

    def _nothing(self, rows: int) -> Arrays:
        """A past of length 0, in the shapes that the file says."""
        return {name: np.zeros((rows, shape[1], 0, shape[3]), np.float32)
                for name, shape in self.session.shapes.items() if name.startswith("past_key_values")}


class OnnxCausal(OnnxSteps):
    """A decoder of tokens."""

    def reads(self, ids: NDArray[np.int64], inputs: Inputs) -> Arrays:
        return {"input_ids": ids}


class OnnxSeeing(OnnxSteps):
    """A decoder of rows, with the files that make them of pictures and of tokens. `path`: its own, which stands for all."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / MERGED, Session(folder / MERGED))
        self.vision, self.embed = Session(folder / VISION), Session(folder / EMBED)
        self.inputs = (*self.inputs, *self.vision.inputs)
        self.bytes = self.session.bytes + self.vision.bytes + self.embed.bytes
        self.place = int(self.vision.about[PLACE])

    def reads(self, ids: NDArray[np.int64], inputs: Inputs) -> Arrays:
        (rows,) = self.embed.run({"input_ids": ids}).values()
        if inputs:
            (features,) = self.vision.run({name: inputs[name].cpu().numpy() for name in self.vision.inputs}).values()
            rows[ids == self.place] = features
        return {"inputs_embeds": rows}


def _as_past(out: Mapping[str, NDArray[Any]]) -> Arrays:
    return {name.replace("present", "past_key_values"): value for name, value in out.items()}
