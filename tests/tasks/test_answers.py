"""What is decided, unit by unit: by numbers or strings, in one part or several, and where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from stilla.errors import StillaError
from stilla.tasks.answers import NO_ANSWER, Answers, Decisions, Metric, in_common

NO = NO_ANSWER


def several(decided: list[list[int]], references: list[list[int]], confidence: list[list[float]] | None = None) -> Decisions:
    """Three units of two examples, two parts each."""
    return Decisions(np.array(decided), np.array(references), np.array([0, 0, 1]), np.array([0, 1, 0]),
                     None if confidence is None else np.array(confidence))


OURS = several([[1, 2], [1, NO], [3, 4]], [[1, 2], [1, NO], [3, NO]], [[0.5, 0.5], [0.5, 0.1], [0.8, 0.5]])
THEIRS = several([[1, 2], [2, NO], [3, 5]], [[1, 2], [1, NO], [3, NO]])


def test_a_unit_is_right_if_all_of_it_is_that_is_asked() -> None:
    assert OURS.right().tolist() == [True, True, True]
    assert THEIRS.right().tolist() == [True, False, True]
    nothing_said = several([[1, NO], [1, NO], [3, NO]], [[1, 2], [1, NO], [3, NO]])
    assert nothing_said.right().tolist() == [False, True, True]


def test_a_unit_differs_if_any_of_it_does() -> None:
    assert OURS.differs(THEIRS).tolist() == [False, True, True]
    assert OURS.differs(OURS).tolist() == [False] * 3


def test_it_is_as_sure_as_all_of_its_parts_together_without_those_that_are_not_there() -> None:
    assert OURS.sure().tolist() == pytest.approx([0.25, 0.5, 0.4])
    assert THEIRS.sure().tolist() == [1.0] * 3


def test_matches_are_counted_by_example_where_the_other_decided() -> None:
    assert OURS.matches(THEIRS, 2).tolist() == [[2, 3], [1, 2]]
    assert OURS.matches(THEIRS, 4).tolist() == [[2, 3], [1, 2], [0, 0], [0, 0]]
    unsaid = several([[NO, NO], [NO, NO], [3, 4]], OURS.references.tolist())
    assert OURS.matches(unsaid, 2).tolist() == [[0, 0], [2, 2]]
    assert unsaid.matches(OURS, 2).tolist() == [[0, 3], [2, 2]]


def test_a_decision_counts_where_it_is_there_and_can_be_wrong() -> None:
    assert OURS.there().tolist() == [[True, True], [True, False], [True, False]]


def test_strings_are_compared_as_they_are() -> None:
    def said(*words: str) -> Decisions:
        return Decisions(np.array(words), np.array(["a cat", "", "-100"]), np.array([0, 1, 1]), np.array([0, 0, 1]))

    ours, theirs = said("a cat", "x", "-100"), said("a cat", "", "a longer one")
    assert ours.right().tolist() == [True, False, True]
    assert ours.differs(theirs).tolist() == [False, True, True]
    assert ours.matches(theirs, 2).tolist() == [[1, 1], [0, 2]]
    assert ours.there().all()
    assert ours.sure().tolist() == [1.0] * 3


@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_no_units_are_no_mistake(shape: tuple[int, ...]) -> None:
    none = np.zeros(0, np.int64)
    empty = Decisions(np.zeros(shape, np.int64), np.zeros(shape, np.int64), none, none, np.zeros(shape))
    assert len(empty) == len(empty.right()) == len(empty.differs(empty)) == len(empty.sure()) == 0
    assert empty.matches(empty, 2).tolist() == [[0, 0], [0, 0]]


def test_decisions_about_other_units_are_not_compared() -> None:
    other = Decisions(OURS.decided, OURS.references, np.array([0, 1, 1]), np.array([0, 0, 1]))
    fewer = Decisions.of_examples(np.zeros((2, 2), int), np.zeros((2, 2), int))
    for one in (other, fewer):
        with pytest.raises(StillaError, match=rf"got 3 units of one model and {len(one)} of another"):
            OURS.differs(one)
        with pytest.raises(StillaError, match="has to be decided by both"):
            OURS.matches(one, 2)
    with pytest.raises(StillaError, match=r"got decided \(2,\), references \(3,\) for 2 examples and 2 places"):
        Decisions.of_examples(np.zeros(2), np.zeros(3))


def test_answers_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(StillaError, match="got 2 keys, 3 answers, 2 references; expected one of each per example"):
        Answers(np.arange(2), np.zeros((3, 2)), ["a", "b"])


def test_answers_that_are_not_finite_are_named() -> None:
    given = np.zeros((7, 3))
    given[[1, 4], 2] = np.nan, np.inf
    with pytest.raises(StillaError, match=r"student on test data: 2 of 7 predictions .* examples 11, 14\."):
        Answers(np.arange(10, 17), given, np.zeros(7)).check_finite("student on test data")
    Answers(np.arange(2), np.array(["nan", "inf"]), ["a", "b"]).check_finite("texts")


def test_a_metric_is_made_of_sums_or_of_a_list() -> None:
    def statistics(given: object, references: object) -> list[int]:
        return [3, 4]

    with pytest.raises(StillaError, match=r"metric both has to be made of sums or of a list"):
        Metric("both", statistics, lambda sums: 0.0, lambda found, counts: 0.0)
    with pytest.raises(StillaError, match=r"metric none has to be made"):
        Metric("none", statistics)
    listed = Metric("listed", statistics, from_list=lambda found, counts: float(sum(np.repeat(found, counts))))
    assert listed.compute([], []) == 7.0
    assert listed.range == (0.0, 1.0)
    assert Metric("free", statistics, lambda sums: 0.0, bounded=False).range == (-np.inf, np.inf)
    assert Metric("r", statistics, lambda sums: 0.0, bounded=False, limits=(-1.0, 1.0)).range == (-1.0, 1.0)


def test_only_what_all_have_answered_is_compared() -> None:
    one = Answers(np.array([0, 1, 3]), np.array([[1.0], [2.0], [3.0]]), np.array([5, 6, 7]))
    other = Answers(np.array([1, 2, 3]), ["b", "c", "d"], ["x", "y", "z"])
    found = in_common({"one": one, "other": other})
    assert [found[name].keys.tolist() for name in found] == [[1, 3], [1, 3]]
    assert np.asarray(found["one"].given).tolist() == [[2.0], [3.0]]
    assert list(found["other"].given) == ["b", "d"]
    assert list(found["other"].references) == ["x", "z"]
    assert in_common({"one": one})["one"] is one
