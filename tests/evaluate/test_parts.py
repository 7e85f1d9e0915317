from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray

from stilla.evaluate import Examined, Slice, make_scores, slices_of
from stilla.evaluate.parts import FEWEST, simultaneous
from stilla.evaluate.quality import Resampling, Sampled
from stilla.scores import Cost, Part, Scores
from stilla.tasks.answers import Answers
from tests.evaluate.fake_exam import FakeExam, classified

COST = Cost(parameters=10, bytes=40)


def scores(
    hits: Mapping[str, NDArray[np.bool_]], slices: Sequence[Slice] = (),
    splits: Mapping[str, Mapping[str, NDArray[np.bool_]]] | None = None,
) -> Scores:
    """Of right and wrong answers, (seeds, examples), to a test split, and to others."""
    answers: dict[str, dict[str, list[Answers]]] = {}
    data = {}
    for split, subjects in {"test": hits, **(splits or {})}.items():
        for name, seeds in subjects.items():
            labels = np.arange(seeds.shape[1]) % 3
            data[split] = Dataset.from_dict({"text": [str(one) for one in range(len(labels))], "label": labels})
            answers.setdefault(name, {})[split] = [classified(one, labels) for one in seeds]
    return make_scores("fake", data, [Examined(FakeExam(), answers)], dict.fromkeys(answers, COST), slices=slices,
                       resamples=400)


def right(rng: np.random.Generator, level: float, examples: int = 600, seeds: int = 1) -> NDArray[np.bool_]:
    return rng.random((seeds, examples)) < level


def grouped(groups: NDArray[np.int64], column: str = "group") -> tuple[Slice, ...]:
    return slices_of(Dataset.from_dict({column: [f"g{one}" for one in groups]}), [column])


def part(found: Scores, name: str) -> Part:
    return next(one for one in found.slices if one.name == name)


def test_a_slice_is_the_metric_of_its_examples_for_every_model(rng: np.random.Generator) -> None:
    groups = np.arange(600) % 4
    hits = {"teacher": right(rng, 0.95), "baseline": right(rng, 0.8), "student": right(rng, 0.85), "onnx": right(rng, 0.85)}
    found = scores(hits, grouped(groups))
    assert [(one.column, one.name, one.examples) for one in found.slices] == [("group", f"g{one}", 150) for one in range(4)]
    for number, one in enumerate(found.slices):
        inside = groups == number
        levels = {name: float(value[0, inside].mean()) for name, value in hits.items()}
        assert {name: value.value for name, value in one.quality.items()} == pytest.approx(levels)
        assert all(value.low < value.value < value.high for value in one.quality.values())
        assert one.gap is not None
        assert one.gap.value == pytest.approx(levels["student"] - levels["teacher"])
        assert one.difference is not None
        assert one.difference.value == pytest.approx(levels["student"] - levels["baseline"])
        assert found.gap is not None
        assert one.beyond is not None
        assert one.beyond.value == pytest.approx(one.gap.value - found.gap.value)


def test_intervals_of_a_slice_are_as_wide_as_its_examples_say(rng: np.random.Generator) -> None:
    hits = {"teacher": right(rng, 0.9, 2000), "student": right(rng, 0.8, 2000)}
    one = part(scores(hits, grouped((np.arange(2000) >= 500).astype(int))), "g0")
    inside = hits["student"][0, :500].astype(float)
    assert one.quality["student"].high - one.quality["student"].low == pytest.approx(
        2 * 1.96 * inside.std() / np.sqrt(500), rel=0.15)
    assert one.gap is not None
    paired = inside - hits["teacher"][0, :500]
    assert one.gap.high - one.gap.low == pytest.approx(2 * 1.96 * paired.std() / np.sqrt(500), rel=0.15)


def test_several_seeds_are_averaged_in_a_slice_too(rng: np.random.Generator) -> None:
    groups = np.arange(600) % 2
    hits = {"teacher": right(rng, 0.95), "student": right(rng, 0.85, seeds=3)}
    one = part(scores(hits, grouped(groups)), "g1")
    assert one.quality["student"].value == pytest.approx(hits["student"][:, groups == 1].mean())


def test_a_slice_that_is_worse_than_the_rest_stands_out(rng: np.random.Generator) -> None:
    groups = np.arange(1200) % 6
    student = rng.random((1, 1200)) < np.where(groups == 2, 0.6, 0.9)
    found = scores({"teacher": right(rng, 0.95, 1200), "student": student}, grouped(groups))
    worse = [one.name for one in found.slices if one.beyond is not None and one.beyond.high < 0]
    assert worse == ["g2"]


def test_small_slices_have_values_and_no_comparison(rng: np.random.Generator) -> None:
    groups = np.where(np.arange(600) < FEWEST - 1, 0, 1)
    found = scores({"teacher": right(rng, 0.9), "student": right(rng, 0.8)}, grouped(groups))
    small = part(found, "g0")
    assert small.examples == FEWEST - 1
    assert small.quality["student"].low == small.quality["student"].value == small.quality["student"].high
    assert (small.gap, small.difference, small.beyond) == (None, None, None)
    assert part(found, "g1").gap is not None


def test_a_slice_that_is_everything_is_held_against_nothing(rng: np.random.Generator) -> None:
    found = scores({"teacher": right(rng, 0.9), "student": right(rng, 0.8)}, grouped(np.zeros(600, np.int64)))
    assert found.slices[0].gap == found.gap
    assert found.slices[0].beyond is None


def test_examples_that_an_exam_left_out_are_in_no_slice() -> None:
    labels = np.arange(100) % 3
    data = {"test": Dataset.from_dict({"text": ["x"] * 200, "label": np.zeros(200, int), "group": ["a", "b"] * 100})}
    answers = {name: {"test": [Answers(np.arange(0, 200, 2), classified(labels >= 0, labels).given, labels)]}
               for name in ("teacher", "student")}
    found = make_scores("fake", data, [Examined(FakeExam(), answers)], dict.fromkeys(answers, COST),
                        slices=slices_of(data["test"], ["group"]), resamples=100)
    assert [(one.name, one.examples) for one in found.slices] == [("a", 100)]


def test_a_metric_that_is_not_defined_in_a_slice_is_left_out_there(rng: np.random.Generator) -> None:
    labels, groups = rng.normal(size=200), np.arange(200) % 2
    constant = np.where(groups == 0, 0.5, labels + rng.normal(size=200))
    data = {"test": Dataset.from_dict({"text": ["x"] * 200, "label": labels})}
    answers = {name: {"test": [Answers(np.arange(200), given, labels)]}
               for name, given in (("teacher", labels + 0.1 * rng.normal(size=200)), ("student", constant))}
    found = make_scores("fake", data, [Examined(FakeExam("number"), answers)], dict.fromkeys(answers, COST),
                        slices=grouped(groups), resamples=100)
    assert (found.metric, set(part(found, "g0").quality), part(found, "g0").gap) == ("pearson", {"teacher"}, None)
    assert part(found, "g1").gap is not None


def test_other_data_are_held_against_the_headline_split(rng: np.random.Generator) -> None:
    hits = {"teacher": right(rng, 0.95), "baseline": right(rng, 0.85), "student": right(rng, 0.9)}
    bad = {"teacher": right(rng, 0.9, 400), "baseline": right(rng, 0.7, 400), "student": right(rng, 0.6, 400)}
    few = {name: right(rng, 0.9, 10) for name in hits}
    found = scores(hits, splits={"shifted.typos": bad, "shifted.few": few, "validation": hits})
    assert found.split == "test"
    assert [(one.column, one.name, one.examples) for one in found.shifted] == [("", "typos", 400), ("", "few", 10)]
    typos = found.shifted[0]
    assert typos.gap is not None
    assert typos.gap.value == pytest.approx(bad["student"].mean() - bad["teacher"].mean())
    assert typos.difference is not None
    assert typos.difference.high < 0
    assert typos.beyond is not None
    assert found.gap is not None
    assert typos.beyond.value == pytest.approx(typos.gap.value - found.gap.value)
    assert typos.beyond.high < 0
    assert found.subjects["student"].quality["shifted.typos"]["accuracy"] == typos.quality["student"]


def test_new_data_alone_are_no_shifted_data(rng: np.random.Generator) -> None:
    hits = {"teacher": right(rng, 0.95), "student": right(rng, 0.9)}
    answers = {name: {"new": [classified(one[0], np.arange(600) % 3)]} for name, one in hits.items()}
    data = {"new": Dataset.from_dict({"text": ["x"] * 600, "label": np.zeros(600, int)})}
    found = make_scores("fake", data, [Examined(FakeExam(), answers)], dict.fromkeys(answers, COST), resamples=100)
    assert (found.split, found.shifted) == ("new", ())


def test_intervals_that_hold_at_once_are_wider_the_more_there_are(rng: np.random.Generator) -> None:
    free = dict.fromkeys(range(20), 0.0)
    one = Sampled(np.array([0.0]), rng.normal(size=(1, 2000)))
    many = {number: Sampled(np.array([0.0]), rng.normal(size=(1, 2000))) for number in range(20)}
    assert simultaneous({0: one}, free, 0)[0].high == pytest.approx(1.96, abs=0.1)
    # the largest of 20 independent ones: Šidák's 3.02
    assert simultaneous(many, free, 0)[0].high == pytest.approx(3.02, abs=0.15)
    alike = dict.fromkeys(range(20), one)
    assert simultaneous(alike, free, 0)[0].high == pytest.approx(1.96, abs=0.1)


def test_a_few_examples_on_which_both_agree_are_no_proof(rng: np.random.Generator) -> None:
    groups = (np.arange(600) >= FEWEST).astype(int)
    teacher = right(rng, 0.95)
    student = np.where(groups == 0, teacher, right(rng, 0.85))
    agreed = part(scores({"teacher": teacher, "student": student}, grouped(groups)), "g0")
    assert agreed.gap is not None
    assert (agreed.gap.low, agreed.gap.high) == (0.0, 0.0)
    assert agreed.beyond is not None
    assert agreed.beyond.low < 0 < agreed.beyond.high


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
def test_of_many_slices_without_a_difference_one_is_called_worse_in_about_5_of_100(
    seeds: int, rng: np.random.Generator
) -> None:
    """Twenty slices of unlike sizes, one gap everywhere: looked at one by one, two of three runs would name one."""
    groups = np.repeat(np.arange(20), np.linspace(30, 130, 20).astype(int))
    named = alone = 0
    for trial in range(300):
        count = len(groups)
        hard = rng.normal(size=count)
        teacher = (hard + 0.5 * rng.normal(size=(1, count)) + 1.6 > 0).astype(float)
        student = (hard + 0.5 * rng.normal(size=(seeds, count)) + 0.05 * rng.normal(size=(seeds, 1)) + 1.1 > 0).astype(float)
        weights = next(Resampling(count, 300, trial).weights())

        def accuracy(hits: NDArray[np.float64], inside: NDArray[np.bool_], weights: NDArray[np.float64] = weights) -> Sampled:
            drawn = weights[:, inside]
            return Sampled(hits[:, inside].mean(1), hits[:, inside] @ drawn.T / drawn.sum(1))

        every = np.ones(count, bool)
        whole = accuracy(student, every) - accuracy(teacher, every)
        beyond = {number: accuracy(student, groups == number) - accuracy(teacher, groups == number) - whole
                  for number in range(20)}
        least = {number: whole.variance * (count / (groups == number).sum() - 1) for number in range(20)}
        named += any(one.excludes_zero() for one in simultaneous(beyond, least, trial).values())
        alone += any(one.interval(trial).excludes_zero() for one in beyond.values())
    assert alone / 300 > 0.4
    # a standard error of 1.3 %
    assert named / 300 <= 0.08


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
