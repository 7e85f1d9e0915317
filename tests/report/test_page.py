"""The page holds what the run measured, fetches nothing, and trusts no text that comes from data."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from stilla.errors import DataError
from stilla.report import write_report
from stilla.report.sections import tiles
from stilla.report.table import score_table
from stilla.scores import ClassScore, Flip, Scores, task_title
from stilla.views import Mark, Picture, Text

from . import fakes
from .markup import Page


def page(folder: Path, scores: Scores, seeds: int = 1) -> Page:
    return Page(write_report(fakes.write_run(folder, scores, seeds=seeds)).read_text(encoding="utf-8"))


SECTIONS = {
    "scores", "notes", "slices", "shifted", "trade-off", "training", "calibration", "classes", "decisions", "recipe",
    "environment",
}


@pytest.mark.slow
def test_a_full_run_has_every_section(tmp_path: Path) -> None:
    assert page(tmp_path / "run", fakes.intents()).ids() >= SECTIONS
    assert "seeds" in page(tmp_path / "digits", fakes.digits(), seeds=3).ids()


def test_the_page_shows_every_cell_and_fact_of_the_score_table(tmp_path: Path) -> None:
    scores = fakes.intents()
    text, table = page(tmp_path / "run", scores).text, score_table(scores)
    assert scores.verdict in text
    for row in table.rows:
        for cell in row.cells:
            assert cell.text in text
            assert cell.detail in text
    for fact in table.facts:
        assert fact.text in text


@pytest.mark.slow
@pytest.mark.parametrize("missing", [("recipe.yaml",), ("environment.json",), ("log.jsonl",),
                                     ("recipe.yaml", "environment.json", "log.jsonl")])
def test_what_is_missing_leaves_its_section_out(tmp_path: Path, missing: tuple[str, ...]) -> None:
    folder = fakes.write_run(tmp_path / "run", fakes.intents())
    for name in missing:
        (folder / name).unlink()
    found = Page(write_report(folder).read_text(encoding="utf-8"))
    gone = {{"recipe.yaml": "recipe", "environment.json": "environment", "log.jsonl": "training"}[name]
            for name in missing}
    assert found.ids() & SECTIONS == SECTIONS - gone
    links = {attributes["href"] for attributes in found.all("a")} - {"#content"}
    assert links == {f"#{name}" for name in SECTIONS - gone}


def test_a_regression_without_baseline_classes_and_calibration_is_a_page(tmp_path: Path) -> None:
    found = page(tmp_path / "run", fakes.regression())
    assert not found.ids() & {"calibration", "classes", "decisions", "seeds"}
    assert "0.861" in found.text
    assert "not defined: pearson can be zero or negative" in found.text


def test_what_every_training_took_is_a_table(tmp_path: Path) -> None:
    took = {"teacher": {"seconds": 200.0, "processor_seconds": 390.0}, "student": {"seconds": 0.4, "processor_seconds": 8.0,
                                                                              "flops": 2.5e12, "joules": 12_300.0}}
    text = page(tmp_path / "run", dataclasses.replace(fakes.intents(), spent=took)).text
    for one in ("What every training took", "3 min", "0.4 s", "2.50 T", "12.3 kJ", "of the processor", "–"):
        assert one in text


def test_a_single_seed_has_no_spread_and_several_have_each_value(tmp_path: Path) -> None:
    assert "seeds" not in page(tmp_path / "one", fakes.intents()).ids()
    assert "student: 95.8 %, 97.2 %, 97.0 %" in page(tmp_path / "three", fakes.digits(), seeds=3).text


def test_a_run_of_one_logged_step_is_drawn(tmp_path: Path) -> None:
    folder = fakes.write_run(tmp_path / "run", fakes.intents())
    (folder / "log.jsonl").write_text('{"stage": "student", "step": 7, "loss": 0.5, "terms": {"x": 0.5}}\n'
                                      '{"stage": "student", "step": 7, "evaluation": {"accuracy": 0.9}}\n')
    found = Page(write_report(folder).read_text(encoding="utf-8"))
    assert [one["class"] for one in found.all("svg")].count("chart lines") == 2
    assert "nan" not in " ".join(one.get("d", "") for one in found.all("path"))


def test_pictures_are_shown_and_other_data_addresses_are_text(tmp_path: Path) -> None:
    scores = fakes.digits()
    odd = ("data:text/html,<script>alert(1)</script>", "data:image/svg+xml;base64,PHN2Zz4=")
    flips = (*scores.flips[:2], *(replace(scores.flips[0], shown=Picture(shown)) for shown in odd))
    found = page(tmp_path / "run", replace(scores, flips=flips))
    assert [one["src"] for one in found.all("img")] == [flip.shown.uri for flip in flips[:2]]
    assert all(shown in found.text for shown in odd)


@pytest.mark.slow
def test_what_classes_are_measured_by_is_named(tmp_path: Path) -> None:
    scores = fakes.intents()
    for name, title in (("f1", "F1"), ("average_precision", "average precision")):
        text = page(tmp_path / name, replace(scores, class_metric=name)).text
        assert re.findall(r"(F1|average precision), 0\.\d to 1 change", text) == [title]
        assert f"From teacher to student, {title} falls in" in text


def test_a_class_that_is_not_defined_for_a_model_has_no_number_there(tmp_path: Path) -> None:
    scores = fakes.intents(3)
    first = replace(scores.classes[0], name="rare", values={"teacher": 0.75})
    assert "rare 30 0.750 – – " in page(tmp_path, replace(scores, classes=(first, *scores.classes[1:]))).text


@pytest.mark.slow
@pytest.mark.parametrize(("units", "decided", "said"), [
    ("tokens", 90_000, "On 206 of 90,000 tokens teacher"), ("boxes", 0, "On 206 boxes teacher")])
def test_what_is_decided_is_named_with_its_number(tmp_path: Path, units: str, decided: int, said: str) -> None:
    assert said in page(tmp_path, replace(fakes.intents(), units=units, decided=decided)).text


@pytest.mark.slow
def test_only_what_is_said_with_confidence_is_called_the_most_confident(tmp_path: Path) -> None:
    scores = fakes.intents()
    assert "Shown: the 60 most confident." in page(tmp_path / "sure", scores).text
    silent = tuple(replace(flip, confidences={}) for flip in scores.flips)
    assert "Shown: the 60 first." in page(tmp_path / "silent", replace(scores, flips=silent)).text
    several = page(tmp_path / "several", replace(scores, decided=90_000)).text
    assert "Shown: the 60 most confident, each example's surest before its others." in several


@pytest.mark.slow
def test_long_texts_are_folded_and_whole(tmp_path: Path) -> None:
    long = " ".join(f"word{number}" for number in range(400))
    found = page(tmp_path / "run", replace(fakes.intents(), flips=(
        Flip("1", Text(long), "a", {"teacher": "a", "student": "b"}, {}, "lost"),)))
    assert "the rest" in found.text
    assert all(f"word{number}" in found.text for number in (0, 200, 399))


EVIL = '<img src=x onerror=alert(1)>"\'></script></style><script>alert(2)</script>{{ 7 * 191 }}'


def poisoned() -> Scores:
    scores = fakes.intents(3)
    return replace(
        scores, task=EVIL, verdict=EVIL, notes=(EVIL,), metric=EVIL,
        subjects={name: replace(one, quality={**one.quality, "test": {EVIL: one.quality["test"]["accuracy"]}})
                  for name, one in {**scores.subjects, EVIL: scores.student}.items()},
        flips=(Flip(EVIL, Text(EVIL, (Mark(3, 9, EVIL, EVIL), Mark(9, 9, EVIL))), EVIL,
                    {"teacher": EVIL, "student": "b", EVIL: EVIL}, {EVIL: 0.5}, EVIL),),
        flipped={EVIL: 1},
        classes=(ClassScore(EVIL, 3, {"teacher": 1.0, "student": 0.5, EVIL: 0.1}),))


def test_no_text_from_data_becomes_markup(tmp_path: Path) -> None:
    folder = fakes.write_run(tmp_path / "run <b>&", poisoned(), recipe=f"task: {EVIL}\n# {EVIL}\n",
                             environment={EVIL: EVIL}, terms=("labels", EVIL))
    log = folder / "log.jsonl"
    log.write_text(log.read_text() + "".join(json.dumps({"stage": EVIL, "step": step, "loss": 1.0}) + "\n"
                                             for step in (1, 2)))
    source = write_report(folder).read_text(encoding="utf-8")
    found = Page(source)
    assert len(found.all("script")) == 1
    assert not found.all("img")
    assert not found.handlers()
    assert "1337" not in source
    assert found.text.count("alert(2)") > 8


def test_nothing_is_fetched_and_only_our_script_may_run(tmp_path: Path) -> None:
    found = page(tmp_path / "run", fakes.digits(), seeds=3)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in found.addresses())
    assert "url(" not in found.source
    assert "@import" not in found.source
    policy = next(one["content"] for one in found.all("meta") if "http-equiv" in one)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy
    assert not found.all("link")


def test_tables_name_their_headers_and_pictures_their_content(tmp_path: Path) -> None:
    found = page(tmp_path / "run", fakes.intents())
    assert all(one.get("scope") in {"col", "row"} for one in found.all("th"))
    assert all(one.get("aria-hidden") == "true" or one.get("aria-label") for one in found.all("svg"))
    assert all(one.get("alt") for one in page(tmp_path / "digits", fakes.digits()).all("img"))


def test_lines_of_the_log_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    folder = fakes.write_run(tmp_path / "run", fakes.intents())
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"stage": "student", "st')
    found = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "log.jsonl: 1 line could not be read" in found.text


def test_a_broken_environment_is_said(tmp_path: Path) -> None:
    folder = fakes.write_run(tmp_path / "run", fakes.intents())
    (folder / "environment.json").write_text("{")
    assert "environment.json: cannot be read" in Page(write_report(folder).read_text(encoding="utf-8")).text


def test_an_old_page_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = fakes.write_run(tmp_path / "run", fakes.regression())
    (folder / "report.html").write_text("old")
    before = {path.name for path in folder.iterdir()}
    assert write_report(folder).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {path.name for path in folder.iterdir()} == before


def test_a_misspelt_folder_is_answered_with_the_closest_run(tmp_path: Path) -> None:
    fakes.write_run(tmp_path / "reviews", fakes.regression())
    with pytest.raises(DataError, match=r"no such run folder\. Did you mean .*reviews\?"):
        write_report(tmp_path / "reviws")
    with pytest.raises(DataError, match=r"Runs in it: .*reviews"):
        write_report(tmp_path)


def test_an_unfinished_run_is_answered_with_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("task: x")
    with pytest.raises(DataError, match=r"not finished\. Continue it: stilla run .*recipe\.yaml"):
        write_report(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"task": "x"}', '{"subjects": {"teacher": 1}}'])
def test_broken_scores_are_an_error_for_people(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(DataError, match=r"scores\.json: cannot be read as scores .* stilla evaluate"):
        write_report(tmp_path)


def _luminance(colour: str) -> float:
    channels = [int(colour[index:index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_enough_contrast_in_light_and_dark() -> None:
    """WCAG 2.1 AA: 4.5 for text, 3 for what charts draw."""
    css = (resources.files("stilla.report") / "assets" / "page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", block))
                   for block in css.split("@media screen and (prefers-color-scheme: dark)")[:2])
    for colours in (light, dark):
        for name, colour in colours.items():
            if name in {"paper", "raised", "rule", "grid"}:
                continue
            bright, dim = sorted((_luminance(colour), _luminance(colours["paper"])), reverse=True)
            needed = 4.5 if name in {"ink", "soft", "accent", "worse", "better"} else 3.0
            assert (bright + 0.05) / (dim + 0.05) >= needed, name


def test_a_speed_that_was_disturbed_is_no_large_number() -> None:
    steady = fakes.intents()
    student = steady.student
    disturbed = replace(steady, subjects={**steady.subjects, "student": replace(
        student, cost=replace(student.cost, latency_p95_ms=50 * (student.cost.latency_median_ms or 1.0)))})
    assert any("faster" in tile.words for tile in tiles(steady))
    assert not any("faster" in tile.words for tile in tiles(disturbed))


def test_tasks_are_named_as_people_write_them() -> None:
    assert [task_title(kind) for kind in ("text-classification", "causal-lm", "seq2seq")] == [
        "Text classification", "Causal LM", "Seq2seq"]
