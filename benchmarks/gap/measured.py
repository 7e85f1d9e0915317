"""What all programs about the cases of the gap do: a table for each case, of every way of teaching so many seeds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import torch

from benchmarks.gap.runs import Bench, Kept, metric_of
from benchmarks.gap.table import gap_table
from stilla.runtime.quiet import quiet_libraries

Ways = Mapping[str, Callable[[int], Kept]]
"""By name, the student of a seed."""


def measure(options: argparse.Namespace, ways: Callable[[Bench, str], Ways]) -> None:
    """`ways`: those of a case."""
    quiet_libraries()
    torch.set_num_threads(options.threads)
    bench = Bench(options.output, options.data)
    for case in options.cases:
        teacher = bench.judged(case, bench.teacher(case))
        students = ways(bench, case)
        # a seed of everything first: a table of one seed is there early
        kept: dict[str, list[Kept]] = {name: [] for name in students}
        for seed in range(options.seeds):
            for name, student in students.items():
                kept[name].append(student(seed))
        print(f"\n{case}\n\n{gap_table(metric_of(bench, case), teacher, kept)}", flush=True)
