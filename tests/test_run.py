from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForSequenceClassification, TrainerCallback, pipeline

import stilla
from stilla.after import evaluate_run, report_run
from stilla.errors import CompatibilityError, DataError, ExportError, RecipeError, TrainingError
from stilla.recipe.file import from_options, read
from stilla.report.table import markdown_facts
from stilla.stages import scoring, training
from stilla.stages.folder import RunFolder
from stilla.stages.scoring import export_all
from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, stilla.Run]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, stilla.distill(**tiny.recipe(folder))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def logged(run: stilla.Run) -> list[dict]:
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_that_the_design_names(done: tuple[Path, stilla.Run]) -> None:
    _, run = done
    for name in ("recipe.yaml", "environment.json", "teacher/model.safetensors", "student/model.safetensors",
                 "student/tokenizer.json", "student/README.md", "baseline/model.safetensors", "scores.json", "report.html",
                 "log.jsonl", "stages.json"):
        assert (run.folder / name).exists(), name
    assert not any((run.folder / "checkpoints").glob("*/checkpoint-*"))
    assert {entry["stage"] for entry in logged(run)} == {"teacher", "student", "baseline"}
    assert set(run.scores.subjects) == {"teacher", "student", "baseline"}
    assert run.scores.teacher["accuracy"] > 0.8
    assert run.scores.split == "test"
    assert run.scores.verdict.endswith(".")


def test_the_log_counts_seconds_by_the_clock_and_of_the_processor(done: tuple[Path, stilla.Run]) -> None:
    for stage in ("teacher", "student"):
        entries = [entry for entry in logged(done[1]) if entry["stage"] == stage and "loss" in entry]
        for clock in ("seconds", "processor_seconds"):
            told = [entry[clock] for entry in entries]
            assert 0 < told[0] < told[-1]
            assert told == sorted(told)
    assert set(done[1].scores.spent) == {"teacher", "student", "baseline"}
    flops = {name: one["flops"] for name, one in done[1].scores.spent.items()}
    assert flops["student"] > flops["baseline"] > 0  # the teacher's answers
    assert done[1].scores.repaid["flops"] > 0
    assert "What every training took" in done[1].report.read_text(encoding="utf-8")
    assert any(note.startswith("cost: making the student took ") for note in done[1].scores.notes)


def test_the_student_is_a_plain_hugging_face_folder(done: tuple[Path, stilla.Run]) -> None:
    _, run = done
    model = AutoModelForSequenceClassification.from_pretrained(run.student)
    assert model.config.num_hidden_layers == 2
    assert set(model.config.label2id) == set(tiny.TOPICS)
    (answer,) = pipeline("text-classification", str(run.student))("the soup and the bread")
    assert answer["label"] in tiny.TOPICS
    assert not any("projection" in name or "objectives" in name for name in weights(run.student))


def test_the_resolved_recipe_names_every_default_and_reads_back(done: tuple[Path, stilla.Run]) -> None:
    _, run = done
    resolved = read(run.folder / "recipe.yaml")
    assert resolved.data.text == ("text",)
    assert resolved.data.label == ("topic",)
    assert resolved.distill[0].objectives
    assert {spec.kind for spec in resolved.distill[0].objectives} == {"labels", "logits"}


def test_student_and_baseline_start_from_the_same_weights_and_batches(tmp_path: Path) -> None:
    plain = tiny.recipe(tmp_path, distill={"max_steps": 3, "learning_rate": 1e-3, "precision": "float32"},
                        teacher=tiny.bert(tmp_path / "start"), allow_weak_teacher=True)
    # changed examples have no label, so that both see the same labels only without them
    run = stilla.distill(**{**plain, "data": {**plain["data"], "augment": "none"}})
    first = {entry["stage"]: entry for entry in logged(run) if entry["step"] == 1 and "terms" in entry}
    assert first["student"]["terms"]["labels"] == pytest.approx(first["baseline"]["terms"]["labels"], rel=1e-6)


def test_labels_alone_are_handed_over_as_they_were_best_on_validation_data(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.recipe(tmp_path, allow_weak_teacher=True, distill={
        "epochs": 8, "learning_rate": 5e-3, "batch_size": 8, "precision": "float32"})
    train = Path(recipe["data"]["train"])
    header, *rows = train.read_text().splitlines()
    texts, labels = zip(*(row.rsplit(",", 1) for row in rows), strict=True)
    # labels of others mean nothing, and are learnt by heart
    train.write_text("\n".join([header, *map(",".join, zip(texts, labels[::-1], strict=True)), ""]))
    run = stilla.distill(recipe)
    seen = [one["evaluation"]["accuracy"] for one in logged(run) if one["stage"] == "baseline" and "evaluation" in one]
    kept = run.scores.subjects["baseline"].quality["validation"]["accuracy"].value
    assert kept == pytest.approx(max(seen))
    assert len(seen) == 8
    assert "baseline: kept: the weights as of step" in capfd.readouterr().err
    which = run.scores.best["baseline"]
    assert (which.passes, which.of, which.metric) == (1 + seen.index(max(seen)), 8, "accuracy")
    assert which.value == pytest.approx(kept)
    said = f"after {which.passes:g} of 8 passes"
    assert said in markdown_facts(run.scores)
    assert said in run.report.read_text(encoding="utf-8")
    assert "student" not in run.scores.best


def test_the_baseline_takes_as_many_steps_as_the_student(done: tuple[Path, stilla.Run]) -> None:
    _, run = done
    steps = [sum(entry["stage"] == stage and "loss" in entry for entry in logged(run)) for stage in ("student", "baseline")]
    assert steps[0] == steps[1] > 0


def test_running_again_skips_what_is_finished(done: tuple[Path, stilla.Run], capfd: pytest.CaptureFixture[str]) -> None:
    folder, run = done
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("model.safetensors")}
    again = stilla.distill(**tiny.recipe(folder))
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("model.safetensors")} == before
    assert again.scores == run.scores
    assert capfd.readouterr().err.count("skipped") >= 3


def test_a_changed_recipe_is_refused_with_the_difference(done: tuple[Path, stilla.Run]) -> None:
    folder, run = done
    recipe = (run.folder / "recipe.yaml").read_text()
    before = (run.folder / "student" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(RecipeError, match=r"(?s)stage `student`.*epochs: 3\.0 -> 1\.0.*--overwrite"):
        stilla.distill(**tiny.recipe(folder, distill={"epochs": 1, "learning_rate": 1e-3, "precision": "float32"}))
    assert (run.folder / "student" / "model.safetensors").stat().st_mtime_ns == before
    assert (run.folder / "recipe.yaml").read_text() == recipe


def test_a_format_that_was_exported_later_stays_with_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (folder.exports / "int8").mkdir(parents=True)
    (folder.exports / "int8" / "model.onnx").touch()
    recipe = from_options({"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 3})
    made = {"int8": folder.exports / "int8" / "model.onnx"}
    assert export_all(recipe, folder, None, {}) == (made, [])  # type: ignore[arg-type]


def test_a_student_that_cannot_be_exported_is_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise ExportError("onnx: torch's exporter cannot hold it")

    monkeypatch.setattr(scoring, "export", refused)
    quick = {"epochs": 1, "learning_rate": 1e-3, "precision": "float32"}
    asked = tiny.recipe(tmp_path, distill=quick, evaluate={"resamples": 100, "speed": False}, export=["onnx"])
    with pytest.raises(ExportError, match=r"cannot hold it\. All else of the run is done: .*student.*report\.html"):
        stilla.distill(**asked)
    run = stilla.Run.load(Path(asked["output"]))
    assert set(run.scores.subjects) == {"teacher", "student"}
    assert "student" in run.report.read_text()


@pytest.mark.parametrize(("field", "value"), [("max_length", 5), ("augment", "none")])
def test_data_that_are_read_in_another_way_are_other_data(
    done: tuple[Path, stilla.Run], field: str, value: object
) -> None:
    folder, _ = done
    plain = tiny.recipe(folder)
    data = plain["data"] if isinstance(plain["data"], dict) else {"train": plain["data"]}
    with pytest.raises(RecipeError, match=rf"(?s)stage `\w+`.*data\.{field}.*-> {value}"):
        stilla.distill(**{**plain, "data": {**data, field: value}})


def test_student_and_baseline_learn_without_dropout_and_the_teacher_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[float]] = []
    run = training._run

    def look(trainer: Any, *how: Any) -> None:
        seen.append({module.p for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)})
        run(trainer, *how)

    monkeypatch.setattr(training, "_run", look)
    stilla.distill(**tiny.recipe(tmp_path, distill={"max_steps": 1}))
    assert seen == [{0.1}, {0.0}, {0.0}]


def test_more_measuring_needs_no_new_training(done: tuple[Path, stilla.Run], tmp_path: Path) -> None:
    folder, run = done
    shutil.copytree(run.folder, tmp_path / "run")
    changed = tiny.recipe(folder, output=str(tmp_path / "run"),
                          evaluate={"baseline": True, "resamples": 300, "speed": False, "metric": "macro_f1"})
    again = stilla.distill(**changed)
    assert again.scores.metric == "macro_f1"
    assert same(run.student, again.student)


def test_an_old_run_is_scored_on_new_data(done: tuple[Path, stilla.Run], tmp_path: Path) -> None:
    _, run = done
    new = tiny.texts(tmp_path / "new", seed=5)["test"]
    scores = evaluate_run(run.folder, new)
    assert scores.examples == {"test": 60}
    (written,) = (run.folder / "evaluations").glob("test-*.json")
    other = tiny.texts(tmp_path / "another", seed=6)["test"]
    before = written.read_text()
    evaluate_run(run.folder, other)  # another file of the same name
    assert written.read_text() == before
    assert len(list((run.folder / "evaluations").glob("test-*.json"))) == 2
    one_class = tmp_path / "one.csv"
    one_class.write_text("text,topic\nthe bread,food\nsoup,food\n")
    assert evaluate_run(run.folder, str(one_class)).examples == {"one": 2}
    strange = tmp_path / "strange.csv"
    strange.write_text("sentence,topic\nthe bread,food\nsoup,food\n")
    with pytest.raises(DataError, match="text"):
        evaluate_run(run.folder, str(strange))


def test_new_data_may_be_read_otherwise_than_the_runs_own(done: tuple[Path, stilla.Run], tmp_path: Path) -> None:
    _, run = done
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("text,topic\nthe bread,food\n ,food\nsoup,food\n")
    with pytest.raises(DataError, match="broken"):
        evaluate_run(run.folder, str(gaps))
    assert evaluate_run(run.folder, str(gaps), "data.broken=skip").student.quality["gaps"]["accuracy"].value in (0, 0.5, 1)
    with pytest.raises(RecipeError, match="its own data"):
        evaluate_run(run.folder, None, "data.broken=skip")


def test_new_data_that_cannot_be_used_are_named_by_their_file(done: tuple[Path, stilla.Run], tmp_path: Path) -> None:
    new = tmp_path / "new.jsonl"
    new.write_text('{"text": "", "topic": "food"}\n{"text": "soup", "topic": "music"}\n')
    with pytest.raises(DataError, match=r"new\.jsonl: 'text' is null or empty in 1 of 2 examples: row 0") as raised:
        evaluate_run(done[1].folder, str(new))
    assert "data.new" not in str(raised.value)


def test_scores_stay_until_there_are_new_ones(done: tuple[Path, stilla.Run], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    _, run = done
    monkeypatch.setattr("stilla.stages.scoring.measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run.folder)
    assert run.scores == stilla.Run.load(run.folder).scores


def test_scores_that_cannot_be_read_are_measured_again(done: tuple[Path, stilla.Run]) -> None:
    folder, run = done
    (run.folder / "scores.json").write_text('{"of": "another version"}')
    assert stilla.distill(**tiny.recipe(folder)).scores == run.scores


def test_the_report_can_be_written_again(done: tuple[Path, stilla.Run]) -> None:
    _, run = done
    run.report.unlink()
    assert report_run(run.folder).exists()
    with pytest.raises(RecipeError, match="no run folder"):
        report_run(run.folder / "student")


class StopAt(TrainerCallback):
    """Asks to stop as Ctrl-C does, within a given stage."""

    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.step = stage, step


def interrupt(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """Ctrl-C after a step of a stage, through the real signal handler."""
    import os
    import signal

    original = training._callbacks

    def with_interrupt(name, *rest):
        class Press(TrainerCallback):
            def on_step_begin(self, args, state, control, **_):
                if name == stage and state.global_step == step:
                    os.kill(os.getpid(), signal.SIGINT)

        return [*original(name, *rest), Press()]

    monkeypatch.setattr(training, "_callbacks", with_interrupt)


@pytest.mark.parametrize(("stage", "step"), [("teacher", 5), ("student", 6), ("baseline", 3)])
def test_interrupted_and_continued_equals_uninterrupted(
    done: tuple[Path, stilla.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
    _, whole = done
    with monkeypatch.context() as patch:
        interrupt(patch, stage, step)
        with pytest.raises(KeyboardInterrupt, match=f"`{stage}` after step {step + 1}"):
            stilla.distill(**tiny.recipe(tmp_path))
    assert (tmp_path / "run" / "checkpoints" / stage / f"checkpoint-{step + 1}").exists()
    torch.manual_seed(1234)
    run = stilla.distill(**tiny.recipe(tmp_path))
    for role in ("teacher", "student", "baseline"):
        assert same(run.folder / role, whole.folder / role), role
    steps = [(entry["stage"], entry["step"]) for entry in logged(run) if "loss" in entry]
    assert steps == sorted(set(steps), key=steps.index)
    assert len(steps) == len([entry for entry in logged(whole) if "loss" in entry])


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    plain = {"evaluate": {"resamples": 100, "speed": False}}
    stilla.distill(**tiny.recipe(tmp_path, **plain))
    shorter = tiny.recipe(tmp_path, distill={"epochs": 1, "precision": "float32"}, **plain)
    run = stilla.distill(overwrite=True, **shorter)
    assert {entry["step"] for entry in logged(run) if entry["stage"] == "student"} <= {1, 2, 3, 4}


def test_stages_follow_each_other_and_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [{"objectives": [{"kind": "hidden"}], "epochs": 1, "precision": "float32"},
              {"objectives": [{"kind": "logits"}], "epochs": 1, "precision": "float32"}]
    quick = {"distill": stages, "evaluate": {"resamples": 100, "speed": False}}
    whole = stilla.distill(**tiny.recipe(tmp_path / "whole", **quick))
    assert [entry["stage"] for entry in logged(whole) if entry["step"] == 1 and "loss" in entry] == [
        "teacher", "student.0", "student.1"]
    with monkeypatch.context() as patch:
        interrupt(patch, "student.1", 2)
        with pytest.raises(KeyboardInterrupt):
            stilla.distill(**tiny.recipe(tmp_path / "parts", **quick))
    parts = stilla.distill(**tiny.recipe(tmp_path / "parts", **quick))
    assert same(whole.student, parts.student)


def test_several_seeds_give_a_spread(tmp_path: Path) -> None:
    run = stilla.distill(**tiny.recipe(tmp_path, evaluate={"baseline": True, "seeds": 2, "resamples": 100, "speed": False}))
    assert len(run.scores.student.seeds) == 2
    assert (run.folder / "seeds" / "student-1" / "model.safetensors").exists()
    assert not same(run.folder / "student", run.folder / "seeds" / "student-1")


def test_a_weak_teacher_is_refused_unless_asked_for(tmp_path: Path) -> None:
    files = tiny.texts(tmp_path / "data")
    untrained = tiny.bert(tmp_path / "untrained")
    weak = {"data": files, "teacher": untrained, "evaluate": {"resamples": 100, "speed": False}}
    with pytest.raises(CompatibilityError, match=r"no better than chance.*--allow-weak-teacher"):
        stilla.distill(**tiny.recipe(tmp_path, **weak))
    run = stilla.distill(**tiny.recipe(tmp_path, **weak, allow_weak_teacher=True))
    assert run.scores.ratio is None


def test_a_finished_stage_whose_files_are_gone_is_done_again(
    done: tuple[Path, stilla.Run], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, run = done
    shutil.copytree(run.folder, tmp_path / "run")
    lost = tmp_path / "run" / "baseline" / "model.safetensors"
    lost.unlink()
    stilla.distill(**tiny.recipe(folder, output=str(tmp_path / "run")))
    assert same(run.folder / "baseline", lost.parent)
    assert "baseline: finished before, but" in capfd.readouterr().err


def test_a_full_disk_says_so_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"distill": {"epochs": 2, "precision": "float32", "trainer": {"save_strategy": "steps", "save_steps": 2}},
               "evaluate": {"resamples": 100, "speed": False}}
    whole = stilla.distill(**tiny.recipe(tmp_path / "whole", **options))
    with monkeypatch.context() as patch:
        save, calls = torch.save, []

        def full(content, path, *rest, **more):
            if "student" in str(path) and str(path).endswith("optimizer.pt"):
                calls.append(path)
                if len(calls) == 2:
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return save(content, path, *rest, **more)

        patch.setattr(torch, "save", full)
        with pytest.raises(TrainingError, match=r"no room left.*at step 4.*continue from checkpoint-2"):
            stilla.distill(**tiny.recipe(tmp_path / "parts", **options))
    assert [path.name for path in (tmp_path / "parts" / "run" / "checkpoints" / "student").iterdir()] == ["checkpoint-2"]
    run = stilla.distill(**tiny.recipe(tmp_path / "parts", **options))
    assert same(whole.student, run.student)


def test_a_trace_of_a_few_steps_lands_in_the_run_folder(tmp_path: Path) -> None:
    run = stilla.distill(**tiny.recipe(tmp_path, distill={"epochs": 2, "precision": "float32", "profile": 2},
                                       evaluate={"resamples": 100, "speed": False}))
    assert (run.folder / "profile" / "student.json.gz").stat().st_size > 1000


def test_a_folder_of_something_else_is_never_touched(tmp_path: Path) -> None:
    other = tmp_path / "run"
    other.mkdir()
    (other / "thesis.tex").write_text("ten years of work")
    with pytest.raises(RecipeError, match="no run of Stilla"):
        stilla.distill(overwrite=True, **tiny.recipe(tmp_path))
    assert (other / "thesis.tex").read_text() == "ten years of work"


def test_trackers_keep_what_they_wrote(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = stilla.distill(**tiny.recipe(
        tmp_path, distill={"epochs": 1, "precision": "float32", "trainer": {"report_to": "tensorboard"}},
        evaluate={"resamples": 100, "speed": False}))
    assert list((run.folder / "trackers" / "tensorboard" / "student").glob("events.*"))
