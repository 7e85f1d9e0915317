"""What Stilla costs beside a loop written by hand, and beside TextBrewer: training throughput and peak memory.

    python -m benchmarks.overhead --data CLINC150 --threads 1

The teacher is all-MiniLM-L6-v2 with a new head for the intents of clinc150, the student three of its layers. All
contenders do the same mathematics from the same start: the same batches, padding, dropout, precision, optimiser,
schedule and clipping. That they do is checked: the students' loss after the training has to agree.

Every contender runs in a process of its own, and all take turns step by step, each with the machine to itself for
the same batch, so that whatever else the machine does meets all alike. The table shows the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_model
from transformers import set_seed

from benchmarks.contenders.common import Setting, Texts, given_order
from benchmarks.contenders.loop import load, loss_of
from benchmarks.inputs import add_data_option, clinc150, minilm
from benchmarks.tables import markdown
from stilla import data, tasks
from stilla.export import save_student
from stilla.recipe import ModelSource
from stilla.runtime.quiet import quiet_libraries
from stilla.students import by_layers
from stilla.tasks.text.sections import TextClassificationData
from stilla.training.batches import StepBatches

CONTENDERS = {
    "Stilla": ("run", False),
    "plain loop": ("loop", False),
    "TextBrewer, same batches": ("brewer", False),
    "TextBrewer, its own random batches": ("brewer", True),
}
"""Module, and whether it draws its own batches."""
WARM = 10
"""Steps at the beginning that are not timed."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-2}
"""Relative difference of the students' final losses that rounding may explain."""


@dataclass(frozen=True)
class Timed:
    """One training: examples per second, by the clock on the wall and by the processor's; peak memory in bytes."""

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class Contender:
    """A process that trains, and the pipes by which it is given its turn and says that a step is over."""

    name: str
    setting: Setting
    process: subprocess.Popen[bytes]
    go: int
    done: int


def main() -> None:
    options = parse()
    quiet_libraries()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        setting = prepare(Path(scratch), options)
        for precision in options.precision:
            for terms in options.terms:
                compare(replace(setting, precision=precision, hidden=terms == "hidden"), options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps of a training")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of every contender")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--precision", nargs="+", choices=TOLERANCE, default=list(TOLERANCE))
    parser.add_argument("--terms", nargs="+", choices=("logits", "hidden"), default=["logits", "hidden"], help=(
        "logits: labels and logits; hidden: labels, logits and hidden states"))
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--scratch", type=Path, help="a folder for what is written meanwhile")
    return parser.parse_args()


def prepare(scratch: Path, options: argparse.Namespace) -> Setting:
    """Write teacher and student, where all begin, and the examples of every step."""
    section = TextClassificationData(train=str(clinc150(options.data)))
    splits = data.load(section, seed=options.seed)
    task = tasks.find("text-classification").understand(section, splits)
    set_seed(options.seed)
    teacher = task.load(ModelSource(model=str(minilm())), labelled=False)
    save_student(teacher.model, teacher.processor, scratch / "teacher")
    student = by_layers(teacher.model, 3)
    save_student(student.model, teacher.processor, scratch / "student")
    prepared = task.prepare(splits["train"], teacher.processor, None, training=True)
    batches = StepBatches(len(prepared), batch_size=options.batch_size, seed=options.seed, lengths=prepared.lengths)
    order: list[list[int]] = []
    while len(order) < options.steps:
        order += list(batches)
        batches.set_epoch(batches.epoch + 1)
    (scratch / "order.json").write_text(json.dumps(order))
    return Setting(folder=str(scratch), data=str(section.train), result="", steps=options.steps, seed=options.seed,
                   batch_size=options.batch_size, hidden=False, precision="float32", threads=options.threads,
                   answers=next(iter(student.layer_map.values())))


def compare(setting: Setting, options: argparse.Namespace) -> None:
    """All contenders at one setting, as a table."""
    rounds = [contest(setting, options.only) for _ in range(options.rounds)]
    losses = {name: final_loss(setting, of(setting, name).kept) for name in options.only}
    terms = "labels, logits and hidden states" if setting.hidden else "labels and logits"
    print(f"\n{terms}, {setting.precision}, {setting.threads} threads, batches of {setting.batch_size}, "
          f"{setting.steps} steps, median of {options.rounds} rounds\n")
    print(markdown(HEADER, [row(name, rounds, losses) for name in options.only]), flush=True)
    refuse_other_mathematics(losses, setting.precision)


def contest(setting: Setting, names: Sequence[str]) -> dict[str, Timed]:
    """One round: all are started, and then do each step one after the other."""
    contenders = [start(name, of(setting, name)) for name in names]
    for one in contenders:
        wait(one)
    for step in range(setting.steps):
        # the other way round at every second step, so that nobody always comes first
        for one in contenders[:: -1 if step % 2 else 1]:
            os.write(one.go, b".")
            wait(one)
    return {one.name: timed(one) for one in contenders}


def of(setting: Setting, name: str) -> Setting:
    """The same for one of the contenders."""
    slug = name.lower().replace(",", "").replace(" ", "-")
    return replace(setting, result=str(Path(setting.folder) / f"{slug}.json"), own_order=CONTENDERS[name][1])


def start(name: str, setting: Setting) -> Contender:
    file = Path(setting.result).with_suffix(".setting.json")
    setting.write(file)
    (their_go, go), (done, their_done) = os.pipe(), os.pipe()
    module = f"benchmarks.contenders.{CONTENDERS[name][0]}"
    with errors(setting).open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(file), str(their_go), str(their_done)], stderr=stderr,
            env={**os.environ, "OMP_NUM_THREADS": str(setting.threads), "HF_HUB_OFFLINE": "1"},
            pass_fds=(their_go, their_done))
    os.close(their_go)
    os.close(their_done)
    return Contender(name, setting, process, go, done)


def wait(one: Contender) -> None:
    """Until its step is over.

    Raises:
        SystemExit: it failed.
    """
    if not os.read(one.done, 1):
        raise SystemExit(f"{one.name} failed:\n{errors(one.setting).read_text()}")


def errors(setting: Setting) -> Path:
    """What a contender has to say."""
    return Path(setting.result).with_suffix(".log")


def timed(one: Contender) -> Timed:
    one.process.wait()
    os.close(one.go)
    os.close(one.done)
    said = json.loads(Path(one.setting.result).read_text())
    examples = sum(map(len, given_order(one.setting)[WARM:-1]))
    wall, cpu = (examples / sum(said[clock][WARM:one.setting.steps - 1]) for clock in ("wall", "cpu"))
    return Timed(wall, cpu, said["peak"])


def final_loss(setting: Setting, weights: Path) -> float:
    """The loss on the first steps' examples, the same for all, without dropout and in float32."""
    teacher, student = (load(Path(setting.folder) / name).eval() for name in ("teacher", "student"))
    load_model(student, str(weights))
    texts = Texts(setting)
    exact = replace(setting, precision="float32")
    with torch.no_grad():
        losses = [loss_of(student, teacher, texts.batch(indices), exact) for indices in given_order(setting)[:20]]
    return float(torch.stack(losses).mean())


HEADER = ("", "examples/s", "Stilla is so many times as fast", "by processor time", "peak memory", "final loss")


def row(name: str, rounds: Sequence[dict[str, Timed]], losses: dict[str, float]) -> list[str]:
    speed = statistics.median(one[name].wall for one in rounds)
    peak = statistics.median(one[name].peak for one in rounds)
    return [name, f"{speed:.0f}", ratio(rounds, name, "wall"), ratio(rounds, name, "cpu"), f"{peak / 1e6:.0f} MB",
            f"{losses[name]:.5f}"]


def ratio(rounds: Sequence[dict[str, Timed]], name: str, clock: str) -> str:
    """Stilla's throughput over the other's, within every round: the median, and the lowest and highest."""
    if name == "Stilla" or "Stilla" not in rounds[0]:
        return ""
    ratios = [getattr(one["Stilla"], clock) / getattr(one[name], clock) for one in rounds]
    return f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"


def refuse_other_mathematics(losses: dict[str, float], precision: str) -> None:
    same = {name: loss for name, loss in losses.items() if not CONTENDERS[name][1]}
    spread = max(same.values()) / min(same.values()) - 1
    print(f"\nFinal losses of all on the same batches agree to {spread:.1e} (allowed: {TOLERANCE[precision]:.0e}).")
    if spread > TOLERANCE[precision]:
        raise SystemExit("They did not train the same: a comparison of their speed means nothing.")


if __name__ == "__main__":
    main()
