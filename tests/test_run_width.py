"""Whole runs with a narrower student: measured once, the same for all that start, a plain folder at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from ruamel.yaml import YAML
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

import stilla
from stilla.check import check, places
from stilla.errors import CompatibilityError, RecipeError
from stilla.recipe.file import from_options
from stilla.run import capture, run
from stilla.stages import narrowing
from stilla.students import Cut
from tests import test_run_vocabulary as vocabularies
from tests import tiny
from tests.tasks import pairs
from tests.tasks.tiny import vit_folder
from tests.test_launch import environment
from tests.test_recipes import _pictures

pytestmark = pytest.mark.slow

TEACHER = {"epochs": 4, "batch_size": 8, "learning_rate": 5e-3, "precision": "float32"}
QUICK = {"baseline": True, "resamples": 100, "speed": False}


def narrow(folder: Path, **changes: Any) -> dict[str, Any]:
    student = {"layers": 2, "width": {"ffn": 0.5, "heads": 0.5, "hidden": 0.5, "rounds": 2, "examples": 40}}
    return tiny.recipe(folder, **{
        "teacher": {"model": tiny.bert(folder / "start"), "train": TEACHER}, "student": student, "evaluate": QUICK,
        "distill": {"epochs": 1, "learning_rate": 1e-3, "precision": "float32"}, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, stilla.Run]:
    folder = tmp_path_factory.mktemp("narrow")
    return folder, stilla.distill(**narrow(folder, export=["onnx"]))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path / "model.safetensors")


def test_the_student_is_a_plain_folder_of_the_size_that_was_asked_for(done: tuple[Path, stilla.Run]) -> None:
    _, made = done
    for auto in (AutoModelForSequenceClassification, AutoModel):
        config = auto.from_pretrained(made.student).config
        assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size) == \
            (2, 16, 1, 32)
    (answer,) = pipeline("text-classification", str(made.student))("the soup and the bread")
    assert answer["label"] in tiny.TOPICS
    assert weights(made.student).keys() == weights(made.folder / "baseline").keys()
    assert (made.folder / "export" / "onnx").exists()
    assert made.scores.subjects["onnx"].quality["test"]["accuracy"].value == made.scores.student["accuracy"]


def test_check_says_the_size_that_the_run_then_has(done: tuple[Path, stilla.Run]) -> None:
    folder, made = done
    found = check(from_options(narrow(folder)))
    assert found.problems == ()
    (note,) = [one for one in found.notes if one.startswith("width: ")]
    size = sum(weight.numel() for weight in weights(made.student).values())
    assert f" to {size:,} parameters. Here any units were taken: what matters, the run measures" in note
    assert "hidden_size 32 → 16" in note
    assert "num_attention_heads 2 → 1" in note
    assert "intermediate_size 64 → 32" in note
    assert found.estimate is not None
    assert list(found.estimate.seconds)[:3] == ["teacher", "width", "student"]


def test_scores_and_model_card_say_what_was_cut(done: tuple[Path, stilla.Run]) -> None:
    _, made = done
    card = (made.student / "README.md").read_text()
    for text in (" ".join(made.scores.notes), card, made.report.read_text()):
        assert "intermediate_size 64 → 32" in text
        assert "keeping what mattered most to up to 40 training examples, in 2 rounds" in text
    assert "cut from it, layers 2, made narrower (" in card


def test_it_is_measured_once_and_another_width_is_refused(
    done: tuple[Path, stilla.Run], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = done
    monkeypatch.setattr(narrowing, "measure", lambda *_: pytest.fail("measured again"))
    again = stilla.distill(**narrow(folder, export=["onnx"]))
    assert "width: finished before, skipped" in capfd.readouterr().err
    assert again.scores == made.scores
    with pytest.raises(RecipeError, match=r"student\.width\.ffn: 0\.5 -> 0\.25"):
        stilla.distill(**narrow(folder, student={"layers": 2, "width": {
            "ffn": 0.25, "heads": 0.5, "hidden": 0.5, "rounds": 2, "examples": 40}}))


def test_what_is_left_of_a_damaged_cut_is_measured_again(done: tuple[Path, stilla.Run], tmp_path: Path) -> None:
    folder, _ = done
    stilla.distill(**narrow(folder, output=str(tmp_path / "run")))
    file = tmp_path / "run" / "width" / narrowing.FILE
    before = file.read_bytes()
    file.write_bytes(before[:-8])
    stilla.distill(**narrow(folder, output=str(tmp_path / "run")))
    assert file.read_bytes() == before
    file.write_bytes(b"nothing")
    with pytest.raises(CompatibilityError, match="cannot be read"):
        narrowing.read(file.parent)


def test_seeds_and_baselines_start_from_the_same_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Cut | None] = []
    from stilla.stages import stages

    start = stages.start_student
    monkeypatch.setattr(stages, "start_student", lambda *given, cut: (asked.append(cut), start(*given, cut=cut))[1])
    stilla.distill(**narrow(tmp_path, evaluate={**QUICK, "seeds": 2}, distill={
        "max_steps": 1, "precision": "float32"}))
    assert len(asked) == 4
    assert asked[0] is not None
    assert all(one is asked[0] for one in asked)


def test_a_capture_beforehand_needs_no_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrowing, "measure", lambda *_: pytest.fail("measured"))
    recipe = narrow(tmp_path, cache="dense", data={**tiny.texts(tmp_path / "data"), "augment": "none"})
    assert capture(from_options(recipe))


def test_two_processes_start_from_the_units_that_one_measured(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                "--main_process_port", "0"]
    kept = {}
    for name, command, size in (("one", [sys.executable], 16), ("two", launcher, 8)):
        sgd = {"learning_rate": 0.1, "precision": "float32", "batch_size": size, "trainer": {"optim": "sgd"}, "epochs": 1}
        calm = tiny.bert(tmp_path / name / "start", dropout=0.0)
        with (tmp_path / f"{name}.yaml").open("w") as file:
            YAML().dump(narrow(tmp_path / name, teacher=calm, distill=sgd, allow_weak_teacher=True), file)
        ended = subprocess.run([*command, "-m", "stilla", "run", str(tmp_path / f"{name}.yaml")], capture_output=True,
                               text=True, timeout=400, check=False, env=environment())
        assert ended.returncode == 0, ended.stderr[-3000:]
        kept[name] = weights(tmp_path / name / "run" / "student")
        assert len(list((tmp_path / name / "run" / "width").iterdir())) == 1
    assert kept["one"].keys() == kept["two"].keys()
    for part, other in zip(kept["one"].values(), kept["two"].values(), strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=2e-5)


def test_objectives_over_hidden_states_and_adapters_work_on_it(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    student = {"width": 0.5, "lora": {"r": 2}}
    made = stilla.distill(**narrow(tmp_path, student=student, distill={
        "max_steps": 2, "precision": "float32", "objectives": [{"kind": "hidden"}, {"kind": "logits"}]}))
    config = AutoModelForSequenceClassification.from_pretrained(made.student).config
    assert (config.num_hidden_layers, config.hidden_size) == (4, 16)
    assert not any("lora" in name or "base_layer" in name for name in weights(made.student))


def test_layers_width_and_vocabulary_go_together(tmp_path: Path) -> None:
    width = {"ffn": 0.5, "heads": 0.5, "hidden": 0.5, "rounds": 2, "examples": 12}
    options = vocabularies.recipe(tmp_path, "text-classification",
                                  student={"layers": 2, "width": width, "vocabulary": "data"})
    found = check(from_options(options))
    assert found.problems == ()
    assert {"width", "vocabulary"} <= {note.partition(": ")[0] for note in found.notes}
    made = stilla.distill(**options)
    teacher = AutoModelForSequenceClassification.from_pretrained(options["teacher"]["model"]).config
    config = AutoModelForSequenceClassification.from_pretrained(made.student).config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 8, 1)
    assert config.intermediate_size == 16
    assert config.vocab_size == len(AutoTokenizer.from_pretrained(made.student)) < teacher.vocab_size
    card = (made.student / "README.md").read_text()
    assert "layers 2, made narrower (" in card
    assert "), with those of its tokens that its training texts use" in card


def test_without_labelled_examples_or_written_texts_it_is_refused_before_anything_is_read() -> None:
    recipe = from_options({
        "task": "text-classification", "teacher": "./bert", "student": {"width": 0.5}, "evaluate": {"baseline": False},
        "data": {"unlabelled": "more.txt", "validation": "some.csv"}})
    (problem,) = places.lacking_examples(recipe)
    assert problem == ("student.width: there are no labelled training data (data.train) by which it could be measured what "
                       "matters; name some there, or leave it out")


def test_a_width_that_cannot_be_is_refused_before_it_begins_so_that_another_can_be_asked_for(
    done: tuple[Path, stilla.Run], tmp_path: Path
) -> None:
    teacher = str(done[1].folder / "teacher")
    with pytest.raises(CompatibilityError, match=r"student\.width\.heads: a head of BertForSequenceClass"):
        stilla.distill(**narrow(tmp_path, teacher=teacher, student={"width": {"heads": 0.5}}))
    assert not (tmp_path / "run" / "width").exists()
    made = stilla.distill(**narrow(tmp_path, teacher=teacher, student={"width": {"ffn": 0.5, "examples": 12}}))
    assert AutoModel.from_pretrained(made.student).config.intermediate_size == 32


@pytest.mark.parametrize("task", ["causal-lm", "masked-lm", "seq2seq", "bart", "image-classification"])
def test_every_task_has_narrower_students(tmp_path: Path, task: str) -> None:
    width = {"ffn": 0.5, "heads": 0.5, "hidden": 0.5, "rounds": 2, "examples": 12}
    options: dict[str, Any] = {"student": {"width": width}, "allow_weak_teacher": True, "output": str(tmp_path / "run"),
                               "distill": {"max_steps": 2, "precision": "float32"}}
    if task == "image-classification":
        options |= {"task": task, "evaluate": QUICK}
        names = {0: "dark", 1: "grey", 2: "bright"}
        options |= {"data": _pictures(tmp_path, from_options({**options, "data": "x", "teacher": "y"})),
                    "teacher": str(vit_folder(tmp_path / "teacher", id2label=names))}
    else:
        options = {**vocabularies.recipe(tmp_path, "seq2seq" if task == "bart" else task), **options}
        options["teacher"] = options["teacher"]["model"]
        if task == "bart":
            options |= {"teacher": str(pairs.folder(tmp_path / "bart", "bart"))}
        else:
            options["student"]["vocabulary"] = "data"
    made = run(from_options(options))
    teacher, student = (made.scores.subjects[name].cost for name in ("teacher", "student"))
    assert student.parameters < teacher.parameters
    assert any("student: narrower" in note for note in made.scores.notes)
