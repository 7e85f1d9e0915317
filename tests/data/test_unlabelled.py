"""Examples without labels: which files and splits they are read from, and how they stand beside labelled ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from pydantic import ValidationError

from stilla.data import are_unlabelled, joined, load, load_unlabelled
from stilla.data.unlabelled import MARK, some_of
from stilla.errors import DataError
from stilla.recipe import Data, PerClass, Split, Unlabelled
from stilla.tasks.language.sections import CausalLMData


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(path)


def section(folder: Path, **unlabelled: Any) -> Data:
    return Data(train=str(folder / "train.csv"), unlabelled=Unlabelled(**unlabelled))


def test_files_folders_and_several_of_them_are_read(tmp_path: Path) -> None:
    one = lines(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b"}])
    (tmp_path / "b.txt").write_text("c\nd\n\ne\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.csv").write_text("text,label\nf,1\n")
    found = load_unlabelled(section(tmp_path, examples=(one, str(tmp_path / "b.txt"), str(tmp_path / "folder"))), seed=0)
    assert [split["text"][:] for split in found.values()] == [["a", "b"], ["c", "d", "e"], ["f"]]


@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [(Data, {}, ["c", "d", "e"]), (Data, {"document": "paragraph"}, ["c\nd", "e"]), (CausalLMData, {}, ["c\nd", "e"]),
     (CausalLMData, {"document": "line"}, ["c", "d", "e"])])  # fmt: skip
def test_in_plain_text_a_line_is_an_example_unless_texts_are_what_is_learnt(
    kind: type[Data], said: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    (tmp_path / "b.txt").write_text("c\nd\n\ne\n")
    made = kind(train="x", unlabelled=Unlabelled(examples=(str(tmp_path / "b.txt"),), **said))
    (found,) = load_unlabelled(made, seed=0).values()
    assert found["text"][:] == expected


def test_of_several_splits_the_unlabelled_one_is_taken_or_the_named_one(tmp_path: Path) -> None:
    one, two, three = (Dataset.from_dict({"text": [text]}) for text in "abc")
    DatasetDict({"train": one, "unsupervised": two, "test": three}).save_to_disk(str(tmp_path / "d"))
    place = (str(tmp_path / "d"),)
    assert load_unlabelled(section(tmp_path, examples=place), seed=0)[place[0]]["text"][:] == ["b"]
    assert load_unlabelled(section(tmp_path, examples=place, split="test"), seed=0)[place[0]]["text"][:] == ["c"]
    with pytest.raises(DataError, match=r"data\.unlabelled: .* has no split 'tset', only .*Did you mean test\?"):
        load_unlabelled(section(tmp_path, examples=place, split="tset"), seed=0)


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        load_unlabelled(section(tmp_path, examples=(str(tmp_path / "x.txt"), str(tmp_path / "y.csv"))), seed=0)
    assert [problem.partition("'")[0] for problem in raised.value.problems] == ["data.unlabelled: "] * 2


def test_without_training_data_only_what_is_measured_is_labelled(tmp_path: Path) -> None:
    files = {name: lines(tmp_path / f"{name}.jsonl", [{"text": name, "label": 1}]) for name in ("validation", "test")}
    found = load(Data(unlabelled=Unlabelled(examples=("x.txt",)), **files), seed=0)
    assert {name: split["text"][:] for name, split in found.items()} == {"validation": ["validation"], "test": ["test"]}


def test_without_training_data_those_from_elsewhere_are_measured_too(tmp_path: Path) -> None:
    pool = lines(tmp_path / "pool.jsonl", [{"text": "a"}])
    judged = lines(tmp_path / "judged.jsonl", [{"text": "b", "label": 1}])
    more: dict[str, Any] = {"unlabelled": pool, "validation": judged}
    assert list(load(Data(**more, shifted={"typos": judged}), seed=0)) == ["validation", "shifted.typos"]
    with pytest.raises(DataError, match=r"data\.shifted\.odd: got a split of the training data, 'odd', and there are none"):
        load(Data(**more, shifted={"odd": {"name": "odd"}}), seed=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({}, "train is missing"), ({"unlabelled": "x.txt"}, "in `validation`"),
     ({"unlabelled": "x.txt", "validation": {"split": 0.1}}, "in `validation`"),
     ({"unlabelled": "x.txt", "validation": "v.csv", "test": {"split": 0.1}}, "test could be taken from"),
     ({"unlabelled": "x.txt", "validation": "v.csv", "limit": 3}, "limit is of the labelled")],
)  # fmt: skip
def test_what_cannot_be_without_labelled_training_data_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Data.model_validate(changes)


def test_a_few_are_drawn_by_the_seed_alone_and_stay_in_order() -> None:
    pool = Dataset.from_dict({"text": [str(number) for number in range(100)]})
    few = some_of(pool, 10, 3)["text"][:]
    assert few == some_of(pool, 10, 3)["text"][:] == sorted(few, key=int)
    assert len(few) == 10
    assert few != some_of(pool, 10, 4)["text"][:]
    assert some_of(pool, 100, 3) is pool


KINDS = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"]), "tags": List(Value("string"))})


def test_what_the_unlabelled_lack_is_nothing_whatever_its_type() -> None:
    labelled = Dataset.from_dict({"text": ["x", "y"], "label": [0, 1], "tags": [["p"], []]}, features=KINDS)
    whole = joined(labelled, Dataset.from_dict({"text": ["z"]}, features=Features({"text": Value("large_string")})))
    assert whole.features == Features({**KINDS, MARK: Value("bool")})
    assert whole["text"][:] == ["x", "y", "z"]
    assert whole["label"][:] == [0, 1, None]
    assert whole["tags"][:] == [["p"], [], None]
    assert are_unlabelled(whole).tolist() == [False, False, True]
    assert not are_unlabelled(labelled).any()
    assert are_unlabelled(joined(None, labelled)).tolist() == [True, True]


def test_columns_of_another_type_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.unlabelled: its columns cannot be read"):
        joined(Dataset.from_dict({"text": ["x"]}), Dataset.from_dict({"text": [["z"]]}))


def labelled(folder: Path, **more: Any) -> Data:
    rows = [{"text": f"text {number}", "label": "abc"[number % 3]} for number in range(60)]
    return Data(train=lines(folder / "train.jsonl", rows), unlabelled=Unlabelled(rest=True), **more)


def test_what_a_limit_leaves_is_unlabelled_and_nothing_of_it_is_labelled_or_measured(tmp_path: Path) -> None:
    made = labelled(tmp_path, limit=PerClass(per_class=4), test=Split(split=0.2))
    splits, (rest,) = load(made, seed=3), load_unlabelled(made, seed=3).values()
    few, measured = set(splits["train"]["text"]), {*splits["validation"]["text"], *splits["test"]["text"]}
    assert len(few) == 12
    assert not few & set(rest["text"])
    assert not measured & set(rest["text"])
    assert len(few) + len(rest) + len(measured) == 60


def test_a_limit_that_leaves_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="keeps all 54 training examples, so that nothing is left without labels"):
        load_unlabelled(labelled(tmp_path, limit=54), seed=0)


@pytest.mark.parametrize(("said", "words"), [
    ({"train": "a.csv", "unlabelled": {"rest": True}}, "expected `train`, and"),
    ({"train": "a.csv", "unlabelled": {}}, "examples are missing"),
])
def test_a_rest_needs_a_limit(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Data.model_validate(said)
