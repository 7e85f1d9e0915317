from __future__ import annotations

import datetime
from contextlib import nullcontext
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from stilla.errors import DataError
from stilla.evaluate.slices import MISSING, by_value, slices_of


def grouped(values: list[Any], feature: Any = None) -> dict[str, list[int]]:
    features = None if feature is None else Features({"it": feature})
    found = slices_of(Dataset.from_dict({"it": values}, features=features), ["it"])
    assert {one.column for one in found} == {"it"}
    return {one.name: one.rows.tolist() for one in found}


@pytest.mark.parametrize(("values", "groups"), [
    (["de", "en", "de"], {"de": [0, 2], "en": [1]}),
    ([" de", "de", "", None, " "], {"de": [0, 1], MISSING: [2, 3, 4]}),
    ([True, False, True, None], {"false": [1], "true": [0, 2], MISSING: [3]}),
    ([10, 2, 10], {"2": [1], "10": [0, 2]}),
    (["10", "2", "10"], {"2": [1], "10": [0, 2]}),  # as CSV has numbers
    ([0.5, 2.0, float("nan")], {"0.5": [0], "2": [1], MISSING: [2]}),
    ([datetime.date(2026, 1, 2), datetime.date(2025, 3, 4)], {"2025-03-04": [1], "2026-01-02": [0]}),
])
def test_every_value_of_a_few_is_a_group_in_its_order(values: list[Any], groups: dict[str, list[int]]) -> None:
    found = grouped(values)
    assert found == groups
    assert list(found) == list(groups)


def test_classes_go_by_their_names() -> None:
    assert grouped([1, 0, 1, -1], ClassLabel(names=["cat", "dog"])) == {"cat": [1], "dog": [0, 2], MISSING: [3]}


@pytest.mark.parametrize("written", [int, float, str])
def test_many_numbers_are_cut_into_quarters(written: Any) -> None:
    found = grouped([*map(written, range(100)), None])
    assert {name: (rows[0], rows[-1], len(rows)) for name, rows in found.items()} == {
        "up to 24": (0, 24, 25), "above 24, up to 49": (25, 49, 25), "above 49, up to 74": (50, 74, 25),
        "above 74": (75, 99, 25), MISSING: (100, 100, 1)}


def test_quarters_that_are_the_same_number_are_one_group() -> None:
    found = grouped([0] * 90 + list(range(1, 31)))
    assert {name: len(rows) for name, rows in found.items()} == {"up to 0": 90, "above 0": 30}


def test_every_example_is_in_one_group_of_a_column() -> None:
    for values in (["a", None, "b"], list(range(77)), [0.1 * one for one in range(40)], ["7"] * 3 + ["x"]):
        rows = sorted(row for group in grouped(values).values() for row in group)
        assert rows == list(range(len(values)))


def test_columns_that_make_no_groups_are_refused_all_at_once() -> None:
    split = Dataset.from_dict({"text": [f"text {one}" for one in range(150)], "tags": [["a"]] * 150, "lang": ["de"] * 150})
    with pytest.raises(DataError) as raised:
        slices_of(split, ["text", "tags", "langs", "lang"])
    first, second, third = raised.value.problems
    assert first == ("evaluate.slices: 'text' holds 150 different values in 150 examples ('text 0', 'text 1' and 'text 10' "
                     "...); expected a column that tells groups apart, with at most 100 values, or numbers")
    assert second == ("evaluate.slices: 'tags' holds values of the kind list; expected text, classes, numbers, or true and "
                      "false")
    assert third == "evaluate.slices: there is no column 'langs'; expected text, tags or lang. Did you mean lang?"


@pytest.mark.parametrize(("values", "refused"), [
    ([str(one) + "x" for one in range(13)] * 2, False), ([str(one) + "x" for one in range(13)] + ["0x"] * 12, True),
    ([str(one) + "x" for one in range(12)], False), ([str(one % 101) + "x" for one in range(1000)], True),
    ([str(one % 100) + "x" for one in range(1000)], False)])
def test_what_is_nearly_always_different_tells_no_groups_apart(values: list[str], refused: bool) -> None:
    with pytest.raises(DataError, match="tells groups apart") if refused else nullcontext():
        grouped(values)


def test_bytes_are_no_groups() -> None:
    with pytest.raises(DataError, match="'it' holds values of the kind binary; expected text"):
        grouped([b"a", b"b"], Value("binary"))


def test_every_value_by_itself_however_many_there_are() -> None:
    values = [*map(str, range(300)), "7", None, ""]
    found = by_value(Dataset.from_dict({"it": values}), "it")
    assert len(found) == 300
    assert found["7"].tolist() == [7, 300]
    assert list(by_value(Dataset.from_dict({"it": [2, 1, 2]}), "it")) == ["1", "2"]
