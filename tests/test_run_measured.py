"""What a run measures apart: slices, data from elsewhere, several seeds; and what is done with the baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import stilla
from stilla.after import evaluate_run, export_run
from stilla.errors import DataError, RecipeError
from stilla.evaluate import headline_split
from stilla.scores import Part, Scores
from stilla.stages.folder import RunFolder
from stilla.stages.scoring import exports_of
from stilla.training.batches import StepBatches
from tests import tiny

pytestmark = pytest.mark.slow

QUICK: Mapping[str, Any] = {"epochs": 2, "learning_rate": 1e-3, "precision": "float32"}
EVALUATE: Mapping[str, Any] = {"baseline": True, "resamples": 200, "speed": False}


def with_columns(path: str, target: Path, **columns: list[Any]) -> str:
    """The same rows with further columns, each a pattern that repeats."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    lines = [json.dumps({**row, **{name: values[number % len(values)] for name, values in columns.items()}})
             for number, row in enumerate(rows)]
    target.write_text("\n".join(lines) + "\n")
    return str(target)


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    files = tiny.texts(folder / "texts", test=160)
    test = with_columns(files["test"], folder / "test.jsonl", scope=["in", "in", "out"], length=list(range(160)))
    typos = tiny.texts(folder / "typos", test=90, seed=8)["test"]
    return tiny.recipe(folder, **{"data": {**files, "test": test, "shifted": {"typos": typos, "few": files["validation"]}},
                                  "distill": QUICK, "evaluate": {**EVALUATE, "slices": ["scope", "length"]}, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, stilla.Run]:
    folder = tmp_path_factory.mktemp("measured")
    return folder, stilla.distill(**recipe(folder, export=["onnx"]))


def named(parts: tuple[Part, ...]) -> dict[str, Part]:
    return {one.name: one for one in parts}


def test_slices_and_other_data_are_measured_of_every_model_and_file(done: tuple[Path, stilla.Run]) -> None:
    scores = done[1].scores
    assert scores.split == "test"
    assert {one.column for one in scores.slices} == {"scope", "length"}
    slices, shifted = named(scores.slices), named(scores.shifted)
    assert {name: one.examples for name, one in slices.items()} == {
        "in": 107, "out": 53, "up to 39": 40, "above 39, up to 79": 40, "above 79, up to 119": 40, "above 119": 40}
    assert {name: one.examples for name, one in shifted.items()} == {"typos": 90, "few": 40}
    for one in (*scores.slices, *scores.shifted):
        assert set(one.quality) == {"teacher", "student", "baseline", "onnx"}
        assert one.quality["onnx"].value == one.quality["student"].value
        assert one.gap is not None
        assert one.difference is not None
    whole = scores.student["accuracy"]
    assert (107 * slices["in"].quality["student"].value + 53 * slices["out"].quality["student"].value) / 160 == \
        pytest.approx(whole)
    assert scores.examples == {"validation": 40, "test": 160, "shifted.typos": 90, "shifted.few": 40}
    # the validation data again, under another name
    assert shifted["few"].quality["student"].value == scores.student.quality["validation"]["accuracy"].value


def test_page_card_and_terminal_show_them(done: tuple[Path, stilla.Run], capsys: pytest.CaptureFixture[str]) -> None:
    from stilla.cli.printing import print_run

    run = done[1]
    print_run(run)
    said = " ".join(capsys.readouterr().out.split())
    page, card = run.report.read_text(), (run.student / "README.md").read_text()
    for text in (page, card, said):
        for words in ("scope: out", "length: above 119", "typos", "retention", "distillation ratio"):
            assert words in text
    assert card.index("- retention") < card.index("| labels alone |")
    baseline = (run.folder / "baseline" / "README.md").read_text()
    assert "trained on the labels of `train.jsonl` alone" in baseline
    assert "knowledge-distillation" not in baseline
    assert "knowledge-distillation" in card


def test_other_data_are_measured_and_nothing_is_trained_again(
    done: tuple[Path, stilla.Run], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, run = done
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("model.safetensors")}
    plain = recipe(folder, export=["onnx"])
    plain["data"] = {name: value for name, value in plain["data"].items() if name != "shifted"}
    plain["evaluate"] = {**EVALUATE, "slices": "scope"}
    again = stilla.distill(**plain)
    assert (again.scores.shifted, {one.column for one in again.scores.slices}) == ((), {"scope"})
    assert stilla.distill(**recipe(folder, export=["onnx"])).scores == run.scores
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("model.safetensors")} == before
    assert capfd.readouterr().err.count("training,") == 0


def test_columns_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluate\.slices: there is no column 'scopes'; expected .*Did you mean scope\?"):
        stilla.distill(**recipe(tmp_path, evaluate={**EVALUATE, "slices": ["scopes"]}))
    assert not (tmp_path / "run" / "teacher").exists()


def test_other_data_with_labels_that_nobody_knows_are_refused_by_their_name(tmp_path: Path) -> None:
    strange = tmp_path / "strange.jsonl"
    strange.write_text('{"text": "the soup", "topic": "astronomy"}\n')
    files = tiny.texts(tmp_path / "mine")
    with pytest.raises(DataError, match=r"data\.shifted\.strange: 'topic' holds what does not occur .*astronomy"):
        stilla.distill(**recipe(tmp_path, data={**files, "shifted": str(strange)}, evaluate=EVALUATE))


def test_new_data_are_sliced_as_the_recipe_says_where_they_can_be(done: tuple[Path, stilla.Run], tmp_path: Path) -> None:
    run = done[1]
    files = tiny.texts(tmp_path, seed=5, test=90)
    new = with_columns(files["test"], tmp_path / "new.jsonl", scope=["in", "out"], source=["a", "b", "c"])
    scores = evaluate_run(run.folder, new)
    assert {(one.column, one.name, one.examples) for one in scores.slices} == {("scope", "in", 45), ("scope", "out", 45)}
    assert "slices: new.jsonl has no column 'length', which the recipe names" in scores.notes
    scores = evaluate_run(run.folder, new, slices=["source"])
    assert [(one.name, one.examples) for one in scores.slices] == [("a", 30), ("b", 30), ("c", 30)]
    assert not any(note.startswith("slices:") for note in scores.notes)
    with pytest.raises(DataError, match=r"no column 'sorce'.*Did you mean source"):
        evaluate_run(run.folder, new, slices=["sorce"])


def test_a_runs_own_data_can_be_sliced_otherwise(done: tuple[Path, stilla.Run]) -> None:
    folder, run = done
    before = run.scores
    assert {one.column for one in evaluate_run(run.folder, slices=["topic"]).slices} == {"topic"}
    assert stilla.distill(**recipe(folder, export=["onnx"])).scores == before


def test_the_baseline_is_exported_and_measured_beside_the_student(done: tuple[Path, stilla.Run]) -> None:
    folder, run = done
    made = export_run(run.folder, ["onnx"], model="baseline")
    assert made == {"baseline-onnx": run.folder / "export" / "baseline-onnx"}
    assert (made["baseline-onnx"] / "model.onnx").is_file()
    scores = Scores.load(run.folder / "scores.json")
    assert set(scores.subjects) == {"teacher", "student", "baseline", "onnx", "baseline-onnx"}
    assert scores.subjects["baseline-onnx"]["accuracy"] == scores.subjects["baseline"]["accuracy"]
    assert scores.subjects["baseline-onnx"].agreement["test"] == scores.subjects["baseline"].agreement["test"]
    assert "labels alone, ONNX" in run.report.read_text()
    # it stays with the run, and is written again where it is damaged
    (made["baseline-onnx"] / "model.onnx").write_bytes(b"")
    assert set(stilla.distill(**recipe(folder, export=["onnx"])).scores.subjects) == set(scores.subjects)
    assert set(exports_of(RunFolder(run.folder))) == {"onnx", "baseline-onnx"}


def test_without_a_baseline_there_is_none_to_export(tmp_path: Path) -> None:
    run = stilla.distill(**tiny.recipe(tmp_path, distill=QUICK, evaluate={"resamples": 100, "speed": False}))
    with pytest.raises(RecipeError, match=r"no baseline to export; `evaluate: \{baseline: true\}`.*stilla run"):
        export_run(run.folder, ["onnx"], model="baseline")


def test_python_gives_other_data_as_they_are(tmp_path: Path) -> None:
    files = tiny.texts(tmp_path / "mine")
    frame = pd.read_json(files["test"], lines=True)
    plain = recipe(tmp_path, data={**files, "shifted": {"frame": frame, "file": files["validation"]}}, evaluate=EVALUATE)
    run = stilla.distill(**plain)
    assert {one.name: one.examples for one in run.scores.shifted} == {"frame": 60, "file": 40}
    assert run.scores.shifted[0].quality["student"].value == run.scores.student["accuracy"]
    assert "shifted: {frame:" in (run.folder / "recipe.yaml").read_text()
    assert stilla.distill(**plain).scores == run.scores
    assert evaluate_run(run.folder).shifted == run.scores.shifted


def test_seeds_have_orders_of_their_own_which_student_and_baseline_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[list[int]]] = []
    steps = StepBatches._steps

    def seen(self: StepBatches) -> list[list[int]]:
        found = steps(self)
        orders.append(found)
        return found

    monkeypatch.setattr(StepBatches, "_steps", seen)
    monkeypatch.setattr("stilla.stages.training.operations_of", lambda *_, **__: None)  # which begins a pass more
    files = tiny.texts(tmp_path / "data")
    run = stilla.distill(**tiny.recipe(
        tmp_path, teacher=tiny.bert(tmp_path / "start"), allow_weak_teacher=True, distill={**QUICK, "epochs": 1},
        data={**files, "augment": "none"}, evaluate={**EVALUATE, "seeds": 2}))
    student, baseline, student_1, baseline_1 = orders
    assert student == baseline
    assert student_1 == baseline_1
    assert student != student_1
    assert set(run.scores.tests) == {"seeds", "examples"}
    assert (run.scores.tests["seeds"].least, run.scores.tests["seeds"].pairs) == (0.5, 2)


def test_headline_numbers_never_come_from_other_data() -> None:
    assert headline_split(["validation", "shifted.typos"]) == "validation"
    assert headline_split(["shifted.typos", "validation", "test"]) == "test"
