"""Which layers stay (`layers_by`): what each rule reaches, and whether a short trial (`auto`) foretells it."""

from __future__ import annotations

from typing import Any

from scipy.stats import spearmanr

from benchmarks.levers.extended import row
from benchmarks.levers.setting import Setting
from benchmarks.tables import markdown
from stilla import Run
from stilla.report import numbers
from stilla.runtime.files import unsealed
from stilla.stages.layering import FILE, most
from stilla.students.layers import spaced

Row = tuple[int, str, list[int], float, Run]
"""Depth, rule, layers, what was compared after the trial, and the whole run."""


def show(setting: Setting, depths: tuple[int, ...] = (1, 2, 3)) -> str:
    found = list[Row]()
    for depth in depths:
        known = tried(setting, depth)
        for rule, reached in known["reached"].items():
            run = setting.run(f"layers {depth} {rule}", student={"layers": depth, "layers_by": rule},
                              evaluate={"baseline": False})
            found.append((depth, rule, kept(known, rule, depth), reached, run))
    rows = [[str(depth), rule, ", ".join(map(str, layers)), numbers.significant(reached), *row(run)]
            for depth, rule, layers, reached, run in found]
    trial, whole = [one[3] for one in found], [one[4].scores.student.kl[one[4].scores.split] or 0.0 for one in found]
    alike = [f"all: {spearmanr(trial, whole).statistic:.2f}"]
    for depth in depths:
        here = [place for place, one in enumerate(found) if one[0] == depth]
        if len(here) > 2:
            found_here = spearmanr([trial[one] for one in here], [whole[one] for one in here]).statistic
            alike.append(f"{depth} layers: {found_here:.2f}")
    return "\n\n".join([
        markdown(["layers", "by", "which", "KL after the trial", "validation", "test", "by seed", "KL, nats", "steps by seed",
                  "s of processor"], rows),
        f"Spearman's correlation of the KL after the trial and at the end: {'; '.join(alike)}"])


def tried(setting: Setting, depth: int) -> dict[str, Any]:
    """What `auto` found of each rule that chooses other layers."""
    run = setting.run(f"layers {depth} auto", student={"layers": depth, "layers_by": "auto"},
                      evaluate={"baseline": False, "seeds": 1})
    found: dict[str, Any] = unsealed((run.folder / "plan" / FILE).read_text(encoding="utf-8"))
    return found


def kept(known: dict[str, Any], rule: str, depth: int) -> list[int]:
    """The layers of the only stack that a rule takes."""
    changes = next(iter(known["influence"].values()))
    if rule == "influence":
        return most(changes, depth)
    return list(range(depth)) if rule == "lowest" else list(spaced(depth, len(changes)))
