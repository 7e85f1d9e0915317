"""A loss over a vocabulary of 128k, forward and backward: seconds and memory of Stilla, liger-kernel, TRL and all logits.

The bound are the four products that nobody can avoid. All have to give the same loss and gradient.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.found import Notebook
from benchmarks.gpu.setting import Setting
from benchmarks.losses import BOUND, COMPILED, Inputs, Size, Step, is_there
from stilla.rows import compiler_problem
from stilla.rows.memory import kept_bytes

CONTENDERS = ("ours", "ours, with labels", "ours, top-50", "ours" + COMPILED, "all logits", "liger-kernel",
              "liger-kernel, triton", "trl")
OF_THE_SAME = ("ours", "ours" + COMPILED, "all logits", "liger-kernel", "liger-kernel, triton", "trl")
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 5e-2}
GIB = 2**30
FULL = ((1024, "bfloat16"), (8192, "bfloat16"), (32_768, "bfloat16"), (8192, "float16"), (8192, "float32"))


def ask(where: Setting, notebook: Notebook) -> None:
    """A student of width 2048 and a teacher of 4096."""
    cases = ((64, "float32"), (96, "bfloat16")) if where.small else FULL
    rounds = 2 if where.small else 7
    for rows, precision in cases:
        size = Size(rows, 1000, 32, 48) if where.small else Size(rows, 128_256, 2048, 4096)
        compare(where, notebook, size, precision, rounds)


def compare(where: Setting, notebook: Notebook, size: Size, precision: str, rounds: int) -> None:
    title = f"{precision}, {size.rows:,} rows, {size.classes:,} classes"
    bound = timed(where, BOUND, size, precision, rounds)
    notebook.measure(BOUND, {"table": title, **shown(bound, bound)})
    found: dict[str, dict[str, float]] = {}
    for name in CONTENDERS:
        if reason := absent(where, name):
            notebook.measure(name, {"table": title, "remark": reason})
            continue
        try:
            found[name] = timed(where, name, size, precision, rounds)
        except torch.OutOfMemoryError:
            notebook.measure(name, {"table": title, "remark": "out of memory"})
        except Exception as error:
            notebook.measure(name, {"table": title, "remark": f"{type(error).__name__}: {str(error).strip()[:120]}"})
        else:
            notebook.measure(name, {"table": title, **shown(found[name], bound)})
    notebook.check(f"all agree: {title}", lambda: agreement(found, TOLERANCE[precision]))


def absent(where: Setting, name: str) -> str | None:
    """Why a contender cannot take part; None if it can."""
    if not is_there(name):
        return "not installed"
    if name.endswith(COMPILED):
        return "left out of a small try" if where.small else compiler_problem()
    return "needs a GPU" if name.endswith("triton") and not where.on_gpu else None


def timed(where: Setting, name: str, size: Size, precision: str, rounds: int) -> dict[str, float]:
    """Seconds of every round's call, the peak above the inputs, loss and gradient. Nothing is left in memory."""
    free(where)
    given = Inputs(size, precision, where.device)
    scale = 2.0**12 if precision == "float16" else 1.0
    step = Step(name, given, where.now, scale)
    try:
        step()  # what is compiled, tuned and allocated once
        given.forget()
        before = begin_peak(where)
        times = [step()]
        peak = end_peak(where, before)
        times += [step() for _ in range(rounds - 1)]
        gradient = 0.0 if given.head.grad is None else float(given.head.grad.float().norm()) / scale
        return {"seconds": min(times), "median": statistics.median(times), "peak": peak, "loss": step.loss,
                "gradient": gradient}
    finally:
        given.forget()
        del step, given
        free(where)


def free(where: Setting) -> None:
    if where.on_gpu:
        gc.collect()
        torch.accelerator.empty_cache()


def begin_peak(where: Setting) -> int:
    """From here on the peak is counted, above these bytes."""
    where.wait()
    if where.on_gpu:
        torch.accelerator.reset_peak_memory_stats()
        return int(torch.accelerator.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")
    return _of_process("VmRSS") - kept_bytes()


def end_peak(where: Setting, before: int) -> int:
    if where.on_gpu:
        return int(torch.accelerator.max_memory_allocated()) - before
    return _of_process("VmHWM") - before


def _of_process(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def shown(found: Mapping[str, float], bound: Mapping[str, float]) -> dict[str, Any]:
    return {"milliseconds": 1e3 * found["seconds"], "(median)": 1e3 * found["median"],
            "times the bound": found["median"] / bound["median"], "GiB": found["peak"] / GIB}


def agreement(found: Mapping[str, Mapping[str, float]], tolerance: float) -> str:
    same = {name: found[name] for name in OF_THE_SAME if name in found}
    assert "ours" in same, "ours was not measured"
    said = []
    for field in ("loss", "gradient"):
        values = {name: one[field] for name, one in same.items()}
        apart = max(values.values()) / min(values.values()) - 1
        assert apart <= tolerance, f"{field}: {values}"
        said.append(f"{field} to {apart:.1e}")
    return f"{', '.join(same)}: {', '.join(said)}"
