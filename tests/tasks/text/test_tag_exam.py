"""Entities are measured as seqeval measures them strictly, words as scikit-learn does; and what is shown of a decision."""

from __future__ import annotations

import random
from itertools import chain
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2, IOBES
from sklearn.metrics import accuracy_score
from sklearn.metrics import f1_score as class_f1

from stilla.evaluate.quality import Asked, Resampling, bootstrap
from stilla.tasks.answers import NO_ANSWER, Answers
from stilla.tasks.text.schemes import Scheme, names_of
from stilla.tasks.text.tag_exam import TagExam
from stilla.tasks.text.words import Words
from stilla.views import Mark

TYPES = ("PER", "LOC")
WORDS = Words.of(["Ann", "Lee", "sees", "New", "York"])


def exam(names: tuple[str, ...], scheme: Scheme | None) -> TagExam:
    return TagExam(names, scheme, lambda split, key: WORDS)


def logits(tags: list[str], names: tuple[str, ...]) -> NDArray[np.float64]:
    return 5 * np.eye(len(names))[[names.index(tag) for tag in tags]]


def answers(said: list[list[str]], true: list[list[str]], names: tuple[str, ...]) -> Answers:
    return Answers(np.arange(len(said)), [logits(one, names) for one in said],
                   [np.array([names.index(tag) for tag in one]) for one in true])


def measured(names: tuple[str, ...], scheme: Scheme | None, said: list[list[str]], true: list[list[str]]) -> dict[str, float]:
    given = answers(said, true, names)
    return {metric.name: metric.compute(given.given, given.references) for metric in exam(names, scheme).metrics()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # seqeval's own
@pytest.mark.parametrize(("scheme", "oracle"), [("iob2", IOB2), ("bioes", IOBES)])
def test_entities_are_measured_as_seqeval_does_strictly(scheme: Any, oracle: Any) -> None:
    draw = random.Random(0)
    names = names_of(TYPES, scheme)
    said = [draw.choices(names, k=draw.randint(1, 8)) for _ in range(500)]
    true = [[tag if draw.random() < 0.7 else draw.choice(names) for tag in one] for one in said]
    found = measured(names, scheme, said, true)
    strict = {"mode": "strict", "scheme": oracle, "zero_division": 0}
    assert found["entity_f1"] == pytest.approx(f1_score(true, said, **strict))
    assert found["entity_precision"] == pytest.approx(precision_score(true, said, **strict))
    assert found["entity_recall"] == pytest.approx(recall_score(true, said, **strict))
    assert found["entity_macro_f1"] == pytest.approx(f1_score(true, said, average="macro", **strict))
    values = exam(names, scheme).by_class(answers(said, true, names))
    by_type = dict(zip(values.names, values.values))
    assert [by_type[name] for name in sorted(TYPES)] == pytest.approx(f1_score(true, said, average=None, **strict))


def test_an_entity_that_does_not_begin_is_none() -> None:
    """A lenient reading gives 1.0 here."""
    names = names_of(TYPES, "iob2")
    said, true = [["I-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "B-LOC"]]
    assert measured(names, "iob2", said, true)["entity_f1"] == pytest.approx(2 / 3)
    assert measured(names, "iob2", [["O"] * 4], true)["entity_f1"] == 0
    assert measured(names, "iob2", [["O"]], [["O"]])["entity_f1"] == 0


def test_words_are_measured_as_scikit_learn_does() -> None:
    draw = random.Random(0)
    names = ("ADJ", "NOUN", "VERB", "X")
    true = [draw.choices(names[:3], k=draw.randint(1, 8)) for _ in range(50)]
    said = [[tag if draw.random() < 0.6 else draw.choice(names[:3]) for tag in one] for one in true]
    found = measured(names, None, said, true)
    flat = [list(chain.from_iterable(some)) for some in (true, said)]
    assert found == {"word_accuracy": pytest.approx(accuracy_score(*flat)),
                     "macro_f1": pytest.approx(class_f1(*flat, average="macro"))}


def test_resampling_examples_is_measuring_them_as_often_as_they_are_drawn() -> None:
    names = names_of(TYPES, "iob2")
    draw = random.Random(1)
    true = [draw.choices(names, k=5) for _ in range(20)]
    said = [[tag if draw.random() < 0.8 else "O" for tag in one] for one in true]
    given = answers(said, true, names)
    metric = exam(names, "iob2").metrics()[0]
    drawn = Resampling(20, 5, seed=3)
    sampled = bootstrap({"x": Asked(metric, [metric.statistics(given.given, given.references)])}, drawn)["x"]
    for resample, weights in enumerate(next(iter(drawn.weights()))):
        rows = np.repeat(np.arange(20), weights.astype(int))
        alone = metric.compute([given.given[row] for row in rows], [given.references[row] for row in rows])
        assert sampled.resamples[0, resample] == pytest.approx(alone)


def test_of_a_word_without_a_token_nothing_is_said() -> None:
    names = ("NOUN", "VERB")
    silent = Answers(np.arange(1), [np.array([[0.0, 0.0], [0.0, 3.0]])], [np.array([0, 1])])
    tags = exam(names, None)
    assert tags.decisions(silent).decided.tolist() == [NO_ANSWER, 1]
    assert tags.named(NO_ANSWER) == "(nothing)"
    assert tags.by_class(silent).values.tolist() == [0, 1]
    assert [metric.compute(silent.given, silent.references) for metric in tags.metrics()] == [0.5, 0.5]
    entities = Answers(np.arange(1), [np.zeros((1, 3))], [np.array([2])])
    assert exam(("B-X", "I-X", "O"), "iob2").decisions(entities).decided.tolist() == [2]


def test_windows_of_an_example_are_one_answer() -> None:
    names = ("NOUN", "VERB")
    parts = Answers(np.array([4, 4, 7]), [np.eye(2), np.eye(2)[:1], np.eye(2)[1:]],
                    [np.array([0, 1]), np.array([NO_ANSWER, 1]), np.array([0])])
    whole = exam(names, None).finished(parts)
    assert whole.keys.tolist() == [4, 7]
    assert [one.tolist() for one in whole.given] == [[[1, 0], [0, 1], [1, 0]], [[0, 1]]]
    assert [one.tolist() for one in whole.references] == [[0, 1, 1], [0]]


def test_the_most_frequent_tag_is_what_a_teacher_has_to_surpass() -> None:
    given = answers([["NOUN"], ["VERB", "VERB"]], [["NOUN"], ["NOUN", "VERB"]], ("NOUN", "VERB"))
    tags = exam(("NOUN", "VERB"), None)
    constant = given.but(tags.constant(given))
    assert tags.metrics()[0].compute(constant.given, constant.references) == pytest.approx(2 / 3)
    assert tags.shuffled(given, np.random.default_rng(0)) is None


def test_kl_is_zero_between_equals_and_of_every_word() -> None:
    given = answers([["NOUN"], ["VERB", "VERB"]], [["NOUN"], ["NOUN", "VERB"]], ("NOUN", "VERB"))
    other = given.but([one + 1.0 for one in given.given])
    assert exam(("NOUN", "VERB"), None).divergence(given, other) == pytest.approx([0, 0, 0])


def test_a_view_marks_the_entities_of_the_data_and_of_both_models() -> None:
    names = names_of(TYPES, "iob2")
    true = ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]
    teacher, student = (answers([one], [true], names) for one in (true, ["B-PER", "I-PER", "O", "O", "B-LOC"]))
    split = Dataset.from_dict({"x": [0]})
    view = exam(names, "iob2").view(split, {"teacher": teacher, "student": student}, 0, 3)
    assert view.text == "Ann Lee sees New York"
    assert view.marks == (
        Mark(13, 16, "?"), Mark(0, 7, "PER"), Mark(13, 21, "LOC"), Mark(0, 7, "PER", "teacher"),
        Mark(13, 21, "LOC", "teacher"), Mark(0, 7, "PER", "student"), Mark(17, 21, "LOC", "student"))


def test_a_view_of_tags_marks_the_word_and_of_long_texts_what_is_around_it() -> None:
    words = Words.of([str(number) for number in range(1000)])
    tags = TagExam(("NOUN", "VERB"), None, lambda split, key: words)
    said = answers([["VERB"] * 1000], [["NOUN"] * 1000], ("NOUN", "VERB"))
    view = tags.view(Dataset.from_dict({"x": [0]}), {"student": said}, 0, 500)
    assert view.text.split() == [str(number) for number in range(440, 561)]
    assert {(view.text[one.start : one.end], one.label, one.by) for one in view.marks} == {
        ("500", "?", ""), ("500", "NOUN", ""), ("500", "VERB", "student")}
