"""Files of recognisers that write: the model's logits whole and step by step, its transcripts, by onnxruntime alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from datasets import Dataset
from transformers import LogitsProcessorList, SuppressTokensLogitsProcessor

import stilla
from stilla.check import check
from stilla.evaluate.generate import Decoding, generate, room, writer
from stilla.export import export
from stilla.export.running import open_exported
from stilla.recipe.file import from_options
from stilla.tasks.base import Loaded
from tests.tasks.audio import speakers, writers
from tests.tasks.audio.setting import soundfile
from tests.tasks.audio.test_dictation import ready

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

Ready = tuple[Any, dict[str, Dataset], Loaded, Path]
THREE = {"encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"}
LONG = 60
"""More than the tiny decoders have positions for."""


@pytest.fixture(scope="module", params=["whisper", "moonshine"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    place, hears = tmp_path_factory.mktemp("files"), request.param == "whisper"
    speech = speakers.utterances(place / "speech", 6)
    made = (writers.folder if hears else writers.moonshine_folder)(place / "model")
    task, splits, loaded = ready(speech, made, **({"language": "en"} if hears else {}))
    prepared = task.prepare(splits["train"], loaded.processor, None, training=False)
    return task, splits, loaded, export("onnx", loaded.model, loaded.processor, task, prepared, place / "onnx")


def test_files_say_what_the_model_says_and_write_what_it_writes(written: Ready) -> None:
    task, splits, made, path = written
    assert {one.name for one in path.parent.iterdir()} >= THREE
    file: Any = open_exported(path)
    prepared = task.prepare(splits["train"], made.processor, None, training=False)
    for rows in ([0, 1, 2, 3, 4], [5], [2, 0]):
        inputs = prepared.collate(rows).student
        with torch.no_grad():
            assert (file(inputs) - made.model(**inputs).logits).abs().max() < 1e-4
    asked, most = task.asked(splits["train"], made.processor), Decoding(LONG)
    ours = file.writer(made.model.generation_config, room(made.model))
    texts = [generate(one, task, asked, made.processor, most, batch_size=4) for one in (ours, made.model)]
    assert texts[0].answers.given == texts[1].answers.given
    assert texts[0].cut == texts[1].cut
    assert len(set(texts[0].answers.given)) > 1  # it listens
    inputs = asked.tokens.batch([0, 1])
    free = [one.ids for one in writer(made.model)(inputs, {}, Decoding(3))]
    rules = {"logits_processor": LogitsProcessorList([SuppressTokensLogitsProcessor([free[0][0]])])}
    bound = [write(inputs, rules, Decoding(3)) for write in (ours, writer(made.model))]
    assert bound[0] == bound[1]
    assert bound[0][0].ids != free[0]


def test_the_readmes_program_writes_what_the_model_writes(written: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    """With onnxruntime, the feature extractor and the tokenizer, and without torch's model."""
    task, splits, made, path = written
    monkeypatch.chdir(path.parent)
    asked = task.asked(splits["train"], made.processor)
    source = asked.tokens.source
    (program,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert "torch" not in program
    for one in range(3):
        soundfile.write("sound.wav", source.wave(one, source.sounds).at(made.processor.ear.rate), made.processor.ear.rate,
                        subtype="FLOAT")
        printed: list[str] = []
        exec(program, {"print": printed.append})
        plain = writer(made.model)(asked.tokens.batch([one]), asked.options, Decoding(LONG))[0].ids
        assert printed == [task.text_of(made.processor, plain)]


@pytest.mark.parametrize("kind", ["whisper", "moonshine"])
def test_files_are_measured_as_the_student_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    teacher = writers.folder(tmp_path / "w") if kind == "whisper" else writers.moonshine_folder(tmp_path / "m")
    ask = {
        "task": "speech-recognition", "teacher": teacher, "student": {"layers": {"decoder": 1}},
        "data": {"train": speakers.utterances(tmp_path / "speech"), **({"language": "en"} if kind == "whisper" else {})},
        "output": str(tmp_path / "run"), "export": ["onnx", "int8"], "allow_weak_teacher": True,
        "distill": {"max_steps": 30, "batch_size": 4, "precision": "float32", "learning_rate": 5e-3},
        "evaluate": {"resamples": 100, "generation": {"max_new_tokens": LONG}}}
    found = check(from_options(ask))
    assert not found.problems, found.problems
    run = stilla.distill(ask)
    assert set(run.scores.subjects) == {"teacher", "student", "onnx", "int8"}
    student, onnx, int8 = (run.scores.subjects[one] for one in ("student", "onnx", "int8"))
    for split, metrics in student.quality.items():
        for metric in ("wer", "cer"):
            assert onnx.quality[split][metric].value == metrics[metric].value
        assert onnx.quality[split]["perplexity"].value == pytest.approx(metrics["perplexity"].value, rel=1e-4)
        assert int8.quality[split]["perplexity"].value == pytest.approx(metrics["perplexity"].value, rel=0.5)
    sizes = [sum(one.stat().st_size for one in (run.folder / "export" / name).glob("*.onnx")) for name in ("onnx", "int8")]
    assert onnx.cost is not None
    assert onnx.cost.bytes == sizes[0]
    assert sizes[1] < sizes[0]
    told = (run.folder / "export/int8/README.md").read_text()
    assert ("training examples, in convolutions" in told) == (kind == "moonshine")
