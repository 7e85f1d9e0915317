from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray

from stilla.evaluate.fidelity import AGREEMENT, flip_kinds, flips
from stilla.tasks.answers import Answers, Decisions
from stilla.views import Text
from tests.evaluate.fake_exam import FakeExam

NAMES = ("cat", "dog", "eel")
LABELS = np.array([0, 0, 0, 0, 1, 1])
TEACHER = Decisions.of_examples(np.array([0, 0, 1, 2, 1, 0]), LABELS, np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]))
STUDENT = Decisions.of_examples(np.array([0, 1, 0, 1, 2, 1]), LABELS, np.array([0.9, 0.5, 0.8, 0.7, 0.6, 0.95]))


def decide(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> Decisions:
    return Decisions.of_examples(probabilities.argmax(-1), labels, probabilities.max(-1))


def shown(subjects: dict[str, Decisions], keys: NDArray[np.int64], of: str = "class"):
    """The flips of these decisions, of a split whose texts say their key."""
    data = Dataset.from_dict({"text": [f"text {key}" for key in range(max(keys, default=0) + 1)]})
    answers = Answers(keys, np.zeros(len(keys)), np.zeros(len(keys)))
    return flips(flip_kinds(subjects["teacher"], subjects["student"]), subjects, {"student": answers}, FakeExam(of), data)


def test_agreement_counts_examples_and_of_several_labels_each() -> None:
    assert AGREEMENT.compute(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75
    assert AGREEMENT.compute(np.array([[0, 1], [1, 1]]), np.array([[0, 1], [0, 1]])) == 0.75


def test_agreement_of_nothing_is_not_defined() -> None:
    assert np.isnan(AGREEMENT.compute(np.array([[3], [4]]), np.array([[-100], [-100]])))


def test_flips_are_lost_won_or_moved_the_surest_first() -> None:
    found = flip_kinds(TEACHER, STUDENT)
    assert {kind: positions.tolist() for kind, positions in found.items()} == {
        "lost": [4, 1], "won": [5, 2], "moved": [3]}


def test_an_example_with_several_labels_is_right_if_all_are() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 0], [1, 0]])
    teacher = decide(np.stack([1 - labels * 0.9, labels * 0.9], -1), labels)
    wrong = np.array([[1, 1], [1, 0], [0, 0], [0, 1]])
    student = decide(np.stack([1 - wrong * 0.8, wrong * 0.8], -1), labels)
    assert flip_kinds(teacher, student)["lost"].tolist() == [2, 3, 0]  # sure by 1, 0.8, 0.64
    assert flip_kinds(student, teacher)["won"].tolist() == [0, 2, 3]


def test_flips_show_what_each_subject_said() -> None:
    found = shown({"teacher": TEACHER, "student": STUDENT}, np.arange(10, 16))
    assert [one.key for one in found] == ["15", "12", "13", "14", "11"]
    assert found[0].shown == Text("text 15")
    assert (found[0].label, found[0].kind) == ("dog", "won")
    assert found[0].predictions == {"teacher": "cat", "student": "dog"}
    assert found[0].confidences == {"teacher": 0.4, "student": 0.95}


def test_no_example_is_shown_twice_before_every_other_is_shown() -> None:
    example, sure = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0.99, 0.98, 0.97, 0.96, 0.5, 0.6, 0.4])
    said = [Decisions(np.full(7, decided), np.zeros(7, np.int64), example, np.arange(7), sure) for decided in (0, 1)]
    answers, data = Answers(np.arange(3), np.zeros(3), np.zeros(3)), Dataset.from_dict({"text": ["a", "b", "c"]})
    subjects = dict(zip(("teacher", "student"), said))
    found = flips(flip_kinds(*said), subjects, {"student": answers}, FakeExam("class"), data, most=4)
    assert [one.key for one in found] == ["0.0", "0.1", "1.5", "2.6"]  # the second of 0 when all others had their turn


def test_who_says_no_confidence_has_none_shown() -> None:
    silent = Decisions.of_examples(STUDENT.decided, LABELS)
    found = shown({"teacher": TEACHER, "student": silent}, np.arange(6))
    assert {one.key: one.confidences for one in found} == {
        str(key): {"teacher": sure} for key, sure in enumerate(TEACHER.confidence) if key}


@pytest.mark.parametrize(("example", "keys"), [([0, 0, 1], ["7.0", "7.1", "9.2"]), ([0, 1, 2], ["7", "9", "11"])])
def test_units_of_an_example_are_told_apart(example: list[int], keys: list[str]) -> None:
    """Also where there are as many units as examples, of which one has two and one has none."""
    def said(*decided: int) -> Decisions:
        return Decisions(np.array(decided), np.zeros(3, np.int64), np.array(example), np.arange(3))

    found = shown({"teacher": said(0, 0, 0), "student": said(1, 1, 1)}, np.array([7, 9, 11]))
    assert [one.key for one in found] == keys


def test_several_labels_are_named_together() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0]])
    decided = Decisions.of_examples(labels, labels, np.full((2, 3), 0.5))
    other = Decisions.of_examples(1 - labels, labels, decided.confidence)
    found = shown({"teacher": decided, "student": other}, np.arange(2), "labels")
    assert [one.predictions["teacher"] for one in found] == ["cat, eel", "none"]
    assert found[0].confidences["student"] == pytest.approx(0.125)


@pytest.mark.parametrize(("there", "places"), [((100, 100, 100), (20, 20, 20)), ((100, 4, 100), (28, 4, 28)),
                                               ((3, 2, 1), (3, 2, 1)), ((200, 0, 0), (60, 0, 0))])
def test_at_most_sixty_are_shown_and_rare_kinds_give_their_places_away(
    there: tuple[int, int, int], places: tuple[int, int, int],
) -> None:
    total = sum(there)
    labels = np.zeros(total, dtype=np.int64)
    lost, won, _ = there
    teacher = np.full(total, 2)
    teacher[:lost] = 0
    student = np.ones(total, dtype=np.int64)
    student[lost:lost + won] = 0
    subjects = {"teacher": decide(np.eye(3)[teacher], labels), "student": decide(np.eye(3)[student], labels)}
    kinds = flip_kinds(subjects["teacher"], subjects["student"])
    assert tuple(len(positions) for positions in kinds.values()) == there
    found = shown(subjects, np.arange(total))
    assert tuple(sum(one.kind == kind for one in found) for kind in ("lost", "won", "moved")) == places
