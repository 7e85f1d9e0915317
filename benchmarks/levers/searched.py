"""What a search finds beside the values that it began with, and quality against labels a class: a command each."""

from __future__ import annotations

from typing import Any

import stilla
from benchmarks.levers.setting import Setting, cell, table
from benchmarks.tables import markdown
from stilla.recipe.yaml import flow
from stilla.report import numbers
from stilla.series.label_curve import KINDS

TRIALS = 10
STEPS = 60
NO_MORE: dict[str, Any] = {"unlabelled": None, "augment": "none"}
OVER = {
    "distill.learning_rate": {"low": 2e-4, "high": 4e-3, "log": True},
    "distill.objectives.0.weight": [0.1, 0.5, 1.0],
    "distill.objectives.1.temperature": [1, 2, 4],
    "data.augment": ["none", "light"],
}


def show(setting: Setting) -> str:
    """Of few labels without the unlabelled examples; the winner and the recipe's own values, then, with several seeds."""
    own = setting.recipe()
    terms = [{"kind": "labels", "weight": 0.1}, {"kind": "logits", "weight": 0.9, "temperature": 2}]
    distill = {**own["distill"][0], "epochs": None, "max_steps": STEPS, "objectives": terms}
    found = stilla.search({
        **own, "teacher": {"model": setting.teacher}, "data": {**own["data"], **NO_MORE}, "distill": distill,
        "evaluate": {"speed": False}, "search": {"over": OVER, "trials": TRIALS}, "output": str(setting.folder / "search")})
    best = found.best.values
    winner = {**distill, "learning_rate": best["distill.learning_rate"], "objectives": [
        {**terms[0], "weight": best["distill.objectives.0.weight"]},
        {**terms[1], "temperature": best["distill.objectives.1.temperature"]}]}
    runs = {"the recipe's own values": setting.run("search own", distill=distill, data=NO_MORE),
            "the best of the search": setting.run("search best", distill=winner,
                                                  data={**NO_MORE, "augment": best["data.augment"]})}
    reached = [one.reached for one in found.trials if one.reached is not None]
    ends = [numbers.quality(one.metric, one.quality.value) for one in (reached[0], min(reached, key=lambda one: one.score),
                                                                       max(reached, key=lambda one: one.score))]
    return (f"{table(runs)}\n\nThe search: {found.why}, {sum(one.seconds for one in reached):.0f} s; on validation data "
            f"{ends[0]} (own values), {ends[1]} at worst, {ends[2]} at best: {flow(best)}; {'; '.join(found.remarks)}")


def show_curve(setting: Setting) -> str:
    """`stilla curve`, as many steps for all kinds."""
    own = setting.recipe()
    data = {"train": str(setting.data / "teacher.parquet"),
            **{split: str(setting.data / "own" / f"{split}.parquet") for split in ("validation", "test")}}
    found = stilla.curve({
        **own, "data": data, "teacher": {"model": setting.teacher},
        "distill": {**own["distill"][0], "epochs": None, "max_steps": STEPS}, "evaluate": {"speed": False},
        "output": str(setting.folder / "curve")}, per_class=(4, 8, 16, 32, 64), draws=setting.seeds)
    rows = [[str(size), *(numbers.MISSING if one is None else cell(found.metric, one)
                          for one in (found.mean(size, kind) for kind in KINDS))] for size in found.sizes]
    return (f"{markdown(['labels a class', *KINDS], rows)}\n\nteacher {numbers.quality(found.metric, found.teacher)}; "
            f"{STEPS} steps each")
