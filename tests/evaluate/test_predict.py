from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn

from stilla.errors import DataError, StillaError
from stilla.evaluate import Predictions, predict
from stilla.evaluate.predict import Precision
from stilla.tasks.base import Prepared, Side
from tests.evaluate.fake_task import Echo, FakeTask, Rows, collate, prepared

LENGTHS = [3, 9, 1, 7, 5, 2, 8]


def test_predictions_come_in_the_order_of_the_split_and_skipped_examples_stay_skipped() -> None:
    keys = [0, 2, 3, 7, 8, 11, 12]
    found = predict(Echo(), FakeTask(), prepared(LENGTHS, keys), side=Side.STUDENT, batch_size=2)
    assert found.keys.tolist() == keys
    assert found.outputs[:, 0].tolist() == keys
    assert found.labels.tolist() == [key % 3 for key in keys]


def test_examples_of_similar_length_share_a_batch() -> None:
    model = Echo()
    predict(model, FakeTask(), prepared(LENGTHS), side=Side.STUDENT, batch_size=2)
    assert model.widths == [9, 7, 3, 1]


def test_examples_without_length_are_walked_in_order() -> None:
    data = Prepared(Rows(np.arange(7), LENGTHS), collate, np.arange(7))
    found = predict(Echo(), FakeTask(), data, side=Side.STUDENT, batch_size=3)
    assert found.outputs[:, 0].tolist() == list(range(7))


def test_a_teacher_gets_the_teachers_inputs() -> None:
    found = predict(Echo(), FakeTask(), prepared(LENGTHS), side=Side.TEACHER, batch_size=2)
    assert found.outputs[:, 0].tolist() == [2.0 * key for key in range(7)]


def test_a_function_is_asked_like_a_model() -> None:
    def answer(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        top = inputs["values"].amax(dim=1)
        return torch.stack([top, -top, torch.zeros_like(top)], dim=1)

    live = predict(Echo(), FakeTask(), prepared(LENGTHS), side=Side.STUDENT, batch_size=2)
    file = predict(answer, FakeTask(), prepared(LENGTHS), side=Side.STUDENT, batch_size=3)
    assert np.array_equal(live.outputs, file.outputs)


def test_modes_and_random_state_are_left_as_they_were() -> None:
    model = Echo().train()
    model.dropout.eval()
    before = torch.get_rng_state()
    predict(model, FakeTask(), prepared(LENGTHS), side=Side.STUDENT, batch_size=2)
    assert model.training
    assert not model.dropout.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failing_forward_leaves_the_mode_as_it_was() -> None:
    class Broken(Echo):
        def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
            raise ValueError("broken")

    model = Broken().train()
    with pytest.raises(ValueError, match="broken"):
        predict(model, FakeTask(), prepared(LENGTHS), side=Side.STUDENT)
    assert model.training


def test_no_gradients_are_kept() -> None:
    seen: list[bool] = []

    class Watched(Echo):
        def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(torch.is_grad_enabled())
            return super().forward(values)

    predict(Watched(), FakeTask(), prepared(LENGTHS), side=Side.STUDENT)
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
    exact = predict(model, FakeTask(), data, side=Side.STUDENT)
    found = predict(model.to(weights), FakeTask(), data, side=Side.STUDENT, precision=precision)
    assert found.outputs.dtype == np.float32
    assert not np.array_equal(found.outputs, exact.outputs)
    np.testing.assert_allclose(found.outputs, exact.outputs, rtol=0.03, atol=0.03)


def test_given_labels_take_the_place_of_the_batches() -> None:
    labels = np.array([2, 2, 1, 1, 0, 0, 0])
    found = predict(Echo(), FakeTask(), prepared(LENGTHS), side=Side.STUDENT, labels=labels)
    assert found.labels.tolist() == labels.tolist()


def test_an_empty_split_and_missing_labels_are_refused() -> None:
    with pytest.raises(DataError, match="no examples to evaluate on"):
        predict(Echo(), FakeTask(), prepared([]), side=Side.STUDENT)

    def unlabelled(examples: list[tuple[int, torch.Tensor]]) -> object:
        batch = collate(examples)
        del batch["labels"]
        return batch

    with pytest.raises(DataError, match="no labels"):
        predict(Echo(), FakeTask(), Prepared(Rows(np.arange(2), [1, 2]), unlabelled, np.arange(2)),
                side=Side.STUDENT)


def test_a_collator_that_reorders_its_examples_is_refused() -> None:
    data = Prepared(Rows(np.arange(3), [1, 2, 3]), lambda examples: collate(examples[::-1]), np.arange(3))
    with pytest.raises(DataError, match="must keep the order"):
        predict(Echo(), FakeTask(), data, side=Side.STUDENT)


def test_predictions_are_the_same_after_saving(tmp_path: Path) -> None:
    found = predict(Echo(), FakeTask(), prepared(LENGTHS), side=Side.STUDENT)
    found.save(tmp_path / "student.predictions")
    again = Predictions.load(tmp_path / "student.predictions")
    for name in ("keys", "outputs", "labels"):
        assert np.array_equal(getattr(found, name), getattr(again, name))
        assert getattr(found, name).dtype == getattr(again, name).dtype


def test_predictions_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(StillaError, match="2 keys, 3 outputs, 2 labels"):
        Predictions(np.arange(2), np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(StillaError, match="labels hold Python objects"):
        Predictions(np.arange(2), np.zeros((2, 2)), np.array([None, "a"], dtype=object))


def test_predictions_that_are_not_finite_are_named() -> None:
    outputs = np.zeros((7, 3))
    outputs[[1, 4], 2] = np.nan, np.inf
    with pytest.raises(StillaError, match=r"student on test data: 2 of 7 predictions .* examples 11, 14\."):
        Predictions(np.arange(10, 17), outputs, np.zeros(7)).check_finite("student on test data")


def _shared(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    model = Echo()
    found = predict(model, FakeTask(), prepared(LENGTHS), side=Side.STUDENT, batch_size=2, together=True)
    found.save(Path(folder) / f"{rank}.npz")
    np.save(Path(folder) / f"{rank}.npy", model.widths)
    distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_that_share_the_work_all_get_all_of_it(tmp_path: Path) -> None:
    multiprocessing.spawn(_shared, args=(3, str(tmp_path)), nprocs=3)
    alone = predict(Echo(), FakeTask(), prepared(LENGTHS), side=Side.STUDENT, batch_size=2)
    for rank in range(3):
        found = Predictions.load(tmp_path / f"{rank}.npz")
        assert np.array_equal(found.outputs, alone.outputs)
        assert np.array_equal(found.keys, alone.keys)
        assert len(np.load(tmp_path / f"{rank}.npy")) == 2  # 4 batches for 3 processes: each forwards twice
