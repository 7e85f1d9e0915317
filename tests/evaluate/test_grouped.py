"""Wins, ties and losses of parts against the shared student."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray

from stilla.evaluate import Examined, make_scores
from stilla.evaluate.grouped import Grouping
from stilla.report.grouped import summary
from stilla.scores import PERSONAL, Cost, Grouped, Scores
from stilla.tasks.answers import Metric
from tests.evaluate.fake_exam import FakeExam, classified

COST = Cost(parameters=10, bytes=40)


def scores(hits: Mapping[str, NDArray[np.bool_]], groups: NDArray[np.int64], *, with_parts: int = 3,
           exam: FakeExam | None = None) -> Scores:
    """Of right and wrong answers, (seeds, examples); the first groups have parts."""
    labels = np.arange(len(groups)) % 3
    data = {"test": Dataset.from_dict({"text": [str(one) for one in range(len(labels))], "label": labels})}
    answers = {name: {"test": [classified(one, labels) for one in seeds]} for name, seeds in hits.items()}
    rows = {f"g{one}": np.flatnonzero(groups == one) for one in range(with_parts)}
    grouping = Grouping("segment", rows, {name: 100 + number for number, name in enumerate(rows)}, 7, 28)
    return make_scores("fake", data, [Examined(exam or FakeExam(), answers)], dict.fromkeys(answers, COST), resamples=300,
                       grouping=grouping)


def found(one: Scores) -> Grouped:
    assert one.grouped is not None
    return one.grouped


def test_groups_win_tie_and_lose_and_others_are_answered_by_the_shared_student() -> None:
    groups = np.arange(800) % 4
    rng = np.random.default_rng(0)
    student = rng.random((1, 800)) < 0.6
    personal = student.copy()
    personal[:, (groups == 0) & (rng.random(800) < 0.6)] = True
    personal[:, (groups == 1) & (rng.random(800) < 0.6)] = False
    one = found(scores({"teacher": student, "student": student, PERSONAL: personal}, groups))
    assert {group.name: group.outcome for group in one.groups} == {"g0": "win", "g1": "loss", "g2": "tie"}
    assert [group.learnt for group in one.groups] == [100, 101, 102]
    better, worse = (personal & ~student).sum(), (student & ~personal).sum()
    assert (one.won, one.lost, one.tied, one.cold) == (better, worse, 600 - better - worse, 200)
    assert one.difference.value == pytest.approx(personal.mean() - student.mean())
    for number, group in enumerate(one.groups):
        inside = groups == number
        assert group.personal.value == pytest.approx(personal[0][inside].mean())
        assert group.student.value == pytest.approx(student[0][inside].mean())
        assert group.difference is not None
        assert group.difference.value == pytest.approx(group.personal.value - group.student.value)


def test_parts_that_change_nothing_only_tie() -> None:
    groups = np.arange(400) % 4
    student = np.random.default_rng(1).random((2, 400)) < 0.7
    one = found(scores({"teacher": student[:1], "student": student, PERSONAL: student}, groups))
    assert (one.won, one.tied, one.lost) == (0, 300, 0)
    assert {group.outcome for group in one.groups} == {"tie"}


def test_a_group_of_few_examples_is_not_compared() -> None:
    groups = np.where(np.arange(200) < 10, 0, 1)
    student = np.zeros((1, 200), bool)
    one = found(scores({"teacher": ~student, "student": student, PERSONAL: ~student}, groups, with_parts=2))
    assert [(group.outcome, group.difference is None) for group in one.groups] == [("", True), ("win", False)]
    assert one.won == 200


def test_what_no_sums_say_counts_no_single_examples() -> None:
    """Coverage of a list says nothing of one example."""
    listed = Metric("listed", lambda given, references: list(np.asarray(given).argmax(1)),
                    from_list=lambda said, counts: float(len({one for one, count in zip(said, counts) if count}) / 3))

    class Listed(FakeExam):
        def metrics(self) -> tuple[Metric, ...]:
            return (listed,)

    student = np.random.default_rng(1).random((1, 90)) < 0.7
    one = found(scores({"teacher": student, "student": student, PERSONAL: student}, np.arange(90) % 3, exam=Listed()))
    assert (one.won, one.tied, one.lost) == (None, None, None)


def test_scores_with_parts_are_read_back_as_written_and_said(tmp_path) -> None:
    student = np.random.default_rng(1).random((1, 300)) < 0.7
    one = scores({"teacher": student, "student": student, PERSONAL: student}, np.arange(300) % 4)
    one.dump(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json") == one
    assert any("3 values of segment with a part of 7 numbers (0.028 kB) each beside the shared student; 75 of 300 examples "
               "are of others" in note for note in one.notes)
    assert any("of 3 values compared 0 win beyond chance, 3 tie and 0 lose; one by one 0 examples win, 225 tie and 0 lose" in
               note for note in one.notes)
    assert one.deploy == "student"


def test_one_example_that_wins_is_said_as_one() -> None:
    student = np.array([[True] * 99 + [False]])
    subjects = {"teacher": student, "student": student, PERSONAL: np.ones((1, 100), bool)}
    one = scores(subjects, np.zeros(100, int), with_parts=1)
    assert any("of 1 value compared" in note and "one by one 1 example wins, 99 tie and 0 lose" in note for note in one.notes)
    assert one.grouped is not None
    assert "One by one, 1 example wins, 99 tie and 0 lose" in summary(one, one.grouped)
