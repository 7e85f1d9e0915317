"""What models cost on this machine: size, operations, latency, throughput, energy.

Subjects are measured in turns, so that whatever the machine does meanwhile (heat, other processes) hits all
alike; threads are as the process has them, and nothing is pinned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stilla.errors import DataError, StillaError
from stilla.evaluate import energy
from stilla.evaluate.asking import Forward, Inputs, Precision, evaluating
from stilla.evaluate.flops import count_flops, count_parameters, count_tokens, stored_bytes
from stilla.runtime.narrate import progress
from stilla.scores import Cost
from stilla.tasks.base import Prepared, Side, Task

_BATCHES = 4
"""Batches that throughput is measured on."""

_LOGITS = 2**28
"""A forward gives all of them, in float32."""

_TURN = 5
"""Calls in a row per subject and turn; the first is not timed: another's weights fill the caches."""

_MOST_TURNS, _LEAST_TURNS = 50, 2
"""200 timed calls of a fast model; 8 of one that takes longer than its budget."""

Run = Callable[[Inputs], Any]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Workload:
    """What a model is timed on: `one` example of median length, and full `batches` as examples come. `seconds`: of sound, in
    all of these together; None of what is no sound."""

    one: Inputs
    batches: tuple[Inputs, ...]
    batch_size: int
    seconds: float | None = None

    @property
    def device(self) -> torch.device:
        return next(iter(self.one.values())).device


@dataclass(frozen=True)
class Writing:
    """What is timed of a model that writes: `write` makes whole texts of the workload's inputs. `what`: which, in words."""

    write: Run
    workload: Workload
    what: str


@dataclass(frozen=True)
class Subject:
    """A model to measure. What torch cannot know of an exported file (parameters, bytes) has to be given.

    `flops`, `tokens`: for a file, those of the model that it was written from, or None. `writing`: timed instead of a
    forward.
    """

    forward: Forward
    workload: Workload
    precision: Precision = "float32"
    parameters: int | None = None
    bytes: int | None = None
    flops: float | None = None
    tokens: int | None = None
    writing: Writing | None = None

    @property
    def timed(self) -> tuple[Forward, Workload]:
        """What is timed, and on what."""
        return (self.writing.write, self.writing.workload) if self.writing else (self.forward, self.workload)


def workload(
    prepared: Prepared, side: Side, *, batch_size: int, device: torch.device | str = "cpu",
) -> Workload:
    """A typical example and the split's first batches, repeated to full size where there are fewer examples.

    Raises:
        DataError: no examples.
    """
    count = len(prepared.keys)
    if not count:
        raise DataError("no examples to measure speed on: the split is empty")

    def inputs(positions: Sequence[int] | NDArray[np.int64]) -> Inputs:
        examples = [prepared.examples[int(position)] for position in positions]
        return dict(prepared.collate(examples).to(device)[side.value])

    middle = count // 2
    if prepared.lengths is not None:
        middle = int(np.argsort(np.asarray(prepared.lengths), kind="stable")[middle])
    batches = min(_BATCHES, max(1, count // batch_size))
    positions = np.resize(np.arange(count), (batches, batch_size))
    seconds = None if prepared.seconds is None else float(np.asarray(prepared.seconds)[positions].sum())
    return Workload(inputs([middle]), tuple(inputs(row) for row in positions), batch_size, seconds)


def batch_for(task: Task, prepared: Prepared, batch_size: int) -> int:
    """At most `batch_size` examples, of whose logits there is room: 1 GiB, which only a vocabulary fills."""
    longest = 1 if prepared.lengths is None else max(prepared.lengths)
    return max(1, min(batch_size, _LOGITS // max(1, task.numbers_of(longest))))


def measure_many(
    subjects: Mapping[str, Subject],
    *,
    speed: bool = True,
    seconds: float = 2.0,
    clock: Clock = time.perf_counter,
    watts: float | None = None,
) -> tuple[dict[str, Cost], tuple[str, ...]]:
    """The cost of every subject, and notes on what could not be measured.

    Args:
        speed: measure latency, throughput and energy; otherwise only what can be counted.
        seconds: time budget per subject for latency, and again for throughput.
        clock: seconds from an arbitrary zero.
        watts: of this machine at work, where it counts no energy.

    Raises:
        StillaError: a file whose parameters or bytes are not given.
    """
    notes: list[str] = []
    costs = {name: _counted(name, subject, notes) for name, subject in subjects.items()}
    if not speed:
        return costs, tuple(notes)
    with ExitStack() as stack:
        timed = {name: one.timed for name, one in subjects.items()}
        loads = {name: load for name, (_, load) in timed.items()}
        runs = {name: stack.enter_context(evaluating(forward, load.device, subjects[name].precision))
                for name, (forward, load) in timed.items()}
        advance = stack.enter_context(progress("measuring speed", None))
        budget = seconds * len(subjects)
        latencies = _latencies(runs, loads, clock, budget, advance)
        rates = _throughputs(runs, loads, clock, budget, advance)
        for name, subject in subjects.items():
            used = _energy(runs[name], loads[name], costs[name].flops, clock, texts=subject.writing is not None,
                           stated=None if watts is None else energy.stated(watts, 1 / rates[name]))
            cost = costs[name]
            costs[name] = replace(
                cost,
                latency_median_ms=1e3 * float(np.median(latencies[name])),
                latency_p95_ms=1e3 * float(np.percentile(latencies[name], 95)),
                throughput=rates[name], batch_size=loads[name].batch_size, real_time=_real_time(rates[name], loads[name]),
                timed=subject.writing.what if subject.writing else "forward",
                energy_joules=used.joules if used else None, energy_method=used.method if used else None,
            )
    return costs, tuple(notes)


def medians(timed: Mapping[str, tuple[Forward, Workload]], seconds: float = 1.0) -> dict[str, float]:
    """Seconds of one call on `one` of each workload, the median; measured in turns."""
    with ExitStack() as stack:
        loads = {name: load for name, (_, load) in timed.items()}
        runs = {name: stack.enter_context(evaluating(forward, load.device, "float32"))
                for name, (forward, load) in timed.items()}
        found = _latencies(runs, loads, time.perf_counter, seconds * len(timed), lambda _: None)
    return {name: float(np.median(calls)) for name, calls in found.items()}


def _counted(name: str, subject: Subject, notes: list[str]) -> Cost:
    """Parameters, bytes and FLOPs."""
    model = subject.forward if isinstance(subject.forward, nn.Module) else None
    parameters, size, flops = subject.parameters, subject.bytes, subject.flops
    if model is not None:
        parameters = count_parameters(model) if parameters is None else parameters
        size = stored_bytes(model) if size is None else size
        if flops is None:
            try:
                flops = count_flops(model, subject.workload.one)
            except StillaError as error:
                notes.append(f"{name}: {error}")
    if parameters is None or size is None:
        raise StillaError(f"cost of {name}: a function does not say its size; give `parameters` and `bytes`")
    return Cost(parameters=parameters, bytes=size, flops=flops,
                tokens=subject.tokens if model is None else count_tokens(model))


def _latencies(
    runs: Mapping[str, Run], loads: Mapping[str, Workload], clock: Clock, budget: float,
    advance: Callable[[int], None],
) -> dict[str, list[float]]:
    """Seconds of single calls at batch 1, in turns whose order alternates."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    started = clock()
    for turn in range(_MOST_TURNS):
        for name in list(runs)[::1 if turn % 2 == 0 else -1]:
            calls = [_timed(runs[name], loads[name].one, clock) for _ in range(_TURN)]
            found[name] += calls[1:]
            advance(1)
        if turn + 1 >= _LEAST_TURNS and clock() - started > budget:
            break
    # the first turn of each is warm-up: lazy initialisation, threads that start, frequency that rises
    return {name: calls[_TURN - 1:] for name, calls in found.items()}


def _throughputs(
    runs: Mapping[str, Run], loads: Mapping[str, Workload], clock: Clock, budget: float,
    advance: Callable[[int], None],
) -> dict[str, float]:
    """Examples per second: all examples by the sum of each batch's median time."""
    found: dict[str, list[list[float]]] = {name: [] for name in runs}
    for name, run in runs.items():
        _timed(run, loads[name].batches[0], clock)
    started = clock()
    for turn in range(_MOST_TURNS):
        for name in list(runs)[::1 if turn % 2 == 0 else -1]:
            found[name].append([_timed(runs[name], batch, clock) for batch in loads[name].batches])
            advance(1)
        if turn + 1 >= _LEAST_TURNS and clock() - started > budget:
            break
    return {name: _examples(loads[name]) / float(np.median(times, axis=0).sum())
            for name, times in found.items()}


def _examples(load: Workload) -> int:
    return load.batch_size * len(load.batches)


def _real_time(rate: float, load: Workload) -> float | None:
    """Seconds of sound by those that they took."""
    return None if load.seconds is None else rate * load.seconds / _examples(load)


def _energy(
    run: Run, load: Workload, flops: float | None, clock: Clock, *, texts: bool, stated: energy.Energy | None,
) -> energy.Energy | None:
    """Measured over at least a second of batches, as counters are coarse; else as it is stated; else estimated."""
    meter = energy.find_meter(load.device)
    if meter is None and stated is not None:
        return stated
    if meter is None:
        found = None if flops is None else energy.estimated(flops, load.device)
        return replace(found, method=f"{found.method}, of one forward over a whole text") if found and texts else found

    def work() -> int:
        started, examples = clock(), 0
        while clock() - started < 1.0:
            for batch in load.batches:
                _timed(run, batch, clock)
                examples += load.batch_size
        return examples

    return energy.measured(meter, work)


def _timed(run: Run, inputs: Inputs, clock: Clock) -> float:
    device = next(iter(inputs.values())).device
    _wait(device)
    started = clock()
    run(inputs)
    _wait(device)
    return clock() - started


def _wait(device: torch.device) -> None:
    """A GPU works on after the call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
