"""`saliency` as a part of the loss: how much nearer it brings what answers rest on, and what it takes."""

from __future__ import annotations

from benchmarks.levers.setting import TEACHER_SAYS, Setting, table
from stilla import Run
from stilla.report import numbers
from stilla.scores import Reasons

WEIGHTS = (0.5,)
EXAMPLES = 100
ASKED = {"saliency": {"examples": EXAMPLES, "ceiling": False}}


def show(setting: Setting) -> str:
    plain = plainly_taught(setting)
    runs = {"labels 0.1, logits 0.9": plain}
    for weight in WEIGHTS:
        terms = [*TEACHER_SAYS, {"kind": "saliency", "weight": weight}]
        distill = {**setting.recipe()["distill"][0], "objectives": terms}
        runs[f"and saliency {weight:g}"] = setting.run(f"saliency {weight:g}", lender=plain, distill=distill, evaluate=ASKED)
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
