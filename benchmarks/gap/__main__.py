"""How much of the gap between labels alone and the teacher a way of teaching closes.

    python -m benchmarks.gap --cases clinc150 sib200 --arms baselines default --seeds 3

The baseline is the same student from the same start, trained on labels alone at several lengths and rates; the best of them
on validation data counts, as one that learnt too short or too long would flatter. Everything is kept in a folder and found
again, so that arms and seeds can be added.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.gap.arms import ARMS, BASELINES
from benchmarks.gap.cases import CASES
from benchmarks.gap.measured import measure
from benchmarks.gap.options import parser


def main() -> None:
    options = parse()
    names = [name for one in options.arms for name in (BASELINES if one == "baselines" else [one])]
    measure(options, lambda bench, case: {name: partial(bench.student, case, name) for name in names})


def parse() -> argparse.Namespace:
    made = parser("benchmarks.gap", __doc__, CASES, list(CASES))
    made.add_argument("--arms", nargs="+", choices=["baselines", *ARMS], default=["baselines", "default"], metavar="ARM",
                      help=f"baselines (all of them), or any of: {'; '.join(ARMS)}")
    return made.parse_args()


if __name__ == "__main__":
    main()
