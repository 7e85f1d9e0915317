"""Labels of the data meet labels of a teacher: reordered, named, believed or refused."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from stilla.errors import CompatibilityError
from stilla.tasks.shared.label_order import adapted, names_of
from stilla.tasks.shared.labels import Problem, understand
from stilla.tasks.shared.sections import Labelled
from tests.tasks.tiny import bert_config, labels_of


def problem_of(values: list[Any], column: str = "label", **section: Any) -> Problem:
    return understand(Labelled(train="x", **section), (column,), {"train": Dataset.from_dict({column: values})})


def codes(problem: Problem, values: list[Any]) -> list[Any]:
    return problem.encode(Dataset.from_dict({problem.columns[0]: values})).tolist()


def teacher(*names: str, **config: Any) -> Any:
    return bert_config(**labels_of(*names), **config)


def test_the_teachers_order_wins() -> None:
    problem = adapted(problem_of(["good", "bad", "fair"]), teacher("fair", "good", "bad"), "bert")
    assert problem.names == ("fair", "good", "bad")
    assert codes(problem, ["good", "fair", "bad"]) == [1, 0, 2]


def test_a_teacher_may_know_more_labels() -> None:
    problem = adapted(problem_of(["good", "bad", "bad"]), teacher("bad", "fair", "good"), "bert")
    assert problem.names == ("bad", "fair", "good")
    assert codes(problem, ["good", "bad"]) == [2, 0]
    lists = adapted(problem_of([["x"], ["y"]]), teacher("y", "z", "x"), "bert")
    assert codes(lists, [["x", "y"]]) == [[1, 0, 1]]


def test_labels_without_names_are_believed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    problem = problem_of(["good", "bad", "bad"])
    with caplog.at_level(logging.WARNING):
        assert adapted(problem, bert_config(num_labels=2), "bert") == problem
    assert "believed to be the data's, in this order: bad, good" in caplog.text
    with pytest.raises(
        CompatibilityError,
        match=r"bert has 3 labels without names, the data have 2 \('bad' "
        "and 'good'",
    ):
        adapted(problem, bert_config(num_labels=3), "bert")


def test_numbers_take_the_teachers_names_by_position(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        problem = adapted(problem_of([0, 1, 0, 1]), teacher("neg", "pos"), "bert")
    assert (problem.names, problem.raw) == (("neg", "pos"), ("0", "1"))
    assert codes(problem, [1, 0]) == [1, 0]
    assert "0 is 'neg' and 1 is 'pos'" in caplog.text


def test_numbers_that_are_the_teachers_names_match_by_name() -> None:
    problem = adapted(problem_of([0, 1, 0, 1]), teacher("1", "0"), "bert")
    assert codes(problem, [1, 0]) == [0, 1]


def test_flags_take_the_teachers_order() -> None:
    section = Labelled(train="x", label=("rude", "toxic"))
    rows = Dataset.from_dict({"rude": [1, 0], "toxic": [0, 0]})
    problem = understand(section, ("rude", "toxic"), {"train": rows})
    assert adapted(problem, teacher("toxic", "rude"), "bert").encode(rows).tolist() == [[0, 1], [0, 0]]
    flags = adapted(problem_of([[1, 1], [0, 0]], labels=("rude", "toxic")), teacher("toxic", "rude"), "bert")
    assert codes(flags, [[1, 0]]) == [[0, 1]]
    with pytest.raises(CompatibilityError, match="Every label of the teacher needs its column"):
        adapted(problem, teacher("toxic", "rude", "vile"), "bert")


@pytest.mark.parametrize(
    ("values", "names", "words"),
    [
        (
            ["good", "bad", "bad"],
            ("positive", "negative"),
            "bert does not know 2 of the data's 2 labels: 'bad' and 'good'; its own 2 are 'positive' and "
            "'negative'. Leave",
        ),
        (
            ["Good", "very bad", "Good"],
            ("good", "very-bad"),
            "They differ in case, spaces or hyphens only: write 'Good' like 'good' and 'very bad' like",
        ),
        ([1, 2, 1, 2], ("neg", "pos"), "Say in data.labels which name each number stands for"),
        ([0, 1, 0, 1], ("neg", "neutral", "pos"), "Say in data.labels"),
    ],
)
def test_labels_outside_the_teachers_are_refused(values: list[Any], names: tuple[str, ...], words: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        adapted(problem_of(values), teacher(*names), "bert")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("values", "config"),
    [
        ([0.5, 1.5], {"num_labels": 2}),
        (["a", "b"], {"num_labels": 1}),
        (["a", "b"], {"num_labels": 2, "problem_type": "multi_label_classification"}),
        ([["a"], ["b"]], {"num_labels": 2, "problem_type": "single_label_classification"}),
        ([["a"], ["b"]], {"num_labels": 1}),
    ],
)
def test_a_teacher_of_another_kind_is_refused(values: list[Any], config: dict[str, Any]) -> None:
    with pytest.raises(CompatibilityError, match=r"bert answers with .* the data ask for"):
        adapted(problem_of(values), bert_config(**config), "bert")


def test_a_number_needs_one_output() -> None:
    problem = problem_of([0.5, 1.5])
    assert adapted(problem, bert_config(num_labels=1), "bert") == problem


def test_default_names_are_no_names() -> None:
    assert names_of(bert_config(num_labels=3)) is None
    assert names_of(teacher("b", "a")) == ("b", "a")
    assert np.array_equal(codes(problem_of(["a", "b"]), ["b"]), [1])


@pytest.mark.parametrize(
    ("theirs", "coded"),
    [
        ({0: 5, 1: 4, 2: 3}, [2, 1, 0]),  # numbers, in another order
        ({0: "5", 1: "4", 2: "3"}, [2, 1, 0]),
        ({0: 3.0, 1: 5.0, 2: 4.0}, [0, 2, 1]),
    ],
)
def test_a_teacher_whose_labels_are_numbers_is_matched_by_them(theirs: dict[int, Any], coded: list[int]) -> None:
    config = bert_config(num_labels=3)
    config.id2label = theirs
    problem = adapted(problem_of([3, 4, 5, 3, 4, 5]), config, "bert")
    assert codes(problem, [3, 4, 5]) == coded
    assert all(isinstance(name, str) for name in problem.names)


def test_nameless_labels_in_another_order_are_their_numbers() -> None:
    problem = adapted(problem_of([0, 1, 2, 0, 1, 2]), teacher("LABEL_2", "LABEL_0", "LABEL_1"), "bert")
    assert codes(problem, [0, 1, 2]) == [1, 2, 0]
