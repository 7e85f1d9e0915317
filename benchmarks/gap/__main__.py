"""How much of the gap between labels alone and the teacher a way of teaching closes.

    python -m benchmarks.gap --cases clinc150 sib200 --arms baselines default --seeds 3

The baseline is the same student from the same start, trained on labels alone at several lengths and rates; the best of them
on validation data counts, as one that learnt too short or too long would flatter. Everything is kept in a folder and found
again, so that arms and seeds can be added.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.gap.arms import ARMS, BASELINES
from benchmarks.gap.cases import CASES
from benchmarks.gap.runs import Bench, Kept, metric_of
from benchmarks.gap.table import gap_table
from benchmarks.inputs import add_data_option
from stilla.runtime.quiet import quiet_libraries


def main() -> None:
    options = parse()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    bench = Bench(options.output, options.data)
    names = [name for one in options.arms for name in (BASELINES if one == "baselines" else [one])]
    for case in options.cases:
        teacher = bench.judged(case, bench.teacher(case))
        # a seed of everything first: a table of one seed is there early
        kept: dict[str, list[Kept]] = {name: [] for name in names}
        for seed in range(options.seeds):
            for name in names:
                kept[name].append(bench.student(case, name, seed))
        print(f"\n{case}\n\n{gap_table(metric_of(bench, case), teacher, kept)}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gap", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--arms", nargs="+", choices=["baselines", *ARMS], default=["baselines", "default"], metavar="ARM",
                        help=f"baselines (all of them), or any of: {'; '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/gap"))
    add_data_option(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
