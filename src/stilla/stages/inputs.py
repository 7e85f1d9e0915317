"""What trainings depend on of the recipe that asks for them, beside data and models."""

from __future__ import annotations

from typing import Any

from stilla.recipe import Stage, StudentSpec


def of_student(spec: StudentSpec) -> dict[str, Any]:
    """What a training depends on of how its student was made: which layers, `layers` says by now, and what other tasks made
    of it, they do. Without what it leaves open and runs of before knew nothing of."""
    absent = [name for name, value in (("interpolate", spec.interpolate), ("freeze", spec.freeze)) if value is None]
    exclude: dict[str, Any] = dict.fromkeys(["layers_by", "reptile", *absent], True)
    if spec.interpolate is not None and spec.interpolate.units is None:
        exclude["interpolate"] = {"units"}
    return spec.model_dump(mode="json", exclude=exclude)


def of_stage(stage: Stage) -> dict[str, Any]:
    """What a training depends on of its section; no share, where it says none, as stages of before knew of none. What its
    effort stands for, other fields say."""
    unsaid = {"unlabelled": stage.unlabelled is None, "batch_norm": stage.batch_norm == "model", "pull": stage.pull is None,
              "hardest": stage.hardest is None, "adapt": stage.adapt is None, "extend": stage.extend is None}
    return stage.model_dump(mode="json", exclude={"effort"} | {name for name, is_unsaid in unsaid.items() if is_unsaid})
