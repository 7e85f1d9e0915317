"""Models and files are asked about one split: each answer stands with its example, whatever shape it has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import distributed, multiprocessing, nn

from stilla.errors import DataError
from stilla.evaluate import Asked, examine, remarks
from stilla.evaluate.asking import Precision
from stilla.signals import Batch, Side
from stilla.tasks.answers import Answers, Given
from stilla.tasks.base import Prepared
from stilla.tasks.exam import side_by_side
from tests.evaluate.fake_exam import Echo, FakeExam, Rows, collate, prepared

LENGTHS = [3, 9, 1, 7, 5, 2, 8]


def said(forward: Any, data: Prepared, *, side: Side = Side.STUDENT, precision: Precision = "float32", exam: Any = None,
         **options: Any) -> Answers:
    """One subject's answers."""
    return examine(exam or FakeExam(), {"student": Asked(forward, side, precision)}, data, **options)["student"]


def test_predictions_come_in_the_order_of_the_split_and_skipped_examples_stay_skipped() -> None:
    keys = [0, 2, 3, 7, 8, 11, 12]
    found = said(Echo(), prepared(LENGTHS, keys), batch_size=2)
    assert found.keys.tolist() == keys
    assert found.given[:, 0].tolist() == keys
    assert found.references.tolist() == [key % 3 for key in keys]


def test_examples_of_similar_length_share_a_batch() -> None:
    model = Echo()
    said(model, prepared(LENGTHS), batch_size=2)
    assert model.widths == [9, 7, 3, 1]


def test_examples_without_length_are_walked_in_order() -> None:
    data = Prepared(Rows(np.arange(7), LENGTHS), collate, np.arange(7))
    found = said(Echo(), data, batch_size=3)
    assert found.given[:, 0].tolist() == list(range(7))


def test_a_teacher_gets_the_teachers_inputs() -> None:
    found = said(Echo(), prepared(LENGTHS), side=Side.TEACHER, batch_size=2)
    assert found.given[:, 0].tolist() == [2.0 * key for key in range(7)]


def test_a_function_is_asked_like_a_model() -> None:
    def answer(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        top = inputs["values"].amax(dim=1)
        return torch.stack([top, -top, torch.zeros_like(top)], dim=1)

    live = said(Echo(), prepared(LENGTHS), batch_size=2)
    file = said(answer, prepared(LENGTHS), batch_size=3)
    assert np.array_equal(live.given, file.given)


def test_modes_and_random_state_are_left_as_they_were() -> None:
    model = Echo().train()
    model.dropout.eval()
    before = torch.get_rng_state()
    said(model, prepared(LENGTHS), batch_size=2)
    assert model.training
    assert not model.dropout.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failing_forward_leaves_the_mode_as_it_was() -> None:
    class Broken(Echo):
        def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
            raise ValueError("broken")

    model = Broken().train()
    with pytest.raises(ValueError, match="broken"):
        said(model, prepared(LENGTHS))
    assert model.training


def test_no_gradients_are_kept() -> None:
    seen: list[bool] = []

    class Watched(Echo):
        def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(torch.is_grad_enabled())
            return super().forward(values)

    said(Watched(), prepared(LENGTHS))
    assert seen == [False]


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.linear(values)}


@pytest.mark.parametrize(("weights", "precision"), [
    (torch.float32, "bfloat16"), (torch.bfloat16, "float32"), (torch.bfloat16, "bfloat16")])
def test_bfloat16_gives_float32_predictions(weights: torch.dtype, precision: Precision) -> None:
    model = Head()
    data = prepared([4] * 5)
    exact = said(model, data)
    found = said(model.to(weights), data, precision=precision)
    assert found.given.dtype == np.float32
    assert not np.array_equal(found.given, exact.given)
    np.testing.assert_allclose(found.given, exact.given, rtol=0.03, atol=0.03)


def test_references_of_the_split_take_the_place_of_the_batches() -> None:
    labels = np.array([2, 2, 1, 1, 0, 0, 0])
    found = said(Echo(), prepared(LENGTHS, references=labels))
    assert found.references.tolist() == labels.tolist()


def test_an_empty_split_and_missing_labels_are_refused() -> None:
    with pytest.raises(DataError, match="no examples to evaluate on"):
        said(Echo(), prepared([]))

    def unlabelled(examples: list[tuple[int, torch.Tensor]]) -> object:
        batch = collate(examples)
        del batch["labels"]
        return batch

    with pytest.raises(DataError, match="no labels"):
        said(Echo(), Prepared(Rows(np.arange(2), [1, 2]), unlabelled, np.arange(2)))


def test_a_collator_that_reorders_its_examples_is_refused() -> None:
    data = Prepared(Rows(np.arange(3), [1, 2, 3]), lambda examples: collate(examples[::-1]), np.arange(3))
    with pytest.raises(DataError, match="must keep the order"):
        said(Echo(), data)


@dataclass(frozen=True)
class Beside(FakeExam):
    """Answers are (largest value of the model, of the teacher); -1 where the teacher was not asked."""

    def given(self, said: torch.Tensor, batch: Batch, teacher: torch.Tensor | None) -> NDArray[Any]:
        other = torch.full_like(said[:, 0], -1) if teacher is None else teacher[:, 0]
        return torch.stack([said[:, 0], other], 1).numpy()

    def remarks(self, said: Mapping[str, Any], batch: Batch) -> list[str]:
        return [f"{name}: {one[:, 0].tolist()}" for name, one in said.items()]


def test_all_are_asked_about_a_batch_before_the_next_one_and_see_what_the_teacher_said() -> None:
    order: list[tuple[str, int]] = []

    def told(name: str) -> Echo:
        model = Echo()
        model.register_forward_pre_hook(lambda module, args, values: order.append((name, values["values"].shape[1])),
                                        with_kwargs=True)
        return model

    subjects = {"student": Asked(told("student")), "teacher": Asked(told("teacher"), Side.TEACHER),
                "baseline": Asked(told("baseline"))}
    found = examine(Beside(), subjects, prepared(LENGTHS), batch_size=2)
    keys = list(range(7))
    assert found["student"].given.tolist() == found["baseline"].given.tolist() == [[key, 2 * key] for key in keys]
    assert found["teacher"].given.tolist() == [[2 * key, -1] for key in keys]
    assert order == [(name, width) for width in (9, 7, 3, 1) for name in ("teacher", "student", "baseline")]
    alone = examine(Beside(), {"teacher": Asked(Echo(), Side.TEACHER)}, prepared(LENGTHS))["teacher"]
    assert alone.given.tolist() == found["teacher"].given.tolist()


def test_remarks_are_made_of_a_few_examples_from_all_over_the_split() -> None:
    subjects = {"teacher": Asked(Echo(), Side.TEACHER), "student": Asked(Echo())}
    said = remarks(Beside(), subjects, prepared([1] * 9), examples=3)
    assert said == ("teacher: [0.0, 8.0, 16.0]", "student: [0.0, 4.0, 8.0]")
    assert remarks(FakeExam(), subjects, prepared([1] * 9)) == ()


@dataclass(frozen=True)
class Wide(FakeExam):
    """An answer for every value of an example, (length, 2); batches are as wide as their longest example."""

    made_of: str = "numbers"

    def outputs(self, outputs: Any) -> torch.Tensor:
        return outputs["values"]

    def given(self, said: torch.Tensor, batch: Batch, teacher: Any | None) -> Given:
        values = torch.stack([said, 10 * said], -1).numpy()
        if self.made_of == "lists":
            return [one[: int((one[:, 0] > 0).sum())].tolist() for one in values]
        if self.made_of == "strings":
            return np.array([f"{one:.0f}" * int(one + 1) for one in said[:, 0]])
        return values

    def joined(self, parts: Sequence[Given], *, references: bool = False) -> Given:
        if self.made_of != "numbers" or references:
            return super().joined(parts)
        return side_by_side([np.asarray(part) for part in parts], -7)


class Same(nn.Module):
    def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"values": values + 1}


@pytest.mark.parametrize("lengths", [LENGTHS, [4] * 7, [3, 3, 3, 3, 3, 3, 9]], ids=["other widths", "one width", "one wide"])
@pytest.mark.parametrize("by_length", [True, False])
def test_large_answers_are_kept_in_a_file_and_are_the_same(
    lengths: list[int], by_length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without lengths a later batch may be wider than the file."""
    data = prepared(lengths)
    data = data if by_length else Prepared(data.examples, data.collate, data.keys)
    in_memory = said(Same(), data, exam=Wide(), batch_size=2)
    assert not isinstance(in_memory.given, np.memmap)
    for key, length in enumerate(lengths):
        assert (in_memory.given[key, :length] == [key + 1, 10 * (key + 1)]).all()
    monkeypatch.setattr("stilla.evaluate.asking.IN_MEMORY", 0)
    in_a_file = said(Same(), data, exam=Wide(), batch_size=2)
    wider_later = not by_length and max(lengths[2:]) > max(lengths[:2])
    assert isinstance(in_a_file.given, np.memmap) == (not wider_later)
    assert in_a_file.given.dtype == in_memory.given.dtype
    assert np.array_equal(in_a_file.given, in_memory.given)
    assert np.array_equal(in_a_file.references, in_memory.references)


def test_arrays_of_other_shapes_are_a_list_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As masks of pictures of other sizes; also where the first batch went into a file."""
    in_memory = said(Same(), prepared(LENGTHS), exam=Wide(made_of="shapes"), batch_size=2).given
    monkeypatch.setattr("stilla.evaluate.asking.IN_MEMORY", 0)
    for found in (in_memory, said(Same(), prepared(LENGTHS), exam=Wide(made_of="shapes"), batch_size=2).given):
        assert isinstance(found, list)
        assert [one.shape for one in found] == [(width, 2) for width in (3, 9, 1, 7, 7, 3, 9)]
        assert [one[0].tolist() for one in found] == [[key, 10 * key] for key in range(1, 8)]


@pytest.mark.parametrize("made_of", ["lists", "strings"])
def test_lists_and_strings_of_any_length_are_kept_whole(made_of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = said(Same(), prepared([2] * 5), exam=Wide(made_of=made_of), batch_size=2)
    monkeypatch.setattr("stilla.evaluate.asking.IN_MEMORY", 0)
    found = said(Same(), prepared([2] * 5), exam=Wide(made_of=made_of), batch_size=2)
    assert list(found.given) == list(in_memory.given)
    if made_of == "strings":
        assert found.given.tolist() == ["11", "222", "3333", "44444", "555555"]


def _shared(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    model = Echo()
    found = said(model, prepared(LENGTHS), batch_size=2, together=True)
    np.savez(Path(folder) / f"{rank}.npz", keys=found.keys, given=found.given, references=found.references)
    np.save(Path(folder) / f"{rank}.npy", model.widths)
    distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_that_share_the_work_all_get_all_of_it(tmp_path: Path) -> None:
    multiprocessing.spawn(_shared, args=(3, str(tmp_path)), nprocs=3)
    alone = said(Echo(), prepared(LENGTHS), batch_size=2)
    for rank in range(3):
        with np.load(tmp_path / f"{rank}.npz") as found:
            for name in ("keys", "given", "references"):
                assert np.array_equal(found[name], getattr(alone, name))
        assert len(np.load(tmp_path / f"{rank}.npy")) == 2  # 4 batches for 3 processes: each forwards twice
