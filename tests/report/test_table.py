"""The numbers are the same wherever they are shown, and say what they are."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from stilla.report import numbers
from stilla.report.table import Row, ScoreTable, full_table, markdown_table, score_table
from stilla.runtime.files import sealed, unsealed
from stilla.scores import Best, Cost, Interval, Measured, PairedTest, Scores

from . import fakes


def row(table: ScoreTable, subject: str) -> dict[str, str]:
    found: Row = next(row for row in table.rows if row.subject == subject)
    return {column.key: str(cell) for column, cell in zip(table.columns, found.cells, strict=True)}


def facts(table: ScoreTable) -> dict[str, tuple[str, str]]:
    return {fact.title: (fact.text, fact.detail) for fact in table.facts}


def test_the_students_row_holds_quality_with_interval_and_ratios_to_the_teacher() -> None:
    assert row(score_table(fakes.intents()), "student") == {
        "quality": "93.8 % [93.1, 94.5]",
        "parameters": "17.4 M (1.3× fewer)",
        "size": "69.8 MB (1.3× smaller)",
        "latency": "6.10 ms (1.9× faster)",
        "p95": "7.93 ms",
        "throughput": "361 /s (1.9× more)",
        "agreement": "95.6 % [94.9, 96.3]",
        "ece": row(score_table(fakes.intents()), "student")["ece"],
    }


def test_the_teacher_is_compared_with_nobody() -> None:
    teacher = row(score_table(fakes.intents()), "teacher")
    assert teacher["size"] == "91.1 MB"
    assert teacher["agreement"] == numbers.MISSING


def test_rows_come_in_one_order_with_exports_and_unknown_ones_last() -> None:
    scores = fakes.intents()
    shuffled = {"gguf": scores.subjects["int8"], **dict(reversed(scores.subjects.items()))}
    table = score_table(replace(scores, subjects=shuffled))
    assert [one.subject for one in table.rows] == ["teacher", "baseline", "student", "onnx", "int8", "gguf"]
    assert [one.title for one in table.rows][1] == "labels alone"


def test_columns_without_a_number_are_left_out() -> None:
    columns = score_table(fakes.regression()).columns
    assert [column.key for column in columns] == ["quality", "parameters", "size"]


def test_facts_give_differences_in_points_with_their_intervals() -> None:
    found = facts(score_table(fakes.intents()))
    assert found["student − teacher"] == ("−1.3 points [−1.9, −0.8]", "")
    assert found["student − labels alone"] == ("+1.7 points [+1.0, +2.4]", "")
    assert found["retention"] == ("98.6 % [98.0, 99.2]", "student / teacher")
    assert found["distillation ratio"] == ("0.57 [0.38, 0.74]", "(student − labels alone) / (teacher − labels alone)")
    assert found["decisions changed"] == ("206 of 4,500", "118 lost, 61 won, 27 moved")


def test_no_difference_is_said_where_the_interval_contains_zero() -> None:
    found = facts(score_table(fakes.digits()))
    assert found["student − labels alone"] == ("+0.6 points [−0.6, +1.8]", "no difference measured")


def test_retention_and_ratio_come_first() -> None:
    titles = [fact.title for fact in score_table(fakes.intents()).facts]
    assert titles[:4] == ["retention", "distillation ratio", "student − teacher", "student − labels alone"]


def test_the_p_of_the_difference_is_said_with_the_least_that_it_can_be() -> None:
    title = "p of student − labels alone"
    assert facts(score_table(fakes.intents()))[title] == (
        "0.001 over examples", "both exchanged in pairs; one seed says nothing of others")
    assert facts(score_table(fakes.digits()))[title] == (
        "0.5 over seeds, 0.31 over examples",
        "both exchanged in pairs; with 3 seeds not below 0.25, whatever the difference; from 6 on below 0.05")
    six = replace(fakes.digits(), tests={"seeds": PairedTest(0.03125, 0.03125, 6)})
    assert facts(score_table(six))[title] == ("0.031 over seeds", "both exchanged in pairs; 6 seeds")


def test_which_weights_of_labels_alone_were_kept_is_said_by_seed() -> None:
    best = {"baseline": Best(3.0, 10.0, "accuracy", 0.912), "student": Best(9.0, 10.0, "kl", 0.2)}
    title = "labels alone, kept"
    assert facts(score_table(replace(fakes.intents(), best=best)))[title] == (
        "after 3 of 10 passes", "where its accuracy on validation data was best (91.2 %)")
    best |= {"baseline-1": Best(4.5, 10.0, "accuracy", 0.9)}
    assert facts(score_table(replace(fakes.intents(), best=best)))[title] == (
        "after 3, 4.5 of 10 passes", "where its accuracy on validation data was best (91.2 %, 90.0 %)")
    assert title not in facts(score_table(fakes.intents()))


def test_a_ratio_of_before_there_were_intervals_is_shown_without_one() -> None:
    plain = {**unsealed(sealed(asdict(fakes.regression()))), "retention": 0.986, "distillation_ratio": 0.567}
    for name in ("ratio", "tests", "slices", "shifted", "deploy"):
        del plain[name]
    old = Scores.from_plain(plain)
    assert old.ratio == Interval(0.567, 0.567, 0.567)
    found = facts(score_table(replace(old, subjects={**old.subjects, "baseline": old.student})))
    assert found["retention"][0] == "98.6 %"
    assert found["distillation ratio"][0] == "0.57"
    with pytest.raises(ValueError, match="retention"):
        Scores.from_plain({**plain, "retention": "98 %"})


def test_what_is_not_defined_is_a_dash_with_the_reason_from_the_notes() -> None:
    found = facts(score_table(fakes.digits()))
    assert found["distillation ratio"] == (
        numbers.MISSING, "not defined: the teacher is no better than the baseline")
    assert facts(score_table(fakes.regression()))["retention"] == (
        numbers.MISSING, "not defined: pearson can be zero or negative")


def test_without_a_baseline_nothing_is_said_of_it() -> None:
    found = facts(score_table(fakes.regression()))
    assert set(found) == {"student − teacher", "retention"}


def test_another_metric_or_split_has_no_facts_of_the_headline() -> None:
    table = score_table(fakes.intents(), "macro_f1", "validation")
    assert row(table, "student")["quality"] == "94.0 % [93.3, 94.7]"
    assert table.facts == ()


def test_the_markdown_table_shows_the_same_cells() -> None:
    scores = fakes.intents()
    lines = markdown_table(scores).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    table = score_table(scores)
    assert cells[0] == ["", *(column.title for column in table.columns)]
    assert cells[2:] == [[one.title, *map(str, one.cells)] for one in table.rows]


def test_a_bar_in_a_name_does_not_end_a_markdown_cell() -> None:
    scores = fakes.regression()
    odd = replace(scores, subjects={**scores.subjects, "a|b": scores.student})
    assert "| a\\|b |" in markdown_table(odd)


def test_every_measured_number_stands_in_the_full_table() -> None:
    titles = [title for title, _ in full_table(fakes.intents())]
    assert "macro F1, validation" in titles
    assert "KL from the teacher (nats), test" in titles
    assert "energy per 1,000 examples (processor time × 15 W (estimated))" in titles
    assert not any("latency" in title for title, _ in full_table(fakes.regression()))


@pytest.mark.parametrize(("metric", "value", "text"), [
    ("accuracy", 0.8874, "88.7 %"), ("macro_f1", 1.0, "100.0 %"), ("micro_precision", 0.5, "50.0 %"),
    ("matthews", -0.1234, "−0.123"), ("pearson", 0.9, "0.900"), ("rmse", 12.3456, "12.346"),
    ("rmse", 45678.9, "45,678.9"),
])
def test_fractions_are_percentages_and_the_rest_is_plain(metric: str, value: float, text: str) -> None:
    assert numbers.quality(metric, value) == text


@pytest.mark.parametrize(("measured", "text"), [
    (Interval(-2.8967, -3.7539, -1.9558), "−2.897 [−3.754, −1.956]"),
    (Interval(-263.774, -1109.963, 77.939), "−263.8 [−1,110.0, +77.939]"),
])
def test_a_difference_has_the_decimals_of_what_it_is_of(measured: Interval, text: str) -> None:
    said = f"{numbers.difference('perplexity', measured.value)} {numbers.difference_interval('perplexity', measured)}"
    assert said == text


@pytest.mark.parametrize(("number", "text"), [
    (950, "950"), (999_600, "1.00 M"), (85_100, "85.1 k"), (22_713_216, "22.7 M"), (7_240_000_000, "7.24 B"),
])
def test_counts_are_short(number: float, text: str) -> None:
    assert numbers.count(number) == text


@pytest.mark.parametrize(("value", "text"), [
    (1234.5, "1,234"), (90.86, "90.9"), (4.309, "4.31"), (0.0431, "0.0431"), (9.996, "10.0"), (0.0, "0")])
def test_three_digits_say_enough(value: float, text: str) -> None:
    assert numbers.significant(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0 s"), (0.01, "less than 0.1 s"), (0.2, "0.2 s"), (2.0, "2 s"),
                                               (75, "75 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_said_in_their_unit_and_a_short_one_is_not_none(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [
    (25.0, "4.0× smaller"), (98.0, "same"), (102.0, "same"), (300.0, "3.0× larger"), (8.0, "12× smaller"),
    (10.04, "10× smaller"), (0.0, "")])
def test_ratios_are_put_in_words(value: float, text: str) -> None:
    assert numbers.compared(value, 100.0, "smaller", "larger", "same") == text


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [numbers.signed(one, 1) for one in (-0.04, 0.04, -0.06, 0.06)] == ["0.0", "0.0", "−0.1", "+0.1"]


def test_an_interval_that_is_none_is_not_written() -> None:
    point = Interval(0.5, 0.5, 0.5)
    scores = fakes.regression()
    only = Measured({"validation": {"pearson": point}}, Cost(10, 40))
    table = score_table(replace(scores, subjects={"teacher": only, "student": only}))
    assert row(table, "student")["quality"] == "0.500"


def test_the_table_needs_neither_torch_nor_templates() -> None:
    code = ("import sys, stilla.report.table\n"
            "assert not {'torch', 'jinja2', 'transformers', 'numpy', 'ruamel.yaml'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_size_of_vocabularies_stands_where_they_differ() -> None:
    scores = fakes.intents()

    def with_tokens(**tokens: int) -> ScoreTable:
        subjects = {name: replace(one, cost=replace(one.cost, tokens=tokens.get(name, 7163)))
                    for name, one in scores.subjects.items()}
        return score_table(replace(scores, subjects=subjects))

    assert "vocabulary" not in [column.key for column in with_tokens().columns]
    assert row(with_tokens(teacher=30522), "student")["vocabulary"] == "7.16 k (4.3× fewer)"
    assert row(with_tokens(teacher=30522), "teacher")["vocabulary"] == "30.5 k"
