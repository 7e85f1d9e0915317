"""Files of models that speak: the model's own frames, its speech, and a program that speaks by onnxruntime alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from stilla import data
from stilla.export import export
from stilla.export.graphs import ready
from stilla.export.running import open_exported
from stilla.recipe import ModelSource
from stilla.signals import Batch
from stilla.tasks.audio import at_once_files, speaking, talking
from stilla.tasks.audio.sections import TextToSpeechData, TextToSpeechEvaluate
from stilla.tasks.audio.spoken_exam import FrameExam
from stilla.tasks.audio.text_to_speech import TextToSpeech
from stilla.tasks.base import Loaded, Prepared
from tests.tasks.audio import reciters, talkers
from tests.tasks.audio.setting import soundfile

NEAR = 1e-4
TEXTS = ["ab c", "a", "cab bac"]
THREE = {"encoder_model.onnx", "decoder_model.onnx", "postnet.onnx"}


def plain(family: str) -> Any:
    """The model that is written, as transformers has it; of one that makes steps with ends that differ by text."""
    if family == "at once":
        return reciters.reciter()
    model = talkers.talker()
    torch.manual_seed(9)
    torch.nn.init.normal_(model.speech_decoder_postnet.prob_out.weight)
    torch.nn.init.constant_(model.speech_decoder_postnet.prob_out.bias, -4.0)
    return model


class Made:
    """A model of one family, with utterances that it could say."""

    def __init__(self, place: Path, family: str) -> None:
        self.family = family
        talkers.ljspeech(place / "lj", 6)
        talkers.folder(place / "model")
        plain(family).save_pretrained(place / "model")
        source = ModelSource(model=str(place / "model"))
        section = TextToSpeechData(train=str(place / "lj"))
        self.rows: Dataset = data.sources.read(section.train, document="sound")["train"]
        task = TextToSpeech.understand(section, {"train": self.rows})
        self.loaded: Loaded = task.load(source, labelled=True)
        self.task = task.adapted_to(self.loaded)
        self.prepared: Prepared = self.task.prepare(self.rows, self.loaded.processor, None, training=False)

    def batch(self, *rows: int) -> Batch:
        return self.prepared.collate([self.prepared.examples[row] for row in rows])


@pytest.fixture(scope="module", params=["steps", "at once"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"), request.param)


@pytest.fixture(scope="module")
def written(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    return export("onnx", made.loaded.model, made.loaded.processor, made.task, made.prepared,
                  tmp_path_factory.mktemp("written") / "onnx")


def own(said: Tensor, batch: Batch) -> list[NDArray[np.float32]]:
    """Frames of every utterance, without what stands behind them; the probability of its end in the place of its log-odds,
    which say little where it is sure."""
    bins = talkers.SMALL["num_mel_bins"]
    said = torch.cat([said[..., :bins], said[..., bins:].sigmoid()], -1)
    return FrameExam().given(said, batch, None)


def near(got: Any, expected: Any) -> None:
    assert got.shape == expected.shape
    assert np.abs(np.asarray(got) - np.asarray(expected)).max() < NEAR


@pytest.mark.slow
@torch.no_grad()
def test_what_is_written_is_the_class_in_other_words(made: Made) -> None:
    """Without an exporter: the parts one after the other, of batches and alone."""
    for rows in ((0, 1, 2, 3), (4,)):
        batch = made.batch(*rows)
        right = made.loaded.model(**batch.student)
        parts = made.task.graphs_of(ready(made.loaded.model), batch.student)
        said = {name: part.module(*part.inputs.values()) for name, part in parts.items()}
        if made.family == "steps":
            spectrum, prob, *_ = said["decoder_model.onnx"]
            there = parts["postnet.onnx"].inputs["attention_mask"].bool()
            last = there[:, -2 * made.loaded.processor.reduction :]  # which two steps have
            assert last.any()
            for got, expected, own_ in ((spectrum, right.before, last), (prob, right.stop.sigmoid(), last),
                                        (said["postnet.onnx"], right.spectrogram, there)):
                torch.testing.assert_close(got[own_], expected[:, -own_.shape[1] :][own_], atol=NEAR, rtol=0)
        else:
            torch.testing.assert_close(said["model.onnx"][0], right.spectrogram, atol=NEAR, rtol=0)
            (part,), theirs = parts.values(), plain(made.family)
            undecided = {**part.inputs, "durations": torch.full_like(part.inputs["durations"], at_once_files.DECIDES)}
            frames, durations = part.module(*undecided.values())
            for row, mask in enumerate(batch.student["attention_mask"]):
                alone = theirs(batch.student["input_ids"][row : row + 1, : mask.sum()], return_dict=True)
                assert torch.equal(durations[row, : mask.sum()], alone.duration_outputs[0])
                torch.testing.assert_close(frames[row, : durations[row].sum()], alone.spectrogram[0], atol=NEAR, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_a_text_of_one_frame_is_one(tmp_path: Path) -> None:
    made = Made(tmp_path, "at once")
    (part,) = made.task.graphs_of(ready(made.loaded.model), made.batch(0).student).values()
    ids = part.inputs["input_ids"][:, :1]
    frames, _ = part.module(ids, torch.ones_like(ids), torch.ones_like(ids))
    right = made.loaded.model(ids, torch.ones_like(ids), torch.ones_like(ids)).spectrogram
    assert frames.shape[1] == 1
    torch.testing.assert_close(frames, right, atol=NEAR, rtol=0)


@pytest.mark.slow
def test_files_make_the_frames_of_the_model_and_speak_as_it_does(made: Made, written: Path) -> None:
    names = {one.name for one in written.parent.glob("*.onnx")}
    assert names == (THREE if made.family == "steps" else {"model.onnx"})
    file: Any = open_exported(written, made.task)
    assert file.bytes == sum(one.stat().st_size for one in written.parent.glob("*.onnx"))
    lengths = set()
    for rows in ((0, 1, 2, 3, 4), (5,), (2, 0)):
        batch = made.batch(*rows)
        with torch.no_grad():
            expected = FrameExam().outputs(made.loaded.model(**batch.student))
        for got, right in zip(own(file(batch.student), batch), own(expected, batch), strict=True):
            near(got, right)
        for most in ([100] * len(rows), [3 + row for row in rows]):
            said, right = (talking.speak(one, batch.student, most) for one in (file, made.loaded.model))
            for one, other in zip(said, right, strict=True):
                near(one, other)
            lengths |= {len(one) for one in said}
    assert len(lengths) > 3  # it reads


@pytest.mark.slow
def test_the_readmes_program_speaks_as_the_model_does(
    made: Made, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With onnxruntime and the tokenizer; alone and in a batch."""
    monkeypatch.chdir(written.parent)
    (program,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert "torch" not in program
    first = 'texts = ["what is to be said"]'
    assert first in program
    for texts in (["what is to be said"], TEXTS):
        exec(program.replace(first, f"texts = {texts}"), {})
        inputs = dict(made.loaded.processor.tokenizer(texts, padding=True, return_tensors="pt"))
        if made.family == "steps":
            inputs["speaker_embeddings"] = torch.zeros(len(texts), made.loaded.processor.width)
        spoken = talking.speak(made.loaded.model, inputs, [10**6] * len(texts))
        for number, right in enumerate(spoken):
            near(np.load(f"{number}.npy"), right.numpy())
    if made.family == "steps":
        _like_transformers(program, made, monkeypatch)
    else:
        _slower(program, made)


def _like_transformers(program: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the table in the place of chance the program ends when `generate_speech` does, whatever it is asked for."""
    theirs = plain(made.family)
    prenet = theirs.speecht5.decoder.prenet
    kept = [torch.from_numpy(one) for one in speaking.tables(prenet)]
    calls = iter(range(10**6))

    def dropped(states: Tensor, share: float) -> Tensor:
        table = kept[next(calls) % len(kept)][: states.shape[1]]
        return torch.where(table, states, 0.0) / (1 - share)

    monkeypatch.setattr(prenet, "_consistent_dropout", dropped)
    ids = made.loaded.processor.tokenizer(["what is to be said"], return_tensors="pt").input_ids
    asked = "threshold, minlenratio, maxlenratio = 0.5, 0.0, 20.0"
    lengths = set()
    for threshold, least, most in ((0.5, 0.0, 20.0), (0.5, 0.0, 0.7), (1e-6, 0.0, 20.0), (1e-6, 1.0, 20.0)):
        exec(program.replace(asked, f"threshold, minlenratio, maxlenratio = {threshold}, {least}, {most}"), {})
        right = theirs.generate_speech(ids, torch.zeros(1, made.loaded.processor.width), threshold=threshold,
                                      minlenratio=least, maxlenratio=most)
        near(np.load("0.npy"), right.numpy())
        lengths.add(len(right))
    assert len(lengths) == 4


def _slower(program: str, made: Made) -> None:
    """By other durations than the model's own."""
    exec(program.replace('np.full_like(inputs["input_ids"], -1)', 'np.full_like(inputs["input_ids"], 3)'), {})
    ids = made.loaded.processor.tokenizer(["what is to be said"], return_tensors="pt").input_ids
    with torch.no_grad():
        right = made.loaded.model(ids, durations=torch.full_like(ids, 3)).spectrogram[0]
    near(np.load("0.npy"), right.numpy())


@pytest.mark.slow
def test_a_vocoder_that_the_recipe_names_is_written_beside_the_files(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, also beside int8, and the program then makes sounds."""
    pytest.importorskip("onnxruntime")
    if made.family == "steps":
        pytest.skip("one family is enough: it is the same file")
    torch.manual_seed(0)
    vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig(
        model_in_dim=12, upsample_initial_channel=16, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8])).eval()
    vocoder.save_pretrained(tmp_path / "vocoder")
    task = made.task.delivered(TextToSpeechEvaluate(vocoder=str(tmp_path / "vocoder")))
    assert task.companions == {"vocoder": str(tmp_path / "vocoder")}
    path = export("int8", made.loaded.model, made.loaded.processor, task, made.prepared, tmp_path / "int8")
    monkeypatch.chdir(path.parent)
    assert "int8" in Path("README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    exec(program, {})
    wave, rate = soundfile.read("0.wav", dtype="float32")
    with torch.no_grad():
        right = vocoder(torch.from_numpy(np.load("0.npy"))).numpy()
    assert rate == vocoder.config.sampling_rate
    assert np.abs(wave - right).max() < NEAR  # 16 bits
    assert len({one.stat().st_size for one in Path().glob("*.onnx")}) == 2
