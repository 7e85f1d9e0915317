"""Exported files that write, run by onnxruntime: whole texts for measuring losses, token by token for writing."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    SuppressTokensLogitsProcessor,
)

from stilla.errors import ExportError
from stilla.evaluate.generate import Decoding, Writer, Written, ends, split_at_ends, with_settings
from stilla.export import ENCODER, HEADS, TOWER, tower_file
from stilla.export.session import OnnxModel, Session

Inputs = Mapping[str, Tensor]
Arrays = dict[str, NDArray[Any]]

DECODER, WITH_PAST = "decoder_model.onnx", "decoder_with_past_model.onnx"


def open_exported(path: Path) -> Any:
    """What lies in a format's folder as a function from model inputs to logits; what writes has a `writer` as well."""
    if path.name == HEADS:
        return OnnxHeads(path)
    if path.name == ENCODER:
        return OnnxPair(path.parent)
    if path.name == TOWER:
        return OnnxTowers(path)
    session = Session(path)
    keeps = any(name.startswith("past_key_values") for name in session.inputs)
    return OnnxCausal(path, session) if keeps else OnnxModel(path)


class OnnxTowers:
    """Towers of a model, each a file of its own. `path`: the first's, which stands for all. A tower that is given nothing of
    what it takes is not asked; answers stand one after the other, those of pictures first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._towers = [OnnxModel(path), OnnxModel(path.with_name(tower_file("text")))]
        self.inputs = tuple(name for one in self._towers for name in one.inputs)
        self.bytes = sum(one.bytes for one in self._towers)

    def __call__(self, inputs: Inputs) -> Tensor:
        """(pictures and texts, width) in float32."""
        return torch.cat([one(inputs) for one in self._towers if any(name in inputs for name in one.inputs)])


class OnnxHeads:
    """The exported heads of one model: from inputs named `head/input` to what each of them answers, by name."""

    def __init__(self, path: Path) -> None:
        listed: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        self.path = path
        self.each = {name: OnnxModel(path.parent / file) for name, file in listed.items()}
        self.bytes = sum(one.bytes for one in self.each.values())

    def __call__(self, inputs: Inputs) -> dict[str, Tensor]:
        own: dict[str, dict[str, Tensor]] = {}
        for key, value in inputs.items():
            name, _, inside = key.partition("/")
            own.setdefault(name, {})[inside] = value
        return {name: self.each[name](values) for name, values in own.items()}


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

    def writer(self, settings: GenerationConfig) -> Writer:
        """Greedy texts by these files, with the settings of the model that they were written from.

        Raises:
            ExportError: when it is called with a beam search, which is not done here.
        """

        def write(inputs: Inputs, options: Mapping[str, Any], decoding: Decoding) -> list[Written]:
            if decoding.num_beams > 1:
                raise ExportError(f"{self.path}: a beam search through exported files is not done here; measure them with "
                                  "num_beams: 1")
            config = with_settings(settings, options, decoding)
            return self._greedy(inputs, config, decoding.max_new_tokens)

        return write

    def _greedy(self, inputs: Inputs, config: GenerationConfig, most: int) -> list[Written]:
        text = self.before(inputs, config.decoder_start_token_id)
        given = text.shape[1]
        allowed, end = _processors(config, given), ends(config)
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
    return found


class OnnxPair(OnnxWriter):
    """An encoder, a decoder and a decoder that goes on. `path`: the encoder's, which stands for all three."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ENCODER
        self.encoder, self.decoder, self.later = (Session(folder / name) for name in (ENCODER, DECODER, WITH_PAST))
        self.inputs = (*self.encoder.inputs, "decoder_input_ids")
        self.bytes = self.encoder.bytes + self.decoder.bytes + self.later.bytes

    def __call__(self, inputs: Inputs) -> Tensor:
        """(batch, positions, classes)."""
        logits, _, _ = self._read(inputs, inputs["decoder_input_ids"].cpu().numpy())
        return torch.from_numpy(logits)

    def last_by_steps(self, inputs: Inputs) -> Tensor:
        """(batch, classes) of the last position, when only its token is given and the rest as keys and values."""
        text = inputs["decoder_input_ids"].cpu().numpy()
        text = text if text.shape[1] > 1 else np.concatenate([text, text], axis=1)
        _, state = self.start(inputs, text[:, :-1])
        return self.step(text[:, -1:], state)[0]

    def before(self, inputs: Inputs, start: int | None) -> NDArray[np.int64]:
        if start is None:
            raise ExportError(f"{self.path}: what the decoder begins with is not known (decoder_start_token_id)")
        return np.full((len(inputs["input_ids"]), 1), start, np.int64)

    def start(self, inputs: Inputs, first: NDArray[np.int64]) -> tuple[Tensor, Any]:
        logits, mask, past = self._read(inputs, first)
        return torch.from_numpy(logits[:, -1]), (mask, past)

    def step(self, tokens: NDArray[np.int64], state: Any) -> tuple[Tensor, Any]:
        mask, past = state
        out = self.later.run({"encoder_attention_mask": mask, "input_ids": tokens, **past})
        logits = out.pop("logits")
        return torch.from_numpy(logits[:, -1]), (mask, {**past, **_as_past(out)})

    def _read(self, inputs: Inputs, text: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], Arrays]:
        given = {name: inputs[name].cpu().numpy() for name in ("input_ids", "attention_mask")}
        (hidden,) = self.encoder.run(given).values()
        mask = given["attention_mask"]
        out = self.decoder.run({"encoder_attention_mask": mask, "input_ids": text, "encoder_hidden_states": hidden})
        return out.pop("logits"), mask, _as_past(out)


class OnnxCausal(OnnxWriter):
    """A decoder that takes keys and values from before; the first step gives it none."""

    def __init__(self, path: Path, session: Session) -> None:
        self.path, self.session, self.bytes = path, session, session.bytes
        self.inputs = ("input_ids", "attention_mask")

    def __call__(self, inputs: Inputs) -> Tensor:
        """(batch, positions, classes)."""
        ids = inputs["input_ids"].cpu().numpy()
        logits, _ = self._read(ids, self._mask(inputs), self._nothing(len(ids)))
        return torch.from_numpy(logits)

    def last_by_steps(self, inputs: Inputs) -> Tensor:
        ids, mask = inputs["input_ids"].cpu(), torch.from_numpy(self._mask(inputs))
        _, (_, past) = self.start({"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}, ids[:, :-1].numpy())
        logits, _ = self._read(ids[:, -1:].numpy(), mask.numpy(), past)
        return torch.from_numpy(logits[:, -1])

    def before(self, inputs: Inputs, start: int | None) -> NDArray[np.int64]:
        return np.asarray(inputs["input_ids"].cpu().numpy())

    def start(self, inputs: Inputs, first: NDArray[np.int64]) -> tuple[Tensor, Any]:
        mask = self._mask(inputs)
        logits, past = self._read(first, mask, self._nothing(len(first)))
        return torch.from_numpy(logits[:, -1]), (mask, past)

    def step(self, tokens: NDArray[np.int64], state: Any) -> tuple[Tensor, Any]:
        mask, past = state
        mask = np.concatenate([mask, np.ones_like(mask[:, :1])], axis=1)
        logits, past = self._read(tokens, mask, past)
        return torch.from_numpy(logits[:, -1]), (mask, past)

    def _read(self, ids: NDArray[np.int64], mask: NDArray[np.int64], past: Arrays) -> tuple[NDArray[Any], Arrays]:
        given = {"input_ids": ids, "attention_mask": mask, **past}
        if "position_ids" in self.session.inputs:
            given["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        out = self.session.run(given)
        return out.pop("logits"), _as_past(out)

    def _mask(self, inputs: Inputs) -> NDArray[np.int64]:
        given = inputs.get("attention_mask")
        return np.asarray((torch.ones_like(inputs["input_ids"]) if given is None else given).cpu().numpy())

    def _nothing(self, rows: int) -> Arrays:
        """A past of length 0, in the shapes that the file says."""
        return {name: np.zeros((rows, shape[1], 0, shape[3]), np.float32)
                for name, shape in self.session.shapes.items() if name.startswith("past_key_values")}


def _as_past(out: Mapping[str, NDArray[Any]]) -> Arrays:
    return {name.replace("present", "past_key_values"): value for name, value in out.items()}


