"""What label columns mean, and every label that is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from stilla.errors import DataError
from stilla.tasks.shared.columns import labels, texts
from stilla.tasks.shared.labels import Problem, understand
from stilla.tasks.shared.sections import Labelled, Texts
from stilla.tasks.text.sections import TextClassificationData


def problem_of(
    rows: dict[str, list[Any]],
    *,
    others: dict[str, dict[str, list[Any]]] | None = None,
    features: Features | None = None,
    **section: Any,
) -> Problem:
    train = Dataset.from_dict(rows, features=features)
    splits = {"train": train, **{name: Dataset.from_dict(other) for name, other in (others or {}).items()}}
    asked = Labelled(train="x", **section)
    return understand(asked, labels(asked, train), splits)


def encoded(problem: Problem, rows: dict[str, list[Any]], features: Features | None = None) -> list[Any]:
    return problem.encode(Dataset.from_dict(rows, features=features)).tolist()


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        (["no", "yes", "no"], ("no", "yes"), [0, 1, 0]),
        (["10", "9", "10", "9"], ("9", "10"), [1, 0, 1, 0]),
        ([True, False, True, True], ("false", "true"), [1, 0, 1, 1]),
        ([3, 1, 1, 3], ("1", "3"), [1, 0, 0, 1]),
        (["b", "-1", "b", "x"], ("-1", "b", "x"), [1, 0, 1, 2]),
    ],
)
def test_values_that_are_few_are_classes(values: list[Any], names: tuple[str, ...], codes: list[int]) -> None:
    problem = problem_of({"label": values})
    assert (problem.kind, problem.names) == ("single_label", names)
    assert encoded(problem, {"label": values}) == codes
    assert problem.encode(Dataset.from_dict({"label": values})).dtype == np.int64


def test_class_columns_keep_their_names_and_order() -> None:
    features = Features({"label": ClassLabel(names=["z", "a", "never"])})
    problem = problem_of({"label": [0, 1, 1]}, features=features)
    assert problem.names == ("z", "a", "never")
    assert encoded(problem, {"label": ["a", "z"]}) == [1, 0]


def test_fractions_are_amounts() -> None:
    problem = problem_of({"score": [0.5, 1.0, 2.0]})
    assert (problem.kind, problem.names) == ("regression", ())
    assert problem.encode(Dataset.from_dict({"score": [0.5, 2.0]})).tolist() == [0.5, 2.0]
    assert problem.encode(Dataset.from_dict({"score": [0.5]})).dtype == np.float32


def test_whole_numbers_can_be_amounts_or_classes_as_the_recipe_says() -> None:
    ages = {"label": list(range(40, 80))}
    with pytest.raises(
        DataError,
        match=r"data\.kind: 'label' holds 40 different whole numbers from 40 to 79 "
        "in 40",
    ):
        problem_of(ages)
    assert problem_of(ages, kind="regression").kind == "regression"
    assert problem_of(ages, kind="single_label").names[:2] == ("40", "41")
    assert problem_of({"label": [1.0, 2.0, 1.0]}, kind="single_label").names == ("1", "2")
    assert problem_of({"label": list(range(30)) * 10}).names[:3] == ("0", "1", "2")


@pytest.mark.parametrize(
    ("values", "given", "raw"),
    [
        ([0, 1, 2, 0, 1, 2], ("low", "mid", "high"), ("0", "1", "2")),
        ([1, 2, 3, 1, 2, 3], ("low", "mid", "high"), ("1", "2", "3")),
        ([0, 2, 0, 2], ("low", "mid", "high"), ("0", "1", "2")),
        ([True, False, True, False], ("no", "yes"), ("false", "true")),
        (["b", "a", "b", "a"], ("b", "a", "c"), ("b", "a", "c")),
        ([5, 3, 5, 3], ("5", "3"), ("5", "3")),
    ],
)
def test_the_recipe_can_name_the_labels(values: list[Any], given: tuple[str, ...], raw: tuple[str, ...]) -> None:
    problem = problem_of({"label": values}, labels=given)
    assert (problem.names, problem.raw, problem.named) == (given, raw, True)


@pytest.mark.parametrize(
    ("values", "given", "words"),
    [
        (
            ["good", "bad", "good"],
            ("goood", "bad"),
            r"among them 'good'; expected every one of them\. Did you "
            "mean goood",
        ),
        ([0, 1, 2, 3, 0], ("a", "b"), "got 2 names, but 'label' holds 4 classes"),
        (["a", "b", "a"], ("a", "a", "b"), "a name twice"),
    ],
)
def test_names_that_do_not_fit_are_refused(values: list[Any], given: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        problem_of({"label": values}, labels=given)


def test_names_of_a_class_column_can_be_ordered_but_not_changed() -> None:
    features = Features({"label": ClassLabel(names=["a", "b"])})
    assert problem_of({"label": [0, 1]}, features=features, labels=("b", "a")).names == ("b", "a")
    with pytest.raises(DataError, match="expected every one of them"):
        problem_of({"label": [0, 1]}, features=features, labels=("a", "c"))


# --- several labels ---


def test_lists_of_names_are_several_labels() -> None:
    rows = {"labels": [["a", "b"], [], ["c"]]}
    problem = problem_of(rows)
    assert (problem.kind, problem.names) == ("multi_label", ("a", "b", "c"))
    assert encoded(problem, rows) == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_lists_of_a_class_column_keep_its_order() -> None:
    features = Features({"labels": List(ClassLabel(names=["z", "a"]))})
    problem = problem_of({"labels": [[0, 1], [1]]}, features=features)
    assert problem.names == ("z", "a")
    assert problem.encode(Dataset.from_dict({"labels": [[1]]}, features=features)).tolist() == [[0, 1]]


def test_lists_of_numbers_are_classes_and_lists_of_flags_are_flags() -> None:
    numbers = problem_of({"labels": [[0, 2], [1], []]})
    assert encoded(numbers, {"labels": [[2, 0]]}) == [[1, 0, 1]]
    flags = problem_of({"labels": [[1, 0, 1], [0, 0, 0]]}, labels=("x", "y", "z"))
    assert (flags.form, flags.names) == ("indicators", ("x", "y", "z"))
    assert encoded(flags, {"labels": [[0, 1, 1]]}) == [[0, 1, 1]]


@pytest.mark.parametrize("hole", [None, float("nan")])
def test_a_flag_that_is_null_in_a_list_is_not_known(hole: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = {"labels": [[1, hole, 1], [0, 0, 0], [hole, 1, 0]]}
    problem = problem_of(rows, labels=("x", "y", "z"))
    assert (problem.kind, problem.form) == ("multi_label", "indicators")
    assert encoded(problem, rows) == [[1, -100, 1], [0, 0, 0], [-100, 1, 0]]
    assert "2 of 9 flags in 'labels' are null, and not known" in caplog.text
    complete = {"labels": [[1, 0, 1], [0, 1, 0]]}  # in some split alone
    assert problem_of(complete, others={"test": rows}).form == "indicators"


def test_several_columns_of_flags_are_several_labels() -> None:
    rows = {"text": ["t"] * 3, "toxic": [1, 0, 0], "rude": [True, False, True]}
    problem = problem_of(rows, label=("toxic", "rude"))
    assert (problem.kind, problem.names) == ("multi_label", ("toxic", "rude"))
    assert encoded(problem, rows) == [[1, 1], [0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("rows", "section", "words"),
    [
        (
            {"a": [1, 0], "b": [2, 0]},
            {"label": ("a", "b")},
            r"'b' is one of several label columns.*not so in row "
            "0",
        ),
        ({"a": [1, 0], "b": [1, 0]}, {"label": ("a", "b"), "kind": "single_label"}, "with 2 label columns"),
        (
            {"a": [1, 0], "b": [1, 0]},
            {"label": ("a", "b"), "labels": ("a", "c")},
            "expected the label columns a or b",
        ),
        ({"a": [1, 0], "b": [1, 0]}, {"label": ("a", "a")}, "the same column twice"),
        ({"labels": [["x", None], ["y"]]}, {}, r"nulls inside the lists of row 0"),
        ({"labels": [[1, None], [2]]}, {}, r"nulls inside the lists of row 0.*one flag for every label: \[1, null, 0\]"),
        ({"labels": [[1, None], [0, None]]}, {}, "the flag of '1' in 'labels' is null in every example"),
        ({"labels": [[], []]}, {}, "every list in 'labels' is empty"),
        ({"labels": [["x"], ["y"]]}, {"kind": "single_label"}, "holds lists; expected multi_label"),
        ({"labels": [[1, 1], [0, 0]]}, {"labels": ("x",)}, "got 1 names; 'labels' holds 2 flags"),
        (
            {"label": ["x", "y"]},
            {"kind": "multi_label"},
            "expected a column of lists, or several columns of 0 and 1",
        ),
    ],
)
def test_several_labels_that_make_no_sense_are_refused(
    rows: dict[str, list[Any]], section: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        problem_of(rows, **section)


# --- what no label may be ---


@pytest.mark.parametrize(
    ("values", "section", "words"),
    [
        (["a", "a", "a"], {}, "all 3 training examples have the same label, 'a'"),
        ([2.5, 2.5], {}, "the same number in every training example"),
        ([1.0, float("inf")], {}, "not finite, or too large for 32 bits, in row 1"),
        (
            ["a", None, "b", None],
            {},
            r"data\.train: the label 'label' is missing in 2 of 4 examples: rows 1, 3",
        ),
        ([1.0, float("nan"), 2.0], {}, "missing in 1 of 3 examples: row 1"),
        (["a", "b"], {"kind": "regression"}, "holds text; expected numbers"),
        ([0.5, 1.0], {"kind": "single_label"}, r"holds fractions \(0.5\)"),
        ([f"review number {i}" for i in range(40)], {}, "looks like text, not like classes"),
        ([*(f"{i / 7:.3f}" for i in range(40)), "nan"], {}, "'label' would be numbers but for 'nan'"),
    ],
)
def test_labels_without_use_are_refused(values: list[Any], section: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        problem_of({"label": values}, **section)


def test_labels_that_a_person_takes_for_one_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    problem_of({"label": ["food", "Food ", "very bad", "very-bad", "C", "C++", "-1", "1"]})
    assert "only: 'Food ' and 'food'; 'very bad' and 'very-bad'" in caplog.text
    caplog.clear()
    problem_of({"label": ["C", "C++", "C#", "-1", "1", "1-2", "12", "+", "-"]})
    assert not caplog.text


def test_hidden_classes_are_missing_labels() -> None:
    features = Features({"label": ClassLabel(names=["a", "b"])})
    with pytest.raises(
        DataError,
        match=r"missing in 1 of 3 examples \(-1 in a class column means hidden\): "
        "row 2",
    ):
        problem_of({"label": [0, 1, -1]}, features=features)


def test_labels_that_training_lacks_are_named_counted_and_placed() -> None:
    with pytest.raises(DataError) as caught:
        problem_of({"label": ["good", "bad", "bad"]}, others={"validation": {"label": ["good", "Bad", "x", "Bad"]}})
    message = str(caught.value)
    assert "data.validation: 'label' holds what does not occur in the training data" in message
    assert "'Bad' (2 times, rows 1, 3), 'x' (1 times, row 2)" in message
    assert "Did you mean bad?" in message
    problem = problem_of(
        {"label": ["good", "bad", "bad"]},
        others={"validation": {"label": ["good", "x"]}},
        labels=("bad", "good", "x"),
    )
    assert problem.names == ("bad", "good", "x")


def test_one_class_alone_may_be_evaluated_on() -> None:
    rows = Dataset.from_dict({"label": ["a", "a"]})
    section = Labelled(train="x")
    assert understand(section, labels(section, rows), {"test": rows}).names == ("a",)


# --- columns ---


def columns(rows: dict[str, Any], **section: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    asked, train = TextClassificationData(train="x", **section), Dataset.from_dict(rows)
    label = labels(asked, train)
    return texts(asked, train, label), label


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        (["text", "label"], ("text",), ("label",)),
        (["Sentence", "Intent"], ("Sentence",), ("Intent",)),
        (["idx", "premise", "hypothesis", "label"], ("premise", "hypothesis"), ("label",)),
        (["question1", "question2", "label"], ("question1", "question2"), ("label",)),
        (["question", "sentence", "label"], ("question", "sentence"), ("label",)),
        (["title", "text", "label", "rating"], ("text",), ("label",)),
        (["something", "label"], ("something",), ("label",)),
        (["lang", "review", "sentiment"], ("review",), ("sentiment",)),
    ],
)
def test_columns_are_found_by_their_names(names: list[str], text: tuple[str, ...], label: tuple[str, ...]) -> None:
    rows: dict[str, Any] = {name: ["x", "y"] for name in names}
    assert columns({**rows, **({"idx": [1, 2]} if "idx" in rows else {})}) == (text, label)


@pytest.mark.parametrize(
    ("rows", "section", "words"),
    [
        (
            {"one": ["x"], "two": ["y"], "label": ["z"]},
            {},
            r"data\.text: which column is the text\? one or two could be it\. The columns are one",
        ),
        ({"title": ["x"], "review": ["y"], "label": ["z"]}, {}, "review or title could be it"),
        (
            {"text": ["x"], "stars": [1], "rating": [2]},
            {},
            r"data\.label: which column is the label\? stars or "
            "rating",
        ),
        ({"text": ["x"], "other": [1]}, {}, "no column is called label"),
        ({"number": [1], "label": ["z"]}, {}, "no column holds text"),
        ({"text": ["x"], "label": ["z"]}, {"text": "txt"}, r"data\.text: got 'txt'.*Did you mean text\?"),
        (
            {"text": ["x"], "label": ["z"]},
            {"label": "lable"},
            r"data\.label: got 'lable'.*Did you mean label\?",
        ),
        (
            {"text": ["x"], "n": [1], "label": ["z"]},
            {"text": "n"},
            "the column 'n' holds int64; expected text",
        ),
        (
            {"text": ["x"], "label": ["z"]},
            {"text": ("a", "b", "c")},
            "got 3 columns; expected one, or two for pairs",
        ),
    ],
)
def test_columns_that_are_unclear_are_asked_for(rows: dict[str, Any], section: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        columns(rows, **section)


def test_value_of_large_strings_is_text() -> None:
    rows = Dataset.from_dict(
        {"text": ["x"], "label": ["z"]},
        features=Features({"text": Value("large_string"), "label": Value("string")}),
    )
    assert texts(Texts(train="x"), rows, ("label",)) == ("text",)
