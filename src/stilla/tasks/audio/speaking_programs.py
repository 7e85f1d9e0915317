"""What stands beside the files of models that speak: what they are, and a program that lets them, with onnxruntime and a
tokenizer alone."""

from __future__ import annotations

from stilla.tasks.audio.speaking_files import DECODER, ENCODER, POSTNET
from stilla.tasks.audio.talking import Sizes
from stilla.tasks.audio.waves import VOCODER

_STEPS_TOLD = """\
`{encoder}` reads a text once. `{decoder}` makes {step} frames at a step, `spectrum`: of the last frame
before them (zeros at first), of whose voice it is, and of keys and values, `past_key_values.*`, those of earlier steps of
length 0 at first; `prob` is of each of these frames the probability that it is the last. `{postnet}` corrects an
utterance's frames, `spectrogram`. When it ends is decided outside, here as transformers' `generate_speech` does it
(`threshold`, `minlenratio`, `maxlenratio`), of every text by itself. What the net in front of the decoder drops is one fixed
table in the file, as the model was measured; transformers drops by chance.

"""

_AT_ONCE_TOLD = """\
It takes `input_ids`, `attention_mask`, `durations`, how many frames each token lasts, -1 where the model decides
it{whose}, and gives `spectrogram` and `duration_outputs`, the durations that it has taken: other ones than its own make
speech slower or faster.

"""

_FRAMES = """\
Frames are log10 of mel energies, {bins} each, as the folder's feature extractor makes them of sounds.
"""
_VOCODED = "`{vocoder}` makes sounds of them.\n"
_UNVOCODED = """\
A vocoder that was trained on such makes sounds of them; one that the recipe names (`evaluate.vocoder`) is written here.
"""

_BEGINNING = """\
import numpy as np
import onnxruntime
{imports}from transformers import AutoTokenizer

texts = ["what is to be said"]
{told}

def opened(name):
    return onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])


def run(session, given):
    takes, gives = ([one.name for one in some] for some in (session.get_inputs(), session.get_outputs()))
    return dict(zip(gives, session.run(gives, {{one: given[one] for one in takes}})))


tokenizer = AutoTokenizer.from_pretrained(".")
inputs = dict(tokenizer(texts, padding=True, return_tensors="np"))
"""

_STEPS = """\
encoder, decoder, postnet = map(opened, ("{encoder}", "{decoder}", "{postnet}"))
mask, rows, step = inputs["attention_mask"], len(texts), {step}
given = {{"speaker_embeddings": voices, "encoder_attention_mask": mask}}
given["decoder_input_values"] = np.zeros((rows, 1, {bins}), np.float32)
earlier = [one for one in decoder.get_inputs() if ".decoder." in one.name]
given |= {{one.name: np.zeros((rows, one.shape[1], 0, one.shape[3]), np.float32) for one in earlier}}
least, most = ((mask.sum(1) * ratio / step).astype(int) for ratio in (minlenratio, maxlenratio))
most = np.minimum(most, {steps})  # as many as the decoder has places for
made, ended, out = [], np.zeros(rows, int), run(encoder, inputs)
while not ended.all():
    given |= {{name.replace("present", "past_key_values"): one for name, one in out.items() if name.startswith("present")}}
    out = run(decoder, given)
    made.append(out["spectrum"])
    given["decoder_input_values"] = made[-1][:, -1:]
    over = (out["prob"].sum(1) >= threshold) & (len(made) >= least) | (len(made) >= most)
    ended[over & (ended == 0)] = len(made)
spectrum, lengths = np.concatenate(made, 1), step * ended
own = (np.arange(spectrum.shape[1]) < lengths[:, None]).astype(np.int64)
frames = run(postnet, {{"spectrum": spectrum, "attention_mask": own}})["spectrogram"]
"""

_AT_ONCE = """\
inputs["durations"] = np.full_like(inputs["input_ids"], -1)
{whose}out = run(opened("model.onnx"), inputs)
frames, lengths = out["spectrogram"], out["duration_outputs"].sum(1)
"""

_SAVED = """\
for number, (one, length) in enumerate(zip(frames, lengths)):
    np.save(f"{number}.npy", one[:length])
"""
_SOUNDED = """\
    wave = run(opened("{vocoder}"), {{"spectrogram": one[None, :length]}})["waveform"][0]
    soundfile.write(f"{{number}}.wav", wave, {rate})
"""


def program(sizes: Sizes, rate: int | None) -> str:
    """Of a model of these sizes. rate: samples a second of the vocoder that is written beside it; None where none is."""
    told, beginning, running = _at_once(sizes) if sizes.at_once else _steps(sizes)
    frames = _FRAMES.format(bins=sizes.bins) + (_UNVOCODED if rate is None else _VOCODED.format(vocoder=VOCODER))
    sounded = "" if rate is None else _SOUNDED.format(vocoder=VOCODER, rate=rate)
    head = _BEGINNING.format(told=beginning, imports="" if rate is None else "import soundfile\n")
    return f"{told}{frames}\n```python\n{head}{running}{_SAVED}{sounded}```\n"


def _steps(sizes: Sizes) -> tuple[str, str, str]:
    names = {"encoder": ENCODER, "decoder": DECODER, "postnet": POSTNET, "step": sizes.reduction}
    beginning = (f"voices = np.zeros((len(texts), {sizes.width}), np.float32)  # whose voice each is spoken in: a vector\n"
                 "threshold, minlenratio, maxlenratio = 0.5, 0.0, 20.0\n")
    return _STEPS_TOLD.format(**names), beginning, _STEPS.format(**names, bins=sizes.bins, steps=sizes.steps)


def _at_once(sizes: Sizes) -> tuple[str, str, str]:
    given = {
        "speaker_embedding": (f"np.zeros((len(texts), {sizes.width}), np.float32)  # whose voice each is: a vector",
                              sizes.width),
        "speaker_ids": ("np.zeros(len(texts), np.int64)  # whose voice each is: a number", sizes.speakers),
        "lang_ids": ("np.zeros(len(texts), np.int64)  # which language each is in: a number", sizes.languages)}
    named = [name for name, (_, number) in given.items() if number]
    whose = "".join(f', `{name}`' for name in named)
    lines = "".join(f'inputs["{name}"] = {given[name][0]}\n' for name in named)
    return _AT_ONCE_TOLD.format(whose=whose), "", _AT_ONCE.format(whose=lines)
