"""Groups that get a part of the student, and answers that are put together of several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from torch import nn

from stilla.errors import DataError, FolderError, StillaError
from stilla.recipe import Personal
from stilla.runtime.files import sealed
from stilla.stages import groups
from stilla.stages.folder import RunFolder
from stilla.stages.groups import Parts, with_a_part
from stilla.tasks.answers import Answers


def split(*values: object) -> Dataset:
    return Dataset.from_dict({"segment": list(values)})


def test_who_has_enough_examples_gets_a_part() -> None:
    data = split("b", "a", "b", None, " b ", "c", "", "a")
    found = with_a_part(data, Personal(by="segment", at_least=2))
    assert {name: rows.tolist() for name, rows in found.items()} == {"a": [1, 7], "b": [0, 2, 4]}


def test_examples_of_which_nothing_is_learnt_do_not_count() -> None:
    data = split("b", "a", "b", "a", "a")
    found = with_a_part(data, Personal(by="segment", at_least=2), np.array([0, 1, 3, 4]))
    assert {name: rows.tolist() for name, rows in found.items()} == {"a": [1, 3, 4]}


@pytest.mark.parametrize(("section", "why"), [
    (Personal(by="segments"), r"personal.by: there is no column .segments.*Did you mean segment\?"),
    (Personal(by="segment", at_least=3), "personal.at_least: got 3, and none of the 3 values .* the most frequent has 2"),
    (Personal(by="segment", at_least=1, most=2), "3 values .* expected at most 2"),
])
def test_what_makes_no_parts_is_refused(section: Personal, why: str) -> None:
    with pytest.raises(DataError, match=why):
        with_a_part(split("a", "b", "a", "c"), section)


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setattr(groups, "read_part", lambda shared, folder: nn.Linear(1, int(folder.name) + 2))
    return Parts("segment", {"a": tmp_path / "0", "b": tmp_path / "1"}, {"a": 5, "b": 6})


def asked(left_out: int = -1):
    """Each part answers by its number; a text that has nothing to say is left out."""
    def ask(model: nn.Module, some: Dataset) -> Answers:
        keys = np.array([key for key in range(len(some)) if key != left_out], np.int64)
        return Answers(keys, np.full(len(keys), float(model.out_features)), np.zeros(len(keys)))
    return ask


@pytest.mark.parametrize("listed", [False, True], ids=["array", "list"])
def test_a_groups_examples_are_answered_by_its_part_and_all_others_by_the_student(parts: Parts, listed: bool) -> None:
    shared = np.zeros(5)
    said = Answers(np.array([0, 1, 3, 4, 5]), list(shared) if listed else shared, np.zeros(5))
    found = parts.answered(nn.Linear(1, 1), said, split("a", "b", "a", "cold", "b", "a"), asked())
    assert list(found.given) == [2.0, 3.0, 0.0, 3.0, 2.0]
    assert found.keys is said.keys
    assert list(said.given) == [0.0] * 5


def test_groups_that_are_cut_otherwise_are_refused(parts: Parts) -> None:
    said = Answers(np.arange(4), np.zeros(4), np.zeros(4))
    with pytest.raises(StillaError, match="examples of segment 'a' by themselves are others"):
        parts.answered(nn.Linear(1, 1), said, split("a", "a", "a", "b"), asked(left_out=1))


def test_parts_are_found_again_and_a_damaged_list_is_said(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for seed, place in enumerate((tmp_path / "personal", tmp_path / "seeds" / "personal-1")):
        place.mkdir(parents=True)
        one = Parts("segment", {"a": place / "0"}, {"a": 5})
        one.write(place)
        assert Parts.of(folder, seed) == one
    file = tmp_path / "personal" / "parts.json"
    whole = file.read_text()
    file.write_text(whole.replace('"a"', '"b"'))
    with pytest.raises(FolderError, match="nobody knows whose the parts are"):
        Parts.of(folder, 0)
    file.write_text(sealed({"by": "segment", "parts": {"a": "../../elsewhere"}, "learnt from": {"a": 5}}))
    with pytest.raises(FolderError, match="invalid literal for int"):  # a run may be anybody's
        Parts.of(folder, 0)
