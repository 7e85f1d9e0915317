"""`extend`: trainings that were given too few passes, with and without going on; beside trainings that were given more."""

from __future__ import annotations

from typing import Any

from benchmarks.levers.setting import Setting, quality, seconds
from benchmarks.tables import markdown
from stilla import Run
from stilla.report import numbers
from stilla.report.curves import StageLog, read_log
from stilla.stages.folder import RunFolder
from stilla.training.converging import Ending

FEW = 5
"""Passes, a quarter of the demos' own."""


def show(setting: Setting, limits: tuple[int, ...] = (4,), lengths: tuple[int, ...] = (10, 20)) -> str:
    """`limits`: of `extend`. `lengths`: passes of whole trainings, of which validation data say the best."""
    how = {**setting.recipe()["distill"][0], "epochs": FEW}
    ways: dict[str, dict[str, Any]] = {
        f"{FEW} passes": how, **{f"{FEW} passes, extend {most}": {**how, "extend": most} for most in limits},
        **{f"{passes} passes": {**how, "epochs": passes} for passes in lengths}}
    runs = {name: setting.run(f"extend {name}".replace(",", ""), distill=distill, evaluate={"baseline": False})
            for name, distill in ways.items()}
    rows = [[name, *row(run)] for name, run in runs.items()]
    said = [f"{name}, by seed: {'; '.join(ended(run))}" for name, run in runs.items() if "extend" in name]
    teacher = next(iter(runs.values())).scores
    return "\n\n".join([
        markdown(["", "validation", "test", "by seed", "KL, nats", "steps by seed", "s of processor"], rows), *said,
        f"teacher {numbers.quality(teacher.metric, teacher.teacher[teacher.metric])}"])


def row(run: Run) -> list[str]:
    scores = run.scores
    on_validation = scores.student.quality.get("validation", {}).get(scores.metric)
    return [numbers.MISSING if on_validation is None else numbers.quality(scores.metric, on_validation.value),
            quality(scores, "student"), ", ".join(f"{100 * one:.1f}" for one in scores.student.seeds) or numbers.MISSING,
            numbers.significant(scores.student.kl[scores.split]), ", ".join(f"{steps(one):,.0f}" for one in trainings(run)),
            f"{seconds(run):.1f}"]


def trainings(run: Run) -> list[StageLog]:
    """Of the student, a seed each."""
    return [one for one in read_log(RunFolder(run.folder).log)[0].stages if one.subject == "student"]


def steps(training: StageLog) -> float:
    return max(points[-1][0] for curves in (training.losses, training.evaluations) for points in curves.values() if points)


def ended(run: Run) -> list[str]:
    """Why each stopped."""
    endings = [Ending.read(one.extended) for one in trainings(run)]
    return [numbers.MISSING if one is None else one.said(one.measure) for one in endings]
