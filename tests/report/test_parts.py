"""Slices and shifted data: worst first, and said in words that chance alone does not make."""

from __future__ import annotations

from dataclasses import replace

from stilla.report import numbers
from stilla.report.parts import markdown_parts, parts_table, summary
from stilla.scores import Interval, Part, Scores

from . import fakes


def test_a_row_has_every_model_the_differences_and_what_is_against_all() -> None:
    scores = fakes.intents()
    table = parts_table(scores, scores.slices)
    assert [column.title for column in table.columns] == [
        "examples", "teacher", "labels alone", "student", "ONNX", "int8", "student − teacher", "student − labels alone",
        "against all test data"]
    first = table.rows[0]
    assert first.title == "scope: out of scope"
    assert [str(cell) for cell in first.cells] == [
        "1,000", "95.1 % [93.2, 97.0]", "88.8 % [86.9, 90.7]", "90.5 % [88.6, 92.4]", "90.5 % [88.6, 92.4]",
        "90.1 % [88.2, 92.0]", "−4.6 points [−5.9, −3.3]", "+1.7 points [+0.2, +3.2]", "−3.3 points [−5.4, −1.2]"]


def test_the_worst_come_first_and_what_is_not_compared_last() -> None:
    scores = fakes.intents()
    rows = parts_table(scores, scores.slices).rows
    assert [row.title for row in rows[:2]] == ["scope: out of scope", "language: pt-BR"]
    assert rows[-1].title == "language: zu"
    assert [str(cell) for cell in rows[-1].cells[-3:]] == ["– (too few examples)", numbers.MISSING, numbers.MISSING]


def test_only_what_is_beyond_chance_is_marked() -> None:
    scores = fakes.intents()
    tones = {row.title: row.cells[-1].tone for row in parts_table(scores, scores.slices).rows if row.cells[-1].tone}
    assert tones == {"scope: out of scope": "worse"}
    error = replace(scores, higher_is_better=False)
    assert parts_table(error, scores.slices[1:2]).rows[0].cells[-1].tone == "better"


def test_of_an_error_the_highest_is_the_worst() -> None:
    parts = tuple(Part("x", name, 100, {}, Interval(value, value - 1, value + 1), None, Interval(value, value - 1, value + 1))
                  for name, value in (("a", 0.5), ("b", 3.0), ("c", -2.0)))
    scores = replace(fakes.regression(), metric="rmse", higher_is_better=False)
    assert [row.title for row in parts_table(scores, parts).rows] == ["x: b", "x: a", "x: c"]
    assert "furthest behind its teacher on x: b (student − teacher +3.000" in summary(scores, parts, "slices")


def test_the_worst_slice_is_named_with_how_many_were_looked_at() -> None:
    scores = fakes.intents()
    assert summary(scores, scores.slices, "slices") == (
        "The student falls furthest behind its teacher on scope: out of scope (student − teacher −4.6 points; against all "
        "test data −3.3 points [−5.4, −1.2]), corrected for 9 slices looked at. Not compared, for too few examples: 1 of 10 "
        "slices.")


def _but(scores: Scores, **beyond: Interval) -> tuple[Part, ...]:
    return tuple(replace(one, beyond=beyond.get(one.name.replace(" ", "_"), one.beyond)) for one in scores.slices)


def test_others_that_are_worse_are_named_too() -> None:
    scores = fakes.intents()
    parts = _but(scores, de=Interval(-0.02, -0.03, -0.01), en=Interval(-0.01, -0.02, -0.001))
    assert "Also worse: language: de and language: en." in summary(scores, parts, "slices")


def test_where_nothing_is_beyond_chance_that_is_said() -> None:
    scores = fakes.intents()
    parts = _but(scores, out_of_scope=Interval(-0.033, -0.07, 0.004))
    assert summary(scores, parts, "slices").startswith(
        "On none of 9 slices does the student fall further behind its teacher than on all test data, beyond chance; lowest "
        "is scope: out of scope (student − teacher −4.6 points; against all test data −3.3 points [−7.0, +0.4]), corrected "
        "for 9 slices looked at.")


def test_a_single_one_is_corrected_for_nothing() -> None:
    scores = fakes.intents()
    said = summary(scores, scores.shifted[:1], "other data sets")
    assert said.endswith("on typos (student − teacher −3.1 points; against all test data −1.8 points [−2.8, −0.8]).")


def test_of_small_ones_alone_there_is_nothing_to_say_but_that() -> None:
    scores = fakes.intents()
    small = [one for one in scores.slices if one.name == "zu"]
    assert summary(scores, small, "slices") == "Not compared, for too few examples: 1 of 1 slices."
    assert [column.key for column in parts_table(scores, small).columns] == [
        "examples", "teacher", "baseline", "student", "onnx", "int8"]


def test_the_card_has_both_tables_and_nothing_where_there_are_none() -> None:
    text = markdown_parts(fakes.intents())
    places = [text.index(one) for one in ("## Slices", "| scope: out of scope |", "## Shifted data", "| typos |")]
    assert places == sorted(places)
    assert markdown_parts(fakes.regression()) == ""
