"""A limit by class where examples have several: each class has so many examples, and no more than that takes."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from stilla import data
from stilla.data.several_classes import NOTHING, classes_of_each, drawn_of_each
from stilla.errors import DataError
from stilla.recipe import Data, PerClass
from stilla.tasks.shared.sections import Classified
from stilla.tasks.text.sections import QuestionAnsweringData, TokenClassificationData
from stilla.tasks.vision.sections import ImageClassificationData

BOTH = frozenset({"a", "b"})


def sets(rows: Dataset | dict[str, list[Any]], section: Data, column: str | None = None) -> list[frozenset[str]] | None:
    return classes_of_each(rows if isinstance(rows, Dataset) else Dataset.from_dict(rows), section, column)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_class_has_so_many_or_all_and_none_is_drawn_for_nothing(number: int) -> None:
    draw = random.Random(0)
    classes = [frozenset(draw.sample("abcdefg", draw.randint(1, 3))) for _ in range(60)] + [frozenset("z")] * 3
    drawn = drawn_of_each(classes, number, np.random.default_rng(0)).tolist()
    there, counts = Counter(one for own in classes for one in own), Counter(one for row in drawn for one in classes[row])
    assert all(counts[one] >= min(number, there[one]) for one in there)
    assert len(drawn) <= sum(min(number, there[one]) for one in there)
    assert len(set(drawn)) == len(drawn)
    more = drawn_of_each(classes, number + 1, np.random.default_rng(0)).tolist()
    assert set(drawn) <= set(more)
    assert drawn == drawn_of_each(classes, number, np.random.default_rng(0)).tolist()
    assert drawn != drawn_of_each(classes, number, np.random.default_rng(1)).tolist()


def test_flags_in_columns_are_classes_and_examples_without_any_are_one() -> None:
    rows = {"text": ["x"] * 4, "a": [1, 0, 1, None], "b": ["true", "False", "", "1"]}
    assert sets(rows, Classified(train="t", label=("a", "b"))) == [BOTH, NOTHING, frozenset("a"), frozenset("b")]
    amounts = {"text": ["x"] * 2, "a": [0.5, 1.0], "b": [1.0, 0.0]}
    assert sets(amounts, Classified(train="t", label=("a", "b"))) is None
    assert sets({"a": [0, 1], "b": [1, 0]}, Classified(train="t", label=("a", "b"), kind="regression")) is None


def test_lists_and_texts_name_classes_or_hold_a_flag_for_each() -> None:
    section = Classified(train="t", label="labels")
    assert sets({"labels": [["a", "b"], [], ["a"]]}, section, "labels") == [BOTH, NOTHING, frozenset("a")]
    assert sets({"labels": [[0, 1, 1], [1, 0, None]]}, section, "labels") == [frozenset({"1", "2"}), frozenset({"0"})]
    between = Classified(train="t", label="labels", label_separator=";")
    assert sets({"labels": ["a; b", ";", "a"]}, between, "labels") == [BOTH, NOTHING, frozenset("a")]
    assert sets({"labels": ["a; b", ";", "a"]}, section, "labels") is None  # one class each


def test_tags_and_spans_have_the_types_of_their_entities() -> None:
    tags = {"tokens": [["x"] * 3] * 3, "ner_tags": [["O", "B-LOC", "I-LOC"], ["O"] * 3, ["S-PER", "U-LOC", "O"]]}
    expected = [frozenset({"LOC"}), NOTHING, frozenset({"LOC", "PER"})]
    assert sets(tags, TokenClassificationData(train="t")) == expected
    mine = {"tokens": tags["tokens"], "mine": tags["ner_tags"]}
    assert sets(mine, TokenClassificationData(train="t", tags="mine")) == expected
    whole = sets(tags, TokenClassificationData(train="t", scheme="none"))
    assert whole is not None
    assert whole[0] == {"B-LOC", "I-LOC"}
    names = ["O", "B-LOC", "I-LOC", "S-PER", "U-LOC"]
    numbers = [[names.index(one) for one in own] for own in tags["ner_tags"]]
    declared = Dataset.from_dict({"ner_tags": numbers}, Features({"ner_tags": List(ClassLabel(names=names))}))
    assert sets(declared, TokenClassificationData(train="t")) == expected
    assert sets({"ner_tags": numbers}, TokenClassificationData(train="t", labels=tuple(names))) == expected
    spans = {"text": ["x y"] * 3, "spans": [[{"start": 0, "end": 1, "label": "LOC"}], [],
                                            [{"start": 0, "end": 1, "label": "PER"}, {"start": 2, "end": 3, "label": "LOC"}]]}
    assert sets(spans, TokenClassificationData(train="t", text="text", spans="spans")) == expected
    assert sets({"pos_tags": [["NOUN", "X"]]}, TokenClassificationData(train="t")) == [frozenset({"NOUN", "X"})]


def test_a_limit_by_class_takes_them_from_files(tmp_path: Path) -> None:
    draw = random.Random(1)
    file = tmp_path / "train.jsonl"
    rows = [{"tokens": ["x", "y"], "tags": draw.choice([["O", "O"], ["B-LOC", "O"], ["B-PER", "B-LOC"]])} for _ in range(80)]
    file.write_text("\n".join(map(json.dumps, rows)))
    section = TokenClassificationData(train=str(file), limit=PerClass(per_class=6))
    found = data.load(section, seed=0)["train"]
    counts = Counter(tag for own in found["tags"] for tag in {*own} - {"O"})
    assert counts["B-PER"] >= 6
    assert counts["B-LOC"] >= 6
    assert sum(own == ["O", "O"] for own in found["tags"]) == 6
    assert len(found) <= 18
    there, left = data.number_left(section, seed=0)
    assert (there, left) == (72, 72 - len(found))


def test_pictures_and_answers(tmp_path: Path) -> None:
    pictures = ImageClassificationData(train="t", label=("a", "b"))
    assert sets({"image": ["x"] * 2, "a": [1, 0], "b": [1, 1]}, pictures) == [BOTH, frozenset("b")]
    answers = {"context": ["x"], "question": ["y"], "answers": [[{"text": "x", "answer_start": 0}]]}
    file = tmp_path / "qa.jsonl"
    file.write_text("\n".join([json.dumps({name: values[0] for name, values in answers.items()})] * 20))
    with pytest.raises(DataError, match=r"data\.limit\.per_class: no column holds one class"):
        data.load(QuestionAnsweringData(train=str(file), limit=PerClass(per_class=2)), seed=0)


def test_numbers_have_no_classes() -> None:
    rows = Dataset.from_dict({"label": [0.5, 1.5]}, Features({"label": Value("float64")}))
    assert sets(rows, Classified(train="t", label="label"), "label") is None
