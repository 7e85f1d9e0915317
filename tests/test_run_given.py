"""Whole runs of what Python holds: loaded models and data, by content."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import PIL.Image
import pytest
import safetensors.torch
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Image, load_from_disk
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

import stilla
from stilla.errors import CompatibilityError, DataError, RecipeError
from stilla.recipe.file import read
from stilla.recipe.yaml import flow
from stilla.stages import place
from tests import markdown, tiny
from tests.test_launch import environment

pytestmark = pytest.mark.slow

QUICK = {"task": "text-classification", "student": 2, "distill": {"max_steps": 3, "batch_size": 8, "precision": "float32"},
         "evaluate": {"resamples": 100, "speed": False}, "allow_weak_teacher": True}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def splits(folder: Path) -> DatasetDict:
    files = tiny.texts(folder, train=48, validation=16, test=16)
    return DatasetDict({name: Dataset.from_json(file, cache_dir=str(folder / "cache")) for name, file in files.items()})


def model(folder: Path) -> BertForSequenceClassification:
    """Edited after it was loaded, and with the labels that it answers with."""
    made = AutoModelForSequenceClassification.from_pretrained(tiny.bert(folder))
    made.config.id2label = dict(enumerate(tiny.TOPICS))
    made.config.label2id = {name: number for number, name in enumerate(tiny.TOPICS)}
    with torch.no_grad():
        made.classifier.bias += 0.5
    return made


def given(folder: Path) -> dict[str, Any]:
    return {**QUICK, "data": splits(folder / "texts"), "teacher": (model(folder / "bert"), tiny.tokenizer()),
            "output": str(folder / "run")}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, stilla.Run]:
    folder = tmp_path_factory.mktemp("given")
    return folder, stilla.distill(**given(folder))


def test_a_run_of_loaded_things_is_a_run_of_the_same_in_files(done: tuple[Path, stilla.Run], tmp_path: Path) -> None:
    folder, run = done
    files = tiny.texts(tmp_path / "texts", train=48, validation=16, test=16)
    teacher = model(tmp_path / "bert")
    teacher.save_pretrained(tmp_path / "saved")
    tiny.tokenizer().save_pretrained(tmp_path / "saved")
    other = stilla.distill(**{**QUICK, "data": files, "teacher": str(tmp_path / "saved"), "output": str(tmp_path / "run")})
    assert same(run.student, other.student)
    assert run.scores.student == other.scores.student
    named = read(run.folder / "recipe.yaml")
    assert same(Path(named.teacher.model), tmp_path / "saved")
    assert Path(named.data.train).parent == folder / "run" / "data"


def test_the_same_call_skips_what_is_finished(done: tuple[Path, stilla.Run], capfd: pytest.CaptureFixture[str]) -> None:
    folder, run = done
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.safetensors")}
    again = stilla.distill(**given(folder))
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.safetensors")} == before
    assert again.scores == run.scores
    assert "student: finished before, skipped" in capfd.readouterr().err


@pytest.mark.parametrize("part", ["data", "teacher"])
def test_other_content_is_refused_with_what_differs_and_leaves_the_run_as_it_is(
    done: tuple[Path, stilla.Run], part: str
) -> None:
    folder, run = done
    other = given(folder)
    if part == "data":
        other["data"]["train"] = other["data"]["train"].map(lambda row, number: {"text": f"{row['text']} the" if number == 3
                                                            else row["text"]}, with_indices=True)
    else:
        other["teacher"][0].bert.embeddings.word_embeddings.weight.data[7] += 1e-3
    before = sorted(path for path in run.folder.rglob("*"))
    with pytest.raises(RecipeError, match=rf"(?s)stage `student`.*{part}: not what it was then.*overwrite=True"):
        stilla.distill(**other)
    assert sorted(path for path in run.folder.rglob("*")) == before
    assert stilla.distill(**given(folder)).scores.student == run.scores.student


def test_the_run_is_evaluated_and_exported_later_from_another_folder(
    done: tuple[Path, stilla.Run], tmp_path: Path
) -> None:
    _, run = done
    for command in (["evaluate", str(run.folder)], ["run", str(run.folder / "recipe.yaml")], ["export", str(run.folder)]):
        ended = subprocess.run([sys.executable, "-m", "stilla", *command], cwd=tmp_path, env=environment(), check=False,
                               capture_output=True, text=True, timeout=400)
        assert ended.returncode == 0, ended.stderr[-3000:]
    assert not any(tmp_path.iterdir())
    assert (run.folder / "export" / "onnx" / "model.onnx").is_file()


def test_a_run_is_scored_on_data_that_python_holds(done: tuple[Path, stilla.Run], tmp_path: Path) -> None:
    _, run = done
    test = splits(tmp_path)["test"]
    scores = [stilla.evaluate_run(run.folder, new) for new in (test, pd.DataFrame(test.to_list()), DatasetDict(test=test))]
    assert scores[0].student.quality["new"]["accuracy"] == run.scores.student.quality["test"]["accuracy"]
    assert all(one.student.quality == scores[0].student.quality for one in scores)
    (file,) = (run.folder / "evaluations").glob("new-*.json")
    stilla.evaluate_run(str(run.folder), test.select(range(3)).to_list())
    assert len(list((run.folder / "evaluations").glob("new-*.json"))) == 2
    assert file.exists()
    with pytest.raises(DataError, match=r"^new: 'text' is null or empty"):
        stilla.evaluate_run(run.folder, [{"text": "", "topic": "food"}])
    with pytest.raises(DataError, match=r"^new: got generator"):
        stilla.evaluate_run(run.folder, (row for row in test))


def test_overwriting_keeps_what_the_new_run_was_given_and_nothing_else(tmp_path: Path) -> None:
    stilla.distill(**given(tmp_path))
    old = {path.name for part in ("data", "start") for path in (tmp_path / "run" / part).iterdir()}
    other = given(tmp_path)
    other["data"] = {"train": other["data"]["train"], "validation": other["data"]["test"].to_list()}
    run = stilla.distill(**other, overwrite=True)
    new = {path.name for part in ("data", "start") for path in (run.folder / part).iterdir()}
    assert len(new) == 3
    assert len(new & old) == 1, "the teacher"
    again = stilla.distill(run.folder / "recipe.yaml", overwrite=True)
    assert {path.name for part in ("data", "start") for path in (run.folder / part).iterdir()} == new
    assert same(run.student, again.student)
    run.folder.rename(tmp_path / "moved")
    assert stilla.evaluate_run(tmp_path / "moved").student == again.scores.student


def test_a_refused_call_leaves_nothing_and_no_run_is_lost_to_it(done: tuple[Path, stilla.Run], tmp_path: Path) -> None:
    folder, run = done
    wrong = {**given(folder), "data": {"train": splits(tmp_path / "texts")["train"], "text": "words"}}
    with pytest.raises(DataError, match="words"):
        stilla.distill(**wrong, overwrite=True)
    assert stilla.distill(**given(folder)).scores.student == run.scores.student
    with pytest.raises(DataError, match="words"):
        stilla.distill(**{**wrong, "output": str(tmp_path / "fresh")})
    with pytest.raises(RecipeError, match="export: got 'onx'"):
        stilla.distill(**{**given(tmp_path), "export": "onx"})
    with pytest.raises(CompatibilityError, match="no better than chance"):
        stilla.distill(**{**given(tmp_path), "allow_weak_teacher": False})
    assert not (tmp_path / "fresh").exists()
    assert not (tmp_path / "run").exists()


def test_a_student_and_a_teacher_to_be_trained_may_be_given(tmp_path: Path) -> None:
    def start(seed: int) -> BertForSequenceClassification:
        config = model(tmp_path / "bert").config
        torch.manual_seed(seed)
        made = BertForSequenceClassification(config)
        made.config._name_or_path = made.name_or_path = ""
        return made

    def options(seed: int) -> dict[str, Any]:
        return {**QUICK, "data": splits(tmp_path / "texts"), "teacher": {"model": start(0), "train": {"max_steps": 2}},
                "student": {"model": start(seed)}, "processing_class": tiny.tokenizer(), "output": tmp_path / "run"}

    run = stilla.distill(**options(1))
    kept = Path(str(read(run.folder / "recipe.yaml").student.model))
    assert all(torch.equal(value, start(1).state_dict()[name]) for name, value in weights(kept).items())
    assert stilla.distill(**options(1)).scores == run.scores
    with pytest.raises(RecipeError, match=r"(?s)stage `student`.*student\.model: .*/student-\w+ -> .*/student-\w+"):
        stilla.distill(**options(2))


def test_pictures_and_classes_go_through_a_whole_run(tmp_path: Path) -> None:
    names = ["dark", "light"]
    files = [tmp_path / f"{number}.png" for number in range(40)]
    for number, file in enumerate(files):
        PIL.Image.new("L", (8, 8), 20 + 200 * (number % 2) + number % 5).save(file)
    data = Dataset.from_dict({"image": [str(file) for file in files], "label": [number % 2 for number in range(40)]})
    data = data.cast_column("image", Image()).cast_column("label", ClassLabel(names=names))
    teacher = ViTForImageClassification(ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4,
        id2label=dict(enumerate(names)), label2id={name: number for number, name in enumerate(names)}))
    run = stilla.distill(**{**QUICK, "task": "image-classification", "student": 1, "output": str(tmp_path / "run")},
                         data=data, teacher=(teacher, ViTImageProcessorPil(size={"height": 8, "width": 8})))
    for file in files:
        file.unlink()
    assert load_from_disk(read(run.folder / "recipe.yaml").data.train)[3]["image"].getpixel((0, 0)) == 223
    assert stilla.evaluate_run(run.folder).student == run.scores.student


def test_answers_are_captured_of_what_was_given(tmp_path: Path) -> None:
    asked = {**given(tmp_path), "cache": {"form": "dense"}}
    asked["data"] = {"train": asked["data"]["train"], "validation": asked["data"]["validation"], "augment": "none"}
    (place,) = stilla.capture(**asked)
    assert (Path(place) / "cache.json").is_file()
    assert stilla.distill(**asked).folder == tmp_path / "run"


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[1] / "docs" / "recipe.md"
    (code,) = markdown.blocks(page, "python")
    monkeypatch.chdir(tmp_path)
    dataset = splits(tmp_path / "texts")
    taught = AutoModelForSequenceClassification.from_pretrained(tiny.bert(tmp_path / "bert"))
    Path("recipe.yaml").write_text(flow({**QUICK, "data": str(tmp_path / "texts" / "train.jsonl"), "teacher": "./bert"}))
    names = {"dataset": dataset, "model": taught, "tokenizer": tiny.tokenizer(), "frame": dataset["test"].to_pandas()}
    monkeypatch.setattr(place, "check_teacher", lambda *_: None)  # it has learnt nothing
    exec(compile(code, "recipe.md", "exec"), names)
    assert {path.name for path in Path("runs").iterdir()} == {"recipe", "b", "text-classification"}
    assert names["scores"].examples == {"new": 16}


CALL = """
import sys, stilla
from pathlib import Path
from datasets import load_from_disk
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from stilla.runtime.processes import processes
from tests.test_run_given import QUICK
folder = Path(sys.argv[1])
data = load_from_disk(folder / "data").select(range(40 - processes().process_index))
teacher = AutoModelForSequenceClassification.from_pretrained(folder / "bert")
teacher.classifier.bias.data += 1
stilla.distill(**QUICK, data=data, output=folder / "run",
               teacher=(teacher, AutoTokenizer.from_pretrained(folder / "bert")))
"""


def test_of_several_processes_the_main_one_writes_and_all_read_that(tmp_path: Path) -> None:
    script = tmp_path / "call.py"
    script.write_text(CALL)
    model(tmp_path / "bert")
    data = splits(tmp_path / "texts")["train"]
    data.save_to_disk(str(tmp_path / "data"))
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
              "--main_process_port", "0"]
    ended = subprocess.run(
        [*launch, str(script), str(tmp_path)],
        capture_output=True, text=True, timeout=400, check=False, env={**environment(), "PYTHONPATH": paths})
    assert ended.returncode == 0, ended.stderr[-3000:]
    (written,) = (tmp_path / "run" / "data").iterdir()
    assert load_from_disk(str(written)).to_list() == data.select(range(40)).to_list()
    assert stilla.Run.load(tmp_path / "run").scores.student
