"""What Python gives where a recipe has names, as datasets."""

from __future__ import annotations

import datetime
import random
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDataset, Value

from stilla.data.given import examples, one_split
from stilla.errors import DataError

ROWS = [{"text": "good", "label": "pos"}, {"text": "bad", "label": "neg"}]
VIEWS = pa.array(["pos", "neg"]).cast(pa.string_view())
COLUMNS = {"text": ["good", "bad"], "label": ["pos", "neg"]}


def one(value: object) -> Dataset:
    made = examples(value)
    assert isinstance(made, Dataset)
    return made


class Exports:
    """As polars does: nothing but the interface between libraries, with its own types for texts."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("value", [
    ROWS, tuple(ROWS), COLUMNS, {name: np.array(values) for name, values in COLUMNS.items()},
    {name: Dataset.from_dict(COLUMNS)[name] for name in COLUMNS},
    {name: pd.Series(values) for name, values in COLUMNS.items()},
    Dataset.from_dict(COLUMNS), Dataset.from_dict(COLUMNS).with_format("numpy"), pd.DataFrame(COLUMNS),
    pd.DataFrame({**COLUMNS, "label": pd.Categorical(COLUMNS["label"])}), pd.DataFrame(COLUMNS, dtype=object),
    pd.DataFrame(COLUMNS, index=[7, 5]), pd.DataFrame(COLUMNS).set_index("text"),
    pa.table(COLUMNS), Exports(pa.table({"text": pa.array(["good", "bad"]).cast(pa.string_view()),
                                         "label": pa.DictionaryArray.from_arrays([0, 1], VIEWS)})),
], ids=["rows", "tuple", "columns", "arrays", "lazy columns", "series", "dataset", "formatted", "frame", "categories",
        "objects", "row numbers", "named index", "table", "another library"])
def test_whatever_has_named_columns_is_the_same_examples(value: object) -> None:
    assert one(value).to_list() == ROWS
    assert all(isinstance(feature, Value) for feature in one(value).features.values())


def test_polars_is_taken() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(COLUMNS).with_columns(polars.col("label").cast(polars.Categorical))
    assert one(frame).to_list() == ROWS
    nested = polars.DataFrame({"a": [1, None], "b": [["x"], ["y", "z"]], "c": [{"d": "e"}, {"d": None}]})
    assert one(nested).to_list() == [{"a": 1, "b": ["x"], "c": {"d": "e"}}, {"a": None, "b": ["y", "z"], "c": {"d": None}}]
    assert "view" not in repr(one(nested).features)
    with pytest.raises(DataError, match=r"got polars\.LazyFrame; expected.*\.collect\(\)"):
        examples(nested.lazy())


def test_what_a_row_does_not_say_is_missing_there() -> None:
    made = one([{"text": "a"}, {"label": 1, "text": "b"}])
    assert made.to_list() == [{"text": "a", "label": None}, {"text": "b", "label": 1}]
    frame = pd.DataFrame({"text": ["a", None, float("nan")], "n": [1.5, None, 2]}, dtype=object)
    assert one(frame).to_list() == [{"text": "a", "n": 1.5}, {"text": None, "n": None}, {"text": None, "n": 2.0}]


def test_classes_and_splits_stay_what_they_are() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    whole = DatasetDict(train=Dataset.from_dict({"text": ["a"], "label": [1]}, features=features),
                        dev=Dataset.from_dict({"text": ["b"], "label": [0]}, features=features))
    made = examples(whole)
    assert isinstance(made, DatasetDict)
    assert list(made) == ["train", "dev"]
    assert made["dev"].features == features


def test_pictures_of_a_list_are_pictures() -> None:
    draw = random.Random(0)
    pictures = [PIL.Image.new("RGB", (4, 4), (draw.randrange(256), 0, 0)) for _ in range(2)]
    for value in ([{"image": picture} for picture in pictures], {"image": pictures}, pd.DataFrame({"image": pictures})):
        made = one(value)
        assert isinstance(made.features["image"], Image)
        assert [picture.getpixel((0, 0)) for picture in made["image"]] == [picture.getpixel((0, 0)) for picture in pictures]


def test_parts_of_conversations_keep_their_own_keys() -> None:
    talks = [[{"role": "tool", "arguments": {"x": 1}}], [{"role": "tool", "arguments": {"y": "z"}}]]
    assert one([{"messages": talk} for talk in talks])["messages"][:] == talks


def test_only_the_columns_that_rows_show_are_taken() -> None:
    assert one(Dataset.from_dict({**COLUMNS, "id": [1, 2]}).with_format("numpy", columns=["text", "label"])).to_list() == ROWS


@pytest.mark.parametrize(("value", "words"), [
    ((row for row in ROWS), r"got generator; expected .*list of dicts.*several times.*list\(\.\.\.\)"),
    (Dataset.from_list(ROWS).to_iterable_dataset(), r"got datasets\.IterableDataset; .*without streaming"),
    (torch.utils.data.TensorDataset(torch.zeros(2, 3)), r"got torch\.TensorDataset; .*DistillationTrainer"),
    (np.zeros((2, 3)), r"numpy\.ndarray of shape \(2, 3\); .*need names"),
    (torch.zeros(2, 3), r"torch\.Tensor of shape \(2, 3\); .*need names"),
    (pd.Series(["a"]), r"pandas\.Series; .*need names"),
    (["a.csv", "b.csv"], r"item 0 is str; expected a dict for every example.*folder"),
    ([ROWS[0], ("bad", "neg")], r"item 1 is tuple"),
    ([], r"no examples"), ({}, r"no examples"), (pd.DataFrame(), r"no examples"), (DatasetDict(), r"no splits"),
    ({"text": ["a", "b"], "label": [1]}, r"different lengths: text 2 and label 1"),
    ({"text": "abc", "label": [1]}, r"'text' is str; expected a list of values"),
    ({0: ["a"]}, r"a column is called 0 \(int\); expected text"),
    (pd.DataFrame([["a", "b"]]), r"a column is called 0"),
    (pd.DataFrame([["a", "b"]], columns=["x", "x"]), r"two columns are called 'x'"),
    (pa.table([[1], [2]], names=["x", "x"]), r"two columns are called 'x'"),
    ({"text": ["a", 1, 2.5], "n": [1, 2, 3]}, r"column 'text': its values are of several kinds, float, int and str"),
    ({"what": [object(), object()]}, r"column 'what': its values cannot be stored"),
    ({"what": [[{"a": 1, "b": object()}], [{"a": "x"}]]}, r"column 'what': its values cannot be stored"),
    (Dataset.from_list(ROWS).with_transform(lambda rows: rows), r"set_transform.*\.map"),
    (DatasetDict(train=IterableDataset.from_generator(lambda: iter(ROWS))), r"train: got datasets\.IterableDataset"),
    (datetime.date(2020, 1, 1), r"got datetime\.date; expected"),
    (Dataset, r"Call it"),
])
def test_anything_else_is_refused_in_words(value: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"(?s){words}") as raised:
        examples(value)
    assert len(str(raised.value)) < 600


def test_of_several_splits_test_is_meant_where_one_is() -> None:
    some, others = Dataset.from_dict(COLUMNS), Dataset.from_list(ROWS[:1])
    assert one_split(DatasetDict(train=some, test=others)).to_list() == ROWS[:1]
    assert one_split(DatasetDict(train=some)).to_list() == ROWS
    with pytest.raises(DataError, match="holds dev and train; give the one that is meant"):
        one_split(DatasetDict(train=some, dev=others))
