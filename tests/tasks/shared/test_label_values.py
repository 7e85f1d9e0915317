"""Labels as they are written in tables: what is read, what is said of it, and what is asked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from stilla.errors import DataError
from stilla.tasks.shared.columns import texts as texts_of
from stilla.tasks.shared.label_values import parsed_list
from stilla.tasks.shared.labels import understand
from stilla.tasks.shared.sections import Labelled
from stilla.tasks.text.sections import TextClassificationData

from .test_labels import encoded, problem_of


def cycled(values: list[Any], count: int = 60) -> dict[str, list[Any]]:
    return {"label": [values[row % len(values)] for row in range(count)]}


def spoilt(value: Any, every: int = 20) -> dict[str, list[Any]]:
    return {"label": [value if row % every == 3 else str(row % 2) for row in range(60)]}


# --- numbers ---


@pytest.mark.parametrize(("values", "names"), [
    (["0", "1"], ("0", "1")), (["0.0", "1.0"], ("0", "1")), ([0.0, 1.0], ("0", "1")), (["1", "2.0", "3"], ("1", "2", "3")),
    ([Decimal("0.00"), Decimal("1.00")], ("0", "1")), (["+1", "-1"], ("-1", "1")), (["007", "042"], ("007", "042")),
    (["True", "FALSE", "true"], ("false", "true")), (["t", "f"], ("f", "t")),
    (["12345678901234567890", "12345678901234567891"], ("12345678901234567890", "12345678901234567891")),
])
def test_few_whole_numbers_and_truth_values_are_classes(values: list[Any], names: tuple[str, ...]) -> None:
    problem = problem_of(cycled(values))
    assert (problem.kind, problem.names) == ("single_label", names)
    assert set(encoded(problem, cycled(values))) == set(range(len(names)))


def test_whole_numbers_written_as_fractions_are_said_to_be_classes(caplog: pytest.LogCaptureFixture) -> None:
    assert problem_of(cycled([0.0, 1.0])).names == ("0", "1")
    assert "holds whole numbers written as fractions (0.0): read as classes; set data.kind: regression" in caplog.text
    problem = problem_of(cycled(["0.0", "1.0"]), kind="regression")
    assert problem.kind == "regression"
    assert encoded(problem, cycled(["0.0", "1.0"], 2)) == [0.0, 1.0]
    with pytest.raises(DataError, match="are they classes or amounts"):
        problem_of({"label": [float(row) for row in range(60)]})


def test_numbers_written_as_text_are_amounts_where_they_have_fractions() -> None:
    problem = problem_of(cycled(["0.5", "1", "2e-1", " 3. "]))
    assert problem.kind == "regression"
    np.testing.assert_allclose(encoded(problem, cycled(["0.5", "1", "2e-1", " 3. "], 4)), [0.5, 1, 0.2, 3])


@pytest.mark.parametrize("word", ["NA", "NaN", "nan", "N/A", "null", "None", "<NA>", "-", "?", "x"])
def test_words_among_numbers_are_asked_about(word: str) -> None:
    with pytest.raises(DataError, match=r"'label' would be numbers but for '.*' \(3 times\)"):
        problem_of(spoilt(word))
    assert len(problem_of(spoilt(word), kind="single_label").names) == 3


@pytest.mark.parametrize("value", ["", " ", None])
def test_an_empty_label_is_a_missing_one(value: Any) -> None:
    with pytest.raises(DataError, match="the label 'label' is missing in 3 of 60 examples: rows 3, 23, 43"):
        problem_of(spoilt(value))
    with pytest.raises(DataError, match="is missing in 15 of 60"):
        problem_of(cycled(["a", "b", value, "c"]))


@pytest.mark.parametrize("word", ["NA", "nan", "None", "null", "N/A"])
def test_words_for_nothing_among_names_are_asked_about(word: str) -> None:
    with pytest.raises(DataError, match=r"\(15 times\): a missing label, or a class of that name\?"):
        problem_of(cycled(["asia", word, "europe", "africa"]))
    assert word in problem_of(cycled(["asia", word, "europe", "africa"]), kind="single_label").names
    assert word in problem_of(cycled(["asia", word]), labels=("asia", word)).names


@pytest.mark.parametrize(("values", "section", "words"), [
    (["1,5", "2,5"], {}, r"'1,5': decimals or thousands\?"), (["1,500", "2", "3"], {}, r"'1,500': decimals or thousands\?"),
    (["1", "01", "2"], {}, r"'1' and '01': one class or several\?"), (["2020-01-01", "2020-01-02"], {}, "holds dates"),
    (["1.1.2020", "2.1.2020"], {}, "holds dates"), ([1.5, 1e300], {}, "too large for 32 bits, in rows 1, 3"),
    (["1", "1e300", "0"], {}, "too large for 32 bits"),
    (["a", "b", "a|b"], {}, r"holds 'a\|b' beside its parts: several labels, or a class of that name\?"),
    ([{"x": 1}, {"x": 2}], {}, "holds .*; expected a class"), ([[[1]], [[2]]], {}, "holds .*; expected a class"),
    ([b"a", b"b"], {}, "holds binary; expected a class"),
    (["a", "1.5"], {"kind": "regression"}, "holds text; expected numbers"),
])
def test_what_can_be_read_in_two_ways_is_asked_about(values: list[Any], section: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        problem_of(cycled(values), **section)


def test_names_of_truth_values_keep_their_sense_whatever_their_order() -> None:
    problem = problem_of(cycled([True, False]), labels=("True", "False"))
    assert encoded(problem, cycled([True, False], 2)) == [0, 1]
    problem = problem_of(cycled(["TRUE", "false"]), labels=("false", "true"))
    assert encoded(problem, cycled(["true", "FALSE"], 2)) == [1, 0]


def test_a_class_with_one_example_among_many_is_said(caplog: pytest.LogCaptureFixture) -> None:
    problem_of({"label": ["good", "bad"] * 20 + ["goud"]})
    assert "a single example each of 'goud'; a mistake in writing?" in caplog.text
    caplog.clear()
    problem_of({"label": ["good", "bad", "ugly"]})
    assert not caplog.text


def test_other_splits_are_read_as_the_training_data() -> None:
    problem = problem_of(cycled(["0", "1"]), others={"validation": {"label": [1.0, 0.0]}})
    assert encoded(problem, {"label": [1.0, 0.0]}) == [1, 0]
    assert encoded(problem, {"label": ["1.0", "0"]}) == [1, 0]
    for value, words in (("x", "'x' in row 1; expected numbers"), ("2", "'2' .1 times, row 1"), ("NA", "'NA' in row 1")):
        with pytest.raises(DataError, match=words):
            problem_of(cycled(["0", "1"]), others={"validation": {"label": ["0", value]}})
    with pytest.raises(DataError, match="in one split and none in another"):
        problem_of(cycled(["a", "b"]), others={"validation": {"label": [["a"]]}})


def test_numbers_of_a_class_column_beyond_its_names_are_refused() -> None:
    features = Features({"label": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"label": [0, 1, 5, -2]}, features=Features({"label": Value("int64")}))
    table = rows.data.table.replace_schema_metadata(features.arrow_schema.metadata)
    with pytest.raises(DataError, match="has 2 classes, 0 to 1, and holds 5 in rows 2, 3"):
        problem_of_split(Dataset(table))


def problem_of_split(train: Dataset) -> Any:
    return understand(Labelled(train="x"), ("label",), {"train": train})


# --- several labels ---


@pytest.mark.parametrize(("text", "items"), [
    ("['a', 'b']", ["a", "b"]), ('["a", "b"]', ["a", "b"]), ("['a' 'b']", ["a", "b"]), ("[0 1 0]", [0, 1, 0]),
    ("[0, 1, 0]", [0, 1, 0]), ("[]", []), ("('a',)", ["a"]), ("[0. 1.]", [0.0, 1.0]), ("[True, False]", [True, False]),
    ('["it\'s", "\\u00e4 b"]', ["it's", "ä b"]), ("['a'\n 'b']", ["a", "b"]), ("[a, b]", ["a", "b"]),
    ("[None, 'a']", [None, "a"]),
    ("['a, b', 'c']", ["a, b", "c"]),
])
def test_lists_are_read_as_python_json_and_numpy_write_them(text: str, items: list[Any]) -> None:
    assert parsed_list(text) == items


@pytest.mark.parametrize("text", ["a", "['a'", "['a', 'b' 'c']", "[0 1 ... 0]", "{'a'}", "[[1], [2]]", "[,]",
                                  "['a',, 'b']", "[1, 2"])
def test_what_is_no_list_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"no list|parted"):
        parsed_list(text)


@pytest.mark.parametrize("texts", [["['a']", "['a' 'b']", "['b' 'c']"], ['["a"]', '["a", "b"]', '["b", "c"]']])
def test_lists_written_as_text_are_several_labels(texts: list[str]) -> None:
    with pytest.raises(DataError, match=r"lists written as text \(.*\)\. Set data\.kind: multi_label .* or single_label"):
        problem_of(cycled(texts))
    assert len(problem_of(cycled(texts), kind="single_label").names) == 3
    problem = problem_of(cycled(texts), kind="multi_label")
    assert (problem.kind, problem.names) == ("multi_label", ("a", "b", "c"))
    assert encoded(problem, cycled(texts, 3)) == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    with pytest.raises(DataError, match=r"holds 'b' \(row 3\), where other rows are lists"):
        problem_of({"label": [*texts, "b"] * 5})
    flags = problem_of(cycled(["[0 1 0]", "[1 1 0]"]), kind="multi_label")
    assert (flags.form, encoded(flags, cycled(["[0 1 0]"], 1))) == ("indicators", [[0, 1, 0]])


def test_names_in_brackets_are_names() -> None:
    assert problem_of(cycled(["[unknown]", "cat", "dog"])).names == ("[unknown]", "cat", "dog")


@pytest.mark.parametrize("values", [[[1, 0], [0, 1]], [[1.0, 0.0], [0.0, 1.0]], [[True, False], [False, True]]])
def test_pairs_of_which_one_is_set_are_flags(values: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    problem = problem_of(cycled(values), labels=("toxic", "spam"))
    assert (problem.form, problem.names) == ("indicators", ("toxic", "spam"))
    assert encoded(problem, cycled(values, 2)) == [[1, 0], [0, 1]]
    assert "exactly one of the 2 flags" in caplog.text


@pytest.mark.parametrize(("values", "words"), [
    ([[0.2, 0.8], [0.5, 0.5]], r"lists of fractions \(\[0.2, 0.8\] in rows 0, 1"),
    (["[0.2 0.8]", "[0. 1.]"], "lists of fractions"),
    ([[0], [1]], "a flag of one label, or one of two classes"), ([["a"], [" "]], "nulls inside the lists"),
    ([[True], [True, False]], "of 2 different lengths"), ([[1.0, float("nan")], [2.0, 1.0]], "nulls inside the lists"),
])
def test_lists_that_mean_nothing_sure_are_asked_about(values: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        problem_of(cycled(values), kind="multi_label")


def test_flags_in_several_columns_may_be_words() -> None:
    rows = {"text": ["t"] * 3, "toxic": ["1", "0", "0.0"], "rude": ["True", "FALSE", "true"]}
    problem = problem_of(rows, label=("toxic", "rude"))
    assert encoded(problem, rows) == [[1, 1], [0, 0], [0, 1]]


def test_lists_of_classes_of_a_fixed_length_stay_lists() -> None:
    features = Features({"label": List(ClassLabel(names=["z", "a"]))})
    problem = problem_of({"label": [[0, 1], [1, 0]] * 9}, features=features)
    assert problem.form == "list"


@pytest.mark.parametrize("texts", [["1", "2", "3"], ["0.1", "0.2"]])
def test_a_column_of_numbers_as_text_is_no_candidate_for_the_text(texts: list[str]) -> None:
    rows = Dataset.from_dict({"id": texts, "words": ["x"] * len(texts), "label": ["z"] * len(texts)})
    assert texts_of(TextClassificationData(train="x"), rows, ("label",)) == ("words",)
    assert texts_of(TextClassificationData(train="x"), rows.remove_columns("words"), ("label",)) == ("id",)
    assert texts_of(TextClassificationData(train="x"), rows.rename_column("id", "text"), ("label",)) == ("text",)


# --- several labels in one text ---


def test_names_with_a_mark_between_them_are_several_labels() -> None:
    problem = problem_of({"label": ["a;b", "b", " c ; a", "b"]}, label_separator=";")
    assert (problem.kind, problem.names) == ("multi_label", ("a", "b", "c"))
    assert encoded(problem, {"label": ["c;b", "a", ";", " ; "]}) == [[0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(("separator", "said"), [(";", r"Where none of the labels applies, write ';' alone"), (" ", None)])
def test_of_an_empty_cell_among_joined_names_it_is_said_how_none_is_written(separator: str, said: str | None) -> None:
    with pytest.raises(DataError, match=said or r"label them\.$"):
        problem_of({"label": [f"a{separator}b", "b", None]}, label_separator=separator)


@pytest.mark.parametrize(("rows", "section", "words"), [
    ({"label": ["a;b", "a;;b"]}, {}, r"holds 'a;;b' in row 1; expected names between ';'"),
    ({"label": [["a"], ["b"]]}, {}, r"data\.label_separator: .* no texts that could be parted"),
    ({"label": [1, 2]}, {}, r"data\.label_separator: .* no texts that could be parted"),
    ({"a": [1, 0], "b": [0, 1]}, {"label": ("a", "b")}, r"data\.label_separator: got 2 label columns"),
    ({"label": ["a;b", "b"]}, {"kind": "single_label"}, r"data\.kind: got single_label"),
])
def test_marks_between_names_that_are_none(rows: dict[str, list[Any]], section: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        problem_of(rows, label_separator=";", **section)


def test_a_mark_that_stands_nowhere_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    problem_of({"label": ["a", "b", "a"]}, label_separator=";")
    assert "';' stands in no text of 'label' in train: every example has a single label" in caplog.text
