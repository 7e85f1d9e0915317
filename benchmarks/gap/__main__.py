"""How much of the gap between labels alone and the teacher a way of teaching closes.

    python -m benchmarks.gap --cases clinc150 sib200 --arms baselines default --seeds 3

The baseline is the same student from the same start, trained on labels alone at several lengths and rates; the best of them
on validation data counts, as one that learnt too short or too long would flatter. Everything is kept in a folder and found
again, so that arms and seeds can be added.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.gap.arms import ARMS, BASELINES
from benchmarks.gap.cases import CASES
from benchmarks.gap.options import parser
from benchmarks.gap.runs import Bench, Kept, metric_of
from benchmarks.gap.table import gap_table
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
    made = parser("benchmarks.gap", __doc__, CASES, list(CASES))
    made.add_argument("--arms", nargs="+", choices=["baselines", *ARMS], default=["baselines", "default"], metavar="ARM",
                      help=f"baselines (all of them), or any of: {'; '.join(ARMS)}")
    return made.parse_args()


if __name__ == "__main__":
    main()
