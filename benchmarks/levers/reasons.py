"""`saliency` as a part of the loss: how much nearer it brings what answers rest on, and what it takes."""

from __future__ import annotations

from typing import Any

from benchmarks.levers.setting import Setting, table
from stilla import Run
from stilla.report import numbers
from stilla.scores import Reasons

TERMS = ({"kind": "labels", "weight": 0.1}, {"kind": "logits", "weight": 0.9})
EXAMPLES = 100
ASKED = {"saliency": {"examples": EXAMPLES, "ceiling": False}}


def show(setting: Setting) -> str:
    how, plain = setting.recipe()["distill"][0], plainly_taught(setting)
    ways: dict[str, list[dict[str, Any]]] = {
        "labels 0.1, logits 0.9": [], "and saliency 0.5": [{"kind": "saliency", "weight": 0.5}]}
    runs = {name: setting.run(f"reasons {number}", lender=plain, evaluate=ASKED, cache={"form": "none"},
                              distill={**how, "objectives": [*TERMS, *more]})
            for number, (name, more) in enumerate(ways.items())}
    kl = [numbers.significant(run.scores.student.kl[run.scores.split]) for run in runs.values()]
    nearness = [str(reasons(run).agreement["student"]) for run in runs.values()]
    again = setting.taught(saliency={"examples": EXAMPLES})
    return (f"{table(runs, {'KL, nats': kl, 'correlation': nearness})}\n\ncorrelation of labels alone "
            f"{reasons(plain).agreement['baseline']}, of the teacher trained again with another seed "
            f"{reasons(again).ceiling} ({EXAMPLES} examples, the first seed)")


def plainly_taught(setting: Setting) -> Run:
    return setting.run("plain", evaluate=ASKED)


def reasons(run: Run) -> Reasons:
    found = run.scores.reasons
    assert found is not None
    return found
