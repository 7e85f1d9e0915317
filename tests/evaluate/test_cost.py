from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stilla.errors import DataError, StillaError
from stilla.evaluate import Subject, Workload, measure_many, workload
from stilla.evaluate.cost import Writing
from stilla.tasks.base import Prepared, Side
from tests.evaluate.fake_exam import Rows, collate, prepared

Speed = Callable[[], float] | float


@dataclass
class FakeMachine:
    """A clock that only calls move: `seconds` per example, the first call of a model `cold` times slower."""

    now: float = 0.0
    log: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def model(self, name: str, seconds: Speed, cold: float = 1.0) -> Callable[[dict[str, Tensor]], Tensor]:
        def run(inputs: dict[str, Tensor]) -> Tensor:
            slow = cold if name not in self.log else 1.0
            self.log.append(name)
            self.now += len(inputs["values"]) * slow * (seconds() if callable(seconds) else seconds)
            return inputs["values"]

        return run

    def subject(self, name: str, seconds: Speed, cold: float = 1.0) -> Subject:
        one, batch = {"values": torch.zeros(1, 2)}, {"values": torch.zeros(8, 2)}
        load = Workload(one, (batch, batch), 8)
        return Subject(self.model(name, seconds, cold), load, parameters=10, bytes=40)


def test_times_are_the_models_own_without_the_warm_up() -> None:
    machine = FakeMachine()
    costs, notes = measure_many({"student": machine.subject("student", 0.002, cold=50)}, clock=machine.clock)
    cost = costs["student"]
    assert cost.latency_median_ms == pytest.approx(2.0)
    assert cost.latency_p95_ms == pytest.approx(2.0)
    assert cost.throughput == pytest.approx(500.0)
    assert cost.batch_size == 8
    assert notes == ()


def test_of_a_model_that_writes_the_texts_are_timed() -> None:
    """Its forward says its size and operations, on inputs of its own."""
    machine = FakeMachine()
    forward = machine.subject("forward", 0.002)
    one, batch = {"values": torch.zeros(1, 2)}, {"values": torch.zeros(4, 2)}
    writing = Writing(machine.model("text", 0.1), Workload(one, (batch,), 4), "whole texts")
    costs, _ = measure_many({"student": replace(forward, writing=writing)}, clock=machine.clock)
    cost = costs["student"]
    assert set(machine.log) == {"text"}
    assert (cost.timed, cost.batch_size) == ("whole texts", 4)
    assert cost.latency_median_ms == pytest.approx(100.0)
    assert cost.throughput == pytest.approx(10.0)
    assert (cost.parameters, cost.bytes) == (10, 40)
    assert measure_many({"student": forward}, clock=machine.clock)[0]["student"].timed == "forward"


def test_of_sounds_it_is_said_how_many_seconds_of_them_are_answered_in_one() -> None:
    machine = FakeMachine()
    subject = machine.subject("student", 0.002)  # eight examples in 16 ms
    heard = replace(subject, workload=replace(subject.workload, seconds=32.0))  # of 2 seconds each
    assert measure_many({"student": heard}, clock=machine.clock)[0]["student"].real_time == pytest.approx(1000.0)
    assert measure_many({"student": subject}, clock=machine.clock)[0]["student"].real_time is None


def test_the_95th_percentile_shows_the_slow_calls() -> None:
    machine, calls = FakeMachine(), iter(range(10**6))
    subject = machine.subject("student", lambda: 0.01 if next(calls) % 8 else 0.03)
    costs, _ = measure_many({"student": subject}, clock=machine.clock)
    assert costs["student"].latency_median_ms == pytest.approx(10.0)
    assert costs["student"].latency_p95_ms == pytest.approx(30.0)


def test_a_machine_that_slows_down_hits_all_subjects_alike() -> None:
    machine = FakeMachine()

    def drifting(speed: float) -> Callable[[], float]:
        return lambda: speed * (1 + machine.now)

    costs, _ = measure_many({name: machine.subject(name, drifting(speed)) for name, speed in
                             (("teacher", 0.004), ("student", 0.002))}, clock=machine.clock)
    teacher, student = costs["teacher"], costs["student"]
    assert teacher.latency_median_ms / student.latency_median_ms == pytest.approx(2.0, rel=0.1)
    assert student.throughput / teacher.throughput == pytest.approx(2.0, rel=0.15)


def test_fast_models_are_called_often_and_slow_ones_within_their_budget() -> None:
    fast, slow = FakeMachine(), FakeMachine()
    measure_many({"it": fast.subject("it", 1e-4)}, clock=fast.clock)
    assert fast.log.count("it") >= 200
    measure_many({"it": slow.subject("it", 1.0)}, clock=slow.clock, seconds=2.0)
    assert slow.now < 10 + 8 + 3 * 16 + 1  # two turns of five calls, a batch to warm up, two of two batches


def test_a_live_model_says_its_own_size_and_keeps_its_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).train()
    inputs = {"input": torch.zeros(1, 4)}
    batch = {"input": torch.zeros(5, 4)}
    costs, notes = measure_many({"student": Subject(model, Workload(inputs, (batch,), 5))}, seconds=0.01)
    cost = costs["student"]
    assert (cost.parameters, cost.bytes, cost.flops) == (15, 60, 24.0)
    assert 0 < cost.latency_median_ms <= cost.latency_p95_ms
    assert cost.throughput > 0
    assert cost.energy_joules is not None
    assert cost.energy_method
    assert notes == ()
    assert model.training
    assert model[1].training


def test_without_speed_only_what_can_be_counted_is_there() -> None:
    machine = FakeMachine()
    costs, _ = measure_many({"onnx": machine.subject("onnx", 1.0)}, speed=False, clock=machine.clock)
    assert (costs["onnx"].parameters, costs["onnx"].bytes) == (10, 40)
    assert costs["onnx"].latency_median_ms is None
    assert machine.log == []


def test_what_cannot_be_counted_is_noted_and_the_rest_measured() -> None:
    load = Workload({"input": torch.zeros(1, 4)}, ({"input": torch.zeros(2, 4)},), 2)
    costs, notes = measure_many({"student": Subject(nn.ReLU(), load)}, seconds=0.01)
    assert costs["student"].flops is None
    assert costs["student"].latency_median_ms is not None
    assert notes == ("student: FLOPs cannot be counted (the model runs no operation that the counter knows)",)


def test_a_file_of_unknown_size_is_refused() -> None:
    load = Workload({"values": torch.zeros(1, 4)}, ({"values": torch.zeros(2, 4)},), 2)
    with pytest.raises(StillaError, match=r"cost of onnx: .* give `parameters` and `bytes`"):
        measure_many({"onnx": Subject(lambda inputs: inputs["values"], load)})


def test_a_workload_is_a_median_example_and_full_batches_in_order() -> None:
    load = workload(prepared([3, 9, 1, 7, 5, 2, 8]), Side.STUDENT, batch_size=3)
    assert load.one["values"].shape == (1, 5)
    assert [batch["values"].shape[0] for batch in load.batches] == [3, 3]
    assert load.batches[0]["values"][:, 0].tolist() == [0.0, 1.0, 2.0]
    twice = workload(prepared([3, 9, 1, 7, 5, 2, 8]), Side.TEACHER, batch_size=3)
    assert twice.batches[0]["values"][:, 0].tolist() == [0.0, 2.0, 4.0]


def test_few_examples_are_repeated_to_a_full_batch() -> None:
    data = Prepared(Rows(np.arange(3), [2, 2, 2]), collate, np.arange(3))
    load = workload(data, Side.STUDENT, batch_size=8)
    assert load.batches[0]["values"][:, 0].tolist() == [0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0]
    assert len(load.batches) == 1
    with pytest.raises(DataError, match="no examples to measure"):
        workload(prepared([]), Side.STUDENT, batch_size=8)
