"""What lies in the folder of a model that writes, and the loop that lets it write: words and program of its README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from stilla.evaluate.generate import room
from stilla.export import ENCODER, MERGED, MODEL

_LAYOUT: Mapping[str, str] = {
    MODEL: """\
`model.onnx` takes `input_ids`, `attention_mask` (and `position_ids`, if the model has them) and the keys and values of what
it has read before, `past_key_values.<layer>.key` and `.value`, of length 0 at first; it gives `logits` and `present.*`, the
past of the next step.
""",
    ENCODER: """\
`encoder_model.onnx` reads the source once; `decoder_model.onnx` makes the first step and gives keys and values,
`present.*`; `decoder_with_past_model.onnx` makes every later step, of one token, from these.
""",
    MERGED: """\
`vision_encoder.onnx` reads pictures once and gives `image_features`, a row for every token that stands for a part of one;
`embed_tokens.onnx` gives the rows of other tokens; `decoder_model_merged.onnx` takes rows, and keys and values of what it has
read before, of length 0 at first, and gives `logits` and `present.*`, the past of the next step. The layout is that of
Transformers.js.
""",
}

_LOADING: Mapping[str, str] = {MODEL: "ORTModelForCausalLM", ENCODER: "ORTModelForSeq2SeqLM"}

_OPENED = '''\
def opened(name):
    return onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])


def run(session, given):
    takes, gives = ([one.name for one in some] for some in (session.get_inputs(), session.get_outputs()))
    return dict(zip(gives, session.run(gives, {one: given[one] for one in takes})))
'''

_BEGINNING: Mapping[str, str] = {
    ENCODER: """\
encoder, decoder, later = map(opened, ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"))
said = run(encoder, inputs)
heard = {"encoder_hidden_states": said.pop("last_hidden_state"), "encoder_attention_mask": inputs["attention_mask"]}
past = {**heard, **said}  # with the mask of what it heard, where it makes one
out = run(decoder, {**past, "input_ids": text})
""",
    MERGED: """\
see, embed, decoder = map(opened, ("vision_encoder.onnx", "embed_tokens.onnx", "decoder_model_merged.onnx"))
rows = run(embed, {"input_ids": text})["inputs_embeds"]
stands = int(see.get_modelmeta().custom_metadata_map["image_token_id"])
rows[text == stands] = run(see, inputs)["image_features"]  # of the picture, in the places of its tokens
before = [one for one in decoder.get_inputs() if one.name.startswith("past")]
past = {one.name: np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32) for one in before}
mask, places = np.ones_like(text), np.arange(text.shape[1])[None]
out = run(decoder, {**past, "inputs_embeds": rows, "attention_mask": mask, "position_ids": places})
""",
}
"""Up to the first token."""

_STEP: Mapping[str, str] = {
    ENCODER: """\
    out = run(later, {**past, "input_ids": np.array([[token]])})
""",
    MERGED: """\
    rows = run(embed, {"input_ids": np.array([[token]])})["inputs_embeds"]
    mask, places = np.pad(mask, ((0, 0), (0, 1)), constant_values=1), places[:, -1:] + 1
    out = run(decoder, {**past, "inputs_embeds": rows, "attention_mask": mask, "position_ids": places})
""",
}
"""From a token to what is said of the next."""

_MOST: Mapping[str, int] = {ENCODER: 448, MERGED: 128}
"""Tokens that the program writes at most: a window of Whisper's; what is said of a picture."""

_HEEDED = ("suppress_tokens", "begin_suppress_tokens")
_OTHERS = ("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "min_length", "min_new_tokens",
           "forced_bos_token_id")
"""Settings by which another token may be written than the likeliest: those that the program knows, and those that it does
not."""


def writing_readme(main: Path, said: str, model: nn.Module, asking: str) -> str:
    """What is in the folder and how to let it write, as a program that works there. `asking`: what it is asked, of its
    task."""
    program = _program(main.name, model, asking) if asking else _by_optimum(main.name)
    return f"""\
# {main.name}

{said} Any batch size{"" if asking else " and length"}.

{_LAYOUT[main.name]}
{program}"""


def _by_optimum(name: str) -> str:
    return f"""\
The layout is that of optimum (`pip install "optimum[onnxruntime]"`), whose own loop writes texts with it:

```python
from optimum.onnxruntime import {_LOADING[name]}
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = {_LOADING[name]}.from_pretrained(".")
print(tokenizer.batch_decode(model.generate(**tokenizer(["An example."], return_tensors="pt")), skip_special_tokens=True))
```
"""


def _program(name: str, model: nn.Module, asking: str) -> str:
    settings: Any = model.generation_config
    left = [f"`{one}`" for one in _OTHERS if getattr(settings, one) not in (None, 0, 1.0)]
    unheeded = f" Not done here, and done by transformers: {', '.join(left)} of `generation_config.json`." if left else ""
    return f"""\
This program writes greedily, the likeliest token after the other.{unheeded}

```python
import json
from pathlib import Path

import onnxruntime
{asking}

{_OPENED}

settings = json.loads(Path("generation_config.json").read_text(encoding="utf-8"))
ends = np.atleast_1d(settings.get("eos_token_id", -1))
never, not_first = (settings.get(one) or [] for one in {_HEEDED})
{_BEGINNING[name]}\
most, written = min({_MOST[name]}, {room(model)} - text.shape[1]), []
while True:
    past |= {{one.replace("present", "past_key_values"): value for one, value in out.items() if one != "logits"}}
    likely = out["logits"][0, -1].copy()
    likely[never + ([] if written else not_first)] = -np.inf
    token = int(likely.argmax())
    if token in ends:
        break
    written.append(token)
    if len(written) == most:
        break
{_STEP[name]}\
print(tokenizer.decode(written, skip_special_tokens=True).strip())
```
"""
