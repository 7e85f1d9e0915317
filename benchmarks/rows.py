"""Distillation losses over a vocabulary, from hidden states and heads: time and memory beside others and beside the bound.

    python -m benchmarks.rows --threads 2

Forward KL, forward and backward, float32 and bfloat16. The bound are the four products that nobody can avoid (both models'
logits, the gradients of hidden states and head), each over all rows at once into memory that is there already; they take
turns with the contender in the same process, so that whatever else the machine does meets both. Memory is the process's
true peak above its inputs, the gradients and what is kept from call to call included, from a peak that is reset before the
call. All contenders must give the same loss and gradient.

    python -m benchmarks.rows --threads 2 --beside 2 [--before OLD/src]

The same alone and beside so many busy processes (benchmarks/busy.py). Here the contenders take turns, a call each, so that a
disturbance meets all of them; `processor` is the time that all threads of a call spent computing, or waiting for each other
without sleeping: where the machine is shared it says more than the seconds do. `--before`: the sources of another version of
Stilla, which takes its turns as *ours, before*.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from benchmarks.busy import busy
from benchmarks.losses import BOUND, COMPILED, OTHERS, Inputs, Size, Step, bare, is_there
from benchmarks.tables import markdown

SIZES = {"32k": Size(2048, 32_000, 512, 1024), "152k": Size(1024, 151_936, 896, 1536)}
BEFORE = ", before"
CONTENDERS = (*(name + how for name in ("ours", *OTHERS) for how in ("", COMPILED)), "all logits", "liger-kernel", "trl")
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
MIB = 2**20
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}

def measure(name: str, size: str, precision: str, threads: int, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """In this process: seconds of every round, of the contender and of the bound, and the peak."""
    from stilla.rows.memory import kept_bytes

    torch.set_num_threads(threads)
    given = Inputs(SIZES[size], precision)
    step = Step(name, given, clock)
    step()  # what libraries allocate once is not counted, nor is compiling
    given.forget()
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step()
    peak = _memory("VmHWM") - before + kept_bytes()
    assert given.head.grad is not None
    gradient = float(given.head.grad.norm())
    products = bare(given)
    products()
    times = []
    for _ in range(rounds):
        start = clock()
        products()
        times.append((clock() - start, step()))
    return {"bound": min(one for one, _ in times), "seconds": min(one for _, one in times), "peak": peak,
            "ratio": statistics.median(mine / least for least, mine in times),
            "loss": step.loss, "gradient": gradient}


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def table(size: str, precision: str, options: argparse.Namespace) -> str:
    found: dict[str, dict[str, float]] = {}
    for name in options.only:
        if not is_there(name):
            print(f"{name} is not installed; pip install -e '.[benchmarks]' brings it", file=sys.stderr)
            continue
        command = [sys.executable, "-m", "benchmarks.rows", "--contender", name, "--sizes", size, "--precision", precision,
                   "--threads", str(options.threads), "--rounds", str(options.rounds), "--clock", options.clock]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = json.loads(said.stdout.splitlines()[-1])
    _must_agree({name: one for name, one in found.items() if not name.startswith(OTHERS)}, TOLERANCE[precision])
    rows = [[name, f"{one['seconds']:.2f}", f"{one['ratio']:.2f}", f"{one['seconds'] / one['bound']:.2f}",
             f"{one['peak'] / MIB:.0f}"] for name, one in found.items()]
    header = [f"{precision}, {size}", "seconds", "times the bound (median)", "(fastest)", "memory, MiB"]
    return markdown(header, rows)


def beside_table(size: str, precision: str, options: argparse.Namespace) -> str:
    """Every contender alone and beside busy processes, in turns."""
    names = [name for name in options.only if is_there(name)]
    if options.before:
        names[1:1] = [name + BEFORE for name in ("ours", "ours" + COMPILED) if name in names]
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_server(name, size, precision, options)) for name in [*names, BOUND]}
        alone, loads = _in_turns(servers, options.rounds)
        with busy(options.beside):
            beside, busier = _in_turns(servers, options.rounds)
    rows = []
    for name in servers:
        quiet, other = ([wall for wall, _ in times[name]] for times in (alone, beside))
        rows.append([name, f"{min(quiet):.2f}", f"{statistics.median(quiet):.2f}", f"{min(other):.2f}",
                     f"{statistics.median(other):.2f}", f"{statistics.median(other) / statistics.median(quiet):.1f}",
                     f"{min(processor for _, processor in alone[name]):.2f}"])
    header = [f"{precision}, {size}", "alone, s", "(median)", f"beside {options.beside}, s", "(median)", "times",
              "processor, s"]
    said = f"{options.rounds} rounds; load {loads[0]:.1f} to {loads[1]:.1f} alone, {busier[0]:.1f} to {busier[1]:.1f} beside"
    return f"{markdown(header, rows)}\n{said}"


@contextmanager
def _server(name: str, size: str, precision: str, options: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.rows", "--serve", "--contender", name.removesuffix(BEFORE), "--sizes", size,
               "--precision", precision, "--threads", str(options.threads)]
    path = [options.before] if name.endswith(BEFORE) else []
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])])}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
    try:
        _ask(process)
        yield process
    finally:
        process.kill()
        process.communicate()


def _ask(process: subprocess.Popen[str]) -> tuple[float, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    wall, processor = map(float, process.stdout.readline().split())
    return wall, processor


Times = dict[str, list[tuple[float, float]]]
"""Of every contender the (wall, processor) seconds of every call."""


def _in_turns(servers: dict[str, subprocess.Popen[str]], rounds: int) -> tuple[Times, tuple[float, float]]:
    """And the least and the largest load of the machine meanwhile."""
    found: Times = {name: [] for name in servers}
    loads = []
    for _ in range(rounds):
        for name, process in servers.items():
            found[name].append(_ask(process))
        loads.append(os.getloadavg()[0])
    return found, (min(loads), max(loads))


def serve(name: str, size: str, precision: str, threads: int) -> None:
    """A call for every line that comes, and its times as a line."""
    torch.set_num_threads(threads)
    wall = Step(name, Inputs(SIZES[size], precision), time.perf_counter)
    wall()
    for _ in sys.stdin:
        before = time.process_time()
        seconds = wall()
        print(seconds, time.process_time() - before, flush=True)


def _must_agree(found: dict[str, dict[str, float]], tolerance: float) -> None:
    for field in ("loss", "gradient"):
        values = [one[field] for one in found.values()]
        if values and max(values) - min(values) > tolerance * abs(max(values)):
            raise SystemExit(f"the contenders' {field} differ: { {name: one[field] for name, one in found.items()} }")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["32k"])
    parser.add_argument("--precision", nargs="+", choices=TOLERANCE, default=list(TOLERANCE))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="on a busy machine: processor, with one thread")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--beside", type=int, default=0, metavar="N", help="alone, and beside so many busy processes")
    parser.add_argument("--before", metavar="PATH", help="with --beside: the src folder of another version of Stilla")
    parser.add_argument("--contender", choices=(*CONTENDERS, BOUND), help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.before and not options.beside:
        parser.error("--before takes its turns in a table of --beside N")
    if options.serve:
        serve(options.contender, options.sizes[0], options.precision[0], options.threads)
        return
    if options.contender:
        print(json.dumps(measure(options.contender, options.sizes[0], options.precision[0], options.threads, options.rounds,
                                 CLOCKS[options.clock])))
        return
    for size in options.sizes:
        for precision in options.precision:
            print((beside_table if options.beside else table)(size, precision, options), flush=True)
            print()


if __name__ == "__main__":
    main()
