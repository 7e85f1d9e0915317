"""What has to hold on a GPU, asked there in one command that needs nothing from anywhere: `make gpu`.

    python -m benchmarks.gpu --out runs/gpu
    python -m benchmarks.gpu --small            # the same program, in two minutes of a processor

Every part is a process of its own: one that breaks or does not end leaves the others alone. Written as they come:
OUT/results.json and OUT/results.md. Ends with 1 if anything failed, was not reached in time or could not begin.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gpu.found import FAILED, Finding, Notebook, page

PARTS = ("engine", "training", "speed", "runs")
"""Modules beside this one; the most telling first, should the time be too short."""
SHARE = {"engine": 0.25, "training": 0.35, "speed": 0.5, "runs": 1.0}
"""Of the time that is left, the most that a part may take."""
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "triton", "liger-kernel", "trl", "onnxruntime", "bitsandbytes")


def main() -> int:
    options = parse()
    if options.part:
        return take_part(options)
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    facts, findings = described(options), []
    for part in options.only:
        left = 60 * options.minutes - (time.monotonic() - began)
        findings += taken(part, options, SHARE[part] * left)
        facts["minutes"] = round((time.monotonic() - began) / 60, 1)
        write(options.out, facts, findings)
    print(f"\n{page(facts, findings)}\nwritten: {options.out / 'results.json'}, {options.out / 'results.md'}")
    return int(any(one.state == FAILED for one in findings))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="a folder for the results")
    parser.add_argument("--small", action="store_true", help="a try of the program: sizes for a processor")
    parser.add_argument("--device", default="auto", help="auto (an accelerator, else the processor), cuda, cpu, ...")
    parser.add_argument("--minutes", type=float, default=8.0, help="that all of it may take")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def taken(part: str, options: argparse.Namespace, seconds: float) -> list[Finding]:
    """What a part found out in so many seconds, and what became of it if it did not come to its end."""
    lines = options.out / f"{part}.jsonl"
    lines.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--lines", str(lines), "--device", options.device,
               *(["--small"] if options.small else [])]
    began = time.perf_counter()
    try:
        code = subprocess.run(command, timeout=max(seconds, 0.0), check=False).returncode
        broke = "" if code == 0 else f"ended with {code}; what it said stands above"
    except subprocess.TimeoutExpired:
        broke = f"not at its end after {seconds:.0f} seconds"
    findings = Finding.read(lines)
    lines.unlink(missing_ok=True)
    if broke:
        findings.append(Finding(part, "all of it", FAILED, broke, time.perf_counter() - began, {}))
    return findings


def take_part(options: argparse.Namespace) -> int:
    from benchmarks.gpu.setting import chosen
    from stilla.runtime.quiet import quiet_libraries

    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        where = chosen(options.device, small=options.small, folder=Path(folder))
        importlib.import_module(f"benchmarks.gpu.{options.part}").ask(where, Notebook(options.part, options.lines))
    return 0


def described(options: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions, and how it was asked."""
    import torch

    from stilla.runtime.environment import describe

    known = describe(0)
    kept = ("time", "python", "system", "processor", "cores", "torch threads", "accelerators")
    facts: dict[str, Any] = {name: known[name] for name in kept}
    facts["command"] = " ".join(["python -m benchmarks.gpu", *sys.argv[1:]])
    facts["small"] = options.small
    facts["CUDA"] = torch.version.cuda
    return facts | {name: version(name) for name in PACKAGES}


def version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def write(out: Path, facts: Mapping[str, Any], findings: Sequence[Finding]) -> None:
    given = {"facts": facts, "findings": [asdict(one) for one in findings]}
    (out / "results.json").write_text(json.dumps(given, indent=1), encoding="utf-8")
    (out / "results.md").write_text(page(facts, findings), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
