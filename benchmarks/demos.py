"""Whether the first thing that people run shows what it is meant to: every demo with several seeds.

    python -m benchmarks.demos --names digits text lm --seeds 10

A seed is the order of the data and the random weights of teacher and student. Runs are kept and found again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.students import run_of
from benchmarks.tables import markdown
from stilla.recipe.file import read
from stilla.runtime.quiet import quiet_libraries
from stilla.samples.demo import DEMOS, prepare
from stilla.scores import Scores


def main() -> None:
    options = parse()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    for name in options.names:
        print(f"\n{name}\n\n{table([scores(options.output, name, seed) for seed in range(options.seeds)])}", flush=True)


def scores(output: Path, name: str, seed: int) -> Scores:
    """Of the demo with a seed of its own; nothing is exported, nothing timed."""
    folder = output / name / str(seed)
    if not (folder / "report.html").is_file():
        recipe = read(prepare(name, folder), ["export=[]", "evaluate.speed=false", f"seed={seed}"])
        run_of(json.loads(recipe.model_dump_json(exclude_none=True)), [])
    return Scores.load(folder / "scores.json")


def table(found: list[Scores]) -> str:
    """A line a seed, and their means; a gain is what the student is better than labels alone, with its interval."""
    factor = 100 if found[0].higher_is_better else 1
    rows = []
    for seed, one in enumerate(found):
        assert one.difference is not None
        gain = one.difference
        rows.append([str(seed), *(f"{factor * value:.1f}" for value in _values(one)),
                     f"{factor * gain.value:+.1f} [{factor * gain.low:+.1f}, {factor * gain.high:+.1f}]"])
    means = np.mean([_values(one) for one in found], axis=0)
    gains = [one.difference.value for one in found if one.difference is not None]
    rows.append(["mean", *(f"{factor * value:.1f}" for value in means),
                 f"{factor * float(np.mean(gains)):+.1f}, from {factor * min(gains):+.1f} to {factor * max(gains):+.1f}"])
    return markdown(["seed", "teacher", "labels alone", "student", "gain"], rows)


def _values(one: Scores) -> list[float]:
    return [one.subjects[name].quality[one.split][one.metric].value for name in ("teacher", "baseline", "student")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demos", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=list(DEMOS), default=list(DEMOS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/demos"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
