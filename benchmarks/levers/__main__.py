"""What single levers are worth, against the same recipe without them; all on the data of the demos.

    python -m benchmarks.levers --parts reasons weights search curve transfer api extend layers --seeds 3

Every run is kept in a folder: stopped, the same command continues; finished, it only prints the tables.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from benchmarks.levers import extended, layered, passed_on, pulled, reasons, searched, served
from benchmarks.levers.setting import Setting
from stilla.runtime.quiet import quiet_libraries

PARTS: Mapping[str, tuple[str, Callable[[Setting], str]]] = {
    "reasons": ("digits", reasons.show),
    "weights": ("digits", pulled.show),
    "search": ("digits", searched.show),
    "curve": ("digits", searched.show_curve),
    "transfer": ("digits", passed_on.show),
    "api": ("text", served.show),
    "extend": ("digits", extended.show),
    "layers": ("digits", layered.show),
    "extend-text": ("text", partial(extended.show, lengths=(20,))),
}
"""By name, the demo whose data it takes, and what measures it."""


def main() -> None:
    options = parse()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    for name in options.parts:
        demo, show = PARTS[name]
        began = time.process_time()
        found = show(Setting(demo, options.output, options.seeds))
        print(f"\n{name}, on {demo}, {options.seeds} seeds, {time.process_time() - began:.0f} s of processor now\n\n{found}",
              flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.levers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/levers"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
