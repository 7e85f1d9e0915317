"""Files of models that write about pictures: the model's logits whole and step by step, its texts, by onnxruntime alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import stilla
from stilla.errors import ExportError
from stilla.evaluate.generate import Decoding, generate, room, writer
from stilla.export import export
from stilla.export.running import open_exported
from stilla.recipe import ModelSource
from stilla.tasks.base import Loaded
from stilla.tasks.vision_text.image_text_to_text import ImageTextToText
from tests.tasks.vision_text import tellers
from tests.tasks.vision_text.setting import picture
from tests.tasks.vision_text.test_captioning_runs import QUICK
from tests.tasks.vision_text.test_image_text_to_text import ready

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

THREE = {"vision_encoder.onnx", "embed_tokens.onnx", "decoder_model_merged.onnx"}


def written(place: Path, family: str, train: str, *, chat: bool = True, **section: Any) -> tuple[Any, Any, Loaded, Path]:
    task, splits, made = ready(tellers.folder(place / family, family, chat=chat), train, **section)
    prepared = task.prepare(splits["train"], made.processor, None, training=False)
    return task, splits, made, export("onnx", made.model, made.processor, task, prepared, place / "out")


@pytest.mark.parametrize(("family", "several"), [
    ("llava", True), ("idefics3", True), ("internvl", False), ("smolvlm", False)])
def test_files_say_what_the_model_says_and_write_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, several: bool
) -> None:
    """Of several pictures to an example, and of one in several pieces, too."""
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)  # of the lengths of videos
    train = tellers.talked(tmp_path / "t") if several else tellers.captioned(tmp_path / "t.parquet", 6)
    task, splits, made, path = written(tmp_path, family, train)
    assert {one.name for one in path.parent.iterdir()} >= THREE
    file: Any = open_exported(path)
    assert file.bytes == sum(one.stat().st_size for one in path.parent.glob("*.onnx"))
    prepared = task.prepare(splits["train"], made.processor, None, training=False)
    for rows in ([0, 1, 2, 3], [3], [1, 0]):
        inputs = prepared.collate(rows).student
        there = inputs["attention_mask"].bool()
        with torch.no_grad():
            assert (file(inputs) - made.model(**inputs).logits)[there].abs().max() < 1e-4
    asked = task.asked(splits["train"], made.processor)
    ours = file.writer(made.model.generation_config, room(made.model))
    texts = [generate(one, task, asked, made.processor, Decoding(12), batch_size=4).answers.given
             for one in (ours, made.model)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1  # it looks


@pytest.mark.parametrize(("family", "chat"), [("llava", True), ("llava", False), ("idefics3", True)])
def test_the_readmes_program_writes_what_the_model_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, chat: bool
) -> None:
    """With onnxruntime and the processor, and without torch's model."""
    train = tellers.captioned(tmp_path / "t.parquet", 6)
    task, splits, made, path = written(tmp_path, family, train, chat=chat, instruction="Which\ncolour?")
    monkeypatch.chdir(path.parent)
    (program,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert "torch" not in program
    asked = task.asked(splits["train"], made.processor)
    for one in range(3):
        Path("picture.png").write_bytes(picture(one, 16))
        printed: list[str] = []
        exec(program, {"print": printed.append})
        plain = writer(made.model)(asked.tokens.batch([one]), asked.options, Decoding(128))[0].ids
        assert printed == [task.text_of(made.processor, plain)]


def test_files_are_measured_as_the_student_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    run = stilla.distill({
        "task": "image-text-to-text", "teacher": tellers.folder(tmp_path / "teacher"), "student": {"layers": {"text": 1}},
        "data": {"train": tellers.captioned(tmp_path / "t.parquet", 12),
                 "validation": tellers.captioned(tmp_path / "v.parquet", 4)},
        "output": str(tmp_path / "run"), "export": ["onnx", "int8"], **QUICK,
        "distill": {**QUICK["distill"], "max_steps": 25}, "evaluate": {**QUICK["evaluate"], "speed": True}})
    assert set(run.scores.subjects) == {"teacher", "student", "onnx", "int8"}
    student, onnx, int8 = (run.scores.subjects[one] for one in ("student", "onnx", "int8"))
    said = student.quality["validation"]
    assert onnx.quality["validation"]["rougeL"].value == said["rougeL"].value
    assert onnx.quality["validation"]["perplexity"].value == pytest.approx(said["perplexity"].value, rel=1e-4)
    assert int8.quality["validation"]["perplexity"].value == pytest.approx(said["perplexity"].value, rel=0.5)
    assert onnx.cost is not None
    assert int8.cost is not None
    assert int8.cost.bytes < onnx.cost.bytes


@pytest.mark.parametrize(("family", "why"), [
    ("llava_next", "depends on its own size .image_sizes."), ("gemma3", "`token_type_ids` tell it which tokens stand for"),
    ("qwen2_vl", "`mm_token_type_ids` tell it which tokens stand for")])
def test_families_that_cannot_be_files_are_refused_by_name(tmp_path: Path, family: str, why: str) -> None:
    made = ImageTextToText().load(ModelSource(model=tellers.folder(tmp_path / family, family)), labelled=True)
    (said,) = ImageTextToText().unwritten(made.model, ["onnx"])
    assert said.startswith(f"onnx: a {type(made.model).__name__} cannot be written: ")
    assert re.search(why, said)
    task, splits, made = ready(str(tmp_path / family), tellers.captioned(tmp_path / "t.parquet", 4))
    prepared = task.prepare(splits["train"], made.processor, None, training=False)
    with pytest.raises(ExportError, match=why):
        export("int8", made.model, made.processor, task, prepared, tmp_path / "out")
    assert not (tmp_path / "out").exists()
