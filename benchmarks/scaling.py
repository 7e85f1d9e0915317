"""What more GPUs and more machines are worth, and what they ask for: calculated from a few numbers, and held against two
processes here.

    python -m benchmarks.scaling                       # the tables of docs/scaling.md
    python -m benchmarks.scaling --flops 2e14 --between 1.25e10
    python -m benchmarks.scaling --measure             # bytes and seconds of two processes on this machine, over gloo

Nothing else may use the loopback device while it measures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown

TRAINED, ANSWERING = 16, 2
"""Bytes a parameter: weight, gradient and two moments of AdamW in float32; a teacher in bfloat16."""
GRADIENT, HALVED = 4, 2
"""Bytes a parameter on the wire: gradients of DDP; weights and gradients of FSDP2 in bfloat16."""
GB = 1e9


@dataclass(frozen=True)
class Machines:
    """flops: a second, of a GPU, as trainings reach them. inside, between: bytes a second that a GPU sends to others of its
    machine, and a machine to others."""

    nodes: int = 1
    gpus: int = 8
    flops: float = 4e14
    inside: float = 4.5e11
    between: float = 5e10

    @property
    def processes(self) -> int:
        return self.nodes * self.gpus

    def hours(self, speed: float) -> float:
        """Of all GPUs together, for a billion tokens at so many a second."""
        return self.processes * 1e9 / speed / 3600

    def seconds(self, number: float) -> float:
        """Until so many bytes, which are to reach everybody, are there: all of them leave a GPU and a machine but their own
        part."""
        return max(_others(self.processes) * number / self.inside, _others(self.nodes) * number / self.between)


@dataclass(frozen=True)
class Work:
    """A student and its teacher, in parameters that are multiplied with; tokens that a process does in a step, and how many
    bytes of each are in a cache of the form that is usual for it."""

    name: str
    student: float
    teacher: float
    tokens: int
    cached: float


WORKS = (Work("66M of 110M, 32 texts of 128", 66e6, 110e6, 32 * 128, 4 * 2 / 128),
         Work("1.2B of 8B, 8 rows of 2,048", 1.2e9, 8e9, 8 * 2048, 142),
         Work("3B of 70B, 8 rows of 2,048", 3e9, 70e9, 8 * 2048, 142))
PLACES = {"1 GPU": (1, 1), "8 GPUs": (1, 8), "8 nodes of 8": (8, 8)}


@dataclass(frozen=True)
class Cost:
    """Of one step: seconds of the student, of a teacher that is asked, and of what is sent and does not hide behind the
    backward; bytes that a GPU needs for weights and moments; bytes a second that a cache is read with, by all."""

    student: float
    teacher: float
    waiting: float
    memory: float
    reading: float
    speed: float
    sent: float


def cost(work: Work, place: Machines, *, spread: bool, live: bool) -> Cost:
    """6 FLOPs a parameter and token for the student (2 forward, 4 backward), 2 for the teacher.

    DDP adds gradients up: 2 · 4 bytes a parameter, of which (n - 1) / n are sent. FSDP2 gathers weights twice and spreads
    gradients once: 3 · 2 bytes.
    """
    student, teacher = 6 * work.student * work.tokens / place.flops, 2 * work.teacher * work.tokens / place.flops
    number = (3 * HALVED if spread else 2 * GRADIENT) * work.student
    # FSDP2 has the forward to hide behind too
    hidden = student if spread else student * 2 / 3
    waiting = max(0.0, place.seconds(number) - hidden)
    step = student + live * teacher + waiting
    memory = TRAINED * work.student / (place.processes if spread else 1) + live * ANSWERING * work.teacher
    tokens = work.tokens * place.processes
    return Cost(student, live * teacher, waiting, memory, 0.0 if live else tokens * work.cached / step, tokens / step,
                _others(place.processes) * number)


def _others(number: int) -> float:
    return (number - 1) / number


def tables(machines: Machines) -> str:
    """Of every work, a line for each place and way."""
    return "\n\n".join(_table(work, machines) for work in WORKS)


def _table(work: Work, machines: Machines) -> str:
    alone, rows = cost(work, replace(machines, nodes=1, gpus=1), spread=False, live=True), []
    for place, (nodes, gpus) in PLACES.items():
        there = replace(machines, nodes=nodes, gpus=gpus)
        for way, spread in (("DDP", False), ("FSDP2", True)) if there.processes > 1 else (("alone", False),):
            asked, read = (cost(work, there, spread=spread, live=live) for live in (True, False))
            rows.append([f"{place}, {way}", _number(asked.sent / GB), _number(1e3 * read.waiting), _number(asked.memory / GB),
                         _number(read.memory / GB), f"{asked.speed / alone.speed:.1f}", f"{read.speed / alone.speed:.1f}",
                         _number(there.hours(asked.speed)), _number(there.hours(read.speed)), _number(read.reading / 1e6)])
    header = [work.name, "sent, GB", "waiting, ms", "weights, GB", "(cached)", "times as fast", "(cached)",
              "GPU hours a billion tokens", "(cached)", "cache read, MB/s"]
    return (f"A step of {work.tokens:,} tokens a process: student {_number(1e3 * alone.student)} ms, teacher "
            f"{_number(1e3 * alone.teacher)} ms.\n\n{markdown(header, rows)}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# --- two processes here ---

WARM, STEPS, VOCABULARY = 2, 8, 8000


@dataclass(frozen=True)
class Seen:
    """A step's seconds, the bytes that all processes sent in it, and parameters: all, and those that a process holds."""

    seconds: float
    sent: float
    parameters: int
    held: int


def measure() -> str:
    ways = ["DDP", "FSDP2", *(["ZeRO-3"] if importlib.util.find_spec("deepspeed") else [])]
    seen = {"one process": started("DDP", 1), **{way: started(way, 2) for way in ways}}
    alone = seen["one process"]
    rows = []
    for way, one in seen.items():
        # in float32, where FSDP2 and ZeRO-3 send four bytes as DDP does; both processes send a half of each
        expected = 0.0 if one is alone else (2 if way == "DDP" else 3) * 4 * one.parameters
        rows.append([way, f"{one.seconds:.3f}", f"{alone.seconds / one.seconds * (1 if one is alone else 2):.2f}",
                     f"{one.sent / 1e6:.1f}", f"{expected / 1e6:.1f}", f"{one.held / one.parameters:.3f}"])
    return markdown([f"{alone.parameters:,} parameters, float32", "s a step", "times as fast", "sent, MB", "calculated",
                     "of the weights in a process"], rows)


def started(way: str, processes: int) -> Seen:
    with tempfile.TemporaryDirectory() as folder:
        launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [sys.executable, *launcher, "-m", "benchmarks.scaling", "--train", way, "--folder", folder]
        subprocess.run(command, check=True, timeout=600)
        return Seen(**json.loads((Path(folder) / "seen.json").read_text()))


def train(way: str, folder: Path) -> None:
    """In this process, and its like: a causal student of four layers, whose teacher is asked in every step."""
    import torch
    from tests.equivalence import sharded

    from stilla.models.spread import local_parts

    ways: dict[str, dict[str, Any]] = {"DDP": {}, "FSDP2": {"fsdp": True}, "ZeRO-3": {"deepspeed": sharded.zero(3)}}
    torch.set_num_threads(1)
    with sharded.on_processors():
        made = _trainer(folder, ways[way])
        parameters = sum(one.numel() for one in made.model.parameters())
        clock = _clock()
        made.add_callback(clock)
        made.train()
    held = sum(one.numel() for one in local_parts(made.model))
    if made.args.process_index == 0:
        pairs = list(zip(clock.times[WARM:], clock.times[WARM + 1 :], strict=False))
        seen = Seen(statistics.median(after[0] - before[0] for before, after in pairs),
                    statistics.median(after[1] - before[1] for before, after in pairs), parameters, held)
        (folder / "seen.json").write_text(json.dumps(asdict(seen)))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _trainer(folder: Path, options: dict[str, Any]) -> Any:
    import torch
    from datasets import Dataset
    from transformers import TrainingArguments, default_data_collator

    from benchmarks.cache import llama
    from stilla import DistillationTrainer, Term
    from stilla.objectives import Logits

    torch.manual_seed(0)
    teacher, student = llama(VOCABULARY, 256, 2), llama(VOCABULARY, 256, 4)
    ids = torch.randint(3, VOCABULARY, (2 * 2 * STEPS, 64)).tolist()
    return DistillationTrainer(
        student, teacher, terms=[Term(Logits(temperature=1.0))], data_collator=default_data_collator,
        train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}), args=TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=2, max_steps=STEPS, save_strategy="no", report_to=[],
            disable_tqdm=True, remove_unused_columns=False, use_cpu=True, **options))


def _clock() -> Any:
    """A callback with (seconds, bytes sent so far) after every step."""
    import psutil
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append((time.perf_counter(), float(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)))

    return Clock()


def main() -> None:
    usual = Machines()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flops", type=float, default=usual.flops, help="a second, of a GPU")
    parser.add_argument("--inside", type=float, default=usual.inside, help="bytes a second from GPU to GPU of a machine")
    parser.add_argument("--between", type=float, default=usual.between, help="bytes a second from machine to machine")
    parser.add_argument("--measure", action="store_true", help="two processes here instead")
    parser.add_argument("--train", choices=("DDP", "FSDP2", "ZeRO-3"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.folder)
    else:
        print(measure() if options.measure else tables(Machines(1, 1, options.flops, options.inside, options.between)))


if __name__ == "__main__":
    main()
