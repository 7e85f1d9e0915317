from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray

from stilla.errors import RecipeError, StillaError
from stilla.evaluate import Examined, make_scores
from stilla.recipe import Generation
from stilla.scores import Cost, PairedTest, Scores
from stilla.tasks.answers import Answers, Decisions, Metric
from stilla.tasks.exam import ClassValues
from stilla.tasks.language.sections import WritingEvaluate
from stilla.tasks.language.writing import Writes, exams_of
from stilla.views import Text
from tests.evaluate.fake_exam import ACCURACY, FakeExam, classified, macro_f1

LABELS = np.arange(600) % 3
COST = Cost(parameters=10, bytes=40)
DATA = {split: Dataset.from_dict({"text": [f"{split} {key}" for key in range(600)], "label": LABELS})
        for split in ("validation", "test")}

AllAnswers = dict[str, dict[str, list[Answers]]]


def _said(rng: np.random.Generator, accuracy: float) -> Answers:
    return classified(rng.random(600) < accuracy, LABELS)


def _all(rng: np.random.Generator, splits: tuple[str, ...] = ("test",), seeds: int = 1,
         **accuracy: float) -> AllAnswers:
    times = {name: 1 if name == "teacher" else seeds for name in accuracy}
    return {name: {split: [_said(rng, level) for _ in range(times[name])] for split in splits}
            for name, level in accuracy.items()}


def _scores(answers: Mapping[str, Mapping[str, list[Answers]]], exam: FakeExam | None = None,
            metric: str | None = None) -> Scores:
    return make_scores("fake", DATA, [Examined(exam or FakeExam(), answers)], dict.fromkeys(answers, COST), metric=metric,
                       resamples=200, seed=1, notes=("said before",))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_whole_comparison(rng: np.random.Generator, tmp_path: Path) -> None:
    answers = _all(rng, ("validation", "test"), teacher=0.95, baseline=0.7, student=0.85, onnx=0.85)
    found = _scores(answers)
    assert (found.task, found.metric, found.higher_is_better) == ("fake", "accuracy", True)
    assert found.split == "test"
    assert found.examples == {"validation": 600, "test": 600}
    assert list(found.subjects) == ["teacher", "baseline", "student", "onnx"]
    for name, splits in answers.items():
        for split, seeds in splits.items():
            assert found.subjects[name].quality[split]["accuracy"].value == pytest.approx(
                (seeds[0].given.argmax(1) == LABELS).mean())
    teacher, student = found.teacher["accuracy"], found.student["accuracy"]
    baseline = found.subjects["baseline"]["accuracy"]
    assert found.gap is not None
    assert found.gap.value == pytest.approx(student - teacher)
    assert found.gap.high < 0
    assert found.difference is not None
    assert found.difference.value == pytest.approx(student - baseline)
    assert found.difference.low > 0
    assert found.retention is not None
    assert found.retention.value == pytest.approx(student / teacher)
    assert found.retention.low < student / teacher < found.retention.high < 1
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx((student - baseline) / (teacher - baseline))
    assert 0 < found.ratio.low < found.ratio.value < found.ratio.high < 1
    assert "distillation gained" in found.verdict
    assert found.notes == ("said before",)
    assert [one.name for one in found.classes] == ["cat", "dog", "eel"]
    assert [one.support for one in found.classes] == [200, 200, 200]
    found.dump(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json") == found


def test_fidelity_and_calibration_are_measured_for_everyone_but_the_teacher_against_itself(
    rng: np.random.Generator,
) -> None:
    answers = _all(rng, teacher=0.95, student=0.85)
    found = _scores(answers)
    decided = {name: splits["test"][0].given.argmax(1) for name, splits in answers.items()}
    same = decided["teacher"] == decided["student"]
    assert found.student.agreement["test"].value == pytest.approx(same.mean())
    assert found.student.agreement["test"].low < same.mean() < found.student.agreement["test"].high
    # logits of 2 in different places differ by 2 (p - q), in the same place by nothing
    sure, other = np.exp(2) / (np.exp(2) + 2), 1 / (np.exp(2) + 2)
    assert found.student.kl["test"] == pytest.approx((1 - same.mean()) * 2 * (sure - other))
    assert found.teacher.agreement == {}
    assert found.teacher.kl == {}
    assert found.student.calibration["test"].ece == pytest.approx(abs(found.student["accuracy"] - sure))
    assert sum(one.count for one in found.teacher.calibration["test"].bins) == 600


def test_flips_are_counted_and_shown_from_the_headline_split(rng: np.random.Generator) -> None:
    answers = _all(rng, ("validation", "test"), teacher=0.95, student=0.85)
    found = _scores(answers)
    teacher, student = (answers[name]["test"][0].given.argmax(1) for name in ("teacher", "student"))
    assert found.flipped == {
        "lost": ((teacher == LABELS) & (student != LABELS)).sum(),
        "won": ((teacher != LABELS) & (student == LABELS)).sum(),
        "moved": 0}
    assert len(found.flips) == min(60, sum(found.flipped.values()))
    for flip in found.flips:
        assert flip.shown == Text(f"test {flip.key}")
        assert set(flip.predictions) == {"teacher", "student"}


def test_several_seeds_are_averaged_and_kept(rng: np.random.Generator) -> None:
    answers = _all(rng, seeds=3, teacher=0.95, baseline=0.7, student=0.85)
    found = _scores(answers)
    by_seed = [(one.given.argmax(1) == LABELS).mean() for one in answers["student"]["test"]]
    assert found.student.seeds == pytest.approx(by_seed)
    assert found.teacher.seeds == ()
    assert found.student["accuracy"] == pytest.approx(np.mean(by_seed))
    assert sum(one.count for one in found.student.calibration["test"].bins) == 1800
    assert "(mean of 3 seeds)" in found.verdict
    first = answers["student"]["test"][0].given.argmax(1)
    assert sum(found.flipped.values()) == (answers["teacher"]["test"][0].given.argmax(1) != first).sum()


def test_without_a_baseline_there_is_no_difference(rng: np.random.Generator) -> None:
    found = _scores(_all(rng, ("validation",), teacher=0.95, student=0.85))
    assert (found.split, found.difference, found.ratio) == ("validation", None, None)
    assert found.gap is not None


def test_a_teacher_no_better_than_the_baseline_leaves_the_ratio_undefined(rng: np.random.Generator) -> None:
    found = _scores(_all(rng, teacher=0.7, baseline=0.9, student=0.8))
    assert found.ratio is None
    assert any(note.startswith("distillation ratio is not defined") for note in found.notes)
    assert "distillation lost" in found.verdict


@pytest.mark.slow
def test_the_difference_is_tested_over_seeds_and_over_examples(rng: np.random.Generator) -> None:
    one = _scores(_all(rng, teacher=0.95, baseline=0.7, student=0.85))
    assert set(one.tests) == {"examples"}
    assert one.tests["examples"] == PairedTest(1 / 201, 1 / 201, 600)
    three = _scores(_all(rng, seeds=3, teacher=0.95, baseline=0.7, student=0.85))
    assert three.tests["seeds"] == PairedTest(0.25, 0.25, 3)
    assert three.tests["examples"].p == 1 / 201
    alike = _scores(_all(rng, seeds=3, teacher=0.95, baseline=0.8, student=0.8))
    assert alike.tests["examples"].p > 0.05
    assert _scores(_all(rng, teacher=0.95, student=0.8)).tests == {}


def test_a_lead_that_is_mostly_chance_has_no_ratio(rng: np.random.Generator) -> None:
    found = _scores(_all(rng, teacher=0.83, baseline=0.8, student=0.82))
    assert found.ratio is None
    assert any("not measurable" in note or "not defined" in note for note in found.notes)


def test_validation_data_say_what_to_deploy_and_test_data_do_not(rng: np.random.Generator) -> None:
    """Test data that chose a model would say too much of it."""
    better, worse = _said(rng, 0.9), _said(rng, 0.7)
    levels = {"teacher": (better, better), "baseline": (better, worse), "student": (worse, better), "onnx": (worse, better),
              "baseline-onnx": (better, worse)}
    answers = {name: {"validation": [first], "test": [second]} for name, (first, second) in levels.items()}
    found = _scores(answers)
    assert found.deploy == "baseline"
    assert found.verdict.endswith("`stilla export RUN --model baseline` writes it.")
    assert "distillation gained" in found.verdict
    assert any(note.startswith("export: onnx holds the student, and labels alone are better") for note in found.notes)
    turned = {name: {"validation": splits["test"], "test": splits["validation"]} for name, splits in answers.items()}
    found = _scores(turned)
    assert found.deploy == "student"
    assert "Deploy" not in found.verdict
    assert not any(note.startswith("export:") for note in found.notes)


def test_a_speed_that_was_measured_beside_other_work_is_not_claimed(rng: np.random.Generator) -> None:
    answers = _all(rng, teacher=0.95, student=0.85)
    costs = {name: Cost(10, 40, latency_median_ms=median, latency_p95_ms=81.0)
             for name, median in (("teacher", 79.0), ("student", 0.5))}
    found = make_scores("fake", DATA, [Examined(FakeExam(), answers)], costs, resamples=100)
    assert any(note.startswith("speed: the machine was busy") and "calls of student took" in note for note in found.notes)
    assert "speed" not in found.verdict


def test_the_asked_metric_is_the_headline(rng: np.random.Generator) -> None:
    found = _scores(_all(rng, teacher=0.95, student=0.85), metric="macro_f1")
    assert found.metric == "macro_f1"
    assert list(found.student.quality["test"]) == ["macro_f1", "accuracy"]
    with pytest.raises(RecipeError, match=r"got 'acuracy'; expected accuracy or macro_f1\. Did you mean acc"):
        _scores(_all(rng, teacher=0.95, student=0.85), metric="acuracy")


def test_several_labels_are_compared_label_by_label(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 2, (600, 3))

    def said(accuracy: float) -> Answers:
        flags = np.where(rng.random((600, 3)) < accuracy, labels, 1 - labels)
        return Answers(np.arange(600), 4.0 * flags - 2, labels)

    answers = {"teacher": {"test": [said(0.98)]}, "student": {"test": [said(0.9)]}}
    found = _scores(answers, FakeExam("labels"))
    same = (answers["teacher"]["test"][0].given == answers["student"]["test"][0].given)
    assert found.student.agreement["test"].value == pytest.approx(same.mean())
    assert sum(one.count for one in found.student.calibration["test"].bins) == 1800
    assert sum(found.flipped.values()) == (~same.all(1)).sum()
    assert [one.support for one in found.classes] == labels.sum(0).tolist()


def test_a_number_has_quality_and_no_decisions(rng: np.random.Generator) -> None:
    labels = rng.normal(size=600)
    keys, noise = np.arange(600), rng.normal(size=600)
    answers = {name: {"test": [Answers(keys, labels + size * noise, labels)]}
                   for name, size in (("teacher", 0.1), ("baseline", 0.5), ("student", 0.3))}
    found = _scores(answers, FakeExam("number"))
    assert (found.metric, found.retention) == ("pearson", None)
    assert any(note.startswith("retention is not defined: Pearson correlation can be") for note in found.notes)
    assert found.difference is not None
    assert found.difference.low > 0
    assert (found.student.agreement, found.student.kl, found.student.calibration) == ({}, {}, {})
    assert (found.flipped, found.flips, found.classes) == ({}, (), ())


def test_an_undefined_headline_gives_way_to_the_next_metric(rng: np.random.Generator) -> None:
    labels = rng.normal(size=600)
    answers = {"teacher": {"test": [Answers(np.arange(600), labels + 0.1, labels)]},
                   "student": {"test": [Answers(np.arange(600), np.zeros(600), labels)]}}
    found = _scores(answers, FakeExam("number"))
    assert (found.metric, found.higher_is_better) == ("rmse", False)
    assert "Pearson correlation is not defined for every subject: the headline is RMSE" in found.notes
    assert list(found.teacher.quality["test"]) == ["rmse"]


def _ones(outputs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.ones((len(labels), 1))


NEVER = Metric("never", _ones, lambda sums: float("nan"))


def test_what_cannot_be_scored_is_refused(rng: np.random.Generator) -> None:
    good = _all(rng, teacher=0.95, student=0.85)
    with pytest.raises(StillaError, match="no predictions of the student; got those of teacher"):
        _scores({"teacher": good["teacher"]})
    with pytest.raises(StillaError, match="none of never is defined"):
        _scores(good, FakeExam(measured_by=(NEVER,)))
    broken = good["student"]["test"][0].given.copy()
    broken[7, 1] = np.nan
    said = Answers(np.arange(600), broken, LABELS)
    with pytest.raises(StillaError, match=r"student on test data: 1 of 600 predictions .* examples 7"):
        _scores({**good, "student": {"test": [said]}})
    fewer = Answers(np.arange(599), broken[1:], LABELS[1:])
    fewer.given[6, 1] = 0.0
    with pytest.raises(StillaError, match=r"other examples \(599\) than those of teacher \(600\)"):
        _scores({**good, "student": {"test": [fewer]}})


def test_a_student_is_scored_whose_teacher_could_not_be_measured(rng: np.random.Generator) -> None:
    answers = _all(rng, teacher=0.95, baseline=0.8, student=0.85)
    whole, alone = _scores(answers), _scores({name: one for name, one in answers.items() if name != "teacher"})
    assert (alone.gap, alone.retention, alone.ratio, alone.flipped) == (None, None, None, {})
    assert (alone.difference, alone.tests) == (whole.difference, whole.tests)
    assert alone.subjects["student"].quality == whole.subjects["student"].quality
    assert "known by its answers alone" in alone.verdict
    with pytest.raises(StillaError, match="the teacher was not measured"):
        _ = alone.teacher


def test_the_same_seed_gives_the_same_scores(rng: np.random.Generator) -> None:
    answers = _all(rng, seeds=2, teacher=0.95, baseline=0.8, student=0.85)
    exam = FakeExam(measured_by=(ACCURACY, macro_f1(3)))
    assert _scores(answers, exam) == _scores(answers, exam)


class Speaker(Writes):
    """A task whose models write, and whose headline is what they wrote, or is not."""

    def __init__(self, *metrics: str) -> None:
        self.metrics = metrics

    def text_metrics(self) -> tuple[str, ...]:
        return self.metrics


Speaker.__abstractmethods__ = frozenset()


def _both(rng: np.random.Generator, *headline: str, files: bool = True) -> list[Examined]:
    """Rows and texts, of fewer examples; an exported file that cannot write."""
    rows = _all(rng, teacher=0.95, student=0.85, **({"onnx": 0.85} if files else {}))
    keys = np.arange(0, 600, 6)
    right = {"teacher": 0.9, "student": 0.6}
    texts = {name: {"test": [Answers(keys, ["yes" if one else "no" for one in rng.random(100) < level], ["yes"] * 100)]}
             for name, level in right.items()}
    section = WritingEvaluate(generation=Generation(metrics=("exact_match",)))
    exams = exams_of(Speaker(*headline), FakeExam(), section)
    return [Examined(exam, rows if isinstance(exam, FakeExam) else texts) for exam in exams]


@pytest.mark.parametrize(("headline", "metric"), [(("bleu",), "exact_match"), ((), "accuracy")])
def test_what_is_written_comes_first_where_writing_is_the_task(
    headline: tuple[str, ...], metric: str, rng: np.random.Generator
) -> None:
    examined = _both(rng, *headline)
    found = make_scores("fake", DATA, examined, dict.fromkeys(("teacher", "student", "onnx"), COST), resamples=100)
    order = ["exact_match", "accuracy", "macro_f1"] if headline else ["accuracy", "macro_f1", "exact_match"]
    assert found.metric == metric
    assert list(found.student.quality["test"]) == order
    assert list(found.subjects["onnx"].quality["test"]) == ["accuracy", "macro_f1"]
    texts = next(one.answers for one in examined if not isinstance(one.exam, FakeExam))
    written = texts["student"]["test"][0]
    assert found.student["exact_match"] == np.mean([text == "yes" for text in written.given])
    # what texts do not say is said by the rows
    assert found.examples == {"test": 600}
    assert (found.units, found.decided) == ("examples", 600)
    assert found.student.agreement
    assert found.student.kl
    assert found.flipped["lost"] > 0
    assert [one.name for one in found.classes] == ["cat", "dog", "eel"]


def test_texts_can_be_made_the_headline_and_rows_too(rng: np.random.Generator) -> None:
    for headline, metric in ((("bleu",), "accuracy"), ((), "exact_match")):
        found = make_scores("fake", DATA, _both(rng, *headline, files=False), dict.fromkeys(("teacher", "student"), COST),
                            metric=metric, resamples=50)
        assert found.metric == metric


@pytest.mark.parametrize("generation", [None, Generation(), Generation(metrics=())])
def test_nothing_is_written_where_no_measure_of_texts_is_asked_for(generation: Generation | None) -> None:
    rows = FakeExam()
    assert exams_of(Speaker("bleu"), rows, WritingEvaluate(generation=generation)) == (rows,)


def test_a_class_that_is_not_defined_for_a_model_is_left_out(rng: np.random.Generator, tmp_path: Path) -> None:
    """An average precision of what does not occur."""
    class Never(FakeExam):
        class_metric = "average_precision"

        def by_class(self, answers: Answers) -> ClassValues:
            return ClassValues(self.names, np.array([0, 3, 4]), np.array([np.nan, 0.5, 0.25]))

    found = _scores(_all(rng, teacher=0.95, student=0.85), Never())
    assert [one.values for one in found.classes] == [{}, *({"teacher": value, "student": value} for value in (0.5, 0.25))]
    assert found.class_metric == "average_precision"
    found.dump(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json") == found


def test_where_nothing_is_decided_there_is_no_agreement(rng: np.random.Generator, tmp_path: Path) -> None:
    """A split without a single thing to find."""
    class Empty(FakeExam):
        units = "boxes"

        def decisions(self, answers: Answers) -> Decisions:
            none = np.zeros(0, np.int64)
            return Decisions(none, none, none, none, np.zeros(0))

        def divergence(self, teacher: Answers, answers: Answers) -> NDArray[np.float64]:
            return np.zeros(0)

    found = _scores(_all(rng, teacher=0.95, student=0.85), Empty())
    assert (found.student.agreement, found.student.kl, found.flips) == ({}, {}, ())
    assert (found.units, found.decided) == ("boxes", 0)
    found.dump(tmp_path / "scores.json")


def test_answers_to_other_questions_are_measured_each_by_itself(rng: np.random.Generator) -> None:
    """Perplexities over two vocabularies: no number of one says anything of the other; texts do."""
    class Apart(FakeExam):
        def comparable(self, answers: Sequence[Answers]) -> bool:
            return False

    examined = [replace(one, exam=Apart()) if isinstance(one.exam, FakeExam) else one for one in _both(rng, files=False)]
    found = make_scores("fake", DATA, examined, dict.fromkeys(("teacher", "student"), COST), resamples=50)
    assert list(found.student.quality["test"]) == ["exact_match"]
    assert (found.student.agreement, found.student.kl, found.flips, found.classes) == ({}, {}, (), ())
    assert found.student.calibration["test"].ece > 0
    assert (found.units, found.decided) == ("examples", 600)
