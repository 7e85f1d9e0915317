"""Label curves: which students there are at every point, who taught them, and that a stopped one goes on."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import stilla
from stilla.cli.recipes import numbers_in
from stilla.errors import FolderError, RecipeError
from stilla.recipe.file import from_options
from stilla.report.curve import curve_table, in_short, remarks
from stilla.runtime.files import sealed
from stilla.scores import Interval
from stilla.series import label_curve as module
from stilla.series.label_curve import DISTILLED, KINDS, LABELS, REST, Curve, Point
from stilla.stages.folder import RunFolder
from stilla.stages.together import TogetherFolder
from tests import test_run_reasons_of_answers, tiny


def recipe(folder: Path) -> dict[str, Any]:
    found = tiny.recipe(folder)
    found["data"]["augment"] = "none"
    found["teacher"]["train"]["epochs"] = 4
    found["distill"]["epochs"] = 1
    return found


def logged(folder: Path, stage: str) -> list[Path]:
    return [path for path in folder.rglob("log.jsonl") if f'"stage": "{stage}"' in path.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tags", "labels"])
def test_examples_with_several_classes_have_a_curve(kind: str, tmp_path: Path) -> None:
    quick = {"batch_size": 8, "precision": "float32", "max_steps": 2, "learning_rate": 1e-3}
    found = stilla.curve({
        **getattr(test_run_reasons_of_answers, kind)(tmp_path), "student": {"layers": 1}, "allow_weak_teacher": True,
        "output": str(tmp_path / "run"), "distill": quick, "evaluate": {"resamples": 100, "speed": False},
        "teacher": {"model": str(tmp_path / "start"), "train": quick}}, per_class=[2], draws=1)
    (point,) = found.points
    assert set(point.quality) == set(KINDS)
    assert 2 <= point.labelled <= 8  # of at most four classes, none of them included
    learnt = json.loads((tmp_path / "run" / "points" / "2-0-rest" / "unlabelled" / "learnt.json").read_text())["student"]
    assert 0 < learnt["labelled"] <= point.labelled  # two steps do not see all
    assert learnt["unlabelled"] > 0


@pytest.mark.slow
def test_every_point_has_its_students_and_all_have_one_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = stilla.curve(recipe(tmp_path), per_class=[2], draws=2)
    folder = tmp_path / "run"
    assert [(one.per_class, one.draw, one.labelled) for one in found.points] == [(2, 0, 6), (2, 1, 6)]
    assert all(set(one.quality) == set(KINDS) for one in found.points)
    assert found.points[0].steps == {LABELS: 1, DISTILLED: 1, REST: 4}
    assert len(logged(folder, "teacher")) == 1
    assert len(logged(folder, "student")) == 4
    assert len(logged(folder, "baseline")) == 2
    assert found.split == "test"
    learnt = json.loads((folder / "points" / "2-0-rest" / "unlabelled" / "learnt.json").read_text())["student"]
    assert learnt["labelled"] == 6
    assert learnt["unlabelled"] + learnt["left out"].get("in validation or test data", 0) <= 114
    page = (folder / "curve.html").read_text()
    assert page.count("<svg") >= 1
    assert "distilled, the rest unlabelled" in page

    def refused(*_: Any) -> Any:
        raise AssertionError("what is there is not made again")

    monkeypatch.setattr(module, "_reached", refused)
    assert stilla.curve(recipe(tmp_path), per_class=[2], draws=1).points == found.points[:1]
    with pytest.raises(RecipeError, match=r"holds another curve. What differs:\n  distill.0.warmup"):
        stilla.curve(recipe(tmp_path) | {"distill": {**recipe(tmp_path)["distill"], "warmup": 0.5}}, per_class=[2], draws=1)


@pytest.mark.parametrize(("changes", "given", "said"), [
    ({"search": {"over": {"student.layers": [1, 2]}}}, {}, "values to be searched"),
    ({}, {"per_class": [0, 4]}, "expected numbers from 1 on"), ({}, {"draws": 0}, "expected numbers from 1 on"),
    ({"data": {"unlabelled": "x.txt", "validation": "y.csv"}, "teacher": "./bert"}, {}, "no labelled training data"),
])
def test_what_has_no_curve_is_refused(tmp_path: Path, changes: dict[str, Any], given: Any, said: str) -> None:
    plain = {"task": "text-classification", "data": "x.csv", "teacher": "./bert", "student": 2,
             "output": str(tmp_path / "run")}
    with pytest.raises(RecipeError, match=said):
        stilla.curve({**plain, **changes}, **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("changes", "said"), [
    ({"data": {"train": "x.csv", "limit": 50}}, "data.limit: got 50; .* Leave it out"),
    ({"data": {"train": "x.csv", "limit": {"per_class": 4}}}, r"data.limit: got {per_class: 4, draw: 0}; "),
    ({"data": {"train": "x.csv", "shifted": {"later": "y.csv"}}}, "data.shifted: got later; "),
    ({"evaluate": {"seeds": 3}}, "evaluate.seeds: got 3; .* --draws 3 instead"),
    ({"evaluate": {"slices": ["length"]}}, "evaluate.slices: got length; "),
    ({"export": ["onnx"]}, "export: got onnx; .* none is exported"),
])
def test_what_a_curve_would_not_do_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    plain = {"task": "text-classification", "data": "x.csv", "teacher": "./bert", "student": 2,
             "output": str(tmp_path / "run")}
    with pytest.raises(RecipeError, match=said):
        stilla.curve({**plain, **changes})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_numbers_that_leave_nothing_unlabelled_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        stilla.curve(recipe(tmp_path), per_class=[4, 64, 100])
    assert "curve: --per-class 64,100: each is all of the 120 labelled training examples" in str(refused.value)
    assert "Give --per-class 4, or more training data" in str(refused.value)


def point(name: str, value: float) -> dict[str, Any]:
    role = {"student": [value, value, value]}
    return {"metric": "accuracy", "higher_is_better": True, "split": "test", "teacher": 0.9, "labelled": 6,
            "steps": {"student": 1}, "quality": role}


def test_who_comes_last_finds_nothing_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process makes a point while this one makes the others, and is done before it."""
    folder = TogetherFolder(tmp_path / "run", "curve")
    held = folder.run("2-0")
    asked = from_options({"task": "text-classification", "data": "x.csv", "teacher": "./bert", "student": 2,
                          "output": str(tmp_path / "run")})
    monkeypatch.setattr(module, "_refuse", lambda *_: held.open(overwrite=False))

    def reached(recipe: Any, place: Any, shared: Path) -> dict[str, Any]:
        if place.path.name == "2-0-rest":
            (held.path / module.FILE).write_text(sealed(point("2-0", 0.5)))
            held.close()
        return point(place.path.name, 0.6)

    monkeypatch.setattr(module, "_reached", reached)
    folder.open(asked.model_dump(mode="json", exclude={"output"}), overwrite=False)
    found = module._curve(asked, [2], 1, overwrite=False)
    assert "curve: 1 number of labels × 1 draw × 3 students" in capsys.readouterr().err
    assert found.left == 0
    assert "other processes" not in found.page.read_text()
    assert {kind: one.value for kind, one in found.points[0].quality.items()} == {DISTILLED: 0.5, REST: 0.6}


def test_a_point_whose_folder_is_damaged_is_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(self: RunFolder, *, overwrite: bool) -> None:
        raise FolderError("damaged")

    monkeypatch.setattr(RunFolder, "open", damaged)
    asked = from_options({"task": "text-classification", "data": "x.csv", "teacher": "./bert", "student": 2})
    with pytest.raises(FolderError, match="damaged"):
        module._made(asked, TogetherFolder(tmp_path / "run", "curve"), "2-0")


def test_an_output_that_holds_something_else_says_what_and_where_to_go(tmp_path: Path) -> None:
    place = TogetherFolder(tmp_path / "c", "curve")
    place.open({}, overwrite=False)
    with pytest.raises(RecipeError, match=r"c holds a curve of Stilla, which is no run; .* output=.*/c-run$"):
        RunFolder(tmp_path / "c").refuse_strangers()
    with pytest.raises(RecipeError, match=r"c holds a curve of Stilla, which is no search; .* output=.*/c-search$"):
        TogetherFolder(tmp_path / "c", "search").refuse_strangers()
    search = TogetherFolder(tmp_path / "s", "search")
    search.open({}, overwrite=False)
    trial = search.trial(2)
    trial.open(overwrite=False)
    trial.close()
    with pytest.raises(RecipeError, match=r"0002 holds a run of Stilla, which is no curve; .* output=.*/s-curve$"):
        TogetherFolder(trial.path, "curve").refuse_strangers()


@pytest.mark.parametrize("text", ["4,x", "", "0", "4,-8", "4 8"])
def test_numbers_on_the_command_line_are_numbers(text: str) -> None:
    with pytest.raises(RecipeError, match="--per-class: got"):
        numbers_in("--per-class", text)
    assert numbers_in("--per-class", "4, 8,16") == [4, 8, 16]


def made(values: dict[int, list[float]]) -> Curve:
    points = [Point(size, draw, 3 * size, {LABELS: Interval(one, one - 0.2, one + 0.2)}, {LABELS: 7})
              for size, each in values.items() for draw, one in enumerate(each)]
    return Curve(Path("x"), "accuracy", True, "test", 0.9, tuple(points), Path("x/curve.html"))


def test_intervals_are_over_the_draws() -> None:
    """t of 2 degrees of freedom: 4.303; the standard error of 0.5, 0.6 and 0.7: 0.0577."""
    mean = made({4: [0.5, 0.6, 0.7]}).mean(4, LABELS)
    assert mean is not None
    assert (round(mean.value, 6), round(mean.high - mean.value, 4)) == (0.6, 0.2484)
    assert made({4: [0.5]}).mean(4, LABELS) == Interval(0.5, 0.3, 0.7)
    assert made({4: [0.5]}).mean(4, REST) is None


def test_no_interval_leaves_the_chart() -> None:
    from stilla.report.charts.marks import subject_style
    from stilla.report.charts.scatter import Axis
    from stilla.report.charts.spans import HEIGHT, Span, spans

    wide = Span("labels alone", subject_style("baseline"), [(4.0, 50.0, -320.0, 420.0), (8.0, 99.0, 97.0, 101.0)])
    drawn = str(spans([wide], "labels", Axis("accuracy (%)", limits=(0.0, 100.0)), 95.0, "teacher", "words"))
    ends = [float(end) for end in re.findall(r' y[12]="([-0-9.]+)"', drawn)]
    assert min(ends) >= 0
    assert max(ends) <= HEIGHT
    assert "[-320, 420]" in drawn, "what is cut off is still said"


def test_the_table_says_what_each_number_is_of() -> None:
    found = made({4: [0.5, 0.6], 8: [0.7, 0.8]})
    table = curve_table(found, KINDS)
    assert [row.title for row in table.rows] == ["4 a class", "8 a class"]
    assert [cell.text for cell in table.rows[0].cells] == ["12", "55.0 %", "–", "–", "7 / – / –"]
    assert in_short(found, KINDS) == ("With 4 labels a class: labels alone 55.0 % accuracy on test data; the teacher has "
                                      "90.0 %.")
    assert "means over 2 draws" in remarks(found, KINDS)[0]


def test_the_terminal_shows_a_curve(capsys: pytest.CaptureFixture[str]) -> None:
    from stilla.cli.printing import console, print_curve

    console.cache_clear()
    print_curve(made({4: [0.5, 0.6], 8: [0.7, 0.8]}))
    said = capsys.readouterr().out
    assert "55.0 %" in said
    assert "Student's t intervals" in said
    assert "x/curve.html" in said.replace("\n", "")
    console.cache_clear()


def test_a_curve_needs_no_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith(("stilla.series", "optuna"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert importlib.import_module("stilla.series").curve
