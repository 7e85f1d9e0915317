"""Several runs on one page: what compares is shown, what does not is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stilla.cli import printing
from stilla.errors import DataError
from stilla.report import write_comparison
from stilla.scores import Interval, Measured, Scores

from . import fakes
from .markup import Page


def shifted(scores: Scores, by: float) -> Scores:
    def lower(one: Measured) -> Measured:
        return replace(one, quality={split: {metric: Interval(i.value - by, i.low - by, i.high - by)
                                             for metric, i in metrics.items()}
                                     for split, metrics in one.quality.items()})
    return replace(scores, subjects={name: one if name == "teacher" else lower(one)
                                     for name, one in scores.subjects.items()})


def compare(folders: list[Path], target: Path) -> Page:
    return Page(write_comparison(folders, target).read_text(encoding="utf-8"))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    fakes.write_run(tmp_path / "three", fakes.intents())
    return tmp_path / "three"


def test_runs_stand_side_by_side_with_their_recipes_differences(three: Path, tmp_path: Path) -> None:
    two = fakes.write_run(tmp_path / "two", shifted(fakes.intents(), 0.03),
                          recipe=fakes.RECIPE.replace("layers: 3", "layers: 2").replace("seed: 42\n", ""))
    page = compare([three, two], tmp_path / "compare.html")
    assert page.ids() >= {"runs", "trade-off", "training", "recipes"}
    assert "The best student by accuracy is that of three: 93.8 % [93.1, 94.5]." in page.text
    assert "their order may be chance" not in page.text
    assert "90.8 %" in page.text
    differences = page.text.split("Differences between the recipes")[1]
    assert "student.layers 3 2" in differences
    assert "seed 42 –" in differences
    assert "temperature" not in differences


def test_overlapping_intervals_are_not_ranked(three: Path, tmp_path: Path) -> None:
    close = fakes.write_run(tmp_path / "close", shifted(fakes.intents(), 0.004))
    page = compare([three, close], tmp_path / "compare.html")
    assert "Its interval overlaps with that of close: their order may be chance." in page.text
    assert "The recipes are the same." in page.text


def test_the_terminal_compares_what_the_page_compares(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each run's own headline: that may be another metric, or of other data."""
    own = replace(fakes.intents(), metric="macro_f1", split="validation")
    other = fakes.write_run(tmp_path / "other", own)
    page = compare([three, other], tmp_path / "compare.html")
    monkeypatch.setenv("COLUMNS", "80")
    printing.console.cache_clear()
    printing.print_comparison([three, other])
    printing.console.cache_clear()
    said = capsys.readouterr().out
    assert "accuracy on test data" in said
    assert said.count("93.8 % [93.1, 94.5]") == 3  # in both rows, and in the sentence
    assert "the students of three and other are equal" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80
    assert "93.8 %" in page.text


def test_equal_students_are_not_ranked(three: Path, tmp_path: Path) -> None:
    same = fakes.write_run(tmp_path / "same", fakes.intents())
    page = compare([three, same], tmp_path / "compare.html")
    assert "By accuracy, the students of three and same are equal: 93.8 %" in page.text
    assert "best student" not in page.text


def test_a_measure_that_is_better_small_is_ranked_so(tmp_path: Path) -> None:
    for name, by in (("good", 0.0), ("bad", -0.2)):
        scores = replace(shifted(fakes.regression(), by), metric="rmse", higher_is_better=False)
        fakes.write_run(tmp_path / name, scores)
    page = compare([tmp_path / "bad", tmp_path / "good"], tmp_path / "compare.html")
    assert "The best student by RMSE is that of good" in page.text


def test_different_headlines_are_compared_by_what_both_measured(three: Path, tmp_path: Path) -> None:
    other = replace(fakes.intents(), metric="macro_f1", split="validation")
    page = compare([three, fakes.write_run(tmp_path / "other", other)], tmp_path / "compare.html")
    assert ("The runs have different headline measures (three: accuracy on test data, other: macro F1 on "
            "validation data). They are compared by accuracy on test data, which all of them measured."
            ) in page.text


def test_measures_that_only_some_have_are_left_out_in_words(three: Path, tmp_path: Path) -> None:
    scores = fakes.intents()
    fewer = {name: replace(one, quality={"test": {"accuracy": one.quality["test"]["accuracy"]}})
             for name, one in scores.subjects.items()}
    other = fakes.write_run(tmp_path / "other", replace(scores, subjects=fewer))
    page = compare([three, other], tmp_path / "compare.html")
    assert "Not measured by all runs, and therefore not compared: macro F1." in page.text


def test_other_data_and_other_machines_are_said(three: Path, tmp_path: Path) -> None:
    other = fakes.write_run(tmp_path / "other", replace(fakes.intents(), examples={"test": 300}),
                            environment={"machine": {"processor": "another"}})
    page = compare([three, other], tmp_path / "compare.html")
    assert "measured on different data (three: 4,500 test examples, other: 300 test examples)" in page.text
    assert "measured on different machines (machine.processor" in page.text


def test_different_tasks_are_refused(three: Path, tmp_path: Path) -> None:
    fakes.write_run(tmp_path / "digits", fakes.digits())
    with pytest.raises(DataError, match=r"different tasks.*three: text-classification, digits: image-class"):
        write_comparison([three, tmp_path / "digits"], tmp_path / "compare.html")
    assert not (tmp_path / "compare.html").exists()


def test_runs_without_a_common_measure_are_refused(three: Path, tmp_path: Path) -> None:
    fakes.write_run(tmp_path / "sts", fakes.regression())
    with pytest.raises(DataError, match=r"share no metric .*sts: pearson on validation, rmse on validation"):
        write_comparison([three, tmp_path / "sts"], tmp_path / "compare.html")


def test_all_folders_that_are_no_runs_are_named_at_once(three: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 problems:\n.*thre: .*Did you mean .*three\?\n.*nothing"):
        write_comparison([tmp_path / "thre", three, tmp_path / "nothing"], tmp_path / "compare.html")


def test_one_run_is_no_comparison(three: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at least two runs, got 1\. For one run: stilla report RUN"):
        write_comparison([three], tmp_path / "compare.html")


def test_the_same_run_twice_is_refused(three: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="named twice"):
        write_comparison([three, three], tmp_path / "compare.html")


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [fakes.write_run(tmp_path / one / "run", fakes.intents()) for one in ("a", "b")]
    page = compare(folders, tmp_path / "compare.html")
    assert "a/run · b/run" in page.text


def test_a_recipe_that_is_missing_or_broken_is_said(three: Path, tmp_path: Path) -> None:
    one, two = (fakes.write_run(tmp_path / name, fakes.intents(), recipe=recipe)
                for name, recipe in (("one", ""), ("two", "a: [")))
    page = compare([three, one, two], tmp_path / "compare.html")
    assert "one: no recipe.yaml" in page.text
    assert "two: recipe.yaml cannot be read" in page.text
    assert "There are not two recipes to compare." in page.text


def test_no_text_of_a_run_becomes_markup(three: Path, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    other = fakes.write_run(
        tmp_path / evil, replace(fakes.intents(), verdict=evil, notes=(evil,)),
        recipe=f"task: '{evil}'\nx<script>: 1\n", environment={"processor": evil, evil: evil})
    page = compare([three, other], tmp_path / "compare.html")
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not page.handlers()
    assert all(address.startswith("#") for address in page.addresses())
