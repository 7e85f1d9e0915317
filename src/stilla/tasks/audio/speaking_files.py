"""SpeechT5's text-to-speech as files, and the loop around them that knows when to end:

- `encoder_model.onnx` reads a text once: `input_ids`, `attention_mask` -> what every layer of the decoder looks at of it, as
  keys and values, `present.<layer>.encoder.key|value`;
- `decoder_model.onnx` makes the next steps: `decoder_input_values`, the last frame of each step before (zeros at first),
  `speaker_embeddings`, `encoder_attention_mask`, keys and values of the text and of earlier steps, of length 0 at first ->
  `spectrum`, `reduction_factor` frames of each step, `prob`, of each of these the probability that it is the last, and
  `present.<layer>.decoder.key|value`;
- `postnet.onnx` corrects a whole utterance: `spectrum`, `attention_mask` of frames -> `spectrogram`.

What the decoder's prenet drops is the table by which models are taught and measured (`speaking.py`), as a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from stilla.tasks.audio.speaking import corrected, entering, tables
from stilla.tasks.base import Arrays, File, Graph, Joined

ENCODER, DECODER, POSTNET = "encoder_model.onnx", "decoder_model.onnx", "postnet.onnx"
_STEP, _PLACES = "reduction_factor", "max_speech_positions"
"""What the decoder's file says of itself."""

_LEAST = 4
"""Steps of which two are left before the last two."""

_TEXT, _FRAMES = {0: "batch", 1: "positions"}, {0: "batch", 1: "frames"}


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.core = model.speecht5

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        ids, mask = values
        read = self.core.encoder(input_values=ids, attention_mask=mask, return_dict=True)[0]
        looked_at = [layer.encoder_attn for layer in self.core.decoder.wrapped_decoder.layers]
        return tuple(_by_head(part(read), one) for one in looked_at for part in (one.k_proj, one.v_proj))


def _by_head(states: Tensor, attention: Any) -> Tensor:
    return states.view(len(states), -1, attention.num_heads, attention.head_dim).transpose(1, 2)


class _Decoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.core, self.net, self.config = model.speecht5.decoder, model.speech_decoder_postnet, model.config
        self.number = len(self.core.wrapped_decoder.layers)
        for place, one in enumerate(tables(self.core.prenet)):
            self.register_buffer(f"kept_{place}", torch.from_numpy(one), persistent=False)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        before, voices, mask, *past = values
        text, source = past[: 2 * self.number], past[2 * self.number :]
        places = torch.arange(before.shape[1]) + text[0].shape[2]
        prenet = self.core.prenet
        states = entering(prenet, before, voices, lambda layer, _: self.get_buffer(f"kept_{layer}")[places],
                          prenet.encode_positions.pe[:, places])
        # never read: the text's keys and values are there; only its length counts
        read = states.new_zeros(source[0].shape[0], source[0].shape[2], self.config.hidden_size)
        made = self.core.wrapped_decoder(
            hidden_states=states, attention_mask=None, encoder_hidden_states=read, encoder_attention_mask=mask,
            past_key_values=EncoderDecoderCache(_cache(text), _cache(source)), use_cache=True, return_dict=True)
        hidden, kept = made.last_hidden_state, made.past_key_values.self_attention_cache
        spectrum = self.net.feat_out(hidden).view(len(hidden), -1, self.config.num_mel_bins)
        prob = self.net.prob_out(hidden).sigmoid().flatten(1)
        return (spectrum, prob, *(one for layer in kept.layers for one in (layer.keys, layer.values)))


def _cache(tensors: Sequence[Tensor]) -> DynamicCache:
    made = DynamicCache()
    for layer, (keys, values) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        made.update(keys, values, layer)
    return made


class _Postnet(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.net = model.speech_decoder_postnet

    def forward(self, *values: Tensor) -> Tensor:
        spectrum, mask = values
        return corrected(self.net, spectrum, mask.bool())


@torch.no_grad()
def graphs_of(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Graph]:
    """The three of them. The decoder is given the last two steps of a batch, and what it kept of those before."""
    config = model.config
    encoder, decoder, postnet = _Encoder(model).eval(), _Decoder(model).eval(), _Postnet(model).eval()
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    source = encoder(*text.values())
    told = {"speaker_embeddings": batch["speaker_embeddings"], "encoder_attention_mask": batch["attention_mask"]}
    values, own = batch["decoder_input_values"], batch["decoder_attention_mask"]
    while values.shape[1] < _LEAST:  # sizes of 0 and 1 are what an exporter would take for the only ones
        values, own = torch.cat([values, values], 1), torch.cat([own, own], 1)
    empty = [values.new_zeros(len(values), one.shape[1], 0, one.shape[3]) for one in source]
    spectrum, _, *kept = decoder(values, *told.values(), *empty, *source)
    steps = values.shape[1]
    before, source = ([one.contiguous() for one in some] for some in ([one[:, :, : steps - 2] for one in kept], source))
    layers = range(config.decoder_layers)
    names = {side: [f"{layer}.{side}.{kind}" for layer in layers for kind in ("key", "value")]
             for side in ("decoder", "encoder")}
    past = {f"past_key_values.{name}": one for side, known in (("decoder", before), ("encoder", source))
            for name, one in zip(names[side], known, strict=True)}
    present = {side: tuple(f"present.{name}" for name in names[side]) for side in names}
    of_past = {name: {0: "batch", 2: "past" if ".decoder." in name else "positions"} for name in past}
    mask = own.repeat_interleave(config.reduction_factor, dim=1)
    return {
        ENCODER: Graph(encoder, text, dict.fromkeys(text, _TEXT), present["encoder"]),
        DECODER: Graph(
            decoder, {"decoder_input_values": values[:, steps - 2 :].contiguous(), **told, **past},
            {"decoder_input_values": {0: "batch", 1: "steps"}, "speaker_embeddings": {0: "batch"},
             "encoder_attention_mask": _TEXT, **of_past}, ("spectrum", "prob", *present["decoder"]),
            about={_STEP: str(config.reduction_factor), _PLACES: str(config.max_speech_positions)}),
        POSTNET: Graph(postnet, {"spectrum": spectrum, "attention_mask": mask},
                       {"spectrum": _FRAMES, "attention_mask": _FRAMES}, ("spectrogram",)),
    }


class SpeakingFiles(Joined):
    """The three as one: the next frame of those of a batch, as the model's own forward, or speech by itself."""

    def __init__(self, files: Callable[[str], File]) -> None:
        self.encoder, self.decoder, self.postnet = (files(name) for name in (ENCODER, DECODER, POSTNET))
        self.bytes = self.encoder.bytes + self.decoder.bytes + self.postnet.bytes
        self.step, self.places = (int(self.decoder.about[name]) for name in (_STEP, _PLACES))

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(batch, frames, bins + 1): frames, and the log-odds that each is the last."""
        given = {name: one.cpu().numpy() for name, one in inputs.items()}
        out = self.decoder.run({**self._read(given), "decoder_input_values": given["decoder_input_values"]})
        frames = self._corrected(out["spectrum"], given["decoder_attention_mask"].sum(1))
        sure = np.finfo(np.float32).eps
        prob = out["prob"].clip(sure, 1 - sure)
        return torch.from_numpy(np.concatenate([frames, np.log(prob / (1 - prob))[..., None]], -1))

    def speak(self, inputs: Mapping[str, Tensor], most: Sequence[int], threshold: float = 0.5) -> list[Tensor]:
        """As the model does (`speaking.speak`)."""
        past = self._read({name: one.cpu().numpy() for name, one in inputs.items()})
        rows, bins = len(most), int(self.decoder.shapes["decoder_input_values"][2])
        steps = np.array([min(max(1, -(-one // self.step)), self.places) for one in most])
        entering, made, ended = np.zeros((rows, 1, bins), np.float32), [], np.zeros(rows, np.int64)
        while not ended.all():
            out = self.decoder.run({**past, "decoder_input_values": entering})
            past |= _as_past(out)
            made.append(out["spectrum"])
            entering = made[-1][:, -1:]
            over = (out["prob"].sum(1) >= threshold) | (len(made) >= steps)
            ended[over & (ended == 0)] = len(made)
        frames = self._corrected(np.concatenate(made, 1), ended)
        return [torch.from_numpy(one[: length * self.step]) for one, length in zip(frames, ended.tolist(), strict=True)]

    def _read(self, given: Mapping[str, NDArray[Any]]) -> Arrays:
        """What every step of the decoder is given: of the text, of whose voice it is, and nothing of earlier steps."""
        rows = len(given["input_ids"])
        nothing = {name: np.zeros((rows, shape[1], 0, shape[3]), np.float32)
                   for name, shape in self.decoder.shapes.items() if ".decoder." in name}
        return {**nothing, **_as_past(self.encoder.run(given)), "speaker_embeddings": given["speaker_embeddings"],
                "encoder_attention_mask": given["attention_mask"]}

    def _corrected(self, spectrum: NDArray[Any], steps: NDArray[Any]) -> NDArray[Any]:
        own = np.arange(spectrum.shape[1]) < self.step * steps[:, None]
        return self.postnet.run({"spectrum": spectrum, "attention_mask": own.astype(np.int64)})["spectrogram"]


def _as_past(out: Arrays) -> Arrays:
    return {name.replace("present", "past_key_values"): one for name, one in out.items() if name.startswith("present")}
